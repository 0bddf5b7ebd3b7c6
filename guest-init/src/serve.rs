//! The loop of a guest that has a program: one thread, one epoll.
//!
//! ```text
//!   Starting --- report / port listens ---> Ready --- Shutdown ---> Stopping --- program ends / grace is over ---> end
//!      '--- program ends: Failed --> end      '--- program ends: Exited ---> end
//! ```

use crate::{
    Ports,
    control::Control,
    doorbell,
    freeze::{self, FreezeError},
    logs::Logs,
    orphans,
    program::{self, BINARY_PORT, Started},
    relay::{self, CHUNK_BYTES, Relay, Turn, Which},
};
use guest_protocol::{
    Command, Configuration, Event, Failure, LogSource, MAX_TRACEBACK_BYTES, Program, Stage, doorbell as bell,
};
use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    fd::{AsFd, OwnedFd},
    process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, WaitStatus, pidfd_open, setrlimit, wait},
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _},
    process::{Child, ChildStderr, ChildStdout},
    time::{Duration, Instant},
};

/// Most streams to the program at a time; more are closed without a byte.
const MAX_RELAYS: usize = 1024;
/// Most descriptors of init, and of the program, which inherits the limit. The kernel gives 1024 by itself: too few for the calls
/// that the host lets in at once, each of which takes two here.
const MAX_DESCRIPTORS: u64 = 65_536;
const _: () = assert!(MAX_DESCRIPTORS > 2 * MAX_RELAYS as u64 + 64);
/// Most reads of what an ended program has left in a pipe: 1 MiB. Something that it has left running may go on writing.
const MAX_LAST_READS: usize = 64;
/// Events taken from the kernel at a time.
const EVENTS_PER_WAIT: usize = 128;
/// How often a starting binary's port is looked at: soon at first, then less and less.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(50);
/// How long the last bytes of an ended program may take to reach the host.
const LAST_BYTES_LIMIT: Duration = Duration::from_millis(400);
/// What a program is told when its machine became another one: its random numbers, keys and times are another's too. Programs that do not
/// know it do not notice.
const RESTORED: Signal = Signal::CONT;
/// Exit status of a program that a signal has ended, as shells count.
const SIGNAL_STATUS: i32 = 128;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Control,
    LogListener,
    LogStream,
    HttpListener,
    Stdout,
    Stderr,
    Report,
    Child,
    ControlListener,
    Orphans,
    Relay(usize, Which),
}

impl Token {
    const RELAYS: u64 = 16;

    fn to_data(self) -> EventData {
        EventData::new_u64(match self {
            Self::Control => 0,
            Self::LogListener => 1,
            Self::LogStream => 2,
            Self::HttpListener => 3,
            Self::Stdout => 4,
            Self::Stderr => 5,
            Self::Report => 6,
            Self::Child => 7,
            Self::ControlListener => 8,
            Self::Orphans => 9,
            Self::Relay(index, Which::Host) => Self::RELAYS + index as u64 * 2,
            Self::Relay(index, Which::Program) => Self::RELAYS + index as u64 * 2 + 1,
        })
    }

    fn from_data(data: EventData) -> Self {
        match data.u64() {
            0 => Self::Control,
            1 => Self::LogListener,
            2 => Self::LogStream,
            3 => Self::HttpListener,
            4 => Self::Stdout,
            5 => Self::Stderr,
            6 => Self::Report,
            7 => Self::Child,
            8 => Self::ControlListener,
            9 => Self::Orphans,
            relay => {
                let relay = relay.saturating_sub(Self::RELAYS);
                let which = if relay.is_multiple_of(2) { Which::Host } else { Which::Program };
                Self::Relay((relay / 2) as usize, which)
            }
        }
    }
}

/// Where the program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting { look: Duration },
    Ready,
    Stopping { kill_at: Instant },
}

/// Why the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The program has ended with this status.
    Program(u8),
    /// The host is gone.
    Host,
}

struct Server<'a> {
    configuration: &'a Configuration,
    epoll: OwnedFd,
    /// None between a freeze and the host's next greeting.
    control: Option<Control>,
    ports: Ports,
    logs: Logs,
    child: Child,
    /// Readable when a child has ended, whoever's it was.
    orphans: File,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    report: Option<File>,
    reported: Vec<u8>,
    phase: Phase,
    relays: Vec<Option<Relay>>,
    free: Vec<usize>,
    /// Relays whose turn ended before their bytes.
    more: VecDeque<usize>,
    chunk: Vec<u8>,
}

