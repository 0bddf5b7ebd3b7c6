//! End-to-end tests: real nodes, real microVMs, the official SDK. `cargo xtask test` builds what they need and starts them.
//!
//! Tests share what is expensive ([`stage`]): one emulated host, one pair of nodes, one upload of each runtime. What a test
//! kills, stops or damages is its own.
//!
//! | folder | what it is about |
//! |---|---|
//! | `both` | publish with the SDK, then call |
//! | `ccn` | the core channel node alone, also with the network's own clients |
//! | `crn` | programs in microVMs, and what happens when something dies |
#![expect(clippy::print_stdout, reason = "a test program reports on standard output")]

mod answer;
mod leaks;
mod stage;

#[path = "../both/mod.rs"]
mod both;
#[path = "../ccn/mod.rs"]
mod ccn;
#[path = "../crn/mod.rs"]
mod crn;

use anyhow::Result;
use harness::interrupt::Interrupt;
use libtest_mimic::{Arguments, Failed, Trial};

/// Tests at a time: two processors are there, and an emulated host takes them both.
const THREADS: usize = 3;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let listing = arguments.list;
    if !listing && let Err(error) = stage::Stage::check() {
        eprintln!("end-to-end tests: {error:#}");
        std::process::exit(2);
    }
    // Ctrl-C ends the nodes too. Without it they would only be harder to end.
    let _interrupt = Interrupt::watch();
    let mut trials = crn::trials();
    trials.extend(both::trials());
    trials.extend(ccn::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !listing {
        // Where a test has failed its nodes may be there still.
        let left = stage::Stage::end(!conclusion.has_failed());
        println!("logs: {}", stage::Stage::logs());
        if let Err(error) = left {
            println!("{error:#}");
            std::process::exit(1);
        }
    }
    conclusion.exit();
}

/// A test by name. Whatever it was about, no machine may have left anything.
fn trial(name: &str, test: fn() -> Result<()>) -> Trial {
    let checked = move || {
        test()?;
        stage::host().map_or(Ok(()), leaks::check)
    };
    Trial::test(name, move || checked().map_err(|error| Failed::from(format!("{error:#}"))))
}
