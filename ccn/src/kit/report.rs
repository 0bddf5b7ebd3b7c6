//! What `run` prints.

use super::probe::Cost;
use crate::host::Plugin;

/// Most characters of an answer that are shown.
const MAX_SHOWN: usize = 300;

/// What is said of a message.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) verdict: (String, Option<i32>),
    /// None when the plugin was not asked.
    pub(super) cost: Option<Cost>,
}

/// A status with its code.
pub(super) fn verdict((status, code): &(String, Option<i32>)) -> String {
    code.map_or_else(|| status.clone(), |code| format!("{status} ({code})"))
}

pub(super) fn print(plugin: &Plugin, lines: &[Line], queries: &[String], answers: &[(u16, String)]) {
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max("message".len());
    println!("\n{:<width$}  {:<18} {:>12} {:>7} {:>9}", "message", "verdict", "fuel", "writes", "bytes");
    for line in lines {
        let (name, verdict) = (&line.name, verdict(&line.verdict));
        match line.cost {
            Some(Cost { fuel, writes, bytes }) => {
                println!("{name:<width$}  {verdict:<18} {fuel:>12} {writes:>7} {bytes:>9}");
            }
            None => println!("{name:<width$}  {verdict}"),
        }
    }
    let limits = plugin.manifest().limits;
    println!("{:<width$}  {:<18} {:>12} {:>7} {:>9}", "limit", "", limits.fuel, limits.writes, limits.write_kib << 10);
    let peak = plugin.statistics().memory_peak_kib;
    println!("memory: {peak} KiB at most, of {} KiB", limits.memory_mib << 10);
    for (query, (status, body)) in queries.iter().zip(answers) {
        let shown: String = body.chars().take(MAX_SHOWN).collect();
        let more = if shown.len() < body.len() { "…" } else { "" };
        println!("\nGET {query}\n{status} {shown}{more}");
    }
    println!();
}
