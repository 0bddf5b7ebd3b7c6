//! The builders on a command line, for work on images themselves; `cargo xtask images` is the
//! door for everybody else.

#![expect(clippy::print_stdout, reason = "this is a command line: its output is its product")]

use anyhow::Result;
use clap::{Parser, Subcommand};
use images::{Cache, Progress, State};
use std::{
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

/// Builds kernel, runtimes and the KVM host into the cache.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What is in the cache, and whether it is of today's inputs.
    Status,
    /// The guest kernel.
    Kernel,
    /// The guest's initramfs.
    Initramfs {
        /// The static `guest-init` program.
        init: PathBuf,
    },
    /// A runtime: base, python, qemu or smallest.
    Rootfs {
        /// Its name.
        name: String,
    },
    /// The KVM host.
    KvmHost {
        /// The static `kvm-host` program.
        init: PathBuf,
    },
    /// Builds something a second time and compares the bytes.
    Verify {
        /// `kernel`, or the name of a runtime.
        what: String,
    },
    /// Removes outputs and packages that are older than some days and not today's.
    Prune {
        /// How old, in days.
        #[arg(default_value_t = 14)]
        days: u64,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cache = Cache::open()?;
    let lines = Lines::default();
    let began = Instant::now();
    match arguments.command {
        Command::Status => return status(&cache),
        Command::Kernel => {
            let kernel = cache.kernel(&lines)?;
            println!("{}\n{}", kernel.elf.display(), kernel.flat.display());
        }
        Command::Initramfs { init } => println!("{}", cache.initramfs(&init)?.display()),
        Command::Rootfs { name } => println!("{}", cache.rootfs(&name, &lines)?.image.display()),
        Command::KvmHost { init } => {
            let image = cache.kvm_host(&init, &lines)?;
            println!("{}\n{}", image.kernel.display(), image.initramfs.display());
        }
        Command::Verify { what } => {
            let verified = match what.as_str() {
                "kernel" => cache.verify_kernel(&lines)?,
                name => cache.verify_rootfs(name, &lines)?,
            };
            println!("{}: both builds are {}", verified.name, verified.digest);
        }
        Command::Prune { days } => {
            let built = cache.outputs()?.into_iter().filter_map(|output| match output.state {
                State::Built { folder, .. } => Some(folder),
                State::Stale | State::Missing => None,
            });
            let built: Vec<PathBuf> = built.collect();
            let before = SystemTime::now() - Duration::from_secs(days * 86_400);
            println!("{} MiB freed", cache.prune(&built, before)? >> 20);
        }
    }
    eprintln!("{:.2} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn status(cache: &Cache) -> Result<()> {
    println!("{}", cache.root().display());
    for output in cache.outputs()? {
        let state = match output.state {
            State::Built { size_bytes, since, .. } => {
                let days = since.elapsed().unwrap_or_default().as_secs() / 86_400;
                format!("built, {} MiB, {days} days old", size_bytes >> 20)
            }
            State::Stale => "stale: its inputs changed".to_owned(),
            State::Missing => "missing".to_owned(),
        };
        println!("  {:<20} {state}", output.name);
    }
    Ok(())
}

/// Progress as plain lines: each step, and a sign of life every few seconds.
#[derive(Default)]
struct Lines {
    last: Mutex<Option<Instant>>,
}

/// Time between two signs of life.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Progress for Lines {
    fn step(&self, name: &str) {
        eprintln!("{name}");
    }

    fn update(&self, fraction: Option<f32>, status: &str) {
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        if last.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return;
        }
        *last = Some(Instant::now());
        match fraction {
            Some(part) => eprintln!("  {:3.0} % {status}", part * 100.0),
            None => eprintln!("  {status}"),
        }
    }
}
