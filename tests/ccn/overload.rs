//! More clients than there is room for: nobody takes what others need, and who is refused is told when to come again.

use crate::stage;
use anyhow::{Result, ensure};
use harness::{
    devnet::CoreNode,
    overload::{self, Load, Outcome},
};

/// As many as the node takes by default, and many more uploads than that.
const LOAD: Load = Load { websockets: 10_000, uploads: 1000, readers: 200 };
/// Places for uploads by default.
const UPLOADS: usize = 64;
/// What the load may take, KiB: answers that wait (128 MiB), as many answers being made as are made at once, and what idle connections hold.
const MOST_MORE_KIB: u64 = 1 << 20;

pub(super) fn bounds() -> Result<()> {
    let folder = stage::folder("overload")?;
    let mut node = CoreNode::start(stage::installation(), &folder, &["--dev".to_owned()])?;
    let report = overload::run(&node, LOAD, |_| ())?;
    println!("{report:?}");
    let Outcome { served, refused, other } = report.websockets;
    ensure!(served == LOAD.websockets && refused + other == 0, "websockets: {:?}", report.websockets);
    ensure!(report.is_one_more_refused, "one websocket too many is not closed with 1013");
    let Outcome { served, refused, other } = report.uploads;
    ensure!(served == UPLOADS && refused == LOAD.uploads - UPLOADS && other == 0, "uploads: {:?}", report.uploads);
    let Outcome { served, refused, other } = report.readers;
    ensure!(served > 0 && served + refused == LOAD.readers && other == 0, "readers: {:?}", report.readers);
    let more = report.resident_kib_most.saturating_sub(report.resident_kib_before);
    ensure!(more < MOST_MORE_KIB, "the load took {more} KiB");
    // What was taken is given back, and the node ends as ever.
    node.stop()
}
