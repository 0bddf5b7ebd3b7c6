//! What a decision rests on: questions with their answers, asked again when something has changed.
//!
//! Every question is asked as of the position of the message that is decided, so that the answers are a function of the set of messages. When all
//! answers are as they were, nothing has to be decided anew: that is what makes a change end somewhere.

use super::{
    permission::{self, Act},
    rank,
};
use crate::{
    host,
    store::{
        Batch, Reader, Row, StoreError,
        record::{CreditRecord, FactRecord, MessageRecord, NeedRecord, Question, Record as _},
        schema::Table,
        standing::{self, Fate, Position},
    },
};
use ccn_message::ItemHash;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes by which values of state are told apart.
const VALUE_BYTES: usize = 16;

/// Whom a question concerns: a message that is decided, or was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) sender: &'a str,
    pub(super) act: &'a Act<'a>,
    pub(super) at: &'a Position,
}

/// The row of `needs` by which a change of the answer is noticed.
pub(super) fn need(question: &Question, hash: &ItemHash) -> NeedRecord {
    match question {
        Question::Fate(other) | Question::Forgetters(other) => NeedRecord::Message(other.clone()),
        Question::InUse(other) => NeedRecord::InUse(other.clone()),
        Question::May(owner, _) => NeedRecord::Delegation(owner.clone()),
        Question::State(namespace, key) => NeedRecord::State(namespace.clone(), key.clone()),
        Question::Covered => NeedRecord::Covered(hash.to_string()),
    }
}

/// What became of a message, as a fact.
pub(super) fn fate(hash: &ItemHash, found: &(Fate, Option<MessageRecord>)) -> FactRecord {
    FactRecord { question: Question::Fate(hash.to_string()), answer: fate_answer(found) }
}

/// What became of it, and of several copies, which it is.
fn fate_answer((fate, record): &(Fate, Option<MessageRecord>)) -> Vec<u8> {
    let fate = match fate {
        Fate::Unknown => 0,
        Fate::Standing => 1,
        Fate::Forgotten => 2,
    };
    let identity = record.as_ref().map(|record| rank::identity(&record.envelope));
    std::iter::once(fate).chain(identity.into_iter().flatten()).collect()
}

/// Those that hide a message, as far as they are not earlier than the asker: by them whoever follows it is hidden, too.
///
/// # Errors
/// The store fails.
pub(super) fn later_forgetters(
    reader: &dyn Reader,
    leader: &ItemHash,
    at: &Position,
) -> Result<Vec<Position>, StoreError> {
    let all = match standing::forgotten(reader, leader)? {
        Some(record) => standing::hidden_by(reader, leader, &record)?,
        None => standing::forgetters(reader, leader)?,
    };
    Ok(all.into_iter().filter(|position| position >= at).collect())
}

/// Those that hide a message, as an answer.
pub(super) fn forgetters_answer(positions: &[Position]) -> Vec<u8> {
    Sha256::digest(positions.iter().map(Position::bytes).collect::<Vec<_>>().concat()).to_vec()
}

/// The value of a key of state, as an answer.
///
/// # Errors
/// The store fails.
pub(super) fn state(reader: &dyn Reader, namespace: &str, key: &[u8]) -> Result<Vec<u8>, StoreError> {
    let value = reader.get(Table::State, &host::state_key(namespace, key))?;
    Ok(value.map_or(Vec::new(), |value| Sha256::digest(value)[..VALUE_BYTES].to_vec()))
}

