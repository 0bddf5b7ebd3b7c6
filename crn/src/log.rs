//! What programs print: one bounded file per program, JSON lines, in the folder of logs.
//!
//! A line is `{"time_us":…,"source":"stdout","text":"…"}`, with `"dropped_bytes"` where the guest had to
//! throw output away before it. A full file is renamed to end in `.old`, over the one before.

use ccn_message::ItemHash;
use guest_protocol::{LogRecord, LogSource};
use serde::Serialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio::{fs::File, io::AsyncWriteExt as _, sync::Mutex};

/// Ends the name of a log that is written.
const SUFFIX: &str = ".log";
/// Ends the name of the one before it.
const OLD_SUFFIX: &str = ".log.old";

/// The folder of logs.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
    max_bytes: u64,
    max_programs: usize,
}

/// The log of one program. Machines of the same program that follow each other append to the same file.
#[derive(Debug, Clone)]
pub struct ProgramLog {
    path: PathBuf,
    old_path: PathBuf,
    max_bytes: u64,
    open: Arc<Mutex<Option<(File, u64)>>>,
}

/// Most bytes of a line around the text.
const LINE_OVERHEAD_BYTES: u64 = 120;
/// Most bytes that one printed byte takes in a line: `\u0000`.
const ESCAPED_BYTES: u64 = 6;

#[derive(Serialize)]
struct Line<'a> {
    time_us: u64,
    source: &'static str,
    text: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Logs {
    /// Opens the folder, which is made if it is not there. A log grows to `max_bytes`, twice that with
    /// the one before it; `max_programs` are kept.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: &Path, max_bytes: u64, max_programs: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned(), max_bytes, max_programs })
    }

    /// The log of a program. Makes room for it when it is new.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn of(&self, item_hash: &ItemHash) -> io::Result<ProgramLog> {
        let path = self.folder.join(format!("{item_hash}{SUFFIX}"));
        if !path.exists() {
            for name in oldest(self.list()?, self.max_programs - 1) {
                for suffix in [SUFFIX, OLD_SUFFIX] {
                    match fs::remove_file(self.folder.join(format!("{name}{suffix}"))) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
            fs::File::create(&path)?;
        }
        Ok(ProgramLog {
            path,
            old_path: self.folder.join(format!("{item_hash}{OLD_SUFFIX}")),
            max_bytes: self.max_bytes,
            open: Arc::default(),
        })
    }

    fn list(&self) -> io::Result<Vec<(SystemTime, String)>> {
        let mut logs = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_string_lossy().strip_suffix(SUFFIX) {
                logs.push((entry.metadata()?.modified()?, name.to_owned()));
            }
        }
        Ok(logs)
    }
}

/// The logs that were written to longest ago, so that `keep` remain.
fn oldest(mut logs: Vec<(SystemTime, String)>, keep: usize) -> Vec<String> {
    logs.sort();
    let surplus = logs.len().saturating_sub(keep);
    logs.into_iter().take(surplus).map(|(_, name)| name).collect()
}

impl ProgramLog {
    /// Appends what a guest sent. A disk that fails costs the line, not the program.
    pub async fn write(&self, record: &LogRecord) {
        if let Err(error) = self.try_write(record).await {
            tracing::warn!(log = %self.path.display(), %error, "a program's output is lost");
        }
    }

