//! An IPFS node: js-ipfs, whose RPC is that of kubo, alone on this machine.

use crate::{
    http::{Answer, Client},
    npm::Packages,
    process::Process,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How long it may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Separates the parts of what is sent.
const BOUNDARY: &str = "a-boundary-of-the-tests";

/// The program.
#[derive(Debug, Clone)]
pub struct IpfsProgram {
    script: PathBuf,
    modules: PathBuf,
}

impl IpfsProgram {
    /// Installs what `folder/package-lock.json` names in `cache`, or takes what was installed before from the same file.
    ///
    /// # Errors
    /// See [`Packages::install`].
    pub fn install(cache: &Path, folder: &Path) -> Result<Self> {
        let packages = Packages::install(cache, "ipfs", folder)?;
        Ok(Self { script: folder.join("daemon.mjs"), modules: packages.modules() })
    }
}

/// An IPFS node.
#[derive(Debug)]
pub struct IpfsNode {
    program: IpfsProgram,
    repository: PathBuf,
    log: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl IpfsNode {
    /// Starts a node with an empty repository in `folder`, at a port of its own.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(program: &IpfsProgram, folder: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (repository, log) = (folder.join("ipfs"), folder.join("ipfs.log"));
        let mut node = Self { program: program.clone(), repository, log, port, process: None };
        node.start_again()?;
        Ok(node)
    }

    /// Starts it at the same address, after its end.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new("node");
        command.arg(&self.program.script).arg(&self.program.modules).arg(&self.repository).arg(self.port.to_string());
        let mut process = Process::start(&mut command, &self.log)?;
        process.wait_for_line(READY_WITHIN, |line| line.starts_with("listening on "))?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// It does not end cleanly.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("it was stopped before")?.terminate(STOP_WITHIN)
    }

    /// Loses all that it has, between an end and a start: a new node at the old address.
    ///
    /// # Errors
    /// It runs, or the system refuses.
    pub fn forget_everything(&self) -> Result<()> {
        ensure!(self.process.is_none(), "it runs");
        Ok(std::fs::remove_dir_all(&self.repository)?)
    }

    /// Where its RPC is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks, with a file or without; `command` is `pin/ls?arg=…` or the like.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask(&self, command: &str, file: Option<&[u8]>) -> Result<Answer> {
        match file {
            Some(file) => self.send(command, &[("file", file)]),
            None => self.client().post(&format!("/api/v0/{command}"), "application/octet-stream", b""),
        }
    }

    fn client(&self) -> Client {
        Client::new(self.url(), ANSWER_WITHIN)
    }

    fn send(&self, command: &str, files: &[(&str, &[u8])]) -> Result<Answer> {
        let mut body = Vec::new();
        for (name, file) in files {
            // A path as the name of a file makes a folder.
            let name = name.replace('/', "%2F");
            let head = format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            );
            body.extend([head.as_bytes(), file, b"\r\n"].concat());
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        self.client().post(&format!("/api/v0/{command}"), &content_type, &body)
    }

    /// Adds files, each by its path, and returns the CID of the last entry: that of the folder, where there is one.
    ///
    /// # Errors
    /// It refuses.
    pub fn add(&self, options: &str, files: &[(&str, &[u8])]) -> Result<String> {
        // Version 1 is written in another base by default; version 0 has but one.
        let base = if options.contains("cid-version=1") { "&cid-base=base32" } else { "" };
        let answer = self.send(&format!("add?{options}{base}"), files)?;
        ensure!(answer.status == 200, "{}", answer.text());
        let last: Value = serde_json::from_str(answer.text().lines().last().context("it answers nothing")?)?;
        Ok(last["Hash"].as_str().with_context(|| last.to_string())?.to_owned())
    }

    /// Whether that is pinned with all that is below it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn has_pinned(&self, cid: &str) -> Result<bool> {
        let answer = self.ask(&format!("pin/ls?arg={cid}&type=recursive"), None)?;
        match answer.status {
            200 => Ok(true),
            500 if answer.text().contains("is not pinned") => Ok(false),
            status => bail!("{status}: {}", answer.text()),
        }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// It has none.
    pub fn cat(&self, path: &str) -> Result<Vec<u8>> {
        let answer = self.ask(&format!("cat?arg={path}"), None)?;
        ensure!(answer.status == 200, "{path}: {}", answer.text());
        Ok(answer.body)
    }
}
