//! Code that somebody packed badly, or with bad intent.

use crate::{
    answer::{expect, expect_words, noise},
    stage::{self, Network},
};
use anyhow::{Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a few lines of Python that write an archive to `argv[1]`.
fn made_by(python: &str, name: &str) -> Result<PathBuf> {
    let file = stage::folder("archives")?.join(name);
    let output = Command::new(stage::sdk()?.python()).args(["-c", python]).arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(file)
}

/// Publishes it, calls it, and looks that the answer is a 500 with these words; then that the node is as well as before.
fn refused(network: &Network, file: &Path, encoding: &str, words: &[&str]) -> Result<()> {
    let hash = network.hostile(file, encoding)?;
    let client = network.client();
    expect_words(500, client.get(&format!("/vm/{hash}/"))?, words)?;
    let well = network.binary("plain", 60, serde_json::json!({}))?;
    expect(200, client.get(&format!("/vm/{well}/"))?).map(drop)
}

pub(crate) fn escaping() -> Result<()> {
    let network = stage::network()?;
    let names = ["../escaped.py", "/escaped.py", "a/../../escaped.py"];
    for (index, name) in names.iter().enumerate() {
        let script = format!(
            "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as archive:
    archive.writestr('main.py', 'app = None')
    archive.writestr({name:?}, 'escaped = True')"
        );
        let file = made_by(&script, &format!("escaping-{index}.zip"))?;
        refused(network, &file, "zip", &["Error during vm initialisation", "escaped.py"])?;
    }
    Ok(())
}

pub(crate) fn bomb() -> Result<()> {
    let network = stage::network()?;
    // Sixteen GiB of zeros in sixteen MiB would be refused for its size: this one is a hundredth of that.
    let file = made_by(
        "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('main.py', 'app = None')
    with archive.open('zeros', 'w', force_zip64=True) as member:
        for _ in range(1536):
            member.write(bytes(1 << 20))",
        "bomb.zip",
    )?;
    ensure!(fs::metadata(&file)?.len() < 10_000_000, "the bomb is small");
    refused(network, &file, "zip", &["Error during vm initialisation"])
}

pub(crate) fn garbage() -> Result<()> {
    let network = stage::network()?;
    for (encoding, words) in [("squashfs", "squashfs"), ("zip", "zip")] {
        let file = stage::folder("archives")?.join(format!("garbage.{encoding}"));
        fs::write(&file, noise(65_536))?;
        refused(network, &file, encoding, &["Error during vm initialisation", words])?;
    }
    Ok(())
}

pub(crate) fn no_entry_point() -> Result<()> {
    let network = stage::network()?;
    let file = made_by(
        "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as archive:
    archive.writestr('other.py', 'app = None')",
        "no-entry-point.zip",
    )?;
    refused(network, &file, "zip", &["Error during vm initialisation", "main"])
}