/// Asks.
///
/// # Errors
/// The store fails.
pub(super) fn ask(reader: &dyn Reader, asker: Asker<'_>, question: &Question) -> Result<Vec<u8>, StoreError> {
    let parse = |text: &str| ItemHash::parse(text).ok();
    Ok(match question {
        Question::Fate(other) => match parse(other) {
            Some(other) => fate_answer(&standing::message(reader, &other, Some(asker.at))?),
            None => fate_answer(&(Fate::Unknown, None)),
        },
        Question::Forgetters(other) => match parse(other) {
            Some(other) => forgetters_answer(&later_forgetters(reader, &other, asker.at)?),
            None => Vec::new(),
        },
        Question::InUse(other) => match parse(other) {
            Some(other) => vec![u8::from(standing::in_use(reader, &other, asker.at)?)],
            None => vec![0],
        },
        Question::May(_, None) => vec![u8::from(permission::may(reader, asker.sender, asker.act, asker.at)?)],
        Question::May(_, Some(other)) => {
            let target = match parse(other) {
                Some(other) => standing::message(reader, &other, Some(asker.at))?.1.map(|record| (other, record)),
                None => None,
            };
            let may = match target {
                Some((other, record)) => permission::may_undo(reader, asker.sender, &other, &record, asker.at)?,
                None => false,
            };
            vec![u8::from(may)]
        }
        Question::State(namespace, key) => state(reader, namespace, key)?,
        Question::Covered => {
            let row = reader.get(Table::Credits, asker.at.bytes())?;
            let covered = row.map(|row| CreditRecord::read(&row)).transpose()?.is_some_and(|record| record.covered);
            vec![u8::from(covered)]
        }
    })
}

/// The facts as they are now.
///
/// # Errors
/// The store fails.
pub(super) fn as_of_now(
    reader: &dyn Reader,
    hash: &ItemHash,
    record: &MessageRecord,
    facts: &[FactRecord],
) -> Result<Vec<FactRecord>, StoreError> {
    let act = Act::of_record(record);
    let at = Position::of(hash, record);
    let asker = Asker { sender: &record.envelope.sender, act: &act, at: &at };
    let now = |fact: &FactRecord| {
        Ok(FactRecord { question: fact.question.clone(), answer: ask(reader, asker, &fact.question)? })
    };
    facts.iter().map(now).collect()
}

/// True when nothing but values of state is different: they are not as of a position, so whether they matter is for the plugin to say.
pub(super) fn differ_in_state_alone(before: &[FactRecord], now: &[FactRecord]) -> bool {
    before.iter().zip(now).all(|(before, now)| before == now || matches!(before.question, Question::State(..)))
}

/// What a plugin sees while it decides: everything as of a position, every question about other messages noted.
pub(super) struct Asking {
    batch: Arc<Batch>,
    at: Position,
    /// Fates (false) and uses (true) by hash, with the answers.
    noted: Mutex<BTreeMap<(bool, String), Vec<u8>>>,
}

impl Asking {
    pub(super) fn new(batch: Arc<Batch>, at: Position) -> Self {
        Self { batch, at, noted: Mutex::default() }
    }

    /// What was asked.
    pub(super) fn facts(&self) -> Vec<FactRecord> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let fact = |((is_use, hash), answer): (&(bool, String), &Vec<u8>)| {
            let question = if *is_use { Question::InUse(hash.clone()) } else { Question::Fate(hash.clone()) };
            FactRecord { question, answer: answer.clone() }
        };
        noted.iter().map(fact).collect()
    }

    fn note(&self, is_use: bool, hash: &ItemHash, answer: Vec<u8>) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.insert((is_use, hash.to_string()), answer);
    }
}

impl Reader for Asking {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.batch.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Row>, StoreError> {
        self.batch.range(table, start, end, limit, reverse)
    }

    fn standing(&self, hash: &ItemHash) -> Result<(Fate, Option<MessageRecord>), StoreError> {
        let found = standing::message(&*self.batch, hash, Some(&self.at))?;
        self.note(false, hash, fate_answer(&found));
        Ok(found)
    }

    fn in_use(&self, hash: &ItemHash) -> Result<bool, StoreError> {
        let used = standing::in_use(&*self.batch, hash, &self.at)?;
        self.note(true, hash, vec![u8::from(used)]);
        Ok(used)
    }
}
