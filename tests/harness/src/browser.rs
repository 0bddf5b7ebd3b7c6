//! A headless Chromium, driven by its own protocol (Chrome DevTools) through a pipe: no port is open, and no driver is needed.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The browser, as Debian installs it.
const PROGRAM: &str = "chromium-headless-shell";
/// How long the browser may take to start, and to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How often a page is looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A browser with one page. Killed on drop.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: mpsc::Receiver<Value>,
    last: u64,
    session: Option<String>,
    troubles: Vec<String>,
}

impl Browser {
    /// Starts one; what it keeps goes into `folder`.
    ///
    /// # Errors
    /// There is none, or it does not start.
    pub fn start(folder: &Path) -> Result<Self> {
        let log = File::create(folder.join("browser.log"))?;
        // The protocol speaks through the descriptors 3 and 4; a shell moves the pipes there.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh", PROGRAM]);
        command.args([
            "--headless",
            "--remote-debugging-pipe",
            "--disable-gpu",
            "--no-first-run",
            "--disable-dev-shm-usage",
        ]);
        command.arg(format!("--user-data-dir={}", folder.join("profile").display()));
        if rustix::process::geteuid().is_root() {
            // Its sandbox refuses root; the pages are our own.
            command.arg("--no-sandbox");
        }
        command.arg("about:blank").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?;
        let commands = child.stdin.take().context("the pipe was just asked for")?;
        let answers = child.stdout.take().context("the pipe was just asked for")?;
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { break };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self { child, commands, messages, last: 0, session: None, troubles: Vec::new() };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?["targetId"].clone();
        let session = browser.call("Target.attachToTarget", &json!({"targetId": target, "flatten": true}))?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// Opens a page.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", &json!({"url": url}))?;
        ensure!(answer.get("errorText").is_none(), "{url}: {}", answer["errorText"]);
        Ok(())
    }

    /// The value of a JavaScript expression in the page.
    ///
    /// # Errors
    /// It throws.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &parameters)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("{expression}: {thrown}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true of the page.
    ///
    /// # Errors
    /// It is not within `limit`.
    pub fn wait_until(&mut self, expression: &str, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while self.value(expression)? != true {
            if Instant::now() > end {
                let text = self.value("document.body.innerText.slice(0, 2000)")?;
                bail!("not within {limit:?}: {expression}\nthe page says: {text}");
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// What the page did that it should not: scripts that threw, and what its policy refused.
    #[must_use]
    pub fn troubles(&self) -> &[String] {
        &self.troubles
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).context("the browser has ended")?;
        let end = Instant::now() + ANSWER_WITHIN;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).map_err(|error| anyhow!("{method}: {error}"))?;
            if message["id"] == self.last {
                ensure!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let entry = &event["params"]["entry"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.troubles.push(event["params"]["exceptionDetails"].to_string()),
            // Answers that are errors are logged, too; they are the node's business.
            Some("Log.entryAdded") if entry["source"] != "network" && entry["level"] == "error" => {
                self.troubles.push(entry["text"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
