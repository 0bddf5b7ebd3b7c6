//! Flows of posts, aggregates and messages as such.

use super::{SIGNED, json, submit, text};
use crate::{
    answer::{expect, sha256},
    ccn::{
        clients::Clients,
        letter::{account_with_key, hash_of, message, publish},
    },
    stage,
};
use anyhow::{Result, ensure};
use harness::devnet::CoreNode;
use serde_json::{Value, json as value};
use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

/// The hashes of a list.
fn hashes(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|message| message["item_hash"].as_str()).collect()
}

pub(super) fn posts(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(4)?;
    let address = somebody.account().address.as_str();
    let create = |title: &str| {
        let content = value!({"title": title, "tags": [title]}).to_string();
        submit(clients, &somebody, &["post", "create", "--type", "note", "--content", &content, "--channel", "TEST"])
    };
    let (one, two) = (create("one")?, create("two")?);
    let amend = submit(clients, &somebody, &["post", "amend", "--ref", &one, "--content", "{\"title\": \"three\"}"])?;
    let list = ["post", "list", "--addresses", address, "--post-types", "note"];
    let listed = json(&somebody, &list)?;
    ensure!(hashes(&listed) == [amend.as_str(), &two], "{listed:#}");
    ensure!(listed[0]["original_item_hash"] == one && listed[0]["content"] == value!({"title": "three"}), "{listed:#}");
    let old = json(&somebody, &[&list[..], &["--api-version", "0"]].concat())?;
    ensure!(hashes(&old) == [amend.as_str(), &two] && old[0]["hash"] == one, "{old:#}");

    let find = |filters: &[&str]| -> Result<Value> {
        json(&somebody, &[&["message", "list", "--addresses", address], filters].concat())
    };
    for (filters, expected) in [
        (&["--message-types", "post"][..], vec![&amend, &two, &one]),
        (&["--content-types", "note"], vec![&two, &one]),
        (&["--channels", "TEST", "--sort-order", "asc"], vec![&one, &two]),
        (&["--tags", "two"], vec![&two]),
        (&["--refs", &one], vec![&amend]),
        (&["--hashes", &two], vec![&two]),
        (&["--owners", address, "--count", "1"], vec![&amend]),
        (&["--message-type", "store"], vec![]),
        (&["--end-date", "2020-01-01T00:00:00Z"], vec![]),
    ] {
        let found = find(filters)?;
        ensure!(hashes(&found) == expected, "{filters:?} finds {found:#}");
    }
    let got = json(&somebody, &["message", "get", &one])?;
    ensure!(got["status"] == "processed" && got["message"]["content"]["content"]["title"] == "one", "{got:#}");

    submit(clients, &somebody, &["message", "forget", &one, "--reason", "a test", "--yes"])?;
    let got = json(&somebody, &["message", "get", &one])?;
    ensure!(got["status"] == "forgotten", "{got:#}");
    ensure!(hashes(&json(&somebody, &list)?) == [two.as_str()], "a forgotten post is listed");
    somebody.complains(1, &["message", "get", &sha256(b"nothing")], &["not found"])
}

pub(super) fn retry(clients: &Clients<PathBuf>) -> Result<()> {
    let (giver, poor) = (clients.somebody(5)?, clients.with(clients.unfunded("a beggar")?)?);
    let content = value!({
        "address": poor.account().address, "allow_amend": false, "volumes": [],
        "environment": {"reproducible": false, "internet": true, "aleph_api": true, "shared_cache": false},
        "resources": {"vcpus": 1, "memory": 2048, "seconds": 30}, "payment": {"chain": "ETH", "type": "credit"},
        "rootfs": {"parent": {"ref": clients.image()?, "use_latest": true}, "persistence": "host", "size_mib": 20480},
    });
    let refused = message(&account_with_key(&poor.account().key)?, "INSTANCE", &content)?;
    expect(422, publish(&clients.core.client(), &refused, true)?)?;
    let hash = hash_of(&refused);
    let again = poor.run(&["message", "retry", hash, "--json"])?;
    ensure!(again.code == 1 && again.complained.contains("API request failed (HTTP 422)"), "{}", again.shown());
    let printed: Value = serde_json::from_str(&again.printed)?;
    ensure!(printed["rejection_code"] == clients.message(hash)?["error_code"], "{printed:#}");
    let transfer = ["credit", "transfer", "--to", &poor.account().address, "--amount", "10000000", "--yes"];
    submit(clients, &giver, &transfer)?;
    let sent = json(&poor, &["message", "retry", hash])?;
    ensure!(sent["item_hash"] == hash && sent["message_status"] == "processed", "{sent:#}");
    ensure!(clients.message(hash)?["status"] == "processed", "the node thinks otherwise of {sent:#}");
    poor.complains(1, &["message", "retry", hash], &["nothing to retry"])
}

