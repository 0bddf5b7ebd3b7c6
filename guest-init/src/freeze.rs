//! Standing still for a snapshot, and becoming oneself again.
//!
//! A guest that rings [`bell::FREEZE`] may be copied at that instruction. Whoever goes on from it, this machine or a clone, finds in the
//! page a record that nobody else has got, and makes it its own before anything of the user runs.

use crate::{doorbell, identity, network};
use guest_protocol::{
    doorbell as bell,
    record::{PAGE_BYTES, Record, RecordError},
};
use rustix::time::{ClockId, clock_gettime};
use std::{io, time::Duration};

/// Why a guest cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FreezeError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("cannot become another machine: {0}")]
    Identity(#[from] io::Error),
}

/// A page of its own, so that the host's write copies no other data of the template.
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

const _: () = assert!(size_of::<Page>() == PAGE_BYTES && align_of::<Page>() == PAGE_BYTES);

/// Freezes; returns once this machine is itself. No stream of the host may be open.
pub(crate) fn freeze() -> Result<(), FreezeError> {
    let mut page = Box::new(Page([0; PAGE_BYTES]));
    let frozen_at = clock_gettime(ClockId::Monotonic);
    doorbell::freeze(&mut page.0);
    let record = Record::from_page(&page.0)?;
    // Nothing may draw a random number before.
    identity::seed_generator(record.seed)?;
    // The monotonic clock stood still with the processor, so what it has run is the time since the record was written.
    let since = Duration::try_from(clock_gettime(ClockId::Monotonic) - frozen_at).unwrap_or_default();
    identity::set_clock(record.wall_time_us + u64::try_from(since.as_micros()).unwrap_or(0))?;
    identity::renew_boot_id()?;
    if let Some(network) = &record.network {
        network::take(network)?;
    }
    doorbell::doorbell(bell::THAWED, u32::try_from(record.generation & 0x00ff_ffff).unwrap_or(0));
    Ok(())
}
