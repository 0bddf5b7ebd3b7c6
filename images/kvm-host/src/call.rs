//! Calls programs of a compute node and takes the time from the connection to the first byte of each answer. Runs inside the host, so that no
//! emulated network is between.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// The word that makes this program call.
pub const CALL: &str = "call";
/// Longest answer that is read, bytes.
pub(crate) const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(900);
/// How often the list of machines is looked at until it is empty.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long machines may take to end.
const EMPTY_WITHIN: Duration = Duration::from_secs(120);

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// From just before the connection to the first byte, microseconds.
    pub microseconds: u64,
    /// The status of the answer.
    pub status: u16,
}

impl Call {
    /// As a line, for who reads standard output.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("call {} {}", self.microseconds, self.status)
    }

    /// From such a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (microseconds, status) = line.strip_prefix("call ")?.split_once(' ')?;
        Some(Self { microseconds: microseconds.parse().ok()?, status: status.parse().ok()? })
    }
}

/// Calls and prints each [`Call`] with `print`. `arguments`: the node's address, how many rounds, whether to wait between them until no machine is
/// left (`cold` or `warm`), and the paths that are called at once in each.
///
/// # Errors
/// A call gets no answer.
pub fn call(arguments: &[String], mut print: impl FnMut(&Call)) -> io::Result<()> {
    let wrong = || io::Error::other("usage: kvm-host call ADDRESS ROUNDS cold|warm PATH...");
    let [address, rounds, kind, paths @ ..] = arguments else { return Err(wrong()) };
    let rounds: u32 = rounds.parse().map_err(|_| wrong())?;
    for _ in 0..rounds {
        if kind == "cold" {
            wait_until_empty(address)?;
        }
        let calls: Vec<io::Result<Call>> = thread::scope(|scope| {
            let calls: Vec<_> = paths.iter().map(|path| scope.spawn(|| get(address, path))).collect();
            calls
                .into_iter()
                .map(|call| call.join().unwrap_or_else(|_| Err(io::Error::other("a call panicked"))))
                .collect()
        });
        for call in calls {
            print(&call?);
        }
    }
    Ok(())
}

fn get(address: &str, path: &str) -> io::Result<Call> {
    let began = Instant::now();
    let mut stream = ask(address, path)?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut answer = Vec::from(first);
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Call { microseconds, status: status.ok_or_else(|| io::Error::other(format!("no answer: {answer}")))? })
}

/// Connects and asks.
pub(crate) fn ask(address: &str, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    Ok(stream)
}

/// Until the node has no machine: what the last calls left does not run beside the next.
fn wait_until_empty(address: &str) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_WITHIN;
    loop {
        let mut answer = String::new();
        ask(address, "/v2/about/executions/list")?.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
        if answer.trim_end().ends_with("\r\n\r\n{}") {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("machines do not end: {answer}")));
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_line_reads_back() {
        let call = Call { microseconds: 7, status: 200 };
        assert_eq!(Call::parse(&call.to_line()), Some(call));
        assert_eq!(Call::parse("call x 200"), None);
        assert_eq!(Call::parse("run 1 2"), None);
    }

    #[test]
    fn calls_are_counted_once_the_node_is_empty() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        // First two machines, then none; then the call.
        let answers = ["{\"a\":{}}", "{}", "hello"];
        let server = thread::spawn(move || {
            for (answer, stream) in answers.into_iter().zip(listener.incoming()) {
                let mut stream = stream.expect("a connection");
                let mut request = [0; 512];
                let read = stream.read(&mut request).expect("a request");
                assert!(request[..read].starts_with(if answer == "hello" { b"GET /vm/x " } else { b"GET /v2/ab" }));
                stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{answer}").as_bytes()).expect("answered");
            }
        });
        let arguments = [&address, "1", "cold", "/vm/x"].map(str::to_owned);
        let mut calls = Vec::new();
        call(&arguments, |call| calls.push(call.clone())).expect("called");
        server.join().expect("served");
        assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [200]);
    }
}
