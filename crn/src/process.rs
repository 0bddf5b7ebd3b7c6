//! A child process by descriptor, which is never another process of the same number.

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::Child,
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// How long a process that has no reason to stay may take to end, before it is killed.
const EXIT_WITHIN: Duration = Duration::from_secs(5);

/// A child of this process. It is waited for by [`Self::reap`], or stays dead and listed for as long as this process lives.
#[derive(Debug, Clone)]
pub struct Process {
    descriptor: Arc<OwnedFd>,
    id: u32,
}

impl Process {
    /// One that this program has started.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn started(child: &Child) -> io::Result<Self> {
        let id = child.id();
        let process = i32::try_from(id).ok().and_then(Pid::from_raw);
        let process = process.ok_or_else(|| io::Error::other("a child has a process id"))?;
        Ok(Self { descriptor: Arc::new(pidfd_open(process, PidfdFlags::empty())?), id })
    }

    /// One that another has made for this one, with the descriptor that came of it.
    #[must_use]
    pub fn handed_over(id: u32, descriptor: OwnedFd) -> Self {
        Self { descriptor: Arc::new(descriptor), id }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Kills it.
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.descriptor, Signal::KILL)?)
    }

    /// Waits for its end, which is due; kills it when it does not come. The signal that ended it, if one did.
    pub async fn reap(&self) -> Option<i32> {
        let process = self.clone();
        // A thread waits, for a moment only: the process is ending.
        let mut ending = tokio::task::spawn_blocking(move || process.wait());
        if let Ok(ended) = timeout(EXIT_WITHIN, &mut ending).await {
            return ended.ok().flatten();
        }
        tracing::warn!(process = self.id, "a machine monitor did not end and is killed");
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "a machine monitor cannot be killed");
        }
        ending.await.ok().flatten()
    }

    /// Waits for its end, however long that takes. The signal that ended it, if one did.
    pub fn wait(&self) -> Option<i32> {
        loop {
            match waitid(WaitId::PidFd(self.descriptor.as_fd()), WaitIdOptions::EXITED) {
                Ok(ended) => return ended?.terminating_signal(),
                Err(Errno::INTR) => {}
                // Somebody else has waited for it: as good.
                Err(_) => return None,
            }
        }
    }
}
