//! Machine monitors that wait for a machine: process, KVM's machine, its processor and its interrupt lines are there before anybody asks.
//!
//! What is left for a start to do is small and quick. A monitor is taken once and never comes back; another one is made beside.

use crate::machine::{Images, MachineError, Monitor};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::{sync::Notify, task::JoinHandle};
use vmm::config::Shape;

/// What monitors are made for: what nearly all programs are. Runtime, code, and four more files.
const SHAPE: Shape = Shape { vcpus: 1, vsock: true, entropy: true, balloon: true, nets: 0, disks: 6 };

/// The monitors that wait. Clones share them; when the last one is dropped they end.
#[derive(Debug, Clone)]
pub struct Pool {
    images: Arc<Images>,
    idle: Arc<Mutex<Idle>>,
    taken: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Idle {
    monitors: VecDeque<Monitor>,
    /// What fills the pool; none once it is not to be filled any more.
    filler: Option<JoinHandle<()>>,
}

impl Pool {
    /// A pool that keeps that many, and starts to fill itself.
    #[must_use]
    pub fn new(images: Arc<Images>, size: usize) -> Self {
        let idle: Arc<Mutex<Idle>> = Arc::default();
        let taken = Arc::new(Notify::new());
        if size > 0 {
            // Ends with the pool.
            let filling = fill(Arc::downgrade(&idle), Arc::clone(&taken), Arc::clone(&images), size);
            lock(&idle).filler = Some(tokio::spawn(filling));
        }
        Self { images, idle, taken }
    }

    /// A monitor: one that waits, else a new one.
    ///
    /// # Errors
    /// It does not start.
    pub async fn take(&self) -> Result<Monitor, MachineError> {
        loop {
            let Some(monitor) = lock(&self.idle).monitors.pop_front() else { break };
            self.taken.notify_one();
            if monitor.is_there() {
                return Ok(monitor);
            }
            tracing::warn!("a monitor that waited for a machine has ended");
        }
        Monitor::spawn(&self.images).await
    }

    /// Makes no more, and ends those that wait: returns when nothing is left of them.
    pub async fn end(&self) {
        let filler = lock(&self.idle).filler.take();
        if let Some(filler) = filler {
            self.taken.notify_one();
            // It may be just making one.
            let _ = filler.await;
        }
        let monitors = std::mem::take(&mut lock(&self.idle).monitors);
        futures_util::future::join_all(monitors.into_iter().map(Monitor::end)).await;
    }
}

/// Keeps the pool full until it is gone.
async fn fill(idle: Weak<Mutex<Idle>>, taken: Arc<Notify>, images: Arc<Images>, size: usize) {
    loop {
        let Some(pool) = idle.upgrade() else { return };
        let waiting = {
            let idle = lock(&pool);
            idle.filler.as_ref().map(|_| idle.monitors.len())
        };
        drop(pool);
        let Some(waiting) = waiting else { return };
        if waiting >= size {
            taken.notified().await;
            continue;
        }
        let made = match Monitor::spawn(&images).await {
            Ok(monitor) => monitor.prepare(SHAPE).map(|()| monitor),
            Err(error) => Err(error),
        };
        match (made, idle.upgrade()) {
            (Ok(monitor), Some(idle)) => lock(&idle).monitors.push_back(monitor),
            (Err(error), _) => {
                tracing::warn!(%error, "no monitor can be made in advance");
                // The next start finds out whether it can be made at all.
                taken.notified().await;
            }
            (Ok(_), None) => return,
        }
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