/// Raises the limit of descriptors. If the kernel refuses, fewer calls fit at once.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let limit = Rlimit { current: Some(MAX_DESCRIPTORS), maximum: Some(MAX_DESCRIPTORS) };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Serves until the program or the host ends; returns the status to report.
pub(crate) fn serve(
    configuration: &Configuration,
    started: Started,
    control: Control,
    ports: Ports,
    logs: Logs,
) -> io::Result<u8> {
    let mut child = started.child;
    let mut server = Server {
        configuration,
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        control: Some(control),
        ports,
        logs,
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        child,
        orphans: orphans::watch()?.into(),
        report: started.report,
        reported: Vec::new(),
        phase: Phase::Starting { look: FIRST_LOOK },
        relays: Vec::new(),
        free: Vec::new(),
        more: VecDeque::new(),
        chunk: vec![0; CHUNK_BYTES],
    };
    let _pidfd = server.watch_everything()?;
    server.tell(&Event::Started);
    let end = server.run()?;
    server.finish(end);
    Ok(match end {
        End::Program(status) => status,
        End::Host => 0,
    })
}

impl Server<'_> {
    fn watch_everything(&self) -> io::Result<OwnedFd> {
        let pid = self.pid().ok_or_else(|| io::Error::other("the program has no process id"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        self.watch(&pidfd, Token::Child, EventFlags::IN)?;
        self.watch(&self.orphans, Token::Orphans, EventFlags::IN)?;
        self.watch(&self.ports.control, Token::ControlListener, EventFlags::IN)?;
        self.watch_control()?;
        self.watch(&self.ports.logs, Token::LogListener, EventFlags::IN)?;
        self.watch(&self.ports.http, Token::HttpListener, EventFlags::IN)?;
        if let Some(stdout) = &self.stdout {
            rustix::io::ioctl_fionbio(stdout, true)?;
            self.watch(stdout, Token::Stdout, EventFlags::IN)?;
        }
        if let Some(stderr) = &self.stderr {
            rustix::io::ioctl_fionbio(stderr, true)?;
            self.watch(stderr, Token::Stderr, EventFlags::IN)?;
        }
        if let Some(report) = &self.report {
            self.watch(report, Token::Report, EventFlags::IN)?;
        }
        Ok(pidfd)
    }

    fn watch_control(&self) -> io::Result<()> {
        self.control.as_ref().map_or(Ok(()), |control| self.watch(control, Token::Control, EventFlags::IN))
    }

    fn watch(&self, descriptor: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        epoll::add(&self.epoll, descriptor, token.to_data(), flags)?;
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn run(&mut self) -> io::Result<End> {
        loop {
            for (token, flags) in self.wait(self.patience())? {
                if let Some(end) = self.handle(token, flags) {
                    return Ok(end);
                }
            }
            self.take_turns();
            if let Some(end) = self.look_around() {
                return Ok(end);
            }
        }
    }

    /// How long nothing has to be looked at; none for as long as nothing happens: each look of an idle guest costs its host.
    fn patience(&self) -> Option<Duration> {
        if !self.more.is_empty() {
            return Some(Duration::ZERO);
        }
        match self.phase {
            Phase::Starting { look } if self.configuration.program == Program::Binary => Some(look),
            Phase::Starting { .. } | Phase::Ready => None,
            Phase::Stopping { kill_at } => Some(kill_at.saturating_duration_since(Instant::now())),
        }
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<Vec<(Token, EventFlags)>> {
        let mut events = Vec::with_capacity(EVENTS_PER_WAIT);
        let limit = limit.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().map(|event| (Token::from_data(event.data), event.flags)).collect())
    }

    fn handle(&mut self, token: Token, flags: EventFlags) -> Option<End> {
        match token {
            Token::Control => return self.obey(),
            Token::ControlListener => {
                // One host has one stream: the newest counts.
                while let Some(stream) = self.ports.control.accept() {
                    self.control = Control::greet(stream).ok();
                    if self.watch_control().is_err() {
                        self.control = None;
                    }
                }
            }
            Token::LogListener => {
                while let Some(stream) = self.ports.logs.accept() {
                    // Edges of writability only: a stream that takes everything is not asked again and again.
                    if self.watch(&stream, Token::LogStream, EventFlags::OUT | EventFlags::ET).is_ok() {
                        self.logs.attach(stream);
                        self.logs.send();
                    }
                }
            }
            Token::LogStream => {
                self.logs.send();
            }
            Token::HttpListener => {
                while let Some(stream) = self.ports.http.accept() {
                    self.add_relay(stream);
                }
            }
            Token::Stdout | Token::Stderr => self.read_output(token),
            Token::Report => self.read_report(),
            // Reaped below, where every child is.
            Token::Child => {}
            Token::Orphans => orphans::heard(&mut self.orphans),
            Token::Relay(index, which) => {
                if let Some(Some(relay)) = self.relays.get_mut(index) {
                    let ended = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                    let readable = ended || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
                    relay.ready(which, readable, ended || flags.contains(EventFlags::OUT));
                    self.pump(index);
                }
            }
        }
        None
    }

    /// Commands of the host.
    fn obey(&mut self) -> Option<End> {
        loop {
            match self.control.as_mut()?.receive() {
                Ok(None) => return None,
                Ok(Some(Command::Shutdown { grace_ms })) => {
                    program::signal(&self.child, Signal::TERM);
                    let kill_at = Instant::now() + Duration::from_millis(grace_ms.into());
                    self.phase = Phase::Stopping { kill_at };
                }
                Ok(Some(Command::Freeze)) => {
                    if let Err(error) = self.freeze() {
                        // A machine that may be the copy of another serves nobody.
                        self.logs.note(&error.to_string());
                        program::signal(&self.child, Signal::KILL);
                        return Some(End::Host);
                    }
                }
                Ok(Some(Command::Configure(_) | Command::Prepare(_))) => {
                    self.logs.note("a second configuration is ignored");
                }
                Err(_) => {
                    program::signal(&self.child, Signal::KILL);
                    return Some(End::Host);
                }
            }
        }
    }

    /// Stands still for a snapshot without a stream to the host; whoever goes on is another machine, and its program is told.
    fn freeze(&mut self) -> Result<(), FreezeError> {
        self.logs.send();
        self.logs.detach();
        self.control = None;
        freeze::freeze()?;
        // Before any call: what the signal interrupts has not seen one yet.
        program::signal(&self.child, RESTORED);
        Ok(())
    }

    /// What has to be done from time to time.
    fn look_around(&mut self) -> Option<End> {
        if let Some(status) = self.reap() {
            return Some(End::Program(status));
        }
        match &mut self.phase {
            Phase::Starting { look } if self.configuration.program == Program::Binary => {
                *look = (*look * 3 / 2).min(LAST_LOOK);
                if program::listens_on(BINARY_PORT) {
                    self.become_ready();
                }
            }
            Phase::Stopping { kill_at } if Instant::now() >= *kill_at => {
                program::signal(&self.child, Signal::KILL);
            }
            Phase::Starting { .. } | Phase::Ready | Phase::Stopping { .. } => {}
        }
        None
    }

    /// Every child that has ended: orphans vanish, the program's status is returned.
    fn reap(&mut self) -> Option<u8> {
        let program = self.pid();
        let mut ended = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == program {
                ended = Some(exit_status(status));
            }
        }
        ended
    }

    fn become_ready(&mut self) {
        self.phase = Phase::Ready;
        self.tell(&Event::Ready);
        doorbell::doorbell(bell::PROGRAM_READY, 0);
    }

    /// Says something to the host. One that is gone is noticed by the loop.
    fn tell(&mut self, event: &Event) {
        if let Some(control) = &mut self.control {
            let _ = control.send(event);
        }
    }

    fn read_output(&mut self, token: Token) {
        let open = match token {
            Token::Stdout => self.stdout.as_mut().map(|pipe| self.logs.read(LogSource::Stdout, pipe)),
            _ => self.stderr.as_mut().map(|pipe| self.logs.read(LogSource::Stderr, pipe)),
        };
        if open == Some(false) {
            match token {
                Token::Stdout => self.stdout = None,
                _ => self.stderr = None,
            }
        }
        self.logs.send();
    }

    fn read_report(&mut self) {
        let Some(report) = &mut self.report else {
            return;
        };
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = report.read(&mut chunk) {
            let room = MAX_TRACEBACK_BYTES.saturating_sub(self.reported.len());
            self.reported.extend_from_slice(&chunk[..read.min(room)]);
        }
        if self.reported.first() == Some(&b'R') && matches!(self.phase, Phase::Starting { .. }) {
            self.become_ready();
        }
    }

    fn add_relay(&mut self, host: File) {
        // A program that does not take the connection makes the host's stream end without a byte.
        let Ok(program) = relay::connect_to(self.configuration.program) else {
            return;
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.relays.len() < MAX_RELAYS => {
                self.relays.push(None);
                self.relays.len() - 1
            }
            None => return,
        };
        let relay = Relay::new(host, program);
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let (host, program) = relay.sockets();
        let watched = self
            .watch(host, Token::Relay(index, Which::Host), edges)
            .and_then(|()| self.watch(program, Token::Relay(index, Which::Program), edges));
        if watched.is_err() {
            self.free.push(index);
            return;
        }
        self.relays[index] = Some(relay);
        self.pump(index);
    }

    fn pump(&mut self, index: usize) {
        let Some(Some(relay)) = self.relays.get_mut(index) else {
            return;
        };
        match relay.pump(&mut self.chunk) {
            Turn::Waits => {}
            Turn::More => {
                if !self.more.contains(&index) {
                    self.more.push_back(index);
                }
            }
            Turn::Over => {
                self.relays[index] = None;
                self.more.retain(|other| *other != index);
                self.free.push(index);
            }
        }
    }

    fn take_turns(&mut self) {
        for _ in 0..self.more.len() {
            let Some(index) = self.more.pop_front() else {
                return;
            };
            self.pump(index);
        }
    }

    /// Tells the host how it ended, and lets the last bytes go.
    fn finish(&mut self, end: End) {
        let End::Program(status) = end else { return };
        self.read_report();
        if let Some(mut pipe) = self.stdout.take() {
            drain(&mut self.logs, LogSource::Stdout, &mut pipe);
        }
        if let Some(mut pipe) = self.stderr.take() {
            drain(&mut self.logs, LogSource::Stderr, &mut pipe);
        }
        let event = match self.phase {
            Phase::Starting { .. } => Event::Failed(self.failure(status)),
            Phase::Ready | Phase::Stopping { .. } => Event::Exited { status },
        };
        self.tell(&event);
        // A stream that the host has opened and nobody has taken yet.
        self.handle(Token::LogListener, EventFlags::IN);
        let deadline = Instant::now() + LAST_BYTES_LIMIT;
        while self.logs.send() && self.logs.stream().is_some() || self.relays.iter().any(Option::is_some) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let Ok(events) = self.wait(Some(if self.more.is_empty() { left } else { Duration::ZERO })) else {
                break;
            };
            for (token, flags) in events {
                if matches!(token, Token::Relay(..) | Token::LogStream | Token::LogListener) {
                    self.handle(token, flags);
                }
            }
            self.take_turns();
        }
        self.logs.hand_over(deadline);
    }

    /// Why the program ended before it listened.
    fn failure(&self, status: u8) -> Failure {
        let text = String::from_utf8_lossy(&self.reported);
        let (error, traceback) = match text.strip_prefix('F').and_then(|text| text.split_once('\n')) {
            Some((error, traceback)) => (error.to_owned(), traceback.to_owned()),
            None => {
                let listening = match self.configuration.program {
                    Program::Asgi => "it served requests".to_owned(),
                    Program::Binary => format!("it listened on port {BINARY_PORT}"),
                };
                (format!("the program ended with status {status} before {listening}"), self.logs.latest())
            }
        };
        Failure { stage: Stage::Start, error, traceback }
    }
}

/// Reads what is left in a pipe.
fn drain(logs: &mut Logs, source: LogSource, pipe: &mut impl io::Read) {
    struct Once<'a, R>(&'a mut R, bool);
    impl<R: io::Read> io::Read for Once<'_, R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(buffer);
            self.1 = matches!(read, Ok(1..));
            read
        }
    }
    for _ in 0..MAX_LAST_READS {
        let mut once = Once(pipe, false);
        logs.read(source, &mut once);
        if !once.1 {
            return;
        }
    }
}

/// The status of an ended program, as shells count.
fn exit_status(status: WaitStatus) -> u8 {
    let number = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => SIGNAL_STATUS + signal,
        (None, None) => SIGNAL_STATUS,
    };
    u8::try_from(number).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest never ended whose program had left a child behind that printed on and on.
    #[test]
    fn what_an_ended_program_left_has_an_end() {
        let mut logs = Logs::default();
        drain(&mut logs, LogSource::Stdout, &mut io::repeat(b'x'));
        assert!(logs.latest().starts_with('x'));
    }
}
