//! Tables of the namespace `poll`.
//!
//! | table | key | value |
//! |---|---|---|
//! | `p` polls | hash of the poll | [`Record`] |
//! | `l` listing | time of the poll (later ones first), its hash | nothing |
//! | `n` how many there are | | number |
//! | `v` votes | poll, voter, time, hash | the option, a byte |
//! | `c` closes | poll, time, hash | nothing |
//!
//! Every message has rows of its own, and taking it out takes them out. That is the simplest way to a state that is a function of the set of
//! messages: nothing is overwritten, so nothing has to be found again. What "latest" and "closed" mean is found out when somebody asks.

use plugin_sdk::{
    View, Write,
    layout::{END_OF_TEXT, Key, Moment, end_of},
};

const POLL: u8 = b'p';
const LISTED: u8 = b'l';
const COUNT: u8 = b'n';
const VOTE: u8 = b'v';
const CLOSE: u8 = b'c';

/// Rows of a page that is read.
const PAGE: u32 = 1000;

/// A poll: its question and options, after the moment and the address of its creator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) moment: Moment,
    pub(crate) owner: String,
    pub(crate) question: String,
    pub(crate) options: Vec<String>,
}

impl Record {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.moment.to_bytes();
        for text in [&self.owner, &self.question].into_iter().chain(&self.options) {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(END_OF_TEXT);
        }
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (moment, rest) = Moment::split(bytes)?;
        let mut texts = std::str::from_utf8(rest).ok()?.strip_suffix('\0')?.split('\0').map(str::to_owned);
        Some(Self { moment, owner: texts.next()?, question: texts.next()?, options: texts.collect() })
    }

    pub(crate) fn find(poll: &str, view: &dyn View) -> Option<Self> {
        Self::read(&view.get(&Key::of(POLL).last(poll))?)
    }
}

/// A vote that was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vote {
    pub(crate) moment: Moment,
    pub(crate) option: usize,
}

/// One address is one voter, however it is spelled: the network compares addresses without their case.
pub(crate) fn voter(address: &str) -> String {
    address.to_ascii_lowercase()
}

/// The rows of a poll; `sign` is 1 when it comes and -1 when it goes.
pub(crate) fn poll(record: &Record, sign: i64, view: &dyn View) -> Vec<Write> {
    let Moment { time, item_hash } = &record.moment;
    // One that is hidden is gone already when it turns out to be void.
    if sign < 0 && view.get(&Key::of(POLL).last(item_hash)).is_none() {
        return Vec::new();
    }
    let count = count(view).saturating_add_signed(sign);
    vec![
        write(Key::of(POLL).last(item_hash), (sign > 0).then(|| record.to_bytes())),
        write(Key::of(LISTED).time_descending(*time).last(item_hash), (sign > 0).then(Vec::new)),
        write(Key::of(COUNT).done(), (count > 0).then(|| count.to_be_bytes().to_vec())),
    ]
}

/// The row of a vote; none for an option when it goes.
pub(crate) fn vote(poll: &str, address: &str, moment: &Moment, option: Option<usize>) -> Write {
    let key = votes_of(poll, address).time(moment.time).last(&moment.item_hash);
    write(key, option.map(|option| vec![u8::try_from(option).unwrap_or(u8::MAX)]))
}

/// The row of a close.
pub(crate) fn close(poll: &str, moment: &Moment, comes: bool) -> Write {
    write(Key::of(CLOSE).text(poll).time(moment.time).last(&moment.item_hash), comes.then(Vec::new))
}

fn votes_of(poll: &str, address: &str) -> Key {
    Key::of(VOTE).text(poll).text(&voter(address))
}

fn write(key: Vec<u8>, value: Option<Vec<u8>>) -> Write {
    Write { key, value }
}

