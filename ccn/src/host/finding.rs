//! What an indexer of chains answers, checked against its manifest and the bounds of the contract, in the words of the store.

use super::{
    indexing,
    manifest::Limits,
    outcome::{self, Overrun, Write, at_most},
};
use ccn_message::{Amount, ItemHash};

/// Most findings of a block or an archive, writes apart.
const MAX_FINDINGS: usize = 200_000;
/// Longest name of who published something, bytes.
const MAX_PUBLISHER_BYTES: usize = 128;
/// Longest message, bytes: as much as fits inline in any writing, and its envelope.
const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// Longest word of a contract's message, bytes.
const MAX_WORD_BYTES: usize = 256;

/// What an event means, with who says so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Which event of the batch.
    pub(crate) event: u32,
    /// Who published it.
    pub(crate) publisher: String,
    /// What it means.
    pub(crate) meaning: Meaning,
}

/// What an event means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    /// A change of the indexer's state.
    Write(Write),
    /// Tokens that an address holds on this chain.
    Balance(String, Amount),
    /// A message is confirmed.
    Confirmation(ItemHash),
    /// A signed message, JSON text; it is confirmed.
    Message(String),
    /// A message that a contract vouches for.
    Vouched(Vouched),
    /// A file to fetch and unpack.
    Archive(ItemHash),
}

/// A message without a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vouched {
    /// Who called the contract.
    pub(crate) sender: String,
    /// The message type.
    pub(crate) kind: String,
    /// The content, JSON text.
    pub(crate) content: String,
}

/// Checks what a block's events mean. What it writes begins with the name of its chain: one chain's state is a function of that chain.
pub(super) fn decoded(
    records: Vec<indexing::RecordOf>,
    events: usize,
    prefix: &[u8],
    limits: &Limits,
    may_move: bool,
) -> Result<Vec<Found>, Overrun> {
    let mut written = Vec::new();
    let mut found = Vec::new();
    let mut places = Vec::new();
    for indexing::RecordOf { event, publisher, what } in records {
        if event as usize >= events {
            return Err(format!("it speaks of event {event}, and there are {events}"));
        }
        at_most("bytes in the name of a publisher", publisher.len(), MAX_PUBLISHER_BYTES)?;
        match what {
            indexing::Finding::Write(write) if !write.key.starts_with(prefix) => {
                return Err("it writes a key that does not begin with the name of its chain".to_owned());
            }
            indexing::Finding::Write(write) => {
                places.push((event, publisher));
                written.push(write);
            }
            other => found.push(Found { event, publisher, meaning: meaning(other, may_move)? }),
        }
    }
    at_most("findings", found.len(), MAX_FINDINGS)?;
    let writes = outcome::writes(written, limits)?;
    let writes = writes.into_iter().zip(places);
    found.extend(writes.map(|(write, (event, publisher))| Found { event, publisher, meaning: Meaning::Write(write) }));
    Ok(found)
}

/// Checks what an archive holds: confirmations and messages, nothing else.
pub(super) fn unpacked(findings: Vec<indexing::Finding>) -> Result<Vec<Meaning>, Overrun> {
    at_most("findings", findings.len(), MAX_FINDINGS)?;
    let one = |finding| match meaning(finding, false)? {
        meaning @ (Meaning::Confirmation(_) | Meaning::Message(_)) => Ok(meaning),
        _ => Err("an archive holds confirmations and messages, and nothing else".to_owned()),
    };
    findings.into_iter().map(one).collect()
}

fn meaning(finding: indexing::Finding, may_move: bool) -> Result<Meaning, Overrun> {
    Ok(match finding {
        indexing::Finding::Write(write) => Meaning::Write((write.key, write.value)),
        indexing::Finding::Balance(_) if !may_move => {
            return Err("it publishes balances, and was not granted `ledger`".to_owned());
        }
        indexing::Finding::Balance(balance) => {
            at_most("bytes in an address", balance.address.len(), MAX_PUBLISHER_BYTES)?;
            Meaning::Balance(balance.address, outcome::amount(&balance.balance)?)
        }
        indexing::Finding::Confirmation(hash) => Meaning::Confirmation(outcome::hash(&hash)?),
        indexing::Finding::Message(text) => {
            at_most("bytes in a message", text.len(), MAX_MESSAGE_BYTES)?;
            Meaning::Message(text)
        }
        indexing::Finding::ContractMessage(message) => {
            let indexing::ContractMessage { sender, kind, content } = message;
            at_most("bytes in a sender", sender.len(), MAX_WORD_BYTES)?;
            at_most("bytes in a message type", kind.len(), MAX_WORD_BYTES)?;
            at_most("bytes in a message", content.len(), MAX_MESSAGE_BYTES)?;
            Meaning::Vouched(Vouched { sender, kind, content })
        }
        indexing::Finding::Archive(hash) => Meaning::Archive(outcome::hash(&hash)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::contract;

    const LIMITS: Limits = Limits { fuel: 1, memory_mib: 1, write_kib: 1, writes: 2 };

    fn check(event: u32, publisher: &str, what: indexing::Finding, expect: Result<(), &str>) {
        let record = indexing::RecordOf { event, publisher: publisher.to_owned(), what };
        let found = decoded(vec![record], 1, b"ETH\0", &LIMITS, false);
        match (found, expect) {
            (Ok(found), Ok(())) => assert_eq!(found.len(), 1),
            (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
            (found, expect) => panic!("{found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn findings_are_held_against_the_contract() {
        let write = |key: &[u8], bytes| {
            indexing::Finding::Write(contract::Write { key: key.to_vec(), value: Some(vec![0; bytes]) })
        };
        let balance = indexing::TokenBalance { address: "0xA".into(), balance: "1".into() };
        check(0, "", write(b"ETH\0a", 1), Ok(()));
        check(1, "", write(b"ETH\0a", 1), Err("speaks of event 1"));
        check(0, "", write(b"BSC\0a", 1), Err("name of its chain"));
        check(0, "", write(b"ETH\0a", 2000), Err("bytes written"));
        check(0, &"x".repeat(200), write(b"ETH\0a", 1), Err("name of a publisher"));
        check(0, "", indexing::Finding::Balance(balance), Err("not granted"));
        check(0, "", indexing::Finding::Archive("x".into()), Err(""));
        check(0, "", indexing::Finding::Message("x".repeat(MAX_MESSAGE_BYTES + 1)), Err("bytes in a message"));
        let inside = unpacked(vec![write(b"ETH\0a", 1)]);
        assert!(inside.is_err_and(|error| error.contains("nothing else")));
    }
}
