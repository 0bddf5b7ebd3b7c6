//! Starts a KVM host, copies files into it, and runs a command there, or those of standard input.
//!
//! ```text
//! kvm_host VMM KVM_HOST [PORT | FILE | disk=FILE]... -- [COMMAND ARGUMENT...]
//! ```
//! Files land in `/srv` (of a local host: a scratch folder). Without a command each line of standard
//! input is one for `sh`, or `spawn NAME COMMAND...`; a line with its status follows what it wrote.

#![expect(clippy::print_stdout, reason = "this is a command line: its output is its product")]

use anyhow::{Context as _, Result};
use harness::kvm_host::{KvmHost, Options};
use std::{path::Path, time::Instant};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let split = words.iter().position(|word| word == "--").context("what to run goes after `--`")?;
    let (own, command) = words.split_at(split);
    let [vmm, init, rest @ ..] = own else {
        anyhow::bail!("usage: kvm_host VMM KVM_HOST [PORT | FILE | disk=FILE]... -- [COMMAND ARGUMENT...]");
    };
    let mut options = Options::new(vmm, init);
    let mut files = Vec::new();
    for word in rest {
        match (word.parse(), word.strip_prefix("disk=")) {
            (Ok(port), _) => options.ports.push(port),
            (_, Some(disk)) => options.disks.push(disk.into()),
            _ => files.push(Path::new(word)),
        }
    }
    let began = Instant::now();
    let host = KvmHost::start(&options)?;
    eprintln!("{:?} host up after {:.1} s", host.kind(), began.elapsed().as_secs_f64());
    for file in files {
        let name = file.file_name().context("a file has a name")?.to_string_lossy();
        host.install(file, &name)?;
    }
    for port in &options.ports {
        println!("port {port} is {}", host.address(*port)?);
    }
    let command: Vec<&str> = command[1..].iter().map(String::as_str).collect();
    if !command.is_empty() {
        return show(&host, &command);
    }
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.strip_prefix("spawn ").map(|rest| rest.split(' ').collect::<Vec<_>>()) {
            Some(words) if words.len() > 1 => println!("process {}", host.spawn(words[0], &words[1..])?.id()),
            _ => show(&host, &["sh", "-c", &line])?,
        }
    }
    Ok(())
}

fn show(host: &KvmHost, command: &[&str]) -> Result<()> {
    let output = host.run(command)?;
    println!("{}{}{}", output.text(), String::from_utf8_lossy(&output.stderr), output.status);
    Ok(())
}
