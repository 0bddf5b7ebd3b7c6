//! The nodes that benches of programs have: a host for compute nodes, a core node, and somebody with credits.

use crate::{
    devnet::{CoreNode, Program, User, wait_for_allocation, wait_for_verdict, zip},
    installation::Installation,
    kvm_host::{Kind, KvmHost, Options},
    sdk::Session,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Port of the compute nodes in the host, one after the other.
pub const PORT: u16 = 4020;
/// How long the first answer of a program may take.
pub const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(900);
/// Credits of the one who publishes.
const CREDITS: u64 = 50_000_000_000;
const VERDICT_WITHIN: Duration = Duration::from_secs(120);

/// Host, core node and user.
#[derive(Debug)]
pub struct BenchNetwork<'a> {
    /// Where compute nodes run.
    pub host: KvmHost,
    /// The core node, which assigns everything to the compute node at [`PORT`].
    pub core: CoreNode,
    /// Whose programs they are.
    pub user: User<'a>,
    /// An interpreter.
    python: PathBuf,
    scratch: tempfile::TempDir,
}

impl<'a> BenchNetwork<'a> {
    /// Starts them; an emulated host has that much memory, MiB.
    ///
    /// # Errors
    /// No host, or a node that does not start.
    pub fn start(installation: &Installation, session: &'a Session, python: &Path, memory_mib: u32) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let mut options = Options::new(installation.program("vmm"), installation.program("kvm-host"));
        options.memory_mib = memory_mib;
        options.ports = vec![PORT];
        let host = KvmHost::start(&options)?;
        let link = format!("http://{}", host.address(PORT)?);
        let folder = scratch.path().join("core");
        fs::create_dir(&folder)?;
        let core = CoreNode::start(installation, &folder, &["--dev".to_owned(), "--crn".to_owned(), link])?;
        let user = User::new(session, core.url())?;
        User::with(session, core.url(), core.treasury()?).distribute(&user.account().address, CREDITS)?;
        Ok(Self { host, core, user, python: python.to_owned(), scratch })
    }

    /// `local` or `emulated`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.host.kind() {
            Kind::Local => "local",
            Kind::Emulated => "emulated",
        }
    }

    /// Uploads a zip archive with that file; returns its STORE message.
    ///
    /// # Errors
    /// The file cannot be read, or the core node does not take it.
    pub fn archive(&self, file: &Path) -> Result<String> {
        let name = file.file_stem().context("a file has a name")?.to_string_lossy();
        let archive = self.scratch.path().join(format!("{name}.zip"));
        zip(&self.python, &archive, &[file])?;
        self.user.upload(&archive)
    }

    /// Publishes a program and waits until it is allocated.
    ///
    /// # Errors
    /// It is refused.
    pub fn publish(&self, program: &Program<'_>) -> Result<String> {
        let (hash, _) = self.user.publish(program)?;
        let client = self.core.client();
        let seen = wait_for_verdict(&client, &hash, VERDICT_WITHIN)?;
        ensure!(
            seen.last().is_some_and(|status| status == "processed"),
            "{} was not processed: {seen:?}",
            program.entrypoint
        );
        wait_for_allocation(&client, &hash, VERDICT_WITHIN)?;
        Ok(hash)
    }
}
