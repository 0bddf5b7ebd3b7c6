//! What a person sees of the demo, and what a script reads of it: aligned steps with their times.

use crate::progress::{Progress, seconds};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Width of the columns before the time.
const NAME_WIDTH: usize = 20;
const TEXT_WIDTH: usize = 78;

/// The steps so far.
pub(crate) struct Story {
    steps: Vec<Step>,
    urls: Vec<(String, String)>,
    cold: Option<Duration>,
    warm: Option<Duration>,
    colours: bool,
}

struct Step {
    name: &'static str,
    ok: bool,
    took: Duration,
}

impl Story {
    pub(crate) fn begin() -> Self {
        Self { steps: Vec::new(), urls: Vec::new(), cold: None, warm: None, colours: std::io::stdout().is_terminal() }
    }

    /// A heading over the steps that follow.
    pub(crate) fn chapter(&self, title: &str) {
        println!("{}", self.paint("1", title));
    }

    /// A line between.
    pub(crate) fn say(&self, text: &str) {
        println!("\n{text}");
    }

    /// Does a step, and prints what came of it with the time it took.
    pub(crate) fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&Progress) -> Result<(T, String)>,
    ) -> Result<T> {
        let progress = Progress::start_quietly(name);
        let began = Instant::now();
        let result = work(&progress);
        let took = began.elapsed();
        drop(progress);
        self.steps.push(Step { name, ok: result.is_ok(), took });
        match result {
            Ok((value, text)) => {
                let time = self.paint("2", &format!("{:>10}", seconds(took)));
                println!("  {} {name:<NAME_WIDTH$} {text:<TEXT_WIDTH$} {time}", self.paint("32", "✓"));
                Ok(value)
            }
            Err(error) => {
                println!("  {} {name:<NAME_WIDTH$} failed after {}", self.paint("31", "✗"), seconds(took));
                Err(error)
            }
        }
    }

    /// The last step was the cold call.
    pub(crate) fn set_cold(&mut self) {
        self.cold = self.steps.last().map(|step| step.took);
    }

    pub(crate) fn set_warm(&mut self, took: Duration) {
        self.warm = Some(took);
    }

    /// Prints something to click, after a heading before the first.
    pub(crate) fn url(&mut self, name: &str, url: &str) {
        if self.urls.is_empty() {
            println!("\n{}", self.paint("1", "to click"));
        }
        println!("  {name:<NAME_WIDTH$}   {}", self.paint("4", url));
        self.urls.push((name.replace(' ', "_").to_lowercase(), url.to_owned()));
    }

    /// The report that scripts read.
    pub(crate) fn to_json(&self) -> String {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                let outcome = if step.ok { "ok" } else { "failed" };
                json!({"name": step.name, "outcome": outcome, "ms": milliseconds(step.took)})
            })
            .collect();
        let urls: Map<String, Value> =
            self.urls.iter().map(|(name, url)| (name.clone(), Value::from(url.as_str()))).collect();
        let report = json!({
            "steps": steps,
            "cold_ms": self.cold.map(milliseconds),
            "warm_ms": self.warm.map(milliseconds),
            "urls": urls,
        });
        format!("{report:#}\n")
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Milliseconds with three digits behind the point.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The middle one of some durations; of none it is zero.
pub(crate) fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_every_step_with_its_outcome() {
        let mut story = Story::begin();
        story.step("first", |_| Ok(((), String::new()))).expect("it is done");
        story.set_cold();
        story.set_warm(Duration::from_micros(1500));
        let failed: Result<()> = story.step("second", |_| anyhow::bail!("no"));
        assert!(failed.is_err());
        story.url("own origin", "http://x/");
        let report: Value = serde_json::from_str(&story.to_json()).expect("JSON");
        assert_eq!(report["steps"][0]["name"], "first");
        assert_eq!(report["steps"][0]["outcome"], "ok");
        assert_eq!(report["steps"][1]["outcome"], "failed");
        assert!(report["steps"][1]["ms"].is_number() && report["cold_ms"].is_number());
        assert_eq!(report["warm_ms"], 1.5);
        assert_eq!(report["urls"], json!({"own_origin": "http://x/"}));
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let mut durations = [3, 1, 2].map(Duration::from_secs);
        assert_eq!(median(&mut durations), Duration::from_secs(2));
        assert_eq!(median(&mut []), Duration::ZERO);
    }
}
