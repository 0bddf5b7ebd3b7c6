//! The command line.

use clap::Parser;
use std::{net::SocketAddr, path::PathBuf};

/// Compute resource node of the Aleph Cloud network: runs programs in microVMs and carries HTTP to them.
///
/// Settings come from one TOML file, then these flags, then BETH_* variables (BETH_LISTEN,
/// BETH_PROGRAMS__IDLE_SECONDS, …), each over the one before.
#[derive(Debug, Clone, Parser)]
#[command(name = "crn", version)]
pub struct Arguments {
    /// Settings file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for everything that is kept (default /var/lib/beth/crn)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to serve HTTP (default 127.0.0.1:4020)
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Core channel node to ask for messages and files (default https://official.aleph.cloud)
    #[arg(long, value_name = "URL")]
    pub ccn: Option<String>,
    /// Machine monitor (default: vmm beside this program)
    #[arg(long, value_name = "PATH")]
    pub vmm: Option<PathBuf>,
    /// Folder of the guest kernel and initramfs (default: images beside this program, else /usr/lib/beth/images)
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Name under which this node is reached (default localhost)
    #[arg(long, value_name = "NAME")]
    pub domain_name: Option<String>,
    /// Any setting of the file, for example programs.idle_seconds=600; can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the settings in effect as a file, and exit
    #[arg(long)]
    pub print_config: bool,
}
