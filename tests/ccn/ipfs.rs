//! A node beside an IPFS node: what that one has is fetched from it, and what messages keep is pinned there.

use super::letter::{account_with_key, hash_of, message, publish, upload};
use crate::{
    answer::{expect, expect_json, noise},
    stage::{self, VERDICT_WITHIN, wait_until},
};
use anyhow::{Context as _, Result, ensure};
use ccn_message::sign::Account;
use harness::{devnet::CoreNode, http::Client, ipfs::IpfsNode};
use serde_json::{Value, json};
use std::fs;

/// How long files that nobody keeps stay: as short as it can be.
const GRACE: &str = "pipeline.grace_seconds=1";

/// A file of a folder: its path, and its bytes.
type Entry<'a> = (&'a str, &'a [u8]);

/// An IPFS node, a node that uses it, and somebody with credits.
struct Site {
    ipfs: IpfsNode,
    core: CoreNode,
    account: Account,
}

impl Site {
    fn new(name: &str) -> Result<Self> {
        let folder = stage::folder(name)?;
        let ipfs = IpfsNode::start(stage::ipfs()?, &folder)?;
        let settings = ["--dev".to_owned(), "--set".to_owned(), format!("ipfs.api={}", ipfs.url())];
        let arguments = [&settings[..], &["--set".to_owned(), GRACE.to_owned()]].concat();
        let core = CoreNode::start(stage::installation(), &folder, &arguments)?;
        let account = account_with_key(&core.accounts("account").first().context("a funded account")?.key)?;
        Ok(Self { ipfs, core, account })
    }

    fn ccn(&self) -> Client {
        self.core.client()
    }

    /// A STORE of something of IPFS.
    fn store(&self, cid: &str) -> Result<Value> {
        let payment = json!({"type": "credit", "chain": "ETH"});
        message(&self.account, "STORE", &json!({"item_type": "ipfs", "item_hash": cid, "payment": payment}))
    }

    /// Publishes a STORE of something that the node has to fetch; waits until it stands.
    fn keep(&self, cid: &str) -> Result<Value> {
        let store = self.store(cid)?;
        let answer = publish(&self.ccn(), &store, false)?;
        ensure!(matches!(answer.status, 200 | 202), "{cid}: {}", answer.text());
        self.has_status(hash_of(&store), "processed").with_context(|| cid.to_owned())?;
        Ok(store)
    }

    fn has_status(&self, hash: &str, wanted: &str) -> Result<()> {
        wait_until(VERDICT_WITHIN, wanted, || {
            let status = expect_json(200, self.ccn().get(&format!("/api/v0/messages/{hash}/status"))?)?;
            ensure!(status["status"] != "rejected", "{status}");
            Ok(status["status"] == wanted)
        })
    }

    /// Uploads a file under a name of IPFS, with the message that keeps it.
    fn put(&self, cid: &str, bytes: &[u8]) -> Result<Value> {
        let store = self.store(cid)?;
        expect(200, upload(&self.ccn(), "/api/v0/ipfs/add_file", bytes, Some(&store))?).context(cid.to_owned())?;
        Ok(store)
    }

    /// What the IPFS node would call a file.
    fn name(&self, options: &str, bytes: &[u8]) -> Result<String> {
        self.ipfs.add(&format!("only-hash=true&pin=false&{options}"), &[("file", bytes)])
    }

    fn forget(&self, stores: &[&Value]) -> Result<()> {
        let hashes: Vec<&str> = stores.iter().map(|store| hash_of(store)).collect();
        let forget = message(&self.account, "FORGET", &json!({"hashes": hashes}))?;
        expect(200, publish(&self.ccn(), &forget, true)?)?;
        hashes.iter().try_for_each(|hash| self.has_status(hash, "forgotten"))
    }

    fn is_pinned(&self, cid: &str, wanted: bool) -> Result<()> {
        let what = if wanted { "it is pinned" } else { "it is not pinned" };
        let waited = wait_until(VERDICT_WITHIN, what, || Ok(self.ipfs.has_pinned(cid)? == wanted));
        waited.with_context(|| format!("{cid}: {}", self.pins().unwrap_or_default()))
    }

    /// What the node says of pinning.
    fn pins(&self) -> Result<Value> {
        Ok(expect_json(200, self.ccn().get("/api/v0/ipfs/pins")?)?["pinning"].take())
    }

    /// Waits until pinning has come to rest, with so many pins of its own and of others.
    fn comes_to(&self, pinned: u64, found: u64) -> Result<()> {
        let mut last = Value::Null;
        let waited = wait_until(VERDICT_WITHIN, "all is pinned", || {
            last = self.pins()?;
            Ok(last["state"] == "current" && last["pinned"] == pinned && last["found"] == found)
        });
        waited.with_context(|| format!("{pinned} and {found}: {last}"))?;
        ensure!(last["failing"] == 0 && last["begun"] == 0 && last["last_error"].is_null(), "{last}");
        Ok(())
    }

    /// How often the log says that.
    fn said(&self, words: &str) -> Result<usize> {
        Ok(fs::read_to_string(self.core.log())?.matches(words).count())
    }
}

