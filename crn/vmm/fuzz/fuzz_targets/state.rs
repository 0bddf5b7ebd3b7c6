//! State files: any bytes are a precise error, or a state that comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm::snapshot::{MachineState, STATE_VERSION};

fuzz_target!(|bytes: &[u8]| {
    let _ = MachineState::from_bytes(bytes);
    // And as the body of a file whose header is right.
    let mut file = b"BETHSNAP".to_vec();
    file.extend(STATE_VERSION.to_le_bytes());
    let body = bytes.strip_prefix(&file[..]).and_then(|rest| rest.get(4..)).unwrap_or(bytes);
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(body);
    if let Ok(state) = MachineState::from_bytes(&file) {
        // A structure of KVM that was cut off is filled up with zeros, so that what is written can be longer than what was read.
        let Ok(again) = state.to_bytes() else {
            return;
        };
        let same = MachineState::from_bytes(&again).expect("what was written can be read");
        assert_eq!(same.to_bytes().expect("as before"), again);
        let _ = state.config.check();
        if state.config.vcpus == 1 {
            state.check_config(&same.config).expect("it is the same machine");
        }
    }
});
