//! The network's command lines, both called `aleph`, as somebody would run them whose home is empty.

use crate::{devnet::Account, python::Environment};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Wide enough that tables do not break what tests look for.
const COLUMNS: &str = "240";
/// Besides the programs of the client.
const SYSTEM_PROGRAMS: &str = "/usr/bin:/bin";

/// Somebody with a client, a home and a key.
#[derive(Debug)]
pub struct Aleph {
    programs: PathBuf,
    home: PathBuf,
    account: Account,
    variables: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its words, for errors.
    command: String,
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// What it printed.
    pub printed: String,
    /// What it complained of.
    pub complained: String,
}

impl Aleph {
    /// Somebody with the client in Python who uses that core node; what the client keeps is in `home`.
    ///
    /// # Errors
    /// The home cannot be made.
    pub fn in_python(environment: &Environment, core_url: &str, home: &Path, account: Account) -> Result<Self> {
        let settings = home.join("settings");
        fs::create_dir_all(&settings).with_context(|| settings.display().to_string())?;
        let variables = vec![
            ("ALEPH_CONFIG_HOME", settings.display().to_string()),
            ("ALEPH_API_HOST", core_url.to_owned()),
            ("ALEPH_CRN_LIST_URL", format!("{core_url}/crns.json")),
            ("ALEPH_PRIVATE_KEY_STRING", account.key.clone()),
        ];
        Ok(Self { programs: environment.programs(), home: home.to_owned(), account, variables })
    }

    /// Somebody with the client in Rust, which is in `programs`, who uses that core node as the one of a network of its own; what the client keeps is in
    /// `home`.
    ///
    /// # Errors
    /// The home cannot be made, or the client refuses to be told of the network.
    pub fn in_rust(programs: &Path, core_url: &str, home: &Path, account: Account) -> Result<Self> {
        let is_new = !home.exists();
        fs::create_dir_all(home).with_context(|| home.display().to_string())?;
        let variables =
            vec![("ALEPH_CRN_LIST_URL", format!("{core_url}/crns.json")), ("ALEPH_PRIVATE_KEY", account.key.clone())];
        let somebody = Self { programs: programs.to_owned(), home: home.to_owned(), account, variables };
        if is_new {
            somebody.succeed(&["config", "network", "add", "local", "--scheduler-url", core_url])?;
            somebody.succeed(&["config", "network", "use", "local"])?;
            somebody.succeed(&["config", "ccn", "add", "node", core_url])?;
        }
        Ok(somebody)
    }

    /// Whose key it has.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Where its commands run.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Sets a variable of the surroundings of its commands.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.unset(name);
        self.variables.push((name, value.to_owned()));
    }

    /// Takes a variable out of them.
    pub fn unset(&mut self, name: &str) {
        self.variables.retain(|(other, _)| *other != name);
    }

    /// A command with the client's programs and nothing of the tests' own surroundings.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .current_dir(&self.home)
            .env_clear()
            .env("PATH", format!("{}:{SYSTEM_PROGRAMS}", self.programs.display()))
            .env("HOME", &self.home)
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .env("COLUMNS", COLUMNS)
            .env("EDITOR", self.home.join("editor"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs `aleph` with these words.
    ///
    /// # Errors
    /// It does not start.
    pub fn run(&self, words: &[&str]) -> Result<Ended> {
        let output = self.command("aleph").args(words).output().context("cannot start aleph")?;
        Ok(Ended {
            command: format!("aleph {}", words.join(" ")),
            code: output.status.code().unwrap_or(-1),
            printed: String::from_utf8_lossy(&output.stdout).into_owned(),
            complained: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts `aleph` with these words; what it prints goes to a file.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, words: &[&str], printed: &Path) -> Result<Child> {
        let file = fs::File::create(printed).with_context(|| printed.display().to_string())?;
        // Python keeps what it prints until there is much of it, unless it is told not to.
        let mut command = self.command("aleph");
        command.env("PYTHONUNBUFFERED", "1").args(words).stdout(file).stderr(Stdio::null());
        command.spawn().context("cannot start aleph")
    }

    /// What a command prints that does what it is told.
    ///
    /// # Errors
    /// It ends with another code than 0.
    pub fn succeed(&self, words: &[&str]) -> Result<String> {
        let ended = self.run(words)?;
        ensure!(ended.code == 0, "{}", ended.shown());
        Ok(ended.printed)
    }

    /// The JSON that a command prints that does what it is told.
    ///
    /// # Errors
    /// It ends with another code than 0, or prints something else.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let ended = self.run(words)?;
        ensure!(ended.code == 0, "{}", ended.shown());
        // A sentence may come before it.
        let start = ended.printed.find(['{', '[']).unwrap_or(0);
        serde_json::from_str(&ended.printed[start..]).with_context(|| ended.shown())
    }

    /// Fails unless a command that does what it is told prints all of that.
    ///
    /// # Errors
    /// It ends with another code than 0, or prints something else.
    pub fn prints(&self, words: &[&str], expected: &[&str]) -> Result<()> {
        self.ends(0, words, expected)
    }

    /// Fails unless a command ends with that code and prints all of that.
    ///
    /// # Errors
    /// It does not.
    pub fn ends(&self, code: i32, words: &[&str], expected: &[&str]) -> Result<()> {
        let ended = self.run(words)?;
        ended.expect(code, &ended.printed, expected)
    }

    /// Fails unless a command ends with that code and complains of all of that.
    ///
    /// # Errors
    /// It does not.
    pub fn complains(&self, code: i32, words: &[&str], expected: &[&str]) -> Result<()> {
        let ended = self.run(words)?;
        ended.expect(code, &ended.complained, expected)
    }
}

impl Ended {
    fn expect(&self, code: i32, said: &str, expected: &[&str]) -> Result<()> {
        ensure!(self.code == code, "not the exit code {code}: {}", self.shown());
        for text in expected {
            ensure!(said.contains(text), "{text:?} was not said: {}", self.shown());
        }
        Ok(())
    }

    /// All of it, for an error.
    #[must_use]
    pub fn shown(&self) -> String {
        format!(
            "`{}` ended with {}\n--- it printed\n{}\n--- it complained\n{}",
            self.command, self.code, self.printed, self.complained
        )
    }
}
