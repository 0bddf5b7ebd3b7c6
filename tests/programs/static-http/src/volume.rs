//! Writes to a volume and says what is durable, for tests that cut the machine off meanwhile.
//!
//! Records are numbered from 1 and of equal length; each is appended to `log` and synchronized, then becomes the content of `state` by a
//! rename, which is synchronized too. So after any cut `log` has every record that was said to be durable, whole and in order, with
//! perhaps one more behind, and `state` is one of the last two of them.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Length of a record, bytes.
const RECORD_BYTES: usize = 64;
/// Written at a time when a volume is filled.
const FILL_BYTES: usize = 64 * 1024;

/// Names the folder of the volume.
const FOLDER: &str = "VOLUME";

/// Counts a start as a visit, where there is a volume.
pub(crate) fn started() {
    if std::env::var_os(FOLDER).is_some()
        && let Err(error) = visit()
    {
        eprintln!("the volume cannot be written: {error}");
    }
}

fn folder() -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(|| PathBuf::from("/data"), PathBuf::from)
}

fn record(number: u64) -> String {
    let check = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{number:>20} {check:016x}{:>width$}\n", "", width = RECORD_BYTES - 38)
}

/// The number of whole records in a log.
fn count(log: &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for piece in log.chunks_exact(RECORD_BYTES) {
        number += 1;
        if piece != record(number).as_bytes() {
            let last = log.len() / RECORD_BYTES;
            return Err(format!("record {number} of {last} is {:?}", String::from_utf8_lossy(piece)));
        }
    }
    Ok(number)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// How many records the log has, and which one the state is.
pub(crate) fn records() -> Result<(u64, u64), String> {
    let content = |name: &str| read(&folder().join(name)).map_err(|error| format!("{name}: {error}"));
    let count = count(&content("log")?)?;
    let state = content("state")?;
    let of_state = String::from_utf8_lossy(&state);
    let number = of_state.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    if !state.is_empty() && of_state != record(number) {
        return Err(format!("the state is {of_state:?}"));
    }
    Ok((count, number))
}

/// Writes records without end, and the number of each once it is durable: a line each, in chunks of HTTP.
pub(crate) fn write_records(stream: &mut impl Write) -> io::Result<()> {
    let folder = folder();
    let (mut number, _) = records().map_err(io::Error::other)?;
    let mut log = File::options().create(true).append(true).open(folder.join("log"))?;
    // The beginning of a record that was cut off.
    log.set_len(number * RECORD_BYTES as u64)?;
    let own = File::open(&folder)?;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    loop {
        number += 1;
        log.write_all(record(number).as_bytes())?;
        log.sync_data()?;
        let draft = folder.join("state.new");
        let mut state = File::create(&draft)?;
        state.write_all(record(number).as_bytes())?;
        state.sync_all()?;
        fs::rename(&draft, folder.join("state"))?;
        own.sync_all()?;
        let line = format!("{number}\n");
        write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
        stream.flush()?;
    }
}

/// Counts visits in a file; returns how many there were before.
pub(crate) fn visit() -> io::Result<u64> {
    let path = folder().join("visits");
    let before = String::from_utf8_lossy(&read(&path)?).trim().parse().unwrap_or(0);
    let mut file = File::create(&path)?;
    writeln!(file, "{}", before + 1)?;
    file.sync_all()?;
    Ok(before)
}

/// Writes until nothing more can be written. Returns the bytes that were, and why there are no more.
pub(crate) fn fill() -> io::Result<(u64, io::Error)> {
    let mut file = File::create(folder().join("filling"))?;
    let mut written = 0;
    loop {
        // Synchronized each time: what the kernel has taken is not on the disk yet.
        match file.write_all(&[0xa5; FILL_BYTES]).and_then(|()| file.sync_data()) {
            Ok(()) => written += FILL_BYTES as u64,
            Err(error) => return Ok((written, error)),
        }
    }
}

/// Makes room again.
pub(crate) fn empty() -> io::Result<()> {
    fs::remove_file(folder().join("filling"))?;
    File::open(folder())?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_whole_and_in_order() {
        assert_eq!(record(1).len(), RECORD_BYTES);
        assert_eq!(record(u64::MAX).len(), RECORD_BYTES);
        let log = [record(1), record(2), record(3)].concat();
        assert_eq!(count(log.as_bytes()), Ok(3));
        assert_eq!(count(&log.as_bytes()[..RECORD_BYTES * 2 + 7]), Ok(2));
        assert!(count([record(1), record(3)].concat().as_bytes()).is_err());
        assert!(count(&[0; RECORD_BYTES]).is_err(), "zeros where a record was");
    }
}
