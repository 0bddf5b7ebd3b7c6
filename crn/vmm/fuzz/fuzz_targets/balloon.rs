//! Reports of free memory, and page numbers.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm::{devices::balloon::Balloon, virtio::device::Device};
use vmm_fuzz::guest::{Guest, Setup, Step};

#[derive(Debug, Arbitrary)]
struct Case {
    setup: Setup,
    steps: Vec<Step>,
}

fuzz_target!(|case: Case| {
    let device = || -> Box<dyn Device> { Box::new(Balloon::new()) };
    let mut guest = Guest::up(device(), case.setup);
    guest.take(&case.steps, device);
});
