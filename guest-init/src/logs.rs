//! What the program prints, on its way to the host: bounded, never in the program's way.

use guest_protocol::{LogRecord, LogSource, MAX_LOG_BYTES, frame};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{Shutdown, shutdown},
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{ErrorKind, Write as _},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Most bytes that wait for the host. When more comes, the oldest goes, and the host is told how much.
pub(crate) const MAX_WAITING_BYTES: usize = 256 * 1024;
/// Most records that wait for the host; likewise. Each takes memory of its own.
const MAX_WAITING_RECORDS: usize = 4096;
/// Bytes of the latest output that are kept for the report of a program that ends too early.
const KEPT_BYTES: usize = 8 * 1024;

/// The records that wait, and the stream that takes them.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    waiting: VecDeque<LogRecord>,
    waiting_bytes: usize,
    dropped_bytes: u64,
    /// A frame that was sent in part.
    partial: Vec<u8>,
    stream: Option<File>,
    latest: VecDeque<u8>,
}

impl Logs {
    /// The host wants them.
    pub(crate) fn attach(&mut self, stream: File) {
        // What an earlier stream has taken in part is lost with it.
        self.partial.clear();
        self.stream = Some(stream);
    }

    /// Nobody takes them for now. A record that was sent in part is lost.
    pub(crate) fn detach(&mut self) {
        self.partial.clear();
        self.stream = None;
    }

    /// The stream that takes records, if there is one.
    pub(crate) fn stream(&self) -> Option<&File> {
        self.stream.as_ref()
    }

    /// A notice of init's own.
    pub(crate) fn note(&mut self, text: &str) {
        self.push(LogSource::Init, text.as_bytes().to_vec());
    }

