//! Ctrl-C: what was started ends with us.
//!
//! Ordinarily everything is killed at once, since nobody wants to wait for a boot. Who waits for the signal is told instead and can
//! stop its nodes in order; a second Ctrl-C still kills.

use crate::process::kill_children;
use anyhow::{Context as _, Result};
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

/// The signals, taken over.
#[derive(Debug)]
pub struct Interrupt {
    awaited: Arc<AtomicBool>,
    came: mpsc::Receiver<()>,
}

impl Interrupt {
    /// Takes them over. From here on, dropping the value included, a signal ends this process and its children.
    ///
    /// # Errors
    /// The system refuses.
    pub fn watch() -> Result<Self> {
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

    /// Waits for one, which then ends nothing.
    pub fn wait(&self) {
        self.awaited.store(true, Ordering::SeqCst);
        // The sender lives as long as the process.
        let _ = self.came.recv();
    }
}
