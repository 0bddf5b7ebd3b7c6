//! The host's wall clock, and how far the clock of a machine is from it. Runs inside the host: no other clock is its clock.

use crate::call::{MAX_ANSWER_BYTES, ask};
use std::{
    io::{self, Read as _},
    time::{SystemTime, UNIX_EPOCH},
};

/// The word that makes this program tell the time.
pub const CLOCK: &str = "clock";
/// The word that makes this program compare clocks.
pub const COMPARE: &str = "compare-clocks";
/// Digits of a time in microseconds since 1970, until the year 2286.
const TIME_DIGITS: usize = 16;

/// How far a machine's clock is ahead of the host's, as one question bounds it: it was read after the question was put and before the answer was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// At least so much, microseconds; negative for one that is behind.
    pub at_least: i64,
    /// At most so much, microseconds.
    pub at_most: i64,
}

impl Ahead {
    /// What two questions say together; nothing when they contradict each other.
    #[must_use]
    pub fn and(self, other: Self) -> Option<Self> {
        let both = Self { at_least: self.at_least.max(other.at_least), at_most: self.at_most.min(other.at_most) };
        (both.at_least <= both.at_most).then_some(both)
    }

    /// As a line, for who reads standard output.
    #[must_use]
    pub fn to_line(self) -> String {
        format!("ahead {} {}", self.at_least, self.at_most)
    }

    /// From such a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (at_least, at_most) = line.strip_prefix("ahead ")?.split_once(' ')?;
        Some(Self { at_least: at_least.parse().ok()?, at_most: at_most.parse().ok()? })
    }
}

/// The host's wall clock, microseconds since 1970: its other tools know seconds.
///
/// # Errors
/// The clock is before 1970.
pub fn now() -> io::Result<i64> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    i64::try_from(since_epoch.as_micros()).map_err(io::Error::other)
}

/// Asks a program for its time, in microseconds since 1970, again and again. `arguments`: the node's address, the path, how often.
///
/// # Errors
/// An answer has no time in it.
pub fn compare(arguments: &[String], mut print: impl FnMut(Ahead)) -> io::Result<()> {
    let wrong = || io::Error::other("usage: kvm-host compare-clocks ADDRESS PATH ROUNDS");
    let [address, path, rounds] = arguments else { return Err(wrong()) };
    for _ in 0..rounds.parse::<u32>().map_err(|_| wrong())? {
        let before = now()?;
        let mut answer = String::new();
        ask(address, path)?.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
        let after = now()?;
        let time = time_in(&answer).ok_or_else(|| io::Error::other(format!("no time in: {answer}")))?;
        print(Ahead { at_least: time - after, at_most: time - before });
    }
    Ok(())
}

/// The time in an answer, whose body may be one piece or several.
fn time_in(answer: &str) -> Option<i64> {
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let is_time = |word: &&str| word.len() == TIME_DIGITS && word.bytes().all(|byte| byte.is_ascii_digit());
    body.split_whitespace().find(is_time)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, net::TcpListener, thread};

    #[test]
    fn bounds_narrow_and_may_contradict_each_other() {
        let ahead = |at_least, at_most| Ahead { at_least, at_most };
        assert_eq!(Ahead::parse(&ahead(-7, 9).to_line()), Some(ahead(-7, 9)));
        assert_eq!(Ahead::parse("call 7 200"), None);
        assert_eq!(ahead(-7, 9).and(ahead(-9, 3)), Some(ahead(-7, 3)));
        assert_eq!(ahead(4, 9).and(ahead(-9, 3)), None);
    }

    #[test]
    fn a_clock_is_compared_by_questions() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        // One that is right, one that is a second ahead and answers in pieces, and none.
        let server = thread::spawn(move || {
            for (index, stream) in (0..3).zip(listener.incoming()) {
                let mut stream = stream.expect("a connection");
                let _ = stream.read(&mut [0; 512]).expect("a request");
                let time = now().expect("a time") + index * 1_000_000;
                let body = if index == 2 { "later".to_owned() } else { format!("10\r\n{time}\r\n0\r\n\r\n") };
                stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes()).expect("answered");
            }
        });
        let mut found = Vec::new();
        let arguments = [&address, "/vm/x/", "3"].map(str::to_owned);
        assert!(compare(&arguments, |ahead| found.push(ahead)).is_err(), "the third answer has no time");
        server.join().expect("served");
        let [right, fast] = found[..] else { panic!("{found:?}") };
        assert!(right.at_least <= 0 && right.at_most >= 0, "{right:?}");
        assert!(fast.at_least <= 1_000_000 && fast.at_most >= 1_000_000, "{fast:?}");
        assert_eq!(right.and(fast), None, "{right:?} {fast:?}");
    }
}