    /// Takes what the program has printed; false at its end.
    pub(crate) fn read(&mut self, source: LogSource, mut pipe: impl std::io::Read) -> bool {
        let mut chunk = [0; MAX_LOG_BYTES];
        match pipe.read(&mut chunk) {
            Ok(0) => false,
            Ok(read) => {
                self.latest.extend(&chunk[..read]);
                let over = self.latest.len().saturating_sub(KEPT_BYTES);
                self.latest.drain(..over);
                self.push(source, chunk[..read].to_vec());
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// The latest output, for a report.
    pub(crate) fn latest(&self) -> String {
        String::from_utf8_lossy(&self.latest.iter().copied().collect::<Vec<u8>>()).into_owned()
    }

    /// Sends what the stream takes. True when something still waits.
    pub(crate) fn send(&mut self) -> bool {
        while let Some(stream) = &mut self.stream {
            if self.partial.is_empty() {
                let Some(record) = self.waiting.pop_front() else {
                    return false;
                };
                self.waiting_bytes -= record.bytes.len();
                // A record is bounded far below the limit of a frame.
                self.partial = frame::encode(&record).unwrap_or_default();
            }
            match stream.write(&self.partial) {
                Ok(written) => {
                    self.partial.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => {
                    self.partial.clear();
                    self.stream = None;
                }
            }
        }
        !self.waiting.is_empty()
    }

    /// Waits until the host has all that the stream has taken, and says so by closing it. What was written is only on its way: the
    /// guest's kernel sends it a little later, and does not if the machine has ended by then.
    pub(crate) fn hand_over(&mut self, deadline: Instant) {
        let Some(stream) = self.stream.take() else { return };
        if shutdown(&stream, Shutdown::Write).is_err() {
            return;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(limit) = Timespec::try_from(left) else { return };
            match poll(&mut [PollFd::new(&stream, PollFlags::IN)], Some(&limit)) {
                Err(rustix::io::Errno::INTR) if !left.is_zero() => {}
                _ => return,
            }
        }
    }

    fn push(&mut self, source: LogSource, bytes: Vec<u8>) {
        self.waiting_bytes += bytes.len();
        // What waits takes in more of the same; a notice stays one record.
        if let Some(last) = self.waiting.back_mut()
            && last.source == source
            && source != LogSource::Init
            && last.bytes.len() + bytes.len() <= MAX_LOG_BYTES
            && self.waiting_bytes <= MAX_WAITING_BYTES
        {
            last.bytes.extend(bytes);
            return;
        }
        while self.waiting_bytes > MAX_WAITING_BYTES || self.waiting.len() >= MAX_WAITING_RECORDS {
            let Some(oldest) = self.waiting.pop_front() else {
                break;
            };
            self.waiting_bytes -= oldest.bytes.len();
            self.dropped_bytes += oldest.bytes.len() as u64 + oldest.dropped_bytes;
        }
        let dropped_bytes = std::mem::take(&mut self.dropped_bytes);
        self.waiting.push_back(LogRecord { source, wall_time_us: now_us(), bytes, dropped_bytes });
    }
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| u64::try_from(elapsed.as_micros()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read as _,
        os::{fd::OwnedFd, unix::net::UnixStream},
        time::Duration,
    };

    #[test]
    fn a_flood_keeps_the_end_and_counts_the_rest() {
        let mut logs = Logs::default();
        let line = [b'x'; 1000];
        for _ in 0..1000 {
            assert!(logs.read(LogSource::Stdout, &line[..]));
        }
        assert!(logs.waiting_bytes <= MAX_WAITING_BYTES);
        let kept: usize = logs.waiting.iter().map(|record| record.bytes.len()).sum();
        let dropped: u64 = logs.waiting.iter().map(|record| record.dropped_bytes).sum();
        assert_eq!(kept, logs.waiting_bytes);
        assert_eq!(kept as u64 + dropped, 1_000_000);
        assert_eq!(logs.latest().len(), KEPT_BYTES);
    }

    /// A byte of output took a hundred of the guest's memory as long as it waited.
    #[test]
    fn output_in_tiny_pieces_takes_no_more_than_in_large_ones() {
        let mut logs = Logs::default();
        for _ in 0..100_000 {
            assert!(logs.read(LogSource::Stdout, &b"x"[..]));
        }
        assert!(logs.waiting.len() <= 100_000 / MAX_LOG_BYTES + 1, "{}", logs.waiting.len());
        assert_eq!(logs.waiting_bytes, 100_000);
        let mut logs = Logs::default();
        for number in 0..100_000 {
            let source = if number % 2 == 0 { LogSource::Stdout } else { LogSource::Stderr };
            assert!(logs.read(source, &b"x"[..]));
        }
        logs.note("one");
        logs.note("two");
        assert!(logs.waiting.len() <= MAX_WAITING_RECORDS);
        let kept: usize = logs.waiting.iter().map(|record| record.bytes.len()).sum();
        let dropped: u64 = logs.waiting.iter().map(|record| record.dropped_bytes).sum();
        assert_eq!((kept, kept as u64 + dropped), (logs.waiting_bytes, 100_006));
        assert_eq!(logs.waiting.back().map(|record| record.bytes.as_slice()), Some(&b"two"[..]));
    }

    #[test]
    fn records_arrive_as_frames() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("non-blocking");
        let mut logs = Logs::default();
        logs.read(LogSource::Stderr, &b"before anybody listens"[..]);
        assert!(logs.send());
        logs.attach(File::from(OwnedFd::from(ours)));
        assert!(!logs.send());
        let mut header = [0; frame::LENGTH_BYTES];
        theirs.read_exact(&mut header).expect("a header");
        let mut body = vec![0; frame::body_length(header).expect("a length")];
        theirs.read_exact(&mut body).expect("a body");
        let record: LogRecord = frame::decode(&body).expect("a record");
        assert_eq!((record.source, record.bytes.as_slice()), (LogSource::Stderr, &b"before anybody listens"[..]));
    }

    /// A clone that ended right after its first call said nothing: its log had been written to the stream, and went no further.
    #[test]
    fn the_log_is_handed_over_when_the_host_has_it() {
        const READING: Duration = Duration::from_millis(200);
        let long = Instant::now() + Duration::from_secs(60);
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut logs = Logs::default();
        logs.note("the last words");
        logs.attach(File::from(OwnedFd::from(ours)));
        assert!(!logs.send());
        let reader = std::thread::spawn(move || {
            std::thread::sleep(READING);
            let mut heard = Vec::new();
            theirs.read_to_end(&mut heard).expect("to its end");
            heard
        });
        let began = Instant::now();
        logs.hand_over(long);
        assert!(began.elapsed() >= READING && Instant::now() < long);
        assert!(!reader.join().expect("read").is_empty());

        // One who does not take it is not waited for.
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        logs.attach(File::from(OwnedFd::from(ours)));
        logs.hand_over(Instant::now() + Duration::from_millis(10));
        drop(theirs);
    }

    #[test]
    fn the_end_of_a_pipe_is_seen() {
        assert!(!Logs::default().read(LogSource::Stdout, &b""[..]));
    }
}
