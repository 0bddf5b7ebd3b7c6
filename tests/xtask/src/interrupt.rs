//! Ctrl-C: what was started ends with us.
//!
//! During a step everything is killed at once, since nobody wants to wait for a boot. While the demo only runs, it is told and
//! stops its nodes in order; a second Ctrl-C still kills.

use anyhow::{Context as _, Result};
use harness::process::kill_children;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

/// What a shell says of a program that ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Takes the signals over.
pub(crate) struct Interrupt {
    awaited: Arc<AtomicBool>,
    came: mpsc::Receiver<()>,
}

impl Interrupt {
    pub(crate) fn watch() -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot watch for signals")?;
        let awaited = Arc::new(AtomicBool::new(false));
        let (sender, came) = mpsc::channel();
        let is_awaited = awaited.clone();
        thread::spawn(move || {
            for _ in signals.forever() {
                if !is_awaited.swap(false, Ordering::SeqCst) || sender.send(()).is_err() {
                    kill_children();
                    exit(INTERRUPTED);
                }
            }
        });
        Ok(Self { awaited, came })
    }

    /// Waits for one.
    pub(crate) fn wait(&self) {
        self.awaited.store(true, Ordering::SeqCst);
        // The sender lives as long as the process.
        let _ = self.came.recv();
    }
}
