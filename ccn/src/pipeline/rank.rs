//! Copies of one hash: which of them stands.
//!
//! What is signed is the chain, the sender, the type and the hash: these four are a message's *identity* (spec/network.md §2.1). One content can be signed
//! by several senders, on several chains, as several types; of such copies of a hash that the rules accept, the one of the best rank stands,
//! whichever came first, and the others wait behind it. The owner's own go before those of others, so that nobody's copies keep the owner's out; the rest is
//! told apart by a digest, which means nothing and is the same everywhere. Nothing counts in it that somebody without the sender's key can choose.
//!
//! Everything else of an envelope (`time`, `channel`, where the content is, the very bytes of the signature) can be altered by whoever relays it. Copies that
//! differ in nothing else are one message: the first that is accepted stands, and no other takes its place.

use super::{desk::CANDIDATE_BYTES, permission};
use crate::store::record::{EnvelopeRecord, MessageRecord};
use ccn_message::{Envelope, envelope::ContentHeader};
use sha2::{Digest as _, Sha256};

/// What tells copies of one hash apart.
pub(super) type Candidate = [u8; CANDIDATE_BYTES];

fn digest(parts: &[&str]) -> Candidate {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let mut candidate = [0; CANDIDATE_BYTES];
    candidate.copy_from_slice(&hasher.finalize()[..CANDIDATE_BYTES]);
    candidate
}

/// Under what a copy waits: its identity, and where its content is, so that one whose content is elsewhere takes no place from one that has it.
pub(super) fn candidate(envelope: &Envelope) -> Candidate {
    digest(&[&envelope.sender, envelope.chain.name(), &envelope.kind, envelope.item_type.name()])
}

/// The identity of a message that stands, beside its hash.
pub(super) fn identity(envelope: &EnvelopeRecord) -> Candidate {
    digest(&[&envelope.sender, envelope.chain(), &envelope.kind])
}

/// True for a copy with the identity of the stored one: the same message.
pub(super) fn is_same_message(envelope: &Envelope, stored: &EnvelopeRecord) -> bool {
    envelope.sender == stored.sender && envelope.kind == stored.kind && envelope.chain.name() == stored.chain()
}

/// True for the stored message with the very signature under which it stands: that one needs no other look at it.
pub(super) fn is_stored(envelope: &Envelope, stored: &MessageRecord) -> bool {
    envelope.signature == stored.envelope.signature && is_same_message(envelope, &stored.envelope)
}

/// Whose a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Author {
    Owner,
    Other,
    /// The content, which says who the owner is, is not here.
    Unknown,
}

/// The rank of a copy: the smaller, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    author: Author,
    candidate: Candidate,
}

impl Rank {
    /// Of a copy whose content is here.
    pub(super) fn of(envelope: &Envelope, owner: &str) -> Self {
        let author = if permission::is_same(&envelope.sender, owner) { Author::Owner } else { Author::Other };
        Self { author, candidate: candidate(envelope) }
    }

    /// Of a copy about whose content nothing is known yet, or what is known of it without looking for a file.
    pub(super) fn of_envelope(envelope: &Envelope) -> Self {
        let header = envelope.item_content.as_deref().and_then(|content| ContentHeader::parse(content).ok());
        match header {
            Some(header) => Self::of(envelope, &header.address),
            None => Self { author: Author::Unknown, candidate: candidate(envelope) },
        }
    }

    /// True for a copy of the owner's own.
    pub(super) fn is_by_owner(self) -> bool {
        self.author == Author::Owner
    }

    /// True when it is known whose it is.
    pub(super) fn is_known(self) -> bool {
        self.author != Author::Unknown
    }

    /// As it is kept.
    pub(super) fn to_record(self) -> (u8, Candidate) {
        (self.author as u8, self.candidate)
    }

    /// As it was kept.
    pub(super) fn of_record((author, candidate): (u8, Candidate)) -> Self {
        let author = match author {
            0 => Author::Owner,
            1 => Author::Other,
            _ => Author::Unknown,
        };
        Self { author, candidate }
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
    fn the_owner_comes_first_and_what_nobody_signs_counts_for_nothing() {
        let owner = account(1);
        let draft = || Draft::new("POST", "{}").address(owner.address()).time(1000.0);
        let own = draft().sign(&owner);
        let rank = |envelope: &Envelope| Rank::of(envelope, owner.address());
        let strangers = (2..6).map(|number| draft().sign(&account(number)));
        assert!(strangers.into_iter().all(|other| rank(&own) < rank(&other)));
        assert_eq!(rank(&own), Rank::of_envelope(&own), "what is inline is known");
        let mut altered = own.clone();
        altered.time = 1007.0;
        altered.channel = Some("another".to_owned());
        altered.signature = Some("0x00".to_owned());
        assert_eq!(rank(&own), rank(&altered));
        altered.item_content = None;
        let hollow = Rank::of_envelope(&altered);
        assert!(!hollow.is_known() && rank(&own) < hollow);
        assert_eq!(Rank::of_record(hollow.to_record()), hollow);
    }
}
