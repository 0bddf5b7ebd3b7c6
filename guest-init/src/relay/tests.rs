use super::*;
use proptest::prelude::*;
use std::os::{fd::OwnedFd, unix::net::UnixStream};

/// A relay between two ends that tests hold.
fn relay() -> (Relay, UnixStream, UnixStream) {
    let pair = || {
        let (inner, outer) = UnixStream::pair().expect("a pair");
        inner.set_nonblocking(true).expect("non-blocking");
        outer.set_nonblocking(true).expect("non-blocking");
        (File::from(OwnedFd::from(inner)), outer)
    };
    let (host, host_end) = pair();
    let (program, program_end) = pair();
    (Relay::new(host, program), host_end, program_end)
}

/// Lets the relay work as if everything were ready, until it waits or is over.
fn pump(relay: &mut Relay) -> Turn {
    let mut chunk = vec![0; CHUNK_BYTES];
    for which in [Which::Host, Which::Program] {
        relay.ready(which, true, true);
    }
    loop {
        match relay.pump(&mut chunk) {
            Turn::More => {}
            turn => return turn,
        }
    }
}

fn read_all(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65536];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..read]);
    }
    bytes
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    let (mut relay, mut host, mut program) = relay();
    host.write_all(b"request").expect("a write");
    host.shutdown(std::net::Shutdown::Write).expect("an end");
    assert_eq!(pump(&mut relay), Turn::Waits);
    assert_eq!(read_all(&program), b"request");
    assert_eq!(program.read(&mut [0; 1]).expect("the end"), 0);
    program.write_all(b"answer").expect("a write");
    assert_eq!(pump(&mut relay), Turn::Waits);
    assert_eq!(read_all(&host), b"answer");
    drop(program);
    assert_eq!(pump(&mut relay), Turn::Over);
}

#[test]
fn a_program_that_is_gone_ends_the_stream() {
    let (mut relay, mut host, program) = relay();
    host.write_all(b"request").expect("a write");
    assert_eq!(pump(&mut relay), Turn::Waits);
    drop(program);
    assert_eq!(pump(&mut relay), Turn::Over);
    drop(relay);
    assert!(matches!(host.read(&mut [0; 1]), Ok(0)));
}

#[test]
fn a_host_that_is_gone_is_passed_on() {
    let (mut relay, host, program) = relay();
    drop(host);
    pump(&mut relay);
    assert!(matches!((&program).read(&mut [0; 1]), Ok(0)));
}

/// A reader that does not read makes the relay stop reading, with one chunk at most in its hands.
#[test]
fn what_waits_is_bounded() {
    let (mut relay, host, program) = relay();
    let block = vec![7; 1 << 16];
    let mut sent = 0;
    for _ in 0..200 {
        if let Ok(written) = (&host).write(&block) {
            sent += written;
        }
        pump(&mut relay);
        assert!(relay.to_program.waiting.len() <= CHUNK_BYTES);
    }
    let mut received = 0;
    loop {
        let read = read_all(&program).len();
        received += read;
        pump(&mut relay);
        if read == 0 {
            break;
        }
    }
    assert_eq!(sent, received);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of writes, reads and turns, each side gets what the other has sent, in order.
    #[test]
    fn bytes_arrive_in_order(steps in proptest::collection::vec((0_u8..4, 1_usize..50_000), 1..60)) {
        let (mut relay, host, program) = relay();
        let ends = [&host, &program];
        let mut sent = [Vec::new(), Vec::new()];
        let mut got = [Vec::new(), Vec::new()];
        for (index, (step, length)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => {
                    let from = usize::from(step);
                    let block: Vec<u8> = (0..length).map(|offset| (index * 31 + offset) as u8).collect();
                    if let Ok(written) = { ends[from] }.write(&block) {
                        sent[from].extend_from_slice(&block[..written]);
                    }
                }
                2 => { pump(&mut relay); }
                _ => {
                    let to = length % 2;
                    got[to].extend(read_all(ends[to]));
                }
            }
        }
        for _ in 0..100 {
            pump(&mut relay);
            got[0].extend(read_all(&host));
            got[1].extend(read_all(&program));
        }
        prop_assert_eq!(&sent[0], &got[1]);
        prop_assert_eq!(&sent[1], &got[0]);
    }
}
