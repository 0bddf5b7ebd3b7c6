//! The command line.

use crate::kit;
use clap::{Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

/// Core channel node of the Aleph Cloud network: takes signed messages in, decides on them and answers questions about them.
///
/// Settings come from one TOML file, then these flags, then BETH_* variables (BETH_LISTEN, BETH_LIMITS__QUEUE, …), each over the one before.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "ccn", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do instead of serving
    #[command(subcommand)]
    pub task: Option<Task>,
    /// Settings file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for everything that is kept (default /var/lib/beth/ccn)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to serve HTTP (default 127.0.0.1:4024)
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Core channel node to fetch files from; can be repeated
    #[arg(long = "peer", value_name = "URL")]
    pub peers: Vec<String>,
    /// Compute node that is linked to this node; can be repeated
    #[arg(long = "crn", value_name = "URL")]
    pub crns: Vec<String>,
    /// Folder of further plugins (default: plugins in the data folder)
    #[arg(long, value_name = "DIR")]
    pub plugins: Option<PathBuf>,
    /// Run a private network for development: made-up accounts with credits, whose keys are printed
    #[arg(long)]
    pub dev: bool,
    /// Any setting of the file, for example pipeline.horizon_seconds=60; can be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the settings in effect as a file, and exit
    #[arg(long)]
    pub print_config: bool,
}

/// What can be done without serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Task {
    /// For authors of plugins: check one, play messages to it, pack it
    #[command(subcommand)]
    Plugin(kit::Command),
    /// For operators: ask the node that is running, or tell it something
    Node {
        /// What
        #[command(subcommand)]
        order: Order,
        /// Its settings file
        #[arg(long, global = true, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Its folder
        #[arg(long, global = true, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Where it serves HTTP
        #[arg(long, global = true, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
    },
}

/// What an operator asks a running node, or tells it.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Order {
    /// List its plugins, and the files of the folder that are none and why
    Plugins,
    /// List the messages that were put aside because their plugin failed
    Quarantine,
    /// Have a message decided anew that was put aside
    Retry {
        /// Its item hash
        hash: String,
    },
    /// Call a plugin again that was suspended
    Resume {
        /// Its name
        plugin: String,
    },
    /// Say how pinning at its IPFS node goes, and which files fail
    Pins,
    /// Print the digest of the state, by which nodes are compared
    Digest {
        /// Count it anew from all stored rows, too, and say whether it is the same
        #[arg(long)]
        verify: bool,
    },
    /// Delete the state of a plugin whose file is gone; its messages stay
    DropState {
        /// Its name
        plugin: String,
        /// It is meant: what is deleted can only be made anew from its messages, by a plugin that is put into the folder again
        #[arg(long)]
        yes: bool,
    },
}
