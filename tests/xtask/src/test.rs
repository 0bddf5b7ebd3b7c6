//! `cargo xtask test`: all tests, counted. Unit and integration tests of every crate first, then whole nodes.

mod tally;

use crate::{
    build,
    command::{cargo, repository},
    demo, images,
    progress::{Progress, seconds},
    setup,
};
use ::images::Cache;
use anyhow::{Context as _, Result};
use harness::installation;
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};
use tally::Tally;
use vmm::probe::probe;

/// CI sets it: there, microVMs run or the tests have failed.
const CI_VARIABLE: &str = "CI";
const REQUIRE_VARIABLE: &str = "BETH_REQUIRE_KVM";

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Leave out the end-to-end tests
    #[arg(long)]
    fast: bool,
    /// Only the end-to-end tests
    #[arg(long, conflicts_with = "fast")]
    end_to_end: bool,
}

/// Runs them; returns whether all passed.
pub(crate) fn run(arguments: &Arguments, yes: bool) -> Result<bool> {
    let began = Instant::now();
    setup::packages(&[setup::TO_COMPILE, &[setup::E2FSCK]], yes)?;
    setup::targets(&[setup::STATIC_TARGET, setup::PLUGIN_TARGET])?;
    let logs = build::target_folder().join("test-logs");
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;

    let mut tally = Tally::default();
    if !arguments.end_to_end {
        unit_tests(arguments, &logs, &mut tally)?;
    }
    let mut notes = Vec::new();
    if arguments.fast {
        notes.push("end-to-end tests were left out (--fast)".to_owned());
    } else if let Some(reason) = end_to_end_tests(arguments, yes, &logs, &mut tally)? {
        notes.push(reason);
    }

    println!();
    for name in tally.failures() {
        println!("failed: {name}");
    }
    for note in notes {
        println!("{note}");
    }
    println!("logs: {}   time: {}", logs.display(), seconds(began.elapsed()));
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.passed + tally.failed == 0 {
        eprintln!("error: no test has such a name");
    }
    Ok(tally.failed == 0 && tally.passed > 0)
}

/// Tests of every crate, by cargo.
fn unit_tests(arguments: &Arguments, logs: &Path, tally: &mut Tally) -> Result<()> {
    let progress = Progress::start("unit tests: building");
    // What does not compile fails one run, not the count: the error is the compiler's.
    let mut build = cargo();
    build.args(["test", "--locked", "--workspace", "--exclude", "e2e", "--no-run"]);
    crate::command::run_quietly(&progress, &mut build)?;
    progress.done("built");

    let mut tests = cargo();
    tests.args(["test", "--locked", "--workspace", "--exclude", "e2e", "--no-fail-fast"]);
    if let Some(only) = &arguments.only {
        tests.args(["--", only]);
    }
    run_counted("unit tests", &mut tests, &logs.join("unit.log"), tally)
}

/// Whole nodes; returns why they were not run, where that is no failure.
fn end_to_end_tests(arguments: &Arguments, yes: bool, logs: &Path, tally: &mut Tally) -> Result<Option<String>> {
    let usable = probe().is_usable();
    setup::packages(&[setup::TO_RUN, setup::TO_TEST], yes).or_else(|error| {
        // Without the emulator there is still KVM, perhaps; Python and npm there is no way around.
        if usable && setup::lacking(&[&[setup::PYTHON], setup::TO_TEST]).is_empty() { Ok(()) } else { Err(error) }
    })?;
    if !usable && !setup::EMULATOR.is_installed() {
        let required = [CI_VARIABLE, REQUIRE_VARIABLE].into_iter().any(|name| std::env::var_os(name).is_some());
        if required {
            tally.fail("end-to-end tests: not run: no KVM, and no QEMU to stand in for it");
        }
        return Ok(Some("end-to-end tests: not run: no KVM".to_owned()));
    }
    images::make(&images::RUNTIMES, yes)?;
    let progress = Progress::start("end-to-end tests: building");
    build::core_node(&progress)?;
    let program = build::end_to_end_tests(&progress)?;
    progress.status("the official SDK");
    drop(demo::sdk(&progress)?);
    progress.done("built");

    let mut tests = Command::new(program);
    tests
        .current_dir(repository())
        .env(installation::VARIABLE, build::installation().folder())
        .env("BETH_CACHE", Cache::open()?.root());
    if let Some(only) = &arguments.only {
        tests.arg(only);
    }
    run_counted("end-to-end tests", &mut tests, &logs.join("end-to-end.log"), tally)?;
    Ok(None)
}

/// Runs a test program and counts; everything it prints goes to a log, failures go to the screen.
fn run_counted(name: &str, command: &mut Command, log: &Path, tally: &mut Tally) -> Result<()> {
    let progress = Progress::start(name);
    let mut file = File::create(log).with_context(|| log.display().to_string())?;
    let (reader, writer) = std::io::pipe().context("no pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("no pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    // The command holds the writing ends: given back, they end the reading one.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let before = (tally.passed, tally.failed);
    let mut screen = tally::Screen::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.with_context(|| format!("reading what {name} print"))?;
        let line = String::from_utf8_lossy(&line);
        writeln!(file, "{line}").with_context(|| log.display().to_string())?;
        tally.read(&line);
        if screen.shows(&line) {
            progress.print(&line);
        } else if !line.trim().is_empty() {
            let counted = format!("{} passed, {} failed", tally.passed_so_far() - before.0, tally.failed - before.1);
            progress.status(&format!("{counted}   {}", line.trim()));
        }
    }
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    let (passed, failed) = (tally.passed - before.0, tally.failed - before.1);
    if !status.success() && failed == 0 {
        // A crash, or a program that did not build: it counts, and says where to look.
        tally.fail(&format!("{name} ended with {status}: {}", log.display()));
        progress.print(&fs::read_to_string(log).map(|text| end_of(&text, 40)).unwrap_or_default());
    }
    progress.done(&format!("{passed} passed, {} failed", tally.failed - before.1));
    Ok(())
}

fn end_of(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
