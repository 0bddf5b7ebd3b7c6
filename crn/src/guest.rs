//! Client of the guest's init, over the machine's vsock: configures, hears what becomes of the program,
//! collects what it prints, asks it to end. The words are those of [`guest_protocol`].

use crate::{
    log::ProgramLog,
    machine::{Machine, MachineError},
};
use guest_protocol::{
    CONTROL_PORT, Command, Configuration, Event, Failure, LogRecord, MAX_TRACEBACK_BYTES, Preparation, VERSION,
    frame::{self, FrameError, LENGTH_BYTES},
};
use serde::de::DeserializeOwned;
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Longest sentence of a guest about its failure, bytes; what is longer is cut.
const MAX_ERROR_BYTES: usize = 4 * 1024;

/// What a guest may print a second for long, bytes, and at once: more is taken later, and init throws its oldest away meanwhile. The
/// length of a log is bounded elsewhere; this bounds what is written to the host's disk for it.
const LOG_BYTES_PER_SECOND: u64 = 1 << 20;
const LOG_BURST_BYTES: u64 = 4 << 20;
/// What a record costs besides its text, bytes.
const LOG_RECORD_BYTES: u64 = 128;

/// Why init cannot be talked to. Its machine is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The machine is gone.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The stream ended or failed, as it does when the machine ends.
    #[error("the guest closed its control stream: {0}")]
    Closed(#[from] io::Error),
    /// What came is not a frame of ours; the guest may be hostile by now.
    #[error("the guest sent what is no frame: {0}")]
    Frame(#[from] FrameError),
    /// Init is not of this version. The operator's to mend: install the images that belong to this node.
    #[error(
        "the guest's init speaks version {0} of the protocol, this node speaks {VERSION}: install crn and its images together"
    )]
    Version(u16),
    /// A word at a wrong time.
    #[error("the guest said {0:?} at a time that has no use for it")]
    Unexpected(Box<Event>),
}

/// A control stream whose guest has said hello.
#[derive(Debug)]
pub struct Guest {
    reader: OwnedReadHalf,
    writer: Orders,
}

/// The half of a control stream that gives orders.
#[derive(Debug)]
pub struct Orders(OwnedWriteHalf);

impl Guest {
    /// Opens the control stream of a guest that has rung [`guest_protocol::doorbell::INIT_UP`] or
    /// [`guest_protocol::doorbell::THAWED`].
    ///
    /// # Errors
    /// See [`GuestError`].
    pub async fn greet(machine: &Machine) -> Result<Self, GuestError> {
        Self::greet_on(machine.connect(CONTROL_PORT).await?).await
    }

    async fn greet_on(stream: UnixStream) -> Result<Self, GuestError> {
        let (mut reader, writer) = stream.into_split();
        match read(&mut reader).await? {
            Event::Hello { version: VERSION } => Ok(Self { reader, writer: Orders(writer) }),
            Event::Hello { version } => Err(GuestError::Version(version)),
            other => Err(GuestError::Unexpected(Box::new(other))),
        }
    }

    /// Has the guest mount its root; it answers with [`Event::Prepared`].
    ///
    /// # Errors
    /// See [`GuestError`].
    pub async fn prepare(&mut self, preparation: Preparation) -> Result<(), GuestError> {
        self.writer.send(&Command::Prepare(preparation)).await
    }

    /// Has the guest stand still. It closes its end of this stream, says so only when it has gone on, and is greeted anew then: until that
    /// this end stays open, so that nothing is on its way to a guest that is copied.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub async fn freeze(&mut self) -> Result<(), GuestError> {
        self.writer.send(&Command::Freeze).await
    }

    /// Tells the guest what to be.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub async fn configure(&mut self, configuration: Configuration) -> Result<(), GuestError> {
        self.writer.send(&Command::Configure(configuration)).await
    }

    /// The next word of the guest.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub async fn next(&mut self) -> Result<Event, GuestError> {
        next_of(&mut self.reader).await
    }

    /// The two directions apart: one to listen with [`next_of`], one to give orders.
    #[must_use]
    pub fn split(self) -> (OwnedReadHalf, Orders) {
        (self.reader, self.writer)
    }
}

/// The next word on the listening half.
///
/// # Errors
/// See [`GuestError`].
pub async fn next_of(reader: &mut OwnedReadHalf) -> Result<Event, GuestError> {
    Ok(match read(reader).await? {
        Event::Failed(failure) => Event::Failed(bounded(failure)),
        event => event,
    })
}

/// A failure within the bounds of the protocol, whatever the guest thinks of them: its words go to every caller who waits, and its
/// sentence into the node's log, where it must stay one line.
fn bounded(mut failure: Failure) -> Failure {
    failure.error = failure.error.replace(char::is_control, " ");
    failure.error.truncate(failure.error.floor_char_boundary(MAX_ERROR_BYTES));
    let over = failure.traceback.len().saturating_sub(MAX_TRACEBACK_BYTES);
    failure.traceback.drain(..failure.traceback.ceil_char_boundary(over));
    failure
}

impl Orders {
    async fn send(&mut self, command: &Command) -> Result<(), GuestError> {
        Ok(self.0.write_all(&frame::encode(command)?).await?)
    }

    /// Asks the program, then the guest, to end; the program has `grace_ms`.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub async fn shut_down(&mut self, grace_ms: u32) -> Result<(), GuestError> {
        self.send(&Command::Shutdown { grace_ms }).await
    }
}

