//! Packets of the control socket, with descriptors beside them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use std::{
    fmt::Debug,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
};
use vmm::control::{self, Notice, Request, VERSION};

/// Sends a packet as it is with descriptors beside it, and reads it.
fn receive<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(
    packet: &[u8],
    descriptors: usize,
) -> Option<T> {
    let (ours, theirs) = pair();
    let beside = vec![theirs.as_fd(); descriptors];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if descriptors > 0 {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&beside)));
    }
    sendmsg(&ours, &[IoSlice::new(packet)], &mut ancillary, SendFlags::empty()).ok()?;
    let (message, received) = control::receive::<T>(&theirs).ok()?;
    assert_eq!(received.len(), descriptors, "a descriptor is lost");
    // What was understood is said and understood again.
    let (ours, theirs) = pair();
    if control::send(&ours, &message, &[]).is_ok() {
        let (again, _) = control::receive::<T>(&theirs).expect("our own words");
        assert_eq!(again, message);
    }
    Some(message)
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket pair")
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let mut packet = vec![if first & 0x40 == 0 { VERSION } else { *first }];
    packet.extend(rest);
    let descriptors = usize::from(first & 0x3f);
    match receive::<Request>(&packet, descriptors) {
        Some(Request::Start(config)) if config.check().is_ok() => {
            assert!(config.descriptors().len() <= control::MAX_DESCRIPTORS);
        }
        Some(Request::Restore(restore)) if restore.config.check().is_ok() => {
            assert!(restore.config.restore_descriptors().len() <= control::MAX_DESCRIPTORS);
        }
        _ => {}
    }
    receive::<Notice>(&packet, descriptors);
});
