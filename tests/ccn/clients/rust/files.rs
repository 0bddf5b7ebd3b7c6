//! Flows of files, folders and websites.

use super::{SIGNED, json, submit, text};
use crate::{
    answer::{expect, noise, sha256},
    ccn::clients::Clients,
};
use anyhow::{Result, ensure};
use harness::aleph::Aleph;
use serde_json::{Value, json as value};
use std::{fs, path::PathBuf, process::Command};

pub(super) fn files(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(9)?;
    let address = somebody.account().address.as_str();
    let (small, big) = (b"hello world\n".to_vec(), noise(5_000_001));
    fs::write(somebody.home().join("small.txt"), &small)?;
    fs::write(somebody.home().join("big.bin"), &big)?;
    let message = submit(clients, &somebody, &["file", "upload", "small.txt", "--ref", "readme"])?;
    let kept = clients.message(&message)?["message"]["content"].take();
    let file = sha256(&small);
    ensure!(kept["item_hash"] == file && kept["ref"] == "readme" && kept["payment"]["type"] == "credit", "{kept:#}");
    let message_of_big = submit(clients, &somebody, &["file", "upload", "big.bin", "--storage-engine", "ipfs"])?;
    let kept = clients.message(&message_of_big)?["message"]["content"].take();
    let cid = text(&kept, "item_hash")?;
    ensure!(kept["item_type"] == "ipfs" && cid.starts_with("Qm"), "{kept:#}");

    let listed = json(&somebody, &["file", "list", "--address", address])?;
    ensure!(of_each(&listed, "file_hash") == [cid, &file], "{listed:#}");
    ensure!(of_each(&listed, "item_hash") == [message_of_big.as_str(), &message], "{listed:#}");
    let total = format!("{:.4} MB", (small.len() + big.len()) as f64 / 1024.0 / 1024.0);
    somebody.prints(&["file", "list", "--address", address], &["Shown: 2 file(s)", &total])?;

    for (words, expected) in [
        (&[cid][..], &big),
        (&[&file], &small),
        (&["--message-hash", &message], &small),
        (&["--ref", "readme", "--owner", address], &small),
    ] {
        somebody.succeed(&[&["file", "download"], words, &["--output", "got"]].concat())?;
        ensure!(fs::read(somebody.home().join("got"))? == *expected, "another file came back for {words:?}");
    }
    somebody.prints(&["file", "download", &file, "--stdout"], &["hello world\n"])?;

    // A newer file of the same name.
    fs::write(somebody.home().join("small.txt"), "hello again\n")?;
    submit(clients, &somebody, &["file", "upload", "small.txt", "--ref", "readme"])?;
    somebody.prints(&["file", "download", "--ref", "readme", "--owner", address, "--stdout"], &["hello again\n"])?;

    // Somebody else keeps it too.
    let other = clients.somebody(0)?;
    let pinned = submit(clients, &other, &["file", "pin", cid])?;
    submit(clients, &somebody, &["file", "delete", cid, &file, "--yes"])?;
    for hash in [&message, &message_of_big] {
        ensure!(clients.message(hash)?["status"] == "forgotten", "{hash} is there still");
    }
    ensure!(clients.message(&pinned)?["status"] == "processed", "the other's pin is gone");
    expect(200, clients.core.client().get(&format!("/api/v0/storage/raw/{cid}"))?)?;
    somebody.complains(1, &[&["file", "delete", cid, "--yes"], &SIGNED[..]].concat(), &["no STORE message"])?;

    let poor = clients.with(clients.unfunded("nobody gave them anything")?)?;
    fs::write(poor.home().join("big.bin"), &big)?;
    let words = [&["file", "upload", "big.bin"], &SIGNED[..]].concat();
    poor.complains(1, &words, &["Insufficient balance"])?;
    let path = format!("/api/v0/messages.json?addresses={}", poor.account().address);
    let none = clients.core.client().get(&path)?.json()?;
    ensure!(none["pagination_total"] == 0, "nobody paid for it: {none:#}");
    somebody.complains(1, &[&["file", "upload", "gone"], &SIGNED[..]].concat(), &["path not found: gone"])?;
    somebody.complains(1, &["file", "download", &sha256(b"nothing")], &["File not found"])
}

/// One field of each of a list.
fn of_each<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
    list.as_array().into_iter().flatten().filter_map(|entry| entry[name].as_str()).collect()
}

