//! Copies of one message: which of them stands.
//!
//! Several people can sign one content, and what an envelope says of its time and channel is signed by nobody: several copies of one hash can all be
//! good. Of those that the rules accept, the one of the best rank stands, whichever came first; the others wait behind it.
//!
//! The owner's own copies go before those of others, so that nobody's copies keep the owner's out. Among them, the one whose envelope is closest in
//! time to its content, which is what wallets write. What is equal in that is told apart by a digest, which means nothing and is the same everywhere.

use super::{desk::CANDIDATE_BYTES, permission};
use ccn_message::{Envelope, envelope::ContentHeader};
use sha2::{Digest as _, Sha256};

/// Bytes that tell copies of one hash apart: those of everything but the content.
pub(super) fn candidate(envelope: &Envelope) -> [u8; CANDIDATE_BYTES] {
    let mut hasher = Sha256::new();
    let signature = envelope.signature.as_deref().unwrap_or("");
    for part in [&envelope.sender, envelope.chain.name(), &envelope.kind, signature] {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.update(envelope.time.to_bits().to_be_bytes());
    hasher.update([u8::from(envelope.channel.is_some())]);
    hasher.update(envelope.channel.as_deref().unwrap_or(""));
    let mut candidate = [0; CANDIDATE_BYTES];
    candidate.copy_from_slice(&hasher.finalize()[..CANDIDATE_BYTES]);
    candidate
}

/// The rank of a copy: the smaller, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    is_by_other: bool,
    /// Bits of a double that is not negative: they sort as it does.
    distance: u64,
    candidate: [u8; CANDIDATE_BYTES],
}

impl Rank {
    /// Of a copy whose content is here.
    pub(super) fn of(envelope: &Envelope, owner: &str, content_time: f64) -> Self {
        Self {
            is_by_other: !permission::is_same(&envelope.sender, owner),
            distance: (envelope.time - content_time).abs().to_bits(),
            candidate: candidate(envelope),
        }
    }

    /// Of a copy about whose content nothing is known yet, or what is known of it without looking for a file.
    pub(super) fn of_envelope(envelope: &Envelope) -> Self {
        let header = envelope.item_content.as_deref().and_then(|content| ContentHeader::parse(content).ok());
        match header {
            Some(header) => Self::of(envelope, &header.address, header.time),
            None => Self { is_by_other: true, distance: u64::MAX, candidate: candidate(envelope) },
        }
    }

    /// As it is kept.
    pub(super) fn to_record(self) -> (bool, u64, [u8; CANDIDATE_BYTES]) {
        (self.is_by_other, self.distance, self.candidate)
    }

    /// As it was kept.
    pub(super) fn of_record((is_by_other, distance, candidate): (bool, u64, [u8; CANDIDATE_BYTES])) -> Self {
        Self { is_by_other, distance, candidate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ccn_message::sign::{Account, Draft};

    fn account(number: u8) -> Account {
        Account::ethereum([number; 32]).expect("a key")
    }

    #[test]
    fn the_owner_comes_first_then_the_closest_time() {
        let owner = account(1);
        let draft = || Draft::new("POST", "{}").address(owner.address()).time(1000.0);
        let own = draft().sign(&owner);
        let rank = |envelope: &Envelope| Rank::of(envelope, owner.address(), 1000.0);
        let strangers = (2..6).map(|number| draft().sign(&account(number)));
        assert!(strangers.into_iter().all(|other| rank(&own) < rank(&other)));
        let mut late = own.clone();
        late.time = 1007.0;
        let mut early = own.clone();
        early.time = 998.0;
        assert!(rank(&own) < rank(&early) && rank(&early) < rank(&late));
        let mut elsewhere = own.clone();
        elsewhere.channel = Some("another".to_owned());
        assert_ne!(rank(&own), rank(&elsewhere));
        assert_eq!(rank(&own), Rank::of_envelope(&own), "what is inline is known");
    }
}
