//! Requests to a disk: never beyond its end, never a write to one that is only read.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm::{devices::block::Block, virtio::device::Device};
use vmm_fuzz::{
    guest::{Guest, Part, Setup, Step},
    host::Disk,
};

/// A request as drivers make them, or nearly.
#[derive(Debug, Arbitrary)]
struct Request {
    kind: u8,
    sector: u16,
    data: Vec<Part>,
    status: Option<u16>,
}

#[derive(Debug, Arbitrary)]
enum Action {
    Request(Request),
    Any(Step),
}

#[derive(Debug, Arbitrary)]
struct Case {
    length: u16,
    broken: bool,
    read_only: bool,
    setup: Setup,
    actions: Vec<Action>,
}

fuzz_target!(|case: Case| {
    let (length, read_only) = (case.length, case.read_only);
    let device = || -> Box<dyn Device> {
        let disk = Disk::new(length, case.broken, read_only);
        Box::new(Block::new(disk, u64::from(length), 0, read_only))
    };
    let mut guest = Guest::up(device(), case.setup);
    for action in case.actions.into_iter().take(64) {
        match action {
            Action::Any(step) => guest.step(&step, device),
            Action::Request(request) => {
                let mut header = [0; 16];
                header[0] = request.kind % 12;
                header[8..10].copy_from_slice(&request.sector.to_le_bytes());
                let mut parts = vec![Part { place: 0, length: 16, kind: 1 }];
                parts.extend(request.data.into_iter().take(8));
                parts.extend(request.status.map(|place| Part { place, length: 1, kind: 255 }));
                guest.chain(0, false, &parts, &header);
                guest.step(&Step::Notify(0), device);
            }
        }
    }
    guest.transport.settle(32);
});