/// Writes a site of two pages.
fn site(somebody: &Aleph, title: &str) -> Result<()> {
    let folder = somebody.home().join("site");
    fs::create_dir_all(folder.join("deep"))?;
    fs::write(folder.join("index.html"), format!("<title>{title}</title>\n"))?;
    Ok(fs::write(folder.join("deep/page.html"), "<p>a page</p>\n")?)
}

pub(super) fn folders(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(1)?;
    site(&somebody, "one")?;
    let message = submit(clients, &somebody, &["file", "upload", "site"])?;
    let content = clients.message(&message)?["message"]["content"].take();
    let cid = text(&content, "item_hash")?;
    let listed = json(&somebody, &["file", "list", "--address", &somebody.account().address])?;
    ensure!(listed[0]["file_hash"] == cid && listed[0]["type"] == "directory", "{listed:#}");
    // A folder comes as an archive of its blocks.
    let archive = expect(200, clients.core.client().get(&format!("/ipfs/{cid}?format=car"))?)?.text();
    for part in ["index.html", "<title>one</title>", "page.html", "<p>a page</p>"] {
        ensure!(archive.contains(part), "{part} is not in the archive");
    }
    // And as one of its files.
    somebody.succeed(&["file", "download", cid, "--output", "site.tar"])?;
    let unpacked = Command::new("tar").current_dir(somebody.home()).args(["-xf", "site.tar"]).status()?;
    ensure!(unpacked.success(), "tar does not read what was downloaded: {unpacked}");
    for page in ["index.html", "deep/page.html"] {
        let (sent, came) = (somebody.home().join("site").join(page), somebody.home().join(cid).join(page));
        ensure!(fs::read(sent)? == fs::read(came)?, "{page} came back otherwise");
    }
    Ok(())
}

pub(super) fn websites(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(2)?;
    let address = somebody.account().address.as_str();
    site(&somebody, "one")?;
    let signed = |words: &[&str]| json(&somebody, &[words, &SIGNED].concat());
    let deploy = ["website", "deploy", "home", "site", "--domain", "example.org", "--tag", "blog"];
    let deployed = signed(&deploy)?;
    let first = text(&deployed, "volume_id")?;
    ensure!(deployed["version"] == 1 && deployed["domains_attached"] == value!(["example.org"]), "{deployed:#}");
    ensure!(clients.message(first)?["message"]["content"]["item_hash"] == deployed["ipfs_cid"], "{deployed:#}");
    somebody.complains(1, &[&deploy[..], &SIGNED].concat(), &["already exists"])?;

    site(&somebody, "two")?;
    let updated = signed(&["website", "update", "home", "site"])?;
    ensure!(updated["version"] == 2 && updated["old_volume_id"] == first, "{updated:#}");
    ensure!(updated["domains_repointed"] == value!(["example.org"]), "{updated:#}");
    let shown = json(&somebody, &["website", "show", "home", "--address", address])?;
    ensure!(shown["volume_id"] == updated["new_volume_id"] && shown["ipfs_cid"] == updated["ipfs_cid"], "{shown:#}");
    ensure!(shown["history"] == value!({"1": first}) && shown["tags"] == value!(["blog"]), "{shown:#}");
    let listed = json(&somebody, &["website", "list", "--address", address])?;
    ensure!(of_each(&listed, "name") == ["home"], "{listed:#}");

    let domains = ["domain", "list", "--address", address];
    ensure!(of_each(&json(&somebody, &domains)?, "domain") == ["example.org"], "the domain is not listed");
    submit(clients, &somebody, &["domain", "add", "example.net", "--target", "home"])?;
    submit(clients, &somebody, &["domain", "attach", "example.net", "--to", first])?;
    let listed = json(&somebody, &domains)?;
    let other = listed.as_array().into_iter().flatten().find(|entry| entry["domain"] == "example.net");
    ensure!(other.is_some_and(|entry| entry["message_id"] == first && entry["type"] == "ipfs"), "{listed:#}");
    submit(clients, &somebody, &["domain", "detach", "example.net", "--yes"])?;
    submit(clients, &somebody, &["domain", "remove", "example.net", "--yes"])?;
    ensure!(of_each(&json(&somebody, &domains)?, "domain") == ["example.org"], "it is still listed");
    signed(&["website", "delete", "home", "--yes"])?;
    ensure!(json(&somebody, &["website", "list", "--address", address])? == value!([]), "the site is still listed");
    Ok(())
}
