//! Flows of the command line.

use super::{CRN, Clients, library, text};
use crate::{
    answer::{expect, expect_json, noise, sha256},
    ccn::letter::{account_with_key, hash_of, message, publish},
    stage::wait_until,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt as _, thread, time::Duration};

/// How long it may take until somebody who watches sees something.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn accounts(clients: &Clients) -> Result<()> {
    let somebody = clients.somebody(0)?;
    let address = somebody.account().address.clone();
    somebody
        .prints(&["account", "balance"], &[&address, "Balance: 1000000", "ETH: 1000000", "Credits: 1000000000000"])?;
    somebody.prints(&["account", "show"], &[&format!("EVM: {address}")])?;
    somebody.prints(&["credits", "show"], &[&address, "Credits: 1000000000000"])?;
    let history = somebody.json(&["credits", "history", "--json"])?;
    ensure!(
        history["address"] == address && history["credit_history"][0]["amount"] == 1_000_000_000_000_i64,
        "{history}"
    );
    let stranger = clients.stranger()?;
    stranger.prints(&["account", "balance"], &[&stranger.account().address, "Balance: 0"])
}

pub(super) fn messages(clients: &Clients) -> Result<()> {
    let somebody = clients.somebody(1)?;
    fs::write(somebody.home().join("post.json"), json!({"title": "one"}).to_string())?;
    let posted = somebody.json(&["message", "post", "--type", "note", "--path", "post.json", "--channel", "TEST"])?;
    let hash = text(&posted, "item_hash")?;
    somebody.prints(&["message", "get", hash], &["Message Status: processed", "\"title\": \"one\""])?;
    let found = somebody.json(&["message", "find", "--hashes", hash, "--message-types", "POST"])?;
    ensure!(found["pagination_total"] == 1 && found["messages"][0]["item_hash"] == hash, "{found}");

    // An editor that changes a word.
    let editor = somebody.home().join("editor");
    fs::write(&editor, "#!/bin/sh\ntext=$(sed 's/\"one\"/\"two\"/' \"$1\")\nprintf '%s' \"$text\" > \"$1\"\n")?;
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755))?;
    let seen = somebody.home().join("seen");
    let mut watching = somebody.start(&["message", "watch", hash], &seen)?;
    // It sees what comes after it has begun, and says nothing of when that is.
    let watched = wait_until(SEEN_WITHIN, "the watcher sees an amend", || {
        somebody.succeed(&["message", "amend", hash])?;
        thread::sleep(Duration::from_millis(200));
        Ok(fs::read_to_string(&seen)?.contains("\"title\":\"two\""))
    });
    let _ = watching.kill();
    let _ = watching.wait();
    watched?;
    let client = clients.core.client();
    let posts = expect_json(200, client.get(&format!("/api/v0/posts.json?hashes={hash}"))?)?;
    ensure!(posts["posts"][0]["content"]["title"] == "two", "{posts}");

    // What the node refuses is shown with the reason.
    let own = account_with_key(&clients.somebody(2)?.account().key)?;
    let refused = message(&own, "POST", &json!({"type": "amend", "ref": hash, "content": {"title": "mine"}}))?;
    expect(422, publish(&client, &refused, true)?)?;
    somebody.prints(&["message", "get", hash_of(&refused)], &["Message Status: rejected", "\"error_code\": 2"])?;

    somebody.succeed(&["message", "forget", hash, "--reason", "a test"])?;
    somebody.prints(&["message", "get", hash], &["Message has been forgotten"])?;
    somebody.prints(&["message", "get", &sha256(b"nothing")], &["Message does not exist"])
}