/// How many polls there are.
pub(crate) fn count(view: &dyn View) -> u64 {
    view.get(&Key::of(COUNT).done()).and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Hashes of polls, newest first or oldest first.
pub(crate) fn list(range: std::ops::Range<u64>, newest_first: bool, view: &dyn View) -> Vec<String> {
    let prefix = Key::of(LISTED).done();
    let keys = rows(view, &prefix, !newest_first);
    let wanted = keys.skip(range.start as usize).take((range.end - range.start) as usize);
    wanted.filter_map(|(key, _)| Some(String::from_utf8_lossy(key.get(9..)?).into_owned())).collect()
}

/// When a poll was closed: the first of its closes.
pub(crate) fn closed(poll: &str, view: &dyn View) -> Option<Moment> {
    let prefix = Key::of(CLOSE).text(poll).done();
    let first = rows(view, &prefix, false).next();
    moment_after(&first?.0, prefix.len())
}

/// The vote of an address that counts: its latest, unless it came after the close.
pub(crate) fn vote_of(poll: &str, address: &str, closed: Option<&Moment>, view: &dyn View) -> Option<Vote> {
    let prefix = votes_of(poll, address).done();
    let vote = |(key, value): (Vec<u8>, Vec<u8>)| read_vote(&key, prefix.len(), &value);
    rows(view, &prefix, true).filter_map(vote).find(|vote| in_time(vote, closed))
}

/// Votes that count, by option, with how many rows were looked at; none when there are more than `most` of them.
pub(crate) fn tally(record: &Record, closed: Option<&Moment>, most: usize, view: &dyn View) -> Option<Vec<u64>> {
    let mut counts = vec![0; record.options.len()];
    let prefix = Key::of(VOTE).text(&record.moment.item_hash).done();
    // Rows are in order of (voter, time, hash): the last one in time of a voter is the one that counts.
    let mut current: Option<(Vec<u8>, Option<usize>)> = None;
    let mut count = |vote: Option<(Vec<u8>, Option<usize>)>| {
        if let Some(slot) = vote.and_then(|(_, option)| counts.get_mut(option?)) {
            *slot += 1;
        }
    };
    for (examined, (key, value)) in rows(view, &prefix, false).enumerate() {
        if examined >= most {
            return None;
        }
        let Some(end) = key[prefix.len()..].iter().position(|byte| *byte == END_OF_TEXT) else { continue };
        let start = prefix.len() + end + 1;
        let voter = &key[..start];
        if current.as_ref().is_none_or(|(known, _)| known != voter) {
            count(current.take());
            current = Some((voter.to_vec(), None));
        }
        let vote = read_vote(&key, start, &value).filter(|vote| in_time(vote, closed));
        if let (Some(vote), Some((_, option))) = (vote, &mut current) {
            *option = Some(vote.option);
        }
    }
    count(current);
    Some(counts)
}

/// True for a vote before the close.
fn in_time(vote: &Vote, closed: Option<&Moment>) -> bool {
    closed.is_none_or(|closed| vote.moment < *closed)
}

fn read_vote(key: &[u8], start: usize, value: &[u8]) -> Option<Vote> {
    Some(Vote { moment: moment_after(key, start)?, option: usize::from(*value.first()?) })
}

/// The moment at the end of a key.
fn moment_after(key: &[u8], start: usize) -> Option<Moment> {
    let (time, hash) = key.get(start..)?.split_first_chunk::<8>()?;
    let time = f64::from_bits(u64::from_be_bytes(*time));
    Some(Moment { time, item_hash: String::from_utf8_lossy(hash).into_owned() })
}

/// The rows of a prefix, read page by page as they are asked for.
fn rows(view: &dyn View, prefix: &[u8], reverse: bool) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let (mut start, mut end, mut done) = (prefix.to_vec(), end_of(prefix), false);
    let mut page = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(row) = page.next() {
                return Some(row);
            }
            if done {
                return None;
            }
            let found = view.scan(&start, &end, PAGE, reverse);
            done = !found.more;
            if let Some((last, _)) = found.items.last() {
                if reverse {
                    end.clone_from(last);
                } else {
                    start = [last.as_slice(), &[0]].concat();
                }
            }
            page = found.items.into_iter();
        }
    })
}
