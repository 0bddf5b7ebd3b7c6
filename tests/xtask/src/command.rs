//! Running other programs: cargo, apt-get, rustup.

use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Lines of a failed program's output that are shown.
const SHOWN_LINES: usize = 60;

/// The top of the repository.
pub(crate) fn repository() -> PathBuf {
    // tests/xtask is two folders below it.
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path.pop();
    path
}

/// `cargo` of the pinned toolchain, at the top of the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    // Set by the cargo that runs xtask, meant for xtask alone.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_BIN_");
        if ours || text == "CARGO_MANIFEST_DIR" || text == "CARGO_MANIFEST_PATH" {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a program to its end with its last line of output as the progress line.
/// When it fails, the end of what it printed is in the error.
pub(crate) fn run_quietly(progress: &Progress, command: &mut Command) -> Result<()> {
    let name = describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stderr = child.stderr.take().context("the pipe was just asked for")?;
    let mut last = VecDeque::with_capacity(SHOWN_LINES);
    for line in BufReader::new(stderr).lines() {
        let line = line.with_context(|| format!("reading what {name} prints"))?;
        progress.status(line.trim());
        if last.len() == SHOWN_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    if !status.success() {
        let shown = last.into_iter().collect::<Vec<_>>().join("\n");
        bail!("{name} failed ({status}):\n{shown}");
    }
    Ok(())
}

/// Runs a program in the foreground, its output on ours.
pub(crate) fn run_loudly(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// What a program prints on standard output, trimmed.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// True when a program of that name is on the search path.
pub(crate) fn exists(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path)
        // Debian keeps some tools where only root's path looks.
        .chain([Path::new("/usr/sbin").into(), Path::new("/sbin").into()])
        .any(|folder| folder.join(program).is_file())
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}
