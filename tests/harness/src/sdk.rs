//! The official Python SDK in a virtual environment of the tests' own.

use crate::python::Environment;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// A Python environment with the SDK, and the script that plays a user with it.
#[derive(Debug, Clone)]
pub struct Sdk {
    python: PathBuf,
    script: PathBuf,
}

impl Sdk {
    /// Makes the environment in `cache`, or takes the one made before from the same requirements.
    ///
    /// # Errors
    /// No Python, or a package cannot be installed.
    pub fn install(cache: &Path, folder: &Path) -> Result<Self> {
        let environment = Environment::install(cache, "sdk", &folder.join("requirements.txt"), None)?;
        Ok(Self { python: environment.python(), script: folder.join("user.py") })
    }

    /// The environment's interpreter.
    #[must_use]
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// Starts a session: one interpreter for many commands.
    ///
    /// # Errors
    /// The interpreter does not start.
    pub fn session(&self) -> Result<Session> {
        let mut child = Command::new(&self.python)
            .arg(&self.script)
            .arg("session")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.python.display()))?;
        let pipes = child.stdin.take().zip(child.stdout.take()).context("the pipes were just asked for")?;
        Ok(Session { child, pipes: Mutex::new((pipes.0, BufReader::new(pipes.1))) })
    }

    /// Runs one command of the script and returns what it prints.
    ///
    /// # Errors
    /// The command fails; the error shows what it said.
    pub fn user(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(&self.python)
            .arg(&self.script)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {}", self.python.display()))?;
        if !output.status.success() {
            bail!("user.py {arguments:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!("user.py {arguments:?} printed no JSON: {}", String::from_utf8_lossy(&output.stdout))
        })
    }
}

/// A running interpreter that takes commands, one at a time.
#[derive(Debug)]
pub struct Session {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Session {
    /// Runs one command of the script and returns what it answers.
    ///
    /// # Errors
    /// The command fails; the error shows what Python said.
    pub fn user(&self, arguments: &[&str]) -> Result<Value> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let (commands, answers) = &mut *pipes;
        writeln!(commands, "{}", json!(arguments)).context("the SDK's interpreter is gone")?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let mut answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the SDK's interpreter answered {line:?}"))?;
        if let Some(error) = answer["error"].as_str() {
            let traceback = answer["traceback"].as_str().unwrap_or_default();
            // Keys are among the words: only the command itself is shown.
            bail!("the SDK: {error}\n{traceback}");
        }
        Ok(answer["answer"].take())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
