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

/// What monitors are made for: what nearly all programs are. Runtime, code, and four more files; and as many network cards as the
/// last machine had that one was taken for.
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
    /// With the network cards that they were made for.
    monitors: VecDeque<(u8, Monitor)>,
    /// How many network cards the next one is made for.
    nets: u8,
    /// What fills the pool; none once it is not to be filled any more.
    filler: Option<JoinHandle<()>>,
}

impl Pool {
    /// A pool that keeps that many, the first for machines with that many network cards, and starts to fill itself.
    #[must_use]
    pub fn new(images: Arc<Images>, size: usize, nets: u8) -> Self {
        let idle = Arc::new(Mutex::new(Idle { nets, ..Idle::default() }));
        let taken = Arc::new(Notify::new());
        if size > 0 {
            // Ends with the pool.
            let filling = fill(Arc::downgrade(&idle), Arc::clone(&taken), Arc::clone(&images), size);
            // Held until it is noted: without it the task takes itself for one that is to end.
            let mut waiting = lock(&idle);
            waiting.filler = Some(tokio::spawn(filling));
        }
        Self { images, idle, taken }
    }

    /// A monitor for a machine with that many network cards: one that waits for such a machine, else one that waits (which saves its
    /// process), else a new one.
    ///
    /// # Errors
    /// It does not start.
    pub async fn take(&self, nets: usize) -> Result<Monitor, MachineError> {
        loop {
            let taken = lock(&self.idle).take(u8::try_from(nets).unwrap_or(u8::MAX));
            let Some(monitor) = taken else { break };
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
        futures_util::future::join_all(monitors.into_iter().map(|(_, monitor)| monitor.end())).await;
    }
}

impl Idle {
    fn take(&mut self, nets: u8) -> Option<Monitor> {
        self.nets = nets;
        let position = self.monitors.iter().position(|(made_for, _)| *made_for == nets).unwrap_or(0);
        self.monitors.remove(position).map(|(_, monitor)| monitor)
    }
}

/// Keeps the pool full until it is gone.
async fn fill(idle: Weak<Mutex<Idle>>, taken: Arc<Notify>, images: Arc<Images>, size: usize) {
    loop {
        let Some(pool) = idle.upgrade() else { return };
        let waiting = {
            let idle = lock(&pool);
            idle.filler.as_ref().map(|_| (idle.monitors.len(), idle.nets))
        };
        drop(pool);
        let Some((waiting, nets)) = waiting else { return };
        if waiting >= size {
            taken.notified().await;
            continue;
        }
        let made = match Monitor::spawn(&images).await {
            Ok(monitor) => monitor.prepare(Shape { nets, ..SHAPE }).map(|()| (nets, monitor)),
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