pub(super) fn aggregates(clients: &Clients) -> Result<()> {
    let somebody = clients.somebody(2)?;
    somebody.prints(&["aggregate", "get", "profile"], &["No aggregate found"])?;
    somebody.prints(&["aggregate", "list"], &["No aggregate data found"])?;
    let post = ["aggregate", "post", "profile", "{\"name\": \"Ada\", \"age\": 36}"];
    somebody.prints(&post, &["Aggregate `profile` has been created/updated"])?;
    let subkey = ["aggregate", "post", "profile", "hello", "--subkey", "greeting", "--inline", "--sync"];
    somebody.prints(&subkey, &["Aggregate `profile ➜ greeting` has been created/updated"])?;
    let profile = json!({"name": "Ada", "age": 36, "greeting": "hello"});
    let read = somebody.json(&["aggregate", "get", "profile"])?;
    ensure!(read == profile, "{read}");
    let read = somebody.json(&["aggregate", "get", "profile", "--subkeys", "greeting"])?;
    ensure!(read == json!({"greeting": "hello"}), "{read}");
    let listed = somebody.json(&["aggregate", "list", "--json"])?;
    ensure!(listed == json!({"profile": profile}), "{listed}");
    somebody.prints(&["aggregate", "forget", "profile", "--subkeys", "age"], &["`profile ➜ age` has been deleted"])?;
    let read = somebody.json(&["aggregate", "get", "profile"])?;
    ensure!(read == json!({"name": "Ada", "age": null, "greeting": "hello"}), "{read}");
    somebody.prints(&["aggregate", "forget", "profile"], &["Aggregate `profile` has been deleted"])?;
    somebody.prints(&["aggregate", "list"], &["profile", "empty"])?;
    somebody.ends(1, &["aggregate", "forget", "nothing"], &["Aggregate `nothing` not found"])
}

pub(super) fn authorizations(clients: &Clients) -> Result<()> {
    let (owner, delegate) = (clients.somebody(3)?, clients.stranger()?);
    let address = delegate.account().address.as_str();
    let post = || -> Result<Value> {
        let content = json!({"type": "note", "address": owner.account().address, "content": {"text": "for another"}});
        message(&account_with_key(&delegate.account().key)?, "POST", &content)
    };
    let client = clients.core.client();
    expect(422, publish(&client, &post()?, true)?).context("nobody has given leave yet")?;
    let words = ["authorizations", "add", address, "--message-types", "POST", "--channels", "TEST"];
    owner.prints(&words, &[&format!("Added authorization for {address}")])?;
    let listed = owner.json(&["authorizations", "list", "--json"])?;
    ensure!(listed[0]["address"] == address && listed[0]["types"] == json!(["POST"]), "{listed}");
    expect(200, publish(&client, &post()?, true)?).context("the owner has given leave")?;
    owner.prints(&["authorizations", "revoke", address], &[&format!("Revoked authorizations for {address}")])?;
    ensure!(owner.json(&["authorizations", "list", "--json"])? == json!([]), "one is left");
    Ok(())
}

