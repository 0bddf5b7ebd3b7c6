//! This machine as the host: the same orders, carried out by this process.

use super::Output;
use anyhow::{Context as _, Result, anyhow, bail};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tempfile::TempDir;

/// A scratch folder, and the programs that were spawned; they are killed on drop, with their groups.
#[derive(Debug)]
pub(super) struct Local {
    folder: TempDir,
    spawned: Mutex<HashMap<u32, Child>>,
}

impl Local {
    pub(super) fn start() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir().context("no scratch folder")?, spawned: Mutex::default() })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn write(&self, path: &str, content: &mut dyn Read) -> Result<()> {
        make_parent(path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => bail!("cannot write {path}: {error}"),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o755).open(path)?;
        io::copy(content, &mut file).with_context(|| format!("cannot write {path}"))?;
        Ok(())
    }

    pub(super) fn read(&self, path: &str, offset: u64) -> Result<Vec<u8>> {
        let mut file = File::open(path).with_context(|| format!("cannot read {path}"))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(content)
    }

    pub(super) fn run(&self, variables: &[&str], arguments: &[&str]) -> Result<Output> {
        let output = command(variables, arguments)?.output()?;
        Ok(Output { status: kvm_host::protocol::describe(output.status), stdout: output.stdout, stderr: output.stderr })
    }

    pub(super) fn spawn(&self, variables: &[&str], arguments: &[&str], stdout: &str, stderr: &str) -> Result<u32> {
        let open = |path: &str| -> Result<File> {
            make_parent(path)?;
            Ok(File::options().create(true).append(true).open(path)?)
        };
        let child =
            command(variables, arguments)?.stdout(open(stdout)?).stderr(open(stderr)?).process_group(0).spawn()?;
        let id = child.id();
        self.spawned().insert(id, child);
        Ok(id)
    }

    pub(super) fn kill(&self, process: u32, signal: u32) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).output()?.status;
        if status.success() { Ok(()) } else { bail!("cannot signal {process}") }
    }

    pub(super) fn state(&self, process: u32) -> Result<String> {
        let mut spawned = self.spawned();
        let child = spawned.get_mut(&process).ok_or_else(|| anyhow!("no program {process} was started here"))?;
        let status = child.try_wait()?;
        Ok(status.map_or_else(|| "running".to_owned(), kvm_host::protocol::describe))
    }

    pub(super) fn processes(&self) -> Result<String> {
        Ok(kvm_host::agent::list_processes()?)
    }

    fn spawned(&self) -> MutexGuard<'_, HashMap<u32, Child>> {
        self.spawned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        for child in self.spawned().values_mut() {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = Command::new("kill").args(["-9", "--"]).arg(format!("-{}", child.id())).output();
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

fn command(variables: &[&str], arguments: &[&str]) -> Result<Command> {
    let (program, arguments) = arguments.split_first().context("no program was named")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    for variable in variables {
        let (name, value) = variable.split_once('=').with_context(|| format!("{variable:?} is no NAME=value"))?;
        command.env(name, value);
    }
    Ok(command)
}

fn make_parent(path: &str) -> Result<()> {
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))
}