pub(crate) fn fetched() -> Result<()> {
    let mut site = Site::new("ipfs-fetched")?;
    let (small, large) = (b"a file of one block".as_slice(), noise(1_500_000));
    let files = [
        ("cid-version=0", small),
        ("cid-version=0", &large),
        ("cid-version=1&raw-leaves=true", &large),
        ("cid-version=1&raw-leaves=false", &large[..700_000]),
        // Cut in another way than the usual one.
        ("cid-version=0&chunker=size-100000", &large[..900_000]),
        ("cid-version=1&raw-leaves=true&chunker=size-1000000", &large),
    ];
    let mut kept = Vec::new();
    for (options, bytes) in files {
        let cid = site.ipfs.add(options, &[("file", bytes)])?;
        kept.push(site.keep(&cid).with_context(|| options.to_owned())?);
        let found = expect(200, site.ccn().get(&format!("/api/v0/storage/raw/{cid}"))?)?;
        ensure!(found.body == bytes, "{options}: {} bytes that are others", found.body.len());
    }
    let folder: [Entry<'_>; 3] =
        [("folder/a", small), ("folder/sub/large", &large), ("folder/sub/deeper/c", b"another")];
    let entries: Vec<String> = (0..300).map(|number| format!("folder/entry {number}")).collect();
    let many: Vec<Entry<'_>> = entries.iter().map(|entry| (entry.as_str(), entry.as_bytes())).collect();
    let folders: [(&str, &[Entry<'_>]); 4] = [
        ("cid-version=0", &folder),
        ("cid-version=1&raw-leaves=true", &folder),
        // Entries that are spread by their hashes: what kubo does with large folders.
        ("cid-version=1&raw-leaves=true&shard-split-threshold=0", &folder),
        ("cid-version=1&raw-leaves=true&shard-split-threshold=0", &many),
    ];
    let mut last = String::new();
    for (options, files) in folders {
        last = site.ipfs.add(options, files)?;
        kept.push(site.keep(&last).with_context(|| options.to_owned())?);
        let archive = expect(200, site.ccn().get(&format!("/ipfs/{last}?format=car"))?)?;
        ensure!(archive.body.len() > files.iter().map(|(_, file)| file.len()).sum::<usize>() / 2, "{options}");
    }
    // All that was pinned before: by somebody, so it is not ours.
    site.comes_to(0, kept.len() as u64)?;

    // What is not pinned is pinned, whichever way it was cut: it is there.
    let loose = site.ipfs.add("pin=false&cid-version=0&chunker=size-50000", &[("file", &large[..400_000])])?;
    site.keep(&loose)?;
    site.is_pinned(&loose, true)?;
    site.comes_to(1, kept.len() as u64)?;

    // Nobody's pin but ours goes when the messages do.
    site.forget(&kept.iter().collect::<Vec<_>>())?;
    site.comes_to(1, 0)?;
    ensure!(site.ipfs.has_pinned(&last)? && site.ipfs.has_pinned(&loose)?, "a pin of the operator's is gone");
    ensure!(site.said("is not pinned or unpinned")? == 0, "something failed");
    site.core.stop()?;
    site.ipfs.stop()
}

pub(crate) fn pinned() -> Result<()> {
    let mut site = Site::new("ipfs-pinned")?;
    let large = noise(3_000_000);
    let mut stores = Vec::new();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (options, bytes) in [
        ("cid-version=0", b"one block".to_vec()),
        ("cid-version=0", large.clone()),
        ("cid-version=0", Vec::new()),
        // More leaves than a node has links.
        ("cid-version=0", noise(175 * (256 << 10) + 1)),
    ] {
        let cid = site.name(options, &bytes)?;
        stores.push(site.put(&cid, &bytes).with_context(|| options.to_owned())?);
        files.push((cid, bytes));
    }
    // Names of version 1 come by fetching alone.
    for (options, bytes) in [
        ("raw-leaves=true", &large[..2_000_000]),
        ("raw-leaves=true", &large[..262_145]),
        ("raw-leaves=false", &large[..600_000]),
        ("raw-leaves=true&chunker=size-1048576", &large[..]),
    ] {
        let cid = site.ipfs.add(&format!("pin=false&cid-version=1&{options}"), &[("file", bytes)])?;
        stores.push(site.keep(&cid).with_context(|| options.to_owned())?);
        files.push((cid, bytes.to_vec()));
    }
    let value = json!({"a": [1, 2, {"b": "c"}]});
    let answer = expect_json(200, site.ccn().post_json("/api/v0/ipfs/add_json", &value)?)?;
    let cid = answer["hash"].as_str().with_context(|| answer.to_string())?.to_owned();
    stores.push(site.keep(&cid)?);
    let raw = expect(200, site.ccn().get(&format!("/api/v0/storage/raw/{cid}"))?)?.body;
    files.push((cid, raw));
    for (cid, bytes) in &files {
        site.is_pinned(cid, true)?;
        ensure!(site.ipfs.cat(cid)? == *bytes, "{cid} has other bytes there");
    }

    // An archive of what this IPFS node has not: it is a new one afterwards.
    let folder: [Entry<'_>; 2] = [("folder/a", b"a"), ("folder/sub/large", &large[..1_000_000])];
    let options = "pin=false&cid-version=1&raw-leaves=true&shard-split-threshold=0";
    let root = site.ipfs.add(options, &folder)?;
    let archive = expect(200, site.ipfs.ask(&format!("dag/export?arg={root}"), None)?)?.body;
    site.ipfs.stop()?;
    site.ipfs.forget_everything()?;
    site.ipfs.start_again()?;
    let store = site.store(&root)?;
    expect(200, upload(&site.ccn(), "/api/v0/ipfs/add_car", &archive, Some(&store))?)?;
    stores.push(store);
    site.is_pinned(&root, true)?;
    ensure!(site.ipfs.cat(&format!("{root}/sub/large"))? == large[..1_000_000], "the folder has another file");
    // And it was given what the one before it had.
    for (cid, bytes) in &files {
        site.is_pinned(cid, true)?;
        ensure!(site.ipfs.cat(cid)? == *bytes, "{cid} has other bytes there");
    }
    site.comes_to(stores.len() as u64, 0)?;
    let text = expect(200, site.ccn().get("/metrics")?)?.text();
    ensure!(text.contains("beth_ipfs_node_up ") && text.contains("beth_ipfs_pins_waiting "), "{text}");
    let (is_good, said) = site.core.operator(&["pins"])?;
    ensure!(is_good && said.contains(&format!("{} pinned as beth-ccn-", stores.len())), "{said}");

    // What nobody keeps is not spread.
    let loose = b"nobody keeps this".as_slice();
    expect(200, upload(&site.ccn(), "/api/v0/ipfs/add_file", loose, None)?)?;
    let loose = site.name("cid-version=0", loose)?;
    // The operator pins one that is already pinned, and one of their own.
    let own = site.ipfs.add("cid-version=0", &[("file", b"the operator's own")])?;
    site.forget(&stores.iter().skip(1).collect::<Vec<_>>())?;
    for (cid, _) in &files[1..] {
        site.is_pinned(cid, false)?;
    }
    site.is_pinned(&root, false)?;
    site.comes_to(1, 0)?;
    ensure!(site.ipfs.has_pinned(&files[0].0)? && site.ipfs.has_pinned(&own)?, "a pin too many was removed");
    ensure!(!site.ipfs.has_pinned(&loose)?, "what nobody keeps was pinned");
    ensure!(site.said("is not pinned or unpinned")? == 0, "something failed");
    site.core.stop()?;
    site.ipfs.stop()
}

pub(crate) fn interrupted() -> Result<()> {
    let mut site = Site::new("ipfs-interrupted")?;
    let file = |number: usize| [noise(300_000 + number), number.to_string().into_bytes()].concat();
    let first = site.name("cid-version=0", &file(0))?;
    let mut stores = vec![site.put(&first, &file(0))?];
    site.is_pinned(&first, true)?;
    let names: Vec<String> = (1..12).map(|number| site.name("cid-version=0", &file(number))).collect::<Result<_>>()?;

    // It goes away, and comes back while the node waits for it.
    site.ipfs.stop()?;
    for number in 1..4 {
        stores.push(site.put(&names[number - 1], &file(number))?);
    }
    wait_until(VERDICT_WITHIN, "it is away", || Ok(site.pins()?["state"] == "away"))?;
    let told = site.pins()?;
    ensure!(told["waiting"] == 3 && told["last_error"]["sentence"].is_string(), "{told}");
    ensure!(site.said("is away, and what is to be pinned waits")? == 1, "it is said once");
    // It goes while the node is gone as well: what was to be pinned and unpinned is known afterwards.
    site.forget(&[&stores[0]])?;
    site.core.kill_and_restart()?;
    stores.push(site.put(&names[3], &file(4))?);
    site.ipfs.start_again()?;
    for cid in &names[..4] {
        site.is_pinned(cid, true)?;
    }
    site.is_pinned(&first, false)?;
    site.comes_to(4, 0)?;

    // Killed at any moment, with everything under way.
    for number in 5..12 {
        stores.push(site.put(&names[number - 1], &file(number))?);
        site.core.kill_and_restart()?;
    }
    for cid in &names {
        site.is_pinned(cid, true)?;
    }
    site.comes_to(names.len() as u64, 0)?;
    for (number, cid) in names.iter().enumerate() {
        ensure!(site.ipfs.cat(cid)? == file(number + 1), "{cid} has other bytes there");
    }
    // The last word is killed as well: what is forgotten is unpinned by the next start.
    site.forget(&stores[1..].iter().collect::<Vec<_>>())?;
    site.core.kill_and_restart()?;
    for cid in &names {
        site.is_pinned(cid, false)?;
    }
    site.comes_to(0, 0)?;
    let (is_good, said) = site.core.operator(&["digest", "--verify"])?;
    ensure!(is_good && said.contains("the stored rows come to the same"), "{said}");
    site.core.stop()?;
    site.ipfs.stop()
}