pub(super) fn files(clients: &Clients) -> Result<()> {
    let somebody = clients.somebody(4)?;
    let (small, big) = (b"hello world\n".to_vec(), noise(5_000_001));
    fs::write(somebody.home().join("small.txt"), &small)?;
    fs::write(somebody.home().join("big.bin"), &big)?;
    let sent = somebody.json(&["file", "upload", "small.txt", "--ref", "readme", "--metadata", "name=small.txt"])?;
    let (message, file) = (text(&sent, "item_hash")?, sha256(&small));
    ensure!(sent["content"]["item_hash"] == file && sent["content"]["item_type"] == "storage", "{sent}");
    // More than 4 MiB go to IPFS.
    let sent_big = somebody.json(&["file", "upload", "big.bin"])?;
    let cid = text(&sent_big["content"], "item_hash")?;
    ensure!(sent_big["content"]["item_type"] == "ipfs" && cid.starts_with("Qm"), "{sent_big}");

    let listed = somebody.json(&["file", "list", "--json"])?;
    let hashes: Vec<&str> =
        listed["files"].as_array().into_iter().flatten().filter_map(|file| file["file_hash"].as_str()).collect();
    ensure!(hashes == [cid, file.as_str()] && listed["total_size"] == small.len() + big.len(), "{listed}");
    somebody.prints(&["file", "list"], &["Total Item: 2", cid, &file, message])?;
    for (hash, content) in [(file.as_str(), &small), (cid, &big)] {
        somebody.succeed(&["file", "download", hash, "--output-path", "got"])?;
        ensure!(fs::read(somebody.home().join("got").join(hash))? == *content, "another file came back for {hash}");
    }
    let url = format!("URL: {}/api/v0/storage/raw/{file}", clients.core.url());
    somebody.prints(&["file", "download", message, "--only-info"], &[&format!("Hash: {file}"), &url])?;

    // Somebody else keeps it too.
    let other = clients.somebody(5)?;
    let pinned = other.json(&["file", "pin", cid])?;
    wait_until(SEEN_WITHIN, "the pin is processed", || {
        let status = clients.core.client().get(&format!("/api/v0/messages/{}/status", text(&pinned, "item_hash")?))?;
        Ok(status.json()?["status"] == "processed")
    })?;
    somebody.prints(&["file", "forget", message], &["\"type\": \"FORGET\""])?;
    somebody.prints(&["file", "download", message, "--only-info"], &["Message forgotten"])?;

    let stranger = clients.stranger()?;
    fs::write(stranger.home().join("big.bin"), &big)?;
    stranger.ends(1, &["file", "upload", "big.bin"], &["nsufficient"])?;
    stranger.ends(1, &["file", "upload", "big.bin.gone"], &["File not found"])
}

pub(super) fn programs(clients: &Clients) -> Result<()> {
    let somebody = clients.somebody(5)?;
    let image = clients.image()?;
    let source = somebody.home().join("program");
    fs::create_dir_all(&source)?;
    fs::write(source.join("main.py"), "print(1)\n")?;
    somebody.ends(1, &["program", "list"], &["No program found"])?;
    let upload = [
        "program",
        "upload",
        "program",
        "main:app",
        "--name",
        "one",
        "--runtime",
        &image,
        "--compute-units",
        "2",
        "--skip-volume",
        "--skip-env-var",
        "--updatable",
        "--print-program-message",
    ];
    let printed = somebody.succeed(&upload)?;
    ensure!(printed.contains("has been uploaded on aleph.cloud"), "{printed}");
    let client = clients.core.client();
    let path = format!("/api/v0/messages.json?msgTypes=PROGRAM&addresses={}", somebody.account().address);
    let program = expect_json(200, client.get(&path)?)?["messages"][0].take();
    let hash = text(&program, "item_hash")?;
    ensure!(printed.contains(hash) && program["content"]["resources"]["vcpus"] == 2, "{program}");
    somebody.prints(&["program", "list"], &["Programs [1]", hash, "Name: one", "$ALEPH: 400"])?;

    fs::write(source.join("main.py"), "print(2)\n")?;
    somebody.prints(&["program", "update", hash, "program"], &["has been updated to the new source code"])?;
    somebody.prints(&["program", "unpersist", hash], &["Program is already unpersistent"])?;
    let words = [&format!("Program {hash} has been deleted"), "Code volume"];
    somebody.prints(&["program", "delete", hash], &words)?;
    somebody.ends(1, &["program", "list"], &["No program found"])?;
    somebody.prints(&["program", "delete", hash], &["Program has been already deleted"])?;

    let stranger = clients.stranger()?;
    let source = stranger.home().join("program");
    fs::create_dir_all(&source)?;
    fs::write(source.join("main.py"), "print(1)\n")?;
    stranger.ends(1, &upload, &["nsufficient"])
}

