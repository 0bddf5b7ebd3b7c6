//! What a person sees while something takes long: one line, or plain lines where there is no
//! terminal (CI).

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time between two signs of life where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(20);

/// What took no longer was not worth a line.
const QUICK: Duration = Duration::from_millis(1500);

/// One step that takes a while.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    started: Instant,
    /// When the last line was printed, where there is no terminal.
    last_line: Mutex<Instant>,
}

impl Progress {
    /// Starts a step; the line stays until [`Progress::done`] or drop.
    pub(crate) fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed:>4}  {wide_msg}");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.set_prefix(format!("{name:<32}"));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("… {name}");
        }
        Self { bar, name, started: Instant::now(), last_line: Mutex::new(Instant::now()) }
    }

    /// Starts a step that is not worth a line if it turns out that there is nothing to do.
    pub(crate) fn start_quietly(name: impl Into<String>) -> Self {
        if std::io::stderr().is_terminal() {
            return Self::start(name);
        }
        Self { bar: None, name: name.into(), started: Instant::now(), last_line: Mutex::new(Instant::now()) }
    }

    /// What is being done right now.
    pub(crate) fn status(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            return;
        }
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            eprintln!("  {text}");
        }
    }

    /// Prints a line above the step.
    pub(crate) fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// How long the step has taken so far.
    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends the step; it leaves no line if it was over at once.
    pub(crate) fn done_unless_quick(self, outcome: &str) {
        if self.elapsed() > QUICK {
            self.done(outcome);
        }
    }

    /// Ends the step and leaves one line about it.
    pub(crate) fn done(self, outcome: &str) {
        let line = format!("✓ {:<32} {outcome} ({})", self.name, seconds(self.started.elapsed()));
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                eprintln!("{line}");
            }
            None => eprintln!("{line}"),
        }
    }
}

/// Builders of images report through the same line.
impl ::images::Progress for Progress {
    fn step(&self, name: &str) {
        self.status(name);
    }

    fn update(&self, fraction: Option<f32>, status: &str) {
        match fraction {
            Some(part) => self.status(&format!("{:3.0} % {status}", part * 100.0)),
            None => self.status(status),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A duration as people say it: `0.4 s`, `12.3 s`, `3 min 05 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let total = duration.as_secs();
    if total < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", total / 60, total % 60)
    }
}
