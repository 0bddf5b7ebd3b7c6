//! Flows of programs and instances.

use super::{SIGNED, json, submit, text};
use crate::{
    answer::expect_json,
    ccn::clients::{CRN, Clients},
};
use anyhow::{Result, ensure};
use serde_json::{Value, json as value};
use std::{fs, path::PathBuf};

pub(super) fn programs(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(3)?;
    let address = somebody.account().address.as_str();
    let list = ["program", "list", "--address", address];
    ensure!(json(&somebody, &list)? == value!([]), "there are programs from the start");
    let source = somebody.home().join("program");
    fs::create_dir_all(&source)?;
    fs::write(source.join("main.py"), "print(1)\n")?;
    let create = [
        "program",
        "create",
        "program",
        "main:app",
        "--name",
        "one",
        "--size",
        "2vcpu-4gb",
        "--payment-type",
        "credit",
        "--updatable",
        "--env-vars",
        "GREETING=hello",
        "--json",
    ];
    let printed = somebody.succeed(&[&create[..], &SIGNED].concat())?;
    // First the STORE, then the PROGRAM.
    let sent: Vec<Value> = serde_json::Deserializer::from_str(&printed).into_iter().collect::<Result<_, _>>()?;
    let [code, program] = sent.as_slice() else { anyhow::bail!("not two messages: {printed}") };
    let (code, hash) = (text(code, "item_hash")?, text(program, "item_hash")?);
    let content = clients.message(hash)?["message"]["content"].take();
    ensure!(content["code"]["ref"] == code && content["runtime"]["ref"] == clients.image()?, "{content:#}");
    ensure!(content["resources"]["vcpus"] == 2 && content["variables"] == value!({"GREETING": "hello"}), "{content:#}");
    let listed = json(&somebody, &list)?;
    ensure!(listed[0]["item_hash"] == hash && listed[0]["name"] == "one", "{listed:#}");
    ensure!(listed[0]["memory_mib"] == 4096 && listed[0]["updatable"] == true, "{listed:#}");
    somebody.prints(&["program", "show", hash], &[hash, code, "main:app"])?;

    fs::write(source.join("main.py"), "print(2)\n")?;
    somebody.succeed(&[&["program", "update", hash, "program"], &SIGNED[..]].concat())?;
    let newest = expect_json(200, clients.core.client().get(&format!("/api/v0/storage/by-ref/{code}"))?)?;
    ensure!(newest["file_hash"] != clients.message(code)?["message"]["content"]["item_hash"], "{newest:#}");
    somebody.succeed(&[&["program", "delete", hash, "--yes"], &SIGNED[..]].concat())?;
    for forgotten in [code, hash] {
        ensure!(clients.message(forgotten)?["status"] == "forgotten", "{forgotten} is there still");
    }
    ensure!(json(&somebody, &list)? == value!([]), "the program is still listed");
    Ok(())
}

pub(super) fn instances(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(4)?;
    let address = somebody.account().address.as_str();
    let (image, node) = (clients.image()?, clients.compute_node()?);
    let list = ["instance", "list", "--address", address];
    ensure!(json(&somebody, &list)? == value!([]), "there are instances from the start");
    fs::write(somebody.home().join("key.pub"), "ssh-ed25519 AAAA somebody@home\n")?;
    // A part of the node's hash will do: the scheduler completes it.
    let create = [
        "instance",
        "create",
        "machine",
        "--image",
        &image,
        "--size",
        "1vcpu-2gb",
        "--ssh-pubkey-file",
        "key.pub",
        "--persistent-volume",
        "name=data,mount=/data,size=1GiB",
        "--crn",
        &node[..12],
    ];
    let hash = submit(clients, &somebody, &create)?;
    let content = clients.message(&hash)?["message"]["content"].take();
    ensure!(content["requirements"]["node"]["node_hash"] == node, "{content:#}");
    ensure!(content["payment"]["type"] == "credit" && content["rootfs"]["parent"]["ref"] == image, "{content:#}");
    let volume = &content["volumes"][0];
    ensure!(volume["name"] == "data" && volume["size_mib"] == 1024 && volume["mount"] == "/data", "{content:#}");
    let listed = json(&somebody, &list)?;
    ensure!(listed[0]["item_hash"] == hash && listed[0]["name"] == "machine", "{listed:#}");
    let shown = json(&somebody, &["instance", "show", &hash[..12]])?;
    ensure!(shown.to_string().contains(&node), "{shown:#}");
    // It is to be found at a compute node that is registered and not there.
    let logs = ["instance", "logs", &hash];
    somebody.complains(1, &[&logs[..], &SIGNED].concat(), &[CRN.trim_start_matches("http://"), "refused"])?;

    let forward = |words: &[&str]| submit(clients, &somebody, &[&["instance", "port-forward"], words].concat());
    let forwards = || json(&somebody, &["instance", "port-forward", "list", "--address", address]);
    ensure!(forwards()? == value!([]), "there are ports from the start");
    forward(&["create", &hash, "22"])?;
    forward(&["update", &hash, "22", "--udp", "true"])?;
    let row = value!([{"item_hash": hash, "port": 22, "external_port": null, "tcp": true, "udp": true}]);
    ensure!(forwards()? == row, "{:#}", forwards()?);
    forward(&["delete", &hash, "--port", "22", "--yes"])?;
    ensure!(forwards()? == value!([]), "the port is still there");
    submit(clients, &somebody, &["instance", "delete", &hash, "--yes"])?;
    ensure!(clients.message(&hash)?["status"] == "forgotten", "{hash} is there still");
    ensure!(json(&somebody, &list)? == value!([]), "the instance is still listed");

    let poor = clients.with(clients.unfunded("nobody gave them credits")?)?;
    fs::write(poor.home().join("key.pub"), "ssh-ed25519 AAAA somebody@home\n")?;
    poor.complains(1, &[&create[..], &SIGNED].concat(), &["rejected"])?;

    let programs = json(&somebody, &["vprogram", "list", "--address", address])?;
    ensure!(programs == value!([]), "{programs:#}");
    Ok(())
}