pub(super) fn instances(clients: &Clients) -> Result<()> {
    let somebody = clients.somebody(6)?;
    let (image, node) = (clients.image()?, clients.compute_node()?);
    somebody.ends(1, &["instance", "list"], &["No instance found"])?;
    // The command line starts what it makes, and chooses where from the list of compute nodes: that one cannot take it.
    fs::write(somebody.home().join("key.pub"), "ssh-ed25519 AAAA somebody@home\n")?;
    let create = [
        "instance",
        "create",
        "--payment-type",
        "credit",
        "--payment-chain",
        "ETH",
        "--rootfs",
        &image,
        "--rootfs-size",
        "20480",
        "--compute-units",
        "1",
        "--name",
        "machine",
        "--ssh-pubkey-file",
        "key.pub",
        "--skip-volume",
        "--crn-hash",
        &node,
    ];
    somebody.ends(1, &create, &["Selected CRN", CRN, "Selected CRN does not support QEMU hypervisor."])?;
    let made = library::flow(&somebody, &["instance", &node, &image])?;
    let hash = text(&made, "item_hash")?;
    ensure!(made["status"] == "processed", "{made}");
    somebody.prints(&["instance", "list"], &[&hash[..40], "Name: machine", "vCPU: 1"])?;

    let ports = ["instance", "port-forwarder"];
    let run = |words: &[&str], expected: &[&str]| somebody.prints(&[&ports[..], words].concat(), expected);
    run(&["list"], &["No port forwards found"])?;
    run(&["create", hash, "22"], &["created successfully", "TCP: Enabled, UDP: Disabled"])?;
    run(&["list"], &[hash, "22"])?;
    run(&["update", hash, "22", "--udp"], &["updated successfully", "UDP: Enabled"])?;
    run(&["delete", hash, "--port", "22"], &["deleted successfully"])?;

    // What asked for a place is found by its owner.
    let client = clients.core.client();
    let mine = expect_json(200, client.get(&format!("/api/v1/vms?owners={}", somebody.account().address))?)?;
    ensure!(mine["items"][0]["vm_hash"] == hash && mine["items"][0]["allocated_node"] == node, "{mine}");
    somebody.prints(&["instance", "delete", hash], &[&format!("Instance {hash} has been deleted")])?;
    somebody.ends(1, &["instance", "list"], &["No instance found"])
}

pub(super) fn domains(clients: &Clients) -> Result<()> {
    let somebody = clients.somebody(7)?;
    let image = clients.image()?;
    somebody.prints(&["domain", "info", "example.org"], &["Domain: example.org not configured"])?;
    somebody
        .prints(&["domain", "attach", "example.org", "--item-hash", &image, "--no-ask"], &["Resource attached!"])?;
    let domains = somebody.json(&["aggregate", "get", "domains"])?;
    ensure!(domains["example.org"]["message_id"] == image, "{domains}");
    somebody.prints(&["domain", "detach", "example.org", "--no-ask"], &[&image[..16], "Resource detached!"])?;
    let domains = somebody.json(&["aggregate", "get", "domains"])?;
    ensure!(domains["example.org"].is_null(), "{domains}");
    Ok(())
}

pub(super) fn network(clients: &Clients) -> Result<()> {
    let somebody = clients.somebody(0)?;
    for (service, expected) in [
        ("storage", "0.33333 token/Mib"),
        ("website", "Service & Availability (Holding): 50 tokens"),
        ("program", "11000 credit/hour"),
        ("instance", "14250 credit/hour"),
        ("confidential", "28500 credit/hour"),
        ("gpu", "RTX 4000 ADA"),
    ] {
        somebody.prints(&["pricing", service], &["Pricing:", expected])?;
    }
    let core = somebody.json(&["node", "core", "--json"])?;
    ensure!(core[0]["name"] == "development node" && core[0]["status"] == "active", "{core}");
    somebody.prints(&["node", "core"], &["development node", "100.00%"])?;
    let hash = text(&core[0], "hash")?;
    let compute = somebody.json(&["node", "compute", "--json", "--active", "--ccn-hash", hash])?;
    ensure!(compute[0]["hash"] == clients.compute_node()? && compute[0]["address"] == CRN, "{compute}");
    somebody.prints(&["node", "compute"], &[&clients.compute_node()?, "linked"])
}
