//! Machine monitors that wait for a machine: process, KVM's machine, its processor and its interrupt lines are there before anybody asks.
//!
//! What is left for a start to do is small and quick. A monitor is taken once and never comes back; another one is made beside.

use crate::machine::{Images, MachineError, Monitor};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use vmm::config::Shape;

/// What monitors are made for: what nearly all programs are. Runtime, code, and four more files; and a network card, where there is
/// a network.
const SHAPE: Shape = Shape { vcpus: 1, vsock: true, entropy: true, balloon: true, nets: 0, disks: 6 };

/// The monitors that wait. Clones share them; when the last one is dropped they end.
#[derive(Debug, Clone)]
pub struct Pool {
    images: Arc<Images>,
    idle: Arc<Mutex<VecDeque<Monitor>>>,
    taken: Arc<Notify>,
}

impl Pool {
    /// A pool that keeps that many, for machines with that many network cards, and starts to fill itself.
    #[must_use]
    pub fn new(images: Arc<Images>, size: usize, nets: u8) -> Self {
        let shape = Shape { nets, ..SHAPE };
        let idle: Arc<Mutex<VecDeque<Monitor>>> = Arc::default();
        let taken = Arc::new(Notify::new());
        if size > 0 {
            // Ends with the pool.
            tokio::spawn(fill(Arc::downgrade(&idle), Arc::clone(&taken), Arc::clone(&images), size, shape));
        }
        Self { images, idle, taken }
    }

    /// A monitor: one that waits, else a new one.
    ///
    /// # Errors
    /// It does not start.
    pub async fn take(&self) -> Result<Monitor, MachineError> {
        loop {
            let Some(monitor) = lock(&self.idle).pop_front() else { break };
            self.taken.notify_one();
            if monitor.is_there() {
                return Ok(monitor);
            }
            tracing::warn!("a monitor that waited for a machine has ended");
        }
        Monitor::spawn(&self.images).await
    }
}

/// Keeps the pool full until it is gone.
async fn fill(
    idle: std::sync::Weak<Mutex<VecDeque<Monitor>>>,
    taken: Arc<Notify>,
    images: Arc<Images>,
    size: usize,
    shape: Shape,
) {
    loop {
        let Some(waiting) = idle.upgrade().map(|idle| lock(&idle).len()) else { return };
        if waiting >= size {
            taken.notified().await;
            continue;
        }
        let made = match Monitor::spawn(&images).await {
            Ok(monitor) => monitor.prepare(shape).map(|()| monitor),
            Err(error) => Err(error),
        };
        match (made, idle.upgrade()) {
            (Ok(monitor), Some(idle)) => lock(&idle).push_back(monitor),
            (Err(error), _) => {
                tracing::warn!(%error, "no monitor can be made in advance");
                // The next start finds out whether it can be made at all.
                taken.notified().await;
            }
            (Ok(_), None) => return,
        }
    }
}

fn lock(idle: &Mutex<VecDeque<Monitor>>) -> MutexGuard<'_, VecDeque<Monitor>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
