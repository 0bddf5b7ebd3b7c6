//! A name server with one answer, for networks that tests make inside the host.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
};

/// The word that makes this program answer for names.
pub const NAMES: &str = "names";
/// Longest question that is read, bytes (RFC 1035).
const MAX_QUESTION_BYTES: usize = 512;
/// Length of a message's header.
const HEADER_BYTES: usize = 12;
/// The kind of question that gets an address.
const ADDRESS: [u8; 2] = [0, 1];

/// Serves for ever. `arguments`: where to listen, and the address that each name has.
///
/// # Errors
/// The address to listen on is not this host's.
pub fn serve(arguments: &[String]) -> io::Result<()> {
    let wrong = || io::Error::other("usage: kvm-host names ADDRESS:PORT ANSWER");
    let [listen, answer] = arguments else { return Err(wrong()) };
    let answer: Ipv4Addr = answer.parse().map_err(|_| wrong())?;
    let socket = UdpSocket::bind(listen)?;
    let mut question = [0; MAX_QUESTION_BYTES];
    loop {
        let (bytes, from) = socket.recv_from(&mut question)?;
        if let Some(answer) = answered(&question[..bytes], answer) {
            // Who asked may be gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// The answer to a message with one question: the address to one for an address, nothing to any other.
fn answered(question: &[u8], answer: Ipv4Addr) -> Option<Vec<u8>> {
    let mut end = HEADER_BYTES;
    while *question.get(end)? != 0 {
        end += usize::from(question[end]) + 1;
    }
    // Behind the name: its end, kind and class.
    let asked = question.get(HEADER_BYTES..end + 5)?;
    let found = asked.get(asked.len() - 4..asked.len() - 2)? == ADDRESS;
    let mut message = question[..2].to_vec();
    // An answer, recursion is there; one question, perhaps one answer.
    message.extend([0x81, 0x80, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    message.extend_from_slice(asked);
    if found {
        // The name of the question, the same kind and class, for a minute, four bytes.
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend(answer.octets());
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: u8) -> Vec<u8> {
        let mut bytes = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(b"\x07example\x04test\x00");
        bytes.extend([0, kind, 0, 1]);
        bytes
    }

    #[test]
    fn a_name_has_an_address_and_nothing_else() {
        let address = Ipv4Addr::new(198, 51, 100, 7);
        let answer = answered(&question(1), address).expect("an answer");
        assert_eq!((&answer[..2], answer[7]), (&[7, 8][..], 1));
        assert!(answer.ends_with(&[0, 4, 198, 51, 100, 7]));
        let answer = answered(&question(28), address).expect("an answer");
        assert_eq!((answer[7], &answer[HEADER_BYTES..]), (0, &question(28)[HEADER_BYTES..]));
    }

    #[test]
    fn no_bytes_are_a_panic() {
        let whole = question(1);
        for length in 0..whole.len() {
            assert_eq!(answered(&whole[..length], Ipv4Addr::LOCALHOST), None, "{length}");
        }
        assert_eq!(answered(&[255; 300], Ipv4Addr::LOCALHOST), None);
    }
}
