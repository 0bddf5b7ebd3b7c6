//! A guest that writes registers as it likes, before its device is up and afterwards.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm::{
    devices::{balloon::Balloon, block::Block, entropy::Entropy},
    virtio::device::Device,
};
use vmm_fuzz::{
    guest::{Guest, Setup, Step},
    host::{Clock, Disk},
};

#[derive(Debug, Arbitrary, Clone, Copy)]
enum Kind {
    Block,
    Entropy,
    Balloon,
}

#[derive(Debug, Arbitrary)]
struct Case {
    kind: Kind,
    setup: Option<Setup>,
    steps: Vec<Step>,
}

fuzz_target!(|case: Case| {
    let device = || -> Box<dyn Device> {
        match case.kind {
            Kind::Block => Box::new(Block::new(Disk::new(5000, false, false), 5000, 0, false)),
            Kind::Entropy => Box::new(Entropy::new(Clock::default())),
            Kind::Balloon => Box::new(Balloon::new()),
        }
    };
    let mut guest = match case.setup {
        Some(setup) => Guest::up(device(), setup),
        None => Guest::new(device()),
    };
    guest.take(&case.steps, device);
});
