//! What the world outside and the host's agent say to each other. One TCP connection is one order.
//!
//! ```text
//! order:   u32 number of words, then each word: u32 length, bytes       (little-endian)
//!          the first word is the secret, the second the verb
//!          after `write`: the file's bytes, up to the end of the stream
//! answer:  frames: u8 kind, u32 length, bytes; the last is `Done` or `Failed`
//! ```

use std::io::{self, Read, Write};

/// Where the agent listens, inside.
pub const AGENT_PORT: u16 = 1;
/// What the console says when orders are taken.
pub const READY_LINE: &str = "kvm-host: ready";
/// Bytes of the secret, which lies at the start of the first disk.
pub const SECRET_BYTES: usize = 32;
/// Most words of an order; a command line has no more.
pub const MAX_WORDS: usize = 1024;
/// Longest word, bytes.
pub const MAX_WORD_BYTES: usize = 256 * 1024;
/// Longest body of a frame, bytes.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;

/// What the agent is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Keep the machine up until this connection ends.
    Hold,
    /// Run a program to its end; its output comes back as it appears. The end of the connection kills it.
    Run(Program),
    /// Start a program whose output is appended to a file; the answer is its process id.
    Spawn {
        /// What to start.
        program: Program,
        /// Where its standard output goes.
        stdout: String,
        /// Where its standard error goes.
        stderr: String,
    },
    /// Make a file of what follows.
    Write {
        /// Where.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// Send a file from an offset to its end.
    Read {
        /// Which.
        path: String,
        /// From which byte.
        offset: u64,
    },
    /// Send a signal to one process.
    Kill {
        /// Its id.
        process: u32,
        /// The signal's number.
        signal: u32,
    },
    /// How a spawned program fares; the answer is [`describe`]d, or `running`.
    State {
        /// Its process id.
        process: u32,
    },
    /// The processes of the host: a line each, `id parent command line`.
    Processes,
}

/// A program with what it is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// Its environment beside the agent's own: `NAME=value`.
    pub variables: Vec<String>,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Standard output of a program, or bytes of a file.
    Stdout(Vec<u8>),
    /// Standard error of a program.
    Stderr(Vec<u8>),
    /// The order was carried out; what there is to say about it.
    Done(String),
    /// It could not be.
    Failed(String),
}

/// Why a stream is not one of ours.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The stream failed or ended.
    #[error("the connection ended: {0}")]
    Stream(#[from] io::Error),
    /// A length over its limit.
    #[error("{what} of {given} is over the limit of {limit}")]
    TooLong {
        /// What was announced.
        what: &'static str,
        /// How much.
        given: usize,
        /// The bound.
        limit: usize,
    },
    /// The words make no order.
    #[error("not an order: {0}")]
    Order(String),
    /// Somebody else knocked.
    #[error("a wrong secret")]
    Secret,
}

impl Order {
    /// Sends an order.
    ///
    /// # Errors
    /// The stream fails, or a word is too long.
    pub fn send(&self, secret: &str, out: &mut impl Write) -> Result<(), ProtocolError> {
        let mut words = vec![secret.to_owned()];
        words.extend(self.to_words());
        check("an order", words.len(), MAX_WORDS)?;
        let mut bytes = Vec::new();
        bytes.extend(length(words.len()));
        for word in &words {
            check("a word", word.len(), MAX_WORD_BYTES)?;
            bytes.extend(length(word.len()));
            bytes.extend(word.as_bytes());
        }
        out.write_all(&bytes)?;
        Ok(out.flush()?)
    }

    /// Reads an order.
    ///
    /// # Errors
    /// See [`ProtocolError`].
    pub fn receive(secret: &str, from: &mut impl Read) -> Result<Self, ProtocolError> {
        let count = read_length(from, "an order", MAX_WORDS)?;
        let mut words = Vec::new();
        for _ in 0..count {
            let length = read_length(from, "a word", MAX_WORD_BYTES)?;
            let mut word = vec![0; length];
            from.read_exact(&mut word)?;
            words.push(String::from_utf8(word).map_err(|_| ProtocolError::Order("a word that is no text".into()))?);
        }
        match words.split_first() {
            Some((given, words)) if given == secret => Self::from_words(words),
            _ => Err(ProtocolError::Secret),
        }
    }

    fn to_words(&self) -> Vec<String> {
        let program = |program: &Program| {
            let mut words = vec![program.variables.len().to_string()];
            words.extend(program.variables.iter().chain(&program.arguments).cloned());
            words
        };
        let mut words = Vec::new();
        match self {
            Self::Hold => words.push("hold".to_owned()),
            Self::Run(started) => {
                words.push("run".to_owned());
                words.extend(program(started));
            }
            Self::Spawn { program: started, stdout, stderr } => {
                words.extend(["spawn".to_owned(), stdout.clone(), stderr.clone()]);
                words.extend(program(started));
            }
            Self::Write { path, mode } => words.extend(["write".to_owned(), path.clone(), mode.to_string()]),
            Self::Read { path, offset } => words.extend(["read".to_owned(), path.clone(), offset.to_string()]),
            Self::Kill { process, signal } => {
                words.extend(["kill".to_owned(), process.to_string(), signal.to_string()]);
            }
            Self::State { process } => words.extend(["state".to_owned(), process.to_string()]),
            Self::Processes => words.push("processes".to_owned()),
        }
        words
    }

