//! Carries orders out. A thread per connection; the only state is the table of spawned programs.

use crate::protocol::{Frame, MAX_FRAME_BYTES, Order, Program, ProtocolError, describe};
use rustix::process::{Pid, Signal};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// How long the machine stays up before somebody holds it.
const HELD_WITHIN: Duration = Duration::from_secs(60);
/// Most connections served at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 256;

/// The programs that were spawned, by process id; ended ones stay, so that their status can be asked for.
type Spawned = Arc<Mutex<HashMap<u32, Child>>>;

/// Serves until nobody holds the machine any more.
///
/// # Errors
/// Connections cannot be taken.
pub fn serve(listener: &TcpListener, secret: &str) -> io::Result<()> {
    let (release, released) = mpsc::channel();
    let (hold, held) = mpsc::channel();
    let listener = listener.try_clone()?;
    let secret: Arc<str> = secret.into();
    thread::spawn(move || {
        let spawned = Spawned::default();
        // Counts connections: each holds a clone.
        let open = Arc::new(());
        for stream in listener.incoming().map_while(Result::ok) {
            if Arc::strong_count(&open) > MAX_CONNECTIONS {
                continue;
            }
            let connection = (open.clone(), spawned.clone(), secret.clone(), hold.clone(), release.clone());
            thread::spawn(move || {
                let (_open, spawned, secret, hold, release) = connection;
                match Order::receive(&secret, &mut &stream) {
                    Ok(Order::Hold) => {
                        let _ = hold.send(());
                        let _ = Frame::Done(String::new()).send(&mut &stream);
                        wait_for_end(&stream);
                        let _ = release.send(());
                    }
                    Ok(order) => answer(&spawned, order, &stream),
                    // Said to whoever it was; there is nobody else to tell.
                    Err(error) => drop(Frame::Failed(error.to_string()).send(&mut &stream)),
                }
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    if held.recv_timeout(HELD_WITHIN).is_ok() {
        // However it ends, it is over.
        let _ = released.recv();
    }
    Ok(())
}

/// Carries one order out and answers.
fn answer(spawned: &Spawned, order: Order, stream: &TcpStream) {
    let outcome = match order {
        Order::Hold => Ok(String::new()),
        Order::Run(program) => run(&program, stream),
        Order::Spawn { program, stdout, stderr } => spawn(spawned, &program, &stdout, &stderr),
        Order::Write { path, mode } => write(&path, mode, stream),
        Order::Read { path, offset } => read(&path, offset, stream),
        Order::Kill { process, signal } => kill(process, signal),
        Order::State { process } => state(spawned, process),
        Order::Processes => processes(stream),
    };
    let last = outcome.map_or_else(Frame::Failed, Frame::Done);
    // A peer that is gone needs no answer.
    let _ = last.send(&mut &*stream);
}

fn command(program: &Program) -> Result<Command, String> {
    let (name, arguments) = program.arguments.split_first().ok_or("no program was named")?;
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    for variable in &program.variables {
        let (name, value) = variable.split_once('=').ok_or_else(|| format!("{variable:?} is no NAME=value"))?;
        command.env(name, value);
    }
    Ok(command)
}

fn run(program: &Program, stream: &TcpStream) -> Result<String, String> {
    let name = program.arguments.join(" ");
    let mut child = command(program)?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    let group = child.id();
    if let Ok(stream) = stream.try_clone() {
        // Nobody waits for it any more when the connection ends.
        thread::spawn(move || {
            wait_for_end(&stream);
            let _ = kill_group(group);
        });
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let whole = Mutex::new(stream);
    thread::scope(|scope| {
        scope.spawn(|| stdout.map(|pipe| pass_on(pipe, &whole, Frame::Stdout)));
        scope.spawn(|| stderr.map(|pipe| pass_on(pipe, &whole, Frame::Stderr)));
    });
    child.wait().map(describe).map_err(|error| format!("cannot wait for {name}: {error}"))
}

/// Sends what a pipe or a file gives, up to its end or the peer's.
fn pass_on(mut from: impl Read, stream: &Mutex<&TcpStream>, frame: impl Fn(Vec<u8>) -> Frame) {
    let mut chunk = vec![0; MAX_FRAME_BYTES];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        let mut stream = *lock(stream);
        if frame(chunk[..read].to_vec()).send(&mut stream).is_err() {
            return;
        }
    }
}

fn spawn(spawned: &Spawned, program: &Program, stdout: &str, stderr: &str) -> Result<String, String> {
    let open = |path: &str| {
        make_parent(path)?;
        let file = File::options().create(true).append(true).open(path);
        file.map_err(|error| format!("cannot open {path}: {error}"))
    };
    let child = command(program)?
        .stdout(open(stdout)?)
        .stderr(open(stderr)?)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.arguments.join(" ")))?;
    let process = child.id();
    lock(spawned).insert(process, child);
    Ok(process.to_string())
}

fn state(spawned: &Spawned, process: u32) -> Result<String, String> {
    let mut spawned = lock(spawned);
    let child = spawned.get_mut(&process).ok_or_else(|| format!("no program {process} was started here"))?;
    match child.try_wait() {
        Ok(Some(status)) => Ok(describe(status)),
        Ok(None) => Ok("running".to_owned()),
        Err(error) => Err(format!("cannot ask for {process}: {error}")),
    }
}

fn write(path: &str, mode: u32, mut stream: &TcpStream) -> Result<String, String> {
    let fail = |error: io::Error| format!("cannot write {path}: {error}");
    make_parent(path)?;
    // A program that runs cannot be written over; its name can be taken.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path).map_err(fail)?;
    let written = io::copy(&mut stream, &mut file).map_err(fail)?;
    file.flush().map_err(fail)?;
    Ok(written.to_string())
}

fn read(path: &str, offset: u64, stream: &TcpStream) -> Result<String, String> {
    let fail = |error: io::Error| format!("cannot read {path}: {error}");
    let mut file = File::open(path).map_err(fail)?;
    file.seek(SeekFrom::Start(offset)).map_err(fail)?;
    pass_on(file, &Mutex::new(stream), Frame::Stdout);
    Ok(String::new())
}

fn kill(process: u32, signal: u32) -> Result<String, String> {
    let fail = || format!("no signal {signal} can be sent to {process}");
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or_else(fail)?;
    let number = i32::try_from(signal).map_err(|_| fail())?;
    let signal = Signal::from_named_raw(number).ok_or_else(fail)?;
    rustix::process::kill_process(pid, signal).map_err(|error| format!("cannot signal {process}: {error}"))?;
    Ok(String::new())
}

fn kill_group(process: u32) -> Result<(), rustix::io::Errno> {
    match i32::try_from(process).ok().and_then(Pid::from_raw) {
        Some(group) => rustix::process::kill_process_group(group, Signal::KILL),
        None => Ok(()),
    }
}

fn processes(stream: &TcpStream) -> Result<String, String> {
    let list = list_processes().map_err(|error| format!("cannot read /proc: {error}"))?;
    pass_on(list.as_bytes(), &Mutex::new(stream), Frame::Stdout);
    Ok(String::new())
}

/// The answer to [`Order::Processes`]: what has a command line, which the kernel's own threads do not.
///
/// # Errors
/// There is no `/proc`.
pub fn list_processes() -> io::Result<String> {
    let mut list = String::new();
    for entry in fs::read_dir("/proc")?.map_while(Result::ok) {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has ended in the meantime is left out.
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let parent = fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| parent_in(&stat));
        if let (false, Some(parent)) = (words.is_empty(), parent) {
            let text = String::from_utf8_lossy(&words).replace('\0', " ");
            list.push_str(&format!("{process} {parent} {}\n", text.trim_end().replace('\n', " ")));
        }
    }
    Ok(list)
}

/// The parent in `/proc/N/stat`: the second field after the name, which may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn make_parent(path: &str) -> Result<(), String> {
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|error| format!("cannot make {}: {error}", parent.display()))
}