/// Writes what a guest prints to its log until the guest ends. The stream is one to
/// [`guest_protocol::LOG_PORT`].
///
/// # Errors
/// See [`GuestError`]; the end of the guest is `Closed`.
pub async fn collect_log(mut stream: UnixStream, log: &ProgramLog) -> Result<(), GuestError> {
    let mut pace = LogPace::new(Instant::now());
    loop {
        let record: LogRecord = read(&mut stream).await?;
        log.write(&record).await;
        let pause = pace.pause(record.bytes.len() as u64 + LOG_RECORD_BYTES, Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// How fast a guest prints, as the moment at which all of it would have been printed at the rate that it has.
struct LogPace {
    due: Instant,
}

impl LogPace {
    fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// Counts bytes; how long nothing more may be taken.
    fn pause(&mut self, bytes: u64, now: Instant) -> Duration {
        let time_of = |bytes: u64| Duration::from_micros(bytes.saturating_mul(1_000_000) / LOG_BYTES_PER_SECOND);
        self.due = self.due.max(now) + time_of(bytes);
        self.due.saturating_duration_since(now + time_of(LOG_BURST_BYTES))
    }
}

/// One frame. Nothing is allocated beyond [`frame::MAX_FRAME_BYTES`], whatever the guest announces.
async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<T, GuestError> {
    let mut header = [0; LENGTH_BYTES];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; frame::body_length(header)?];
    stream.read_exact(&mut body).await?;
    Ok(frame::decode(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_protocol::Stage;

    /// What a host makes of these bytes from a guest.
    async fn greeted(bytes: &[u8]) -> Result<Guest, GuestError> {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(bytes).await.expect("a write");
        drop(theirs);
        Guest::greet_on(ours).await
    }

    #[tokio::test]
    async fn a_guest_of_this_version_is_heard() {
        let bytes = [
            frame::encode(&Event::Hello { version: VERSION }).expect("a frame"),
            frame::encode(&Event::Exited { status: 3 }).expect("a frame"),
        ];
        let mut guest = greeted(&bytes.concat()).await.expect("a guest");
        assert_eq!(guest.next().await.expect("a word"), Event::Exited { status: 3 });
        assert!(matches!(guest.next().await, Err(GuestError::Closed(_))));
    }

    #[tokio::test]
    async fn others_are_refused_with_the_reason() {
        let hello = frame::encode(&Event::Hello { version: VERSION + 1 }).expect("a frame");
        assert!(matches!(greeted(&hello).await, Err(GuestError::Version(version)) if version == VERSION + 1));
        let ready = frame::encode(&Event::Ready).expect("a frame");
        assert!(matches!(greeted(&ready).await, Err(GuestError::Unexpected(_))));
        assert!(matches!(greeted(&[]).await, Err(GuestError::Closed(_))));
        assert!(matches!(greeted(&[1, 0, 0, 0]).await, Err(GuestError::Closed(_))));
        assert!(matches!(greeted(&u32::MAX.to_le_bytes()).await, Err(GuestError::Frame(FrameError::TooLong { .. }))));
        assert!(matches!(greeted(&[1, 0, 0, 0, 200]).await, Err(GuestError::Frame(FrameError::Malformed(_)))));
    }

    /// What a hostile guest says of its failure goes to every caller and into the node's own log, where a line of it looked like
    /// one of the node's.
    #[tokio::test]
    async fn a_failure_is_bounded_and_stays_on_its_line() {
        let failure = Failure {
            stage: Stage::Start,
            error: format!("boom\n2026 INFO crn: all is well\u{1b}[2J{}", "é".repeat(20_000)),
            traceback: format!("{}the end", "é".repeat(MAX_TRACEBACK_BYTES)),
        };
        let bytes = [
            frame::encode(&Event::Hello { version: VERSION }).expect("a frame"),
            frame::encode(&Event::Failed(failure)).expect("a frame"),
        ];
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        tokio::spawn(async move { theirs.write_all(&bytes.concat()).await });
        let mut guest = Guest::greet_on(ours).await.expect("a guest");
        let Ok(Event::Failed(failure)) = guest.next().await else { panic!("a failure was sent") };
        assert!(!failure.error.contains(char::is_control), "{}", failure.error);
        assert!(failure.error.starts_with("boom 2026 INFO") && failure.error.len() <= MAX_ERROR_BYTES);
        assert!(failure.traceback.ends_with("the end") && failure.traceback.len() <= MAX_TRACEBACK_BYTES);
    }

    /// A log has a bound, but what was written to the disk for it had none.
    #[test]
    fn a_guest_that_prints_without_end_is_slowed_down() {
        let begin = Instant::now();
        let mut pace = LogPace::new(begin);
        assert_eq!(pace.pause(LOG_BURST_BYTES, begin), Duration::ZERO);
        assert_eq!(pace.pause(LOG_BYTES_PER_SECOND, begin), Duration::from_secs(1));
        // Having waited, it may go on, and a second later it has earned another second's worth.
        let later = begin + Duration::from_secs(2);
        assert_eq!(pace.pause(LOG_BYTES_PER_SECOND, later), Duration::ZERO);
        assert_eq!(pace.pause(LOG_BYTES_PER_SECOND, later), Duration::from_secs(1));
        // What is saved up is no more than a burst.
        let much_later = begin + Duration::from_secs(1_000_000);
        assert_eq!(pace.pause(LOG_BURST_BYTES, much_later), Duration::ZERO);
        assert!(pace.pause(LOG_BYTES_PER_SECOND, much_later) > Duration::ZERO);
    }

    #[tokio::test]
    async fn orders_are_frames_that_a_guest_decodes() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut orders = Orders(ours.into_split().1);
        orders.shut_down(1500).await.expect("sent");
        assert_eq!(read::<Command>(&mut theirs).await.expect("a command"), Command::Shutdown { grace_ms: 1500 });
    }
}