    async fn try_write(&self, record: &LogRecord) -> io::Result<()> {
        // Guests keep to a bound of their own; a hostile one does not, and must not make a longer log.
        let room = self.max_bytes.saturating_sub(LINE_OVERHEAD_BYTES) / ESCAPED_BYTES;
        let kept = usize::try_from(room).map_or(record.bytes.len(), |room| room.min(record.bytes.len()));
        let line = Line {
            time_us: record.wall_time_us,
            source: match record.source {
                LogSource::Stdout => "stdout",
                LogSource::Stderr => "stderr",
                LogSource::Init => "init",
            },
            text: String::from_utf8_lossy(&record.bytes[..kept]),
            dropped_bytes: record.dropped_bytes.saturating_add((record.bytes.len() - kept) as u64),
        };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        let length = line.len() as u64;
        let mut open = self.open.lock().await;
        let (mut file, mut written) = match open.take() {
            Some(open) => open,
            None => {
                let file = File::options().append(true).create(true).open(&self.path).await?;
                let written = file.metadata().await?.len();
                (file, written)
            }
        };
        if written > 0 && written + length > self.max_bytes {
            file.flush().await?;
            fs::rename(&self.path, &self.old_path)?;
            file = File::create(&self.path).await?;
            written = 0;
        }
        file.write_all(&line).await?;
        file.flush().await?;
        *open = Some((file, written + length));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn program(number: u8) -> ItemHash {
        format!("{number:02x}").repeat(32).parse().expect("an item hash")
    }

    fn record(text: &[u8]) -> LogRecord {
        LogRecord { source: LogSource::Stderr, wall_time_us: 7, bytes: text.to_vec(), dropped_bytes: 0 }
    }

    #[tokio::test]
    async fn lines_are_json_whatever_is_printed() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Logs::open(folder.path(), 1000, 10).and_then(|logs| logs.of(&program(1))).expect("a log");
        log.write(&record(b"a \"quoted\"\nline\xff")).await;
        log.write(&LogRecord { dropped_bytes: 9, source: LogSource::Init, ..record(b"") }).await;
        let text = fs::read_to_string(&log.path).expect("a file");
        assert_eq!(
            text,
            "{\"time_us\":7,\"source\":\"stderr\",\"text\":\"a \\\"quoted\\\"\\nline\u{fffd}\"}\n\
             {\"time_us\":7,\"source\":\"init\",\"text\":\"\",\"dropped_bytes\":9}\n"
        );
    }

    #[tokio::test]
    async fn a_log_is_bounded_and_keeps_the_newest() {
        let folder = tempfile::tempdir().expect("a folder");
        let logs = Logs::open(folder.path(), 1000, 10).expect("logs");
        for round in 0..2 {
            // The second time as a new machine of the same program.
            let log = logs.of(&program(1)).expect("a log");
            for line in 0..100 {
                log.write(&record(format!("{round} {line}").as_bytes())).await;
                let length = fs::metadata(&log.path).expect("a file").len();
                assert!(length <= 1000, "{length}");
            }
            assert!(fs::read_to_string(&log.path).expect("a file").contains(&format!("{round} 99")));
            assert!(fs::metadata(&log.old_path).expect("a file").len() <= 1000);
        }
    }

    /// A guest that keeps to no bound of the protocol made a log of any length.
    #[tokio::test]
    async fn a_record_that_is_longer_than_a_log_is_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Logs::open(folder.path(), 1000, 10).and_then(|logs| logs.of(&program(1))).expect("a log");
        for byte in [b'x', 0, 0xff, b'"'] {
            log.write(&record(&[byte; 100_000])).await;
            log.write(&record(b"after")).await;
            for path in [&log.path, &log.old_path] {
                assert!(fs::metadata(path).map_or(0, |file| file.len()) <= 1000);
            }
        }
        let text = [&log.old_path, &log.path].map(|path| fs::read_to_string(path).expect("a file")).concat();
        assert!(text.contains("dropped_bytes") && text.contains("\\\"\\\""), "{text}");
    }

    #[test]
    fn logs_of_more_programs_than_allowed_push_the_oldest_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let logs = Logs::open(folder.path(), 1000, 3).expect("logs");
        for number in 1..=5_u8 {
            let log = logs.of(&program(number)).expect("a log");
            let file = fs::File::options().write(true).open(&log.path).expect("a file");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(number))).expect("a time");
        }
        let mut left: Vec<_> = logs.list().expect("a list").into_iter().map(|(_, name)| name).collect();
        left.sort();
        assert_eq!(left, [3, 4, 5].map(|number| program(number).to_string()));
    }
}
