//! Compiling strangers' WebAssembly: in a process of its own, which can take neither the node's memory nor its time, nor reach anything.
//!
//! The component goes in through a pipe and the compiled code comes out of one; the process sees no file, no network and no other program. What
//! it gives back is believed because it is this very program that made it, and is marked at once (see `cache`).

use super::profile;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The word by which the program is told to compile.
pub const COMMAND: &str = "compile-plugin";
/// Address space of the process, bytes.
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;
/// Processor time of the process, seconds.
const CPU_SECONDS: u64 = 120;
/// How long the process may be there, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(900);
/// Threads that compile.
const THREADS: &str = "2";
/// How much it leaves to others: the most.
const NICENESS: i32 = 19;
/// Largest component, bytes.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;
/// Largest compiled code, bytes.
const MAX_CODE_BYTES: u64 = 512 << 20;
/// Longest complaint that is read, bytes.
const MAX_COMPLAINT_BYTES: u64 = 16 << 10;
/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How plugins are compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// The program that compiles in a process of its own when it is called with [`COMMAND`]; none: this process does.
    pub program: Option<PathBuf>,
    /// False for code as it comes, to hold the profile against: it must give the same answers.
    pub optimize: bool,
}

impl Default for Compiler {
    fn default() -> Self {
        Self { program: None, optimize: true }
    }
}

/// Ends a process whatever happens to who waits for it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Compiles a component in a process of its own.
///
/// # Errors
/// A sentence for the plugin's author, or for the operator.
pub(super) fn compile_apart(program: &Path, component: &[u8], stop: &AtomicBool) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("the compiler does not run: {error}");
    let mut command = Command::new(program);
    command.arg(COMMAND).env_clear().env("RAYON_NUM_THREADS", THREADS);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Ended(command.spawn().map_err(failed)?);
    let pipes = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take());
    let (Some(mut input), Some(output), Some(complaints)) = pipes else {
        return Err("the compiler has no pipes".into());
    };
    let began = Instant::now();
    thread::scope(|scope| {
        // It may end before it has read everything.
        scope.spawn(move || input.write_all(component));
        let output = scope.spawn(|| read_at_most(output, MAX_CODE_BYTES));
        let complaints = scope.spawn(|| read_at_most(complaints, MAX_COMPLAINT_BYTES));
        let status = loop {
            match child.0.try_wait().map_err(failed)? {
                Some(status) => break status,
                None if stop.load(Ordering::Relaxed) => {
                    let _ = child.0.kill();
                    return Err("the node stops".into());
                }
                None if began.elapsed() > PATIENCE => {
                    let _ = child.0.kill();
                    return Err(format!("the compiler was not done after {} seconds", PATIENCE.as_secs()));
                }
                None => thread::sleep(LOOK_EVERY),
            }
        };
        let (code, complaints) = (output.join(), complaints.join());
        if status.success() {
            return match code {
                Ok(Ok(code)) => Ok(code),
                Ok(Err(error)) => Err(format!("the compiled code cannot be read: {error}")),
                Err(_) => Err("the compiled code cannot be read".into()),
            };
        }
        let text = complaints.ok().and_then(Result::ok).unwrap_or_default();
        Err(match String::from_utf8_lossy(&text).lines().next() {
            Some(line) if !line.trim().is_empty() && status.code().is_some() => line.trim().to_owned(),
            _ => format!(
                "it takes more than {CPU_SECONDS} seconds of a processor or {} MiB of memory to compile ({status})",
                ADDRESS_SPACE_BYTES >> 20
            ),
        })
    })
}

fn read_at_most(source: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// The process that compiles: a component on standard input, compiled code on standard output, a complaint on standard error.
#[must_use]
pub fn compile_standard_input() -> ExitCode {
    match confine().and_then(|()| compile()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            // Whoever started it may be gone.
            let _ = writeln!(io::stderr(), "{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Gives everything up that compiling does not need, before the first byte of the component is read.
fn confine() -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    for (resource, most) in
        [(Resource::As, ADDRESS_SPACE_BYTES), (Resource::Cpu, CPU_SECONDS), (Resource::Core, 0), (Resource::Fsize, 0)]
    {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(|error| failed("no limits", &error))?;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed("no end", &error))?;
    // Where it may not be nicer it is as it was.
    let _ = rustix::process::nice(NICENESS);
    let filter = filter().map_err(|error| failed("no filter of system calls", &error))?;
    seccompiler::apply_filter(&filter).map_err(|error| failed("not confined", &error))
}

/// Calls that reach outside are refused as if there were nothing: what the standard library only asks for politely does without.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut calls = vec![
        // The network, and other processes.
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_kill,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_userfaultfd,
        // Programs and namespaces.
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        // Files.
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_open_by_handle_at,
        libc::SYS_unlinkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_fchmodat,
        libc::SYS_fchownat,
        libc::SYS_truncate,
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([
        libc::SYS_open,
        libc::SYS_creat,
        libc::SYS_unlink,
        libc::SYS_rename,
        libc::SYS_link,
        libc::SYS_symlink,
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        libc::SYS_mknod,
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_fork,
        libc::SYS_vfork,
    ]);
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> = calls.into_iter().map(|call| (call, vec![])).collect();
    let refuse = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn compile() -> Result<(), String> {
    let component = read_at_most(io::stdin().lock(), MAX_FILE_BYTES).map_err(|error| error.to_string())?;
    let engine = profile::compiler(true).map_err(|error| format!("{error:#}"))?;
    let code = engine.precompile_component(&component).map_err(|error| one_line(&error))?;
    io::stdout().lock().write_all(&code).map_err(|error| error.to_string())
}

/// An error of wasmtime's without its line breaks.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}