pub(super) fn sync(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(7)?;
    let hash = submit(clients, &somebody, &["post", "create", "--type", "note", "--content", "{\"n\": 1}"])?;
    let target = CoreNode::start(stage::installation(), &stage::folder("clients-rust-target")?, &["--dev".to_owned()])?;
    let carry = [
        "message",
        "sync",
        "--source",
        clients.core.url(),
        "--target",
        target.url(),
        "--addresses",
        &somebody.account().address,
    ];
    somebody.succeed(&[&carry[..], &["--dry-run"]].concat())?;
    let path = format!("/api/v0/messages/{hash}");
    ensure!(target.client().get(&path)?.status == 404, "a dry run carried it");
    somebody.succeed(&carry)?;
    stage::wait_until(stage::VERDICT_WITHIN, "the message is processed there", || {
        Ok(target.client().get(&path)?.json()?["status"] == "processed")
    })?;
    somebody.complains(0, &carry, &["Nothing to sync"])
}

pub(super) fn aggregates(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(8)?;
    let address = somebody.account().address.as_str();
    let get = |key: &str| json(&somebody, &["aggregate", "get", key, "--address", address]);
    let aggregate = |words: &[&str]| submit(clients, &somebody, &[&["aggregate"], words].concat());
    somebody.complains(0, &["aggregate", "get", "profile", "--address", address], &["No aggregate at"])?;
    let create = ["create", "--key", "profile", "--content", "{\"name\": \"Ada\", \"age\": 36}"];
    let first = aggregate(&create)?;
    somebody.complains(1, &[&["aggregate"], &create[..], &SIGNED].concat(), &["already exists"])?;
    aggregate(&["edit", "--key", "profile", "--subkey", "age", "--content", "37", "--yes"])?;
    ensure!(get("profile")? == value!({"profile": {"name": "Ada", "age": 37}}), "{:#}", get("profile")?);
    // What is not in the new content is set to null.
    aggregate(&["edit", "--key", "profile", "--content", "{\"age\": 37, \"city\": \"London\"}", "--yes"])?;
    aggregate(&["unset", "--key", "profile", "--subkey", "city", "--yes"])?;
    let profile = value!({"name": null, "age": 37, "city": null});
    ensure!(get("profile")? == value!({"profile": profile}), "{:#}", get("profile")?);

    // An editor that changes a word.
    let editor = somebody.home().join("editor");
    fs::write(&editor, "#!/bin/sh\ntext=$(sed 's/37/38/' \"$1\")\nprintf '%s' \"$text\" > \"$1\"\n")?;
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755))?;
    aggregate(&["edit", "--key", "profile", "--yes"])?;
    aggregate(&["create", "--key", "other", "--content", "{\"a\": [1, null]}"])?;
    let listed = json(&somebody, &["aggregate", "list", "--address", address])?;
    let profile = value!({"name": null, "age": 38, "city": null});
    ensure!(listed == value!({"profile": profile, "other": {"a": [1, null]}}), "{listed:#}");
    // Without its first element, of the first name nothing is left.
    submit(clients, &somebody, &["message", "forget", &first, "--yes"])?;
    let left = get("profile")?;
    ensure!(text(&left["profile"], "name").is_err() && left["profile"]["age"] == 38, "{left:#}");
    somebody.complains(
        1,
        &[&["aggregate", "edit", "--key", "nothing", "--content", "{}"], &SIGNED[..]].concat(),
        &["does not exist"],
    )
}
