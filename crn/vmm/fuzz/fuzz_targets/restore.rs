//! A device that takes any state as its own, well formed as it decodes, and then works for a guest.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use std::os::{fd::BorrowedFd, unix::net::UnixStream};
use vmm::{
    devices::{
        balloon::Balloon,
        block::Block,
        entropy::Entropy,
        network::{DEFAULT_RATES, Network},
        vsock::{Muxer, StreamRegistry, VsockDevice},
    },
    virtio::{device::Device, state::TransportState},
};
use vmm_fuzz::{
    guest::{Guest, Step},
    host::{Clock, Disk, Line, identity},
};

#[derive(Debug)]
struct Nobody;

impl StreamRegistry for Nobody {
    fn watch(&mut self, _: BorrowedFd<'_>, _: u32) {}
    fn accept(&mut self, _: u32) -> Option<UnixStream> {
        None
    }
}

#[derive(Debug, Arbitrary, Clone, Copy)]
enum Kind {
    Vsock,
    Entropy,
    Balloon,
    Network,
    Block,
}

/// Field by field what a transport's state is in a file, with any values.
#[derive(Debug, Arbitrary, Serialize)]
struct State {
    status: u32,
    interrupt_status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<Queue>,
    device: Own,
}

#[derive(Debug, Arbitrary, Serialize)]
struct Queue {
    next_avail: u16,
    next_used: u16,
    event_idx_enabled: bool,
    size: u16,
    ready: bool,
    desc_table: u64,
    avail_ring: u64,
    used_ring: u64,
}

#[derive(Debug, Arbitrary, Serialize)]
enum Own {
    Stateless,
    Vsock { next_host_port: u32, had_connections: bool },
}

#[derive(Debug, Arbitrary)]
struct Case {
    kind: Kind,
    state: State,
    /// A device that is up, of the right number of queues in memory; else the state is taken as it is.
    likely: bool,
    steps: Vec<Step>,
}

fuzz_target!(|case: Case| {
    let device = || -> Box<dyn Device> {
        match case.kind {
            Kind::Vsock => Box::new(VsockDevice::new(Muxer::new(3, vec![80]), Nobody)),
            Kind::Entropy => Box::new(Entropy::new(Clock::default())),
            Kind::Balloon => Box::new(Balloon::new()),
            Kind::Network => Box::new(Network::new(Line::default(), Clock::default(), identity(), DEFAULT_RATES)),
            Kind::Block => Box::new(Block::new(Disk::new(5000, false, false), 5000, 0, false)),
        }
    };
    let mut state = case.state;
    if case.likely {
        state.status = 15;
        state.driver_features &= device().features() | 1 << 28 | 1 << 29 | 1 << 32;
        state.queues.truncate(device().queue_sizes().len());
        while state.queues.len() < device().queue_sizes().len() {
            let start = 0x1_0000 + state.queues.len() as u64 * 0x4000;
            state.queues.push(Queue {
                next_avail: 0,
                next_used: 0,
                event_idx_enabled: false,
                size: 16,
                ready: true,
                desc_table: start,
                avail_ring: start + 0x1000,
                used_ring: start + 0x2000,
            });
        }
        for queue in &mut state.queues {
            queue.size = 1 << (queue.size % 5);
            (queue.desc_table, queue.avail_ring, queue.used_ring) =
                (queue.desc_table & 0x1_fff0, queue.avail_ring & 0x1_fffe, queue.used_ring & 0x1_fffc);
        }
    }
    let bytes = postcard::to_allocvec(&state).expect("it is short");
    let state: TransportState = postcard::from_bytes(&bytes).expect("the same fields");
    let mut guest = Guest::new(device());
    if guest.transport.restore(&state).is_ok() {
        guest.transport.take_up();
        guest.take(&case.steps, device);
    }
});
