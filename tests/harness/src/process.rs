//! A program under test: started, awaited by its ready line, watched, ended.

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

/// A running program whose standard output is read line by line and whose standard error goes to
/// a file. Killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Behind a lock only so that a process can be shared.
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Process {
    /// Starts a program in a process group of its own; its log goes to `log`, appended.
    ///
    /// # Errors
    /// The program or the log file cannot be opened.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("the pipe was just asked for")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, log: log.to_owned(), lines: Mutex::new(lines) })
    }

    /// Reads lines until one satisfies `is_it`; returns all lines up to and with it.
    ///
    /// # Errors
    /// The program ended or the time is over; the error shows the end of its log.
    pub fn wait_for_line(&mut self, limit: Duration, is_it: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let deadline = Instant::now() + limit;
        let mut read = Vec::new();
        let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    let found = is_it(&line);
                    read.push(line);
                    if found {
                        return Ok(read);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("not ready after {limit:?}; it said {read:?} and logged:\n{}", self.log_end());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!("it ended ({status}); it said {read:?} and logged:\n{}", self.log_end());
                }
            }
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// It does not end in time, or not with status 0.
    pub fn terminate(&mut self, limit: Duration) -> Result<()> {
        rustix::process::kill_process(self.pid()?, Signal::TERM)?;
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("it ended with {}:\n{}", describe(status), self.log_end()),
                None if Instant::now() > deadline => {
                    bail!("still running {limit:?} after SIGTERM:\n{}", self.log_end())
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Stops it where it is: its connections stay open and nobody answers. It goes on with [`Self::thaw`].
    ///
    /// # Errors
    /// It is gone.
    pub fn freeze(&self) -> Result<()> {
        Ok(rustix::process::kill_process(self.pid()?, Signal::STOP)?)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&self) -> Result<()> {
        Ok(rustix::process::kill_process(self.pid()?, Signal::CONT)?)
    }

    /// True while it runs.
    ///
    /// # Errors
    /// The process cannot be asked.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| anyhow!("{} is no process id", self.child.id()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills the children of this process, whoever started them: for a process that ends in a hurry.
pub fn kill_children() {
    let ours = rustix::process::getpid().as_raw_nonzero().get().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // `id (name) state parent …`; a name may hold anything, a closing bracket too.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if parent == Some(ours.as_str()) {
            // Already gone is as good.
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