    fn from_words(words: &[String]) -> Result<Self, ProtocolError> {
        let texts: Vec<&str> = words.iter().map(String::as_str).collect();
        let wrong = || ProtocolError::Order(texts.first().copied().unwrap_or_default().chars().take(40).collect());
        let program = |words: &[String]| -> Result<Program, ProtocolError> {
            let (count, words) = words.split_first().ok_or_else(wrong)?;
            let count: usize = count.parse().map_err(|_| wrong())?;
            if count >= words.len() {
                return Err(wrong());
            }
            let (variables, arguments) = words.split_at(count);
            Ok(Program { arguments: arguments.to_vec(), variables: variables.to_vec() })
        };
        let number = |text: &str| text.parse().map_err(|_| wrong());
        Ok(match texts.as_slice() {
            ["hold"] => Self::Hold,
            ["run", ..] => Self::Run(program(&words[1..])?),
            ["spawn", stdout, stderr, ..] => Self::Spawn {
                program: program(&words[3..])?,
                stdout: (*stdout).to_owned(),
                stderr: (*stderr).to_owned(),
            },
            ["write", path, mode] => Self::Write { path: (*path).to_owned(), mode: number(mode)? },
            ["read", path, offset] => {
                Self::Read { path: (*path).to_owned(), offset: offset.parse().map_err(|_| wrong())? }
            }
            ["kill", process, signal] => Self::Kill { process: number(process)?, signal: number(signal)? },
            ["state", process] => Self::State { process: number(process)? },
            ["processes"] => Self::Processes,
            _ => return Err(wrong()),
        })
    }
}

impl Frame {
    /// Sends a frame; a body over [`MAX_FRAME_BYTES`] is the caller's to split, a text is cut.
    ///
    /// # Errors
    /// The stream fails.
    pub fn send(&self, out: &mut impl Write) -> Result<(), ProtocolError> {
        let (kind, body) = match self {
            Self::Stdout(bytes) => (1, bytes.as_slice()),
            Self::Stderr(bytes) => (2, bytes.as_slice()),
            Self::Done(text) => (3, text.as_bytes()),
            Self::Failed(text) => (4, text.as_bytes()),
        };
        check("a frame", body.len(), MAX_FRAME_BYTES)?;
        let mut bytes = vec![kind];
        bytes.extend(length(body.len()));
        bytes.extend(body);
        out.write_all(&bytes)?;
        Ok(out.flush()?)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// See [`ProtocolError`].
    pub fn receive(from: &mut impl Read) -> Result<Self, ProtocolError> {
        let mut kind = [0];
        from.read_exact(&mut kind)?;
        let mut body = vec![0; read_length(from, "a frame", MAX_FRAME_BYTES)?];
        from.read_exact(&mut body)?;
        let text = |body: Vec<u8>| String::from_utf8_lossy(&body).into_owned();
        Ok(match kind[0] {
            1 => Self::Stdout(body),
            2 => Self::Stderr(body),
            3 => Self::Done(text(body)),
            4 => Self::Failed(text(body)),
            other => return Err(ProtocolError::Order(format!("a frame of kind {other}"))),
        })
    }
}

/// An exit status in words: `exit 0`, `signal 9`.
#[must_use]
pub fn describe(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn length(number: usize) -> [u8; 4] {
    // Everything that is sent was held against a limit far below.
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

fn read_length(from: &mut impl Read, what: &'static str, limit: usize) -> Result<usize, ProtocolError> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    let given = u32::from_le_bytes(bytes) as usize;
    check(what, given, limit)?;
    Ok(given)
}

fn check(what: &'static str, given: usize, limit: usize) -> Result<(), ProtocolError> {
    if given > limit { Err(ProtocolError::TooLong { what, given, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn program() -> Program {
        Program { arguments: vec!["sh".into(), "-c".into(), String::new()], variables: vec!["A=b".into()] }
    }

    #[test]
    fn orders_arrive_as_they_were_sent() {
        let orders = [
            Order::Hold,
            Order::Run(program()),
            Order::Run(Program { arguments: vec!["true".into()], variables: vec![] }),
            Order::Spawn { program: program(), stdout: "/a".into(), stderr: "/b".into() },
            Order::Write { path: "/srv/crn".into(), mode: 0o755 },
            Order::Read { path: "/srv/log".into(), offset: 1 << 40 },
            Order::Kill { process: 7, signal: 9 },
            Order::State { process: 7 },
            Order::Processes,
        ];
        for order in orders {
            let mut bytes = Vec::new();
            order.send("secret", &mut bytes).expect("it is sent");
            assert_eq!(Order::receive("secret", &mut bytes.as_slice()).expect("it arrives"), order);
            let refused = Order::receive("another", &mut bytes.as_slice());
            assert!(matches!(refused, Err(ProtocolError::Secret)), "{order:?}");
        }
    }

    #[test]
    fn frames_arrive_as_they_were_sent() {
        for frame in [
            Frame::Stdout(vec![0, 255]),
            Frame::Stderr(vec![]),
            Frame::Done("exit 0".into()),
            Frame::Failed("no such file".into()),
        ] {
            let mut bytes = Vec::new();
            frame.send(&mut bytes).expect("it is sent");
            assert_eq!(Frame::receive(&mut bytes.as_slice()).expect("it arrives"), frame);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic_or_a_large_allocation(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Order::receive("", &mut bytes.as_slice());
            let _ = Frame::receive(&mut bytes.as_slice());
        }

        #[test]
        fn no_words_are_a_panic(words in proptest::collection::vec("[a-z0-9]{0,9}", 0..6)) {
            let _ = Order::from_words(&words);
        }
    }
}