/// Reads up to the end of what the peer sends.
fn wait_for_end(mut stream: &TcpStream) {
    let mut rest = [0; 64];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One order from outside, with what comes back: for the harness and for tests.
///
/// # Errors
/// The connection fails, or the agent says why it did not do it.
pub fn order(
    stream: &TcpStream,
    secret: &str,
    order: &Order,
    body: Option<&mut dyn Read>,
    mut take: impl FnMut(&Frame),
) -> Result<String, OrderError> {
    order.send(secret, &mut &*stream)?;
    if let Some(body) = body {
        io::copy(body, &mut &*stream).map_err(ProtocolError::Stream)?;
        stream.shutdown(Shutdown::Write).map_err(ProtocolError::Stream)?;
    }
    let mut stream = io::BufReader::new(stream);
    loop {
        match Frame::receive(&mut stream)? {
            Frame::Done(text) => return Ok(text),
            Frame::Failed(reason) => return Err(OrderError::Failed(reason)),
            frame @ (Frame::Stdout(_) | Frame::Stderr(_)) => take(&frame),
        }
    }
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The agent's reason.
    #[error("{0}")]
    Failed(String),
    /// It could not be asked.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent of this process, which ends with it.
    struct Agent(std::net::SocketAddr);

    impl Agent {
        fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("its number");
            thread::spawn(move || serve(&listener, "secret"));
            Self(address)
        }

        fn order(&self, what: &Order, body: Option<&mut dyn Read>) -> (Result<String, String>, String, String) {
            let stream = TcpStream::connect(self.0).expect("it listens");
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let outcome = order(&stream, "secret", what, body, |frame| match frame {
                Frame::Stdout(bytes) => stdout.extend_from_slice(bytes),
                Frame::Stderr(bytes) => stderr.extend_from_slice(bytes),
                Frame::Done(_) | Frame::Failed(_) => {}
            });
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (outcome.map_err(|error| error.to_string()), text(&stdout), text(&stderr))
        }
    }

    fn shell(script: &str) -> Program {
        Program { arguments: vec!["sh".into(), "-c".into(), script.into()], variables: vec!["GREETING=hello".into()] }
    }

    #[test]
    fn programs_run_and_their_output_and_status_come_back() {
        let agent = Agent::start();
        let (status, stdout, stderr) = agent.order(&Order::Run(shell("echo $GREETING; echo woe >&2; exit 3")), None);
        assert_eq!((status, stdout.as_str(), stderr.as_str()), (Ok("exit 3".into()), "hello\n", "woe\n"));
        let (status, _, _) = agent.order(&Order::Run(shell("kill -9 $$")), None);
        assert_eq!(status, Ok("signal 9".into()));
        let nothing = Program { arguments: vec!["/no/such/program".into()], variables: vec![] };
        let (status, _, _) = agent.order(&Order::Run(nothing), None);
        assert!(status.expect_err("no such program").contains("/no/such/program"));
    }

    #[test]
    fn files_go_in_and_come_out() {
        let agent = Agent::start();
        let folder = tempfile::tempdir().expect("a scratch folder");
        let path = folder.path().join("deep/file").display().to_string();
        let content = vec![7; 3 * MAX_FRAME_BYTES + 1];
        let order = Order::Write { path: path.clone(), mode: 0o755 };
        let (written, _, _) = agent.order(&order, Some(&mut content.as_slice()));
        assert_eq!(written, Ok(content.len().to_string()));
        let (done, stdout, _) = agent.order(&Order::Read { path: path.clone(), offset: 5 }, None);
        assert_eq!((done, stdout.len()), (Ok(String::new()), content.len() - 5));
        let (done, _, _) = agent.order(&Order::Read { path: format!("{path}-not"), offset: 0 }, None);
        assert!(done.is_err());
    }

    #[test]
    fn spawned_programs_are_watched_listed_and_killed() {
        let agent = Agent::start();
        let folder = tempfile::tempdir().expect("a scratch folder");
        let log = folder.path().join("log").display().to_string();
        let program = shell("echo up; exec sleep 4711");
        let (process, _, _) = agent.order(&Order::Spawn { program, stdout: log.clone(), stderr: log.clone() }, None);
        let process: u32 = process.expect("it starts").parse().expect("a process id");
        let state = || agent.order(&Order::State { process }, None).0;
        assert_eq!(state(), Ok("running".into()));
        while agent.order(&Order::Read { path: log.clone(), offset: 0 }, None).1.is_empty() {}
        while !agent.order(&Order::Processes, None).1.contains(&format!("{process} {} sleep 4711", std::process::id()))
        {
        }
        agent.order(&Order::Kill { process, signal: 9 }, None).0.expect("it is killed");
        while state() == Ok("running".into()) {}
        assert_eq!(state(), Ok("signal 9".into()));
    }

    #[test]
    fn a_program_ends_with_the_connection_that_ran_it() {
        let agent = Agent::start();
        let folder = tempfile::tempdir().expect("a scratch folder");
        let mark = folder.path().join("mark").display().to_string();
        let stream = TcpStream::connect(agent.0).expect("it listens");
        let program = shell(&format!("echo $$ > {mark}; sleep 4712"));
        Order::Run(program).send("secret", &mut &stream).expect("sent");
        while fs::read_to_string(&mark).unwrap_or_default().is_empty() {}
        let process: u32 = fs::read_to_string(&mark).expect("its id").trim().parse().expect("a number");
        drop(stream);
        while Path::new(&format!("/proc/{process}")).exists() {}
    }

    #[test]
    fn the_agent_ends_when_nobody_holds_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its number");
        let agent = thread::spawn(move || serve(&listener, "secret"));
        let stream = TcpStream::connect(address).expect("it listens");
        order(&stream, "secret", &Order::Hold, None, |_| {}).expect("held");
        assert!(!agent.is_finished());
        drop(stream);
        agent.join().expect("no panic").expect("a clean end");
    }
}
