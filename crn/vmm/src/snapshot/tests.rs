//! The state file: its bytes, and what is made of wrong ones.

use super::*;
use crate::{
    config::{Disk, Net, Vsock},
    devices::network::DEFAULT_RATES,
    virtio::state::{DeviceState, QueueRecord},
};
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT as _};

/// The bytes of version 1. A change of them is a new [`STATE_VERSION`], with a file of its own.
const GOLDEN: &str = include_str!("../../../../tests/goldens/machine-state-1.txt");

/// A state with something in every part of it.
fn state() -> MachineState {
    let mut config = Config::new(128, 1);
    config.disks = vec![Disk { read_only: true }, Disk { read_only: false }];
    config.vsock = Some(Vsock { guest_cid: 3, accept_ports: vec![80] });
    let device = TransportState {
        status: 15,
        interrupt_status: 1,
        device_features_sel: 1,
        driver_features_sel: 1,
        driver_features: 1 << 32,
        queue_sel: 2,
        queues: vec![QueueRecord::of(&Queue::new(16).expect("a queue"))],
        device: DeviceState::Vsock { next_host_port: 1 << 30, had_connections: true },
    };
    MachineState {
        config,
        supported_cpuid: vec![kvm_cpuid_entry2 { function: 1, ebx: 0x0200_0800, ..Default::default() }],
        processor: ProcessorState::for_test(),
        chips: ChipState::for_test(),
        devices: vec![device],
        record_gpa: 0x7000,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_state_file_is_what_it_was() {
    let bytes = state().to_bytes().expect("it is short");
    let golden: String = GOLDEN.lines().collect();
    assert_eq!(hex(&bytes), golden, "a change of the file needs another version");
    let again = MachineState::from_bytes(&bytes).expect("it is one");
    assert_eq!(again.to_bytes().expect("it is short"), bytes);
    let file = tempfile::tempfile().expect("a file");
    state().write(&file).expect("written");
    assert_eq!(MachineState::read(&file).expect("read").record_gpa, 0x7000);
}

#[test]
fn a_file_that_is_none_is_named() {
    let bytes = state().to_bytes().expect("it is short");
    let read = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        MachineState::from_bytes(&bytes).expect_err("refused")
    };
    assert!(matches!(read(&|bytes| bytes.clear()), SnapshotError::Magic));
    assert!(matches!(read(&|bytes| bytes[0] = b'b'), SnapshotError::Magic));
    assert!(matches!(read(&|bytes| bytes[8] = 99), SnapshotError::Version(99)));
    assert!(matches!(read(&|bytes| bytes.push(0)), SnapshotError::Length(_)));
    assert!(matches!(read(&|bytes| bytes.truncate(100)), SnapshotError::Length(_)));
    assert!(matches!(read(&|bytes| bytes[12..16].fill(0xff)), SnapshotError::Length(_)));
}

#[test]
fn a_state_of_another_host_or_machine_is_refused() {
    let state = state();
    let supported = |entries: &[kvm_cpuid_entry2]| CpuId::from_entries(entries).expect("a table");
    // Only the processor of the host differs that asked.
    let mut entries = state.supported_cpuid.clone();
    entries[0].ebx |= 7 << 24;
    assert!(state.check_processor(&supported(&entries)).is_ok());
    entries[0].ecx ^= 1;
    assert!(matches!(state.check_processor(&supported(&entries)), Err(SnapshotError::Processor { leaf: 1 })));
    assert!(matches!(state.check_processor(&supported(&[])), Err(SnapshotError::Processor { .. })));

    assert!(state.check_config(&state.config).is_ok());
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = state.config.clone();
        change(&mut config);
        matches!(state.check_config(&config), Err(SnapshotError::Shape(_)))
    };
    assert!(refused(&|config| config.memory_mib = 256));
    assert!(refused(&|config| config.vcpus = 2));
    assert!(refused(&|config| config.disks.truncate(1)));
    assert!(refused(&|config| config.vsock = None));
    assert!(!refused(&|config| config.measure_memory = true));
}

/// A clone has addresses of its own on the card of its template.
#[test]
fn a_clones_card_is_its_templates_under_other_addresses() {
    let net = |mac, address: [u8; 4]| Net { mac, addresses: vec![address.into()], rates: DEFAULT_RATES };
    let mut state = state();
    state.config.nets = vec![net([2, 0, 0, 0, 0, 1], [172, 16, 0, 2])];
    let check = |nets| {
        let mut config = state.config.clone();
        config.nets = nets;
        state.check_config(&config)
    };
    assert!(check(vec![net([2, 0, 0, 0, 0, 1], [172, 16, 0, 6])]).is_ok());
    for other in [vec![], vec![net([2, 0, 0, 0, 0, 2], [172, 16, 0, 2])], vec![state.config.nets[0].clone(); 2]] {
        assert!(matches!(check(other), Err(SnapshotError::Shape(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is in a file, it is answered by a state or a precise error, and nothing large is allocated for it.
    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..8000_usize, with: u8) {
        let mut framed = state().to_bytes().expect("it is short")[..HEADER_BYTES].to_vec();
        framed[12..16].copy_from_slice(&u32::try_from(bytes.len()).expect("short").to_le_bytes());
        framed.extend(&bytes);
        let _ = MachineState::from_bytes(&framed);
        let mut changed = state().to_bytes().expect("it is short");
        let at = HEADER_BYTES + at % (changed.len() - HEADER_BYTES);
        changed[at] = with;
        let _ = MachineState::from_bytes(&changed);
    }
}
