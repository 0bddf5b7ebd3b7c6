//! Starts a KVM host, copies files into it, and runs one command there.
//!
//! ```text
//! cargo run -p harness --example kvm_host -- VMM KVM_HOST FILE... -- COMMAND ARGUMENT...
//! ```
//! Files land in `/srv` (of a local host: a scratch folder, which is the current one of no command).

#![expect(clippy::print_stdout, reason = "this is a command line: its output is its product")]

use anyhow::{Context as _, Result};
use harness::kvm_host::{KvmHost, Options};
use std::{path::Path, time::Instant};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let split = words.iter().position(|word| word == "--").context("what to run goes after `--`")?;
    let (own, command) = words.split_at(split);
    let [vmm, init, files @ ..] = own else {
        anyhow::bail!("usage: kvm_host VMM KVM_HOST FILE... -- COMMAND ARGUMENT...");
    };
    let began = Instant::now();
    let host = KvmHost::start(&Options::new(vmm, init))?;
    eprintln!("{:?} host up after {:.1} s", host.kind(), began.elapsed().as_secs_f64());
    for file in files {
        let path = Path::new(file);
        let name = path.file_name().context("a file has a name")?.to_string_lossy();
        host.install(path, &name)?;
    }
    eprintln!("{} files inside after {:.1} s", files.len(), began.elapsed().as_secs_f64());
    let command: Vec<&str> = command[1..].iter().map(String::as_str).collect();
    let output = host.run(&command)?;
    print!("{}", output.text());
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{} after {:.1} s", output.status, began.elapsed().as_secs_f64());
    Ok(())
}
