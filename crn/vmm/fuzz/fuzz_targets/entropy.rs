//! Requests for random bytes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm::{
    devices::entropy::Entropy,
    virtio::device::{Device, Event},
};
use vmm_fuzz::{
    guest::{Guest, Setup, Step},
    host::Clock,
};

#[derive(Debug, Arbitrary)]
enum Action {
    /// Time passes until the device's alarm, if one is set.
    Wait,
    Any(Step),
}

#[derive(Debug, Arbitrary)]
struct Case {
    setup: Setup,
    actions: Vec<Action>,
}

fuzz_target!(|case: Case| {
    let clock = Clock::default();
    let device = || -> Box<dyn Device> { Box::new(Entropy::new(clock.clone())) };
    let mut guest = Guest::up(device(), case.setup);
    for action in case.actions.iter().take(64) {
        match action {
            Action::Wait => {
                if clock.pass() {
                    guest.event(Event::Descriptor(0));
                }
            }
            Action::Any(step) => guest.step(step, device),
        }
    }
    guest.transport.settle(32);
});
