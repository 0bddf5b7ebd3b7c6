//! Gives calls a machine that runs their program, and ends machines that nobody needs.
//!
//! One task owns [`state::State`] and is the only one that changes it: [`Owner::select`] waits for
//! something to happen, [`Owner::apply`] is plain code that feeds it to the state and carries out what
//! follows, which for everything slow means starting a task that reports back ([`work`], [`run`]). There
//! is no lock, so a slow download or boot of one program holds up no other.
//!
//! [`Executor::call`] is the way in, a [`Lease`] the way out: as long as it is held, its machine stays.

pub mod admit;
mod pace;
mod run;
mod start;
pub mod state;
mod work;

use crate::{
    cache::{
        Cache, CacheError, CachedFile,
        program::{Blueprint, LookupError, Programs},
    },
    config,
    guest::GuestError,
    log::Logs,
    machine::{Ended, Images, Machine, MachineError},
    meter::Usage,
    network::host::{HostNetwork, NetworkError},
    pool::Pool,
    template::{Template, Templates},
    volume::{Volume, VolumeError, Volumes},
};
use ccn_message::{ItemHash, content::program::Interface};
use guest_protocol::{Failure, HTTP_PORT};
use pace::Pace;
use state::{Effect, Event, Execution, Limits, MachineId, Refusal, StartId, State, Traits, WaiterId};
use std::{
    collections::HashMap,
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::UnixStream,
    sync::{Notify, mpsc, oneshot, watch},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

/// Variable of a program that says how many calls one machine of it gets at once; 1 for one that does not bear two.
const CONCURRENCY_VARIABLE: &str = "BETH_CONCURRENCY";
/// Variable of a program that says how many machines of it there may be; 1 for one that keeps something in its memory.
const MACHINES_VARIABLE: &str = "BETH_MACHINES";

/// What machines are made with.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// Looks programs up.
    pub programs: Programs,
    /// Has their files.
    pub cache: Cache,
    /// Monitor, kernel, initramfs.
    pub images: Arc<Images>,
    /// Monitors that wait for a machine.
    pub pool: Pool,
    /// Machines to go on from.
    pub templates: Templates,
    /// What machines write to.
    pub volumes: Volumes,
    /// Where what they print goes.
    pub logs: Logs,
    /// The network of machines, if there is one.
    pub network: Option<HostNetwork>,
    /// How long things may take.
    pub settings: Arc<config::Programs>,
}

/// Why a program does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot be looked up.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// One of its files cannot be had.
    #[error(transparent)]
    Files(#[from] CacheError),
    /// One of its volumes cannot be had.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It asks for a network and gets none.
    #[error(transparent)]
    Network(#[from] Box<NetworkError>),
    /// The machine cannot be made, or was lost.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Init cannot be talked to.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The machine ended before its program was ready.
    #[error("the machine ended while its program was started: {0:?}")]
    Ended(Box<Ended>),
    /// Init was not up in time.
    #[error("the machine was not up within {0:?}")]
    BootTimedOut(Duration),
    /// The guest did not stand still to be copied.
    #[error("the machine did not stand still within {0:?}")]
    NotFrozen(Duration),
    /// The program did not listen in time.
    #[error("the program did not listen within {0:?}")]
    StartTimedOut(Duration),
    /// The program is at fault, in the words of the guest.
    #[error("{}", .0.error)]
    Program(Failure),
    /// The program ended instead of listening. Its own output tells more.
    #[error("the program ended with status {0} before it listened")]
    Exited(u8),
    /// The node stops.
    #[error("the machine was stopped before its program was ready")]
    Stopped,
    /// A defect of this node.
    #[error("a task of this node failed")]
    Defect,
}

/// Why a call gets no machine.
pub type CallError = Refusal<Arc<StartError>>;

/// A machine whose program listens.
#[derive(Debug)]
struct Running {
    machine: Machine,
    blueprint: Arc<Blueprint>,
    /// What it was made of, for another one.
    files: Vec<CachedFile>,
    usage: Arc<Usage>,
    /// Told when a call is over.
    first_use: Arc<Notify>,
    /// What the machine went on from, if that was the program's own.
    template: Option<Arc<Template>>,
    templates: Templates,
}

impl Running {
    /// A call is over.
    fn used(&self, crashed: bool) {
        self.first_use.notify_one();
        // A program that answers where it was booted and breaks where it was copied would break at each start.
        if crashed
            && self.usage.calls() == 0
            && let Some(template) = &self.template
        {
            tracing::warn!(item_hash = %self.blueprint.item_hash, key = %template.key, "the first call of a clone broke it: its template goes");
            self.templates.failed(template);
        }
    }
}

/// What the owner's mailbox takes. Unbounded, and bounded by what sends: a call is one of a bounded number
/// of connections and sends twice, a machine is one of those that fit the node and sends four times.
enum Message {
    Call { waiter: WaiterId, item_hash: ItemHash, reply: oneshot::Sender<Result<Lease, CallError>> },
    Looked { start: StartId, found: Result<Arc<Blueprint>, StartError> },
    Fetched { start: StartId, inputs: Result<Inputs, StartError> },
    Up { machine: MachineId, running: Arc<Running> },
    Failed { machine: MachineId, error: StartError },
    Executions(oneshot::Sender<Vec<Execution>>),
    Event(Event<Arc<StartError>>),
}

/// The way to the executor. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Executor {
    mailbox: mpsc::UnboundedSender<Message>,
    waiters: Arc<AtomicU64>,
    drained: watch::Receiver<bool>,
}

/// The use of a machine by one call. While it is held the machine stays.
pub struct Lease {
    id: MachineId,
    running: Arc<Running>,
    crashed: AtomicBool,
    mailbox: mpsc::UnboundedSender<Message>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lease").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Lease {
    /// A stream to the program's HTTP server.
    ///
    /// # Errors
    /// The machine is gone, and nothing was sent to it.
    pub async fn connect(&self) -> Result<UnixStream, MachineError> {
        self.running.machine.connect(HTTP_PORT).await
    }

    /// What runs in the machine.
    #[must_use]
    pub fn blueprint(&self) -> &Blueprint {
        &self.running.blueprint
    }

    /// What the machine was used for.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.running.usage
    }

    /// Says that the program or its machine broke under this call: the machine gets no further calls.
    pub fn crashed(&self) {
        self.crashed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let crashed = self.crashed.load(Ordering::Relaxed);
        self.running.used(crashed);
        // Nobody listens once the node has stopped.
        let _ = self.mailbox.send(Message::Event(Event::Released { machine: self.id, crashed }));
    }
}

/// Tells the owner when a call is gone before it was answered.
struct Waiting<'a> {
    executor: &'a Executor,
    waiter: WaiterId,
    item_hash: &'a ItemHash,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let event = Event::Abandoned { waiter: self.waiter, item_hash: self.item_hash.clone() };
            let _ = self.executor.mailbox.send(Message::Event(event));
        }
    }
}

impl Executor {
    /// Starts the owner's task.
    #[must_use]
    pub fn new(workshop: Workshop, limits: Limits) -> Self {
        let (mailbox, inbox) = mpsc::unbounded_channel();
        let (drained_sender, drained) = watch::channel(false);
        let owner = Owner {
            state: State::new(limits),
            workshop,
            inbox,
            mailbox: mailbox.clone(),
            replies: HashMap::new(),
            refusals: Pace::new(Instant::now()),
            starts: HashMap::new(),
            running: HashMap::new(),
            stops: HashMap::new(),
            drained: drained_sender,
        };
        tokio::spawn(owner.work());
        Self { mailbox, waiters: Arc::default(), drained }
    }

    /// A machine that runs the program, started if there is none.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, item_hash: &ItemHash) -> Result<Lease, CallError> {
        let waiter = WaiterId(self.waiters.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let mut waiting = Waiting { executor: self, waiter, item_hash, answered: false };
        let _ = self.mailbox.send(Message::Call { waiter, item_hash: item_hash.clone(), reply });
        let answer = answer.await;
        waiting.answered = true;
        // Without an owner the node has stopped.
        answer.unwrap_or(Err(Refusal::Draining))
    }

    /// The machines there are.
    pub async fn executions(&self) -> Vec<Execution> {
        let (reply, answer) = oneshot::channel();
        let _ = self.mailbox.send(Message::Executions(reply));
        answer.await.unwrap_or_default()
    }

    /// Takes no new calls, lets those under way end, and then ends all machines. Returns when all is done.
    pub async fn drain(&self) {
        let _ = self.mailbox.send(Message::Event(Event::Drain));
        let mut drained = self.drained.clone();
        // An owner that is gone has nothing left.
        let _ = drained.wait_for(|drained| *drained).await;
    }
}

/// What a machine is made from and goes on using.
#[derive(Debug, Clone, Default)]
struct Inputs {
    /// The files of the blueprint, in its order.
    files: Vec<CachedFile>,
    /// The persistent volumes likewise: this machine's until it has ended.
    persistent: Vec<Volume>,
}

/// A start under way.
#[derive(Default)]
struct Start {
    blueprint: Option<Arc<Blueprint>>,
    inputs: Inputs,
}

/// The one task.
struct Owner {
    state: State<Arc<StartError>>,
    workshop: Workshop,
    inbox: mpsc::UnboundedReceiver<Message>,
    mailbox: mpsc::UnboundedSender<Message>,
    replies: HashMap<WaiterId, (ItemHash, oneshot::Sender<Result<Lease, CallError>>)>,
    /// How much is said of calls that got no machine.
    refusals: Pace,
    starts: HashMap<StartId, Start>,
    running: HashMap<MachineId, Arc<Running>>,
    stops: HashMap<MachineId, CancellationToken>,
    drained: watch::Sender<bool>,
}

/// What the owner waits for.
enum Action {
    Message(Message),
    Tick,
}

impl Owner {
    async fn work(mut self) {
        while let Some(action) = self.select().await {
            self.apply(action, Instant::now());
        }
    }

    async fn select(&mut self) -> Option<Action> {
        let deadline = self.state.next_deadline();
        let tick = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = self.inbox.recv() => message.map(Action::Message),
            () = tick => Some(Action::Tick),
        }
    }

    fn apply(&mut self, action: Action, now: Instant) {
        let event = match action {
            Action::Tick => Event::Tick,
            Action::Message(Message::Event(event)) => {
                match &event {
                    Event::Abandoned { waiter, .. } => drop(self.replies.remove(waiter)),
                    Event::Ended { machine } => {
                        self.running.remove(machine);
                        self.stops.remove(machine);
                    }
                    _ => {}
                }
                event
            }
            Action::Message(Message::Call { waiter, item_hash, reply }) => {
                self.replies.insert(waiter, (item_hash.clone(), reply));
                Event::Call { waiter, item_hash }
            }
            Action::Message(Message::Looked { start, found }) => {
                let outcome = found.map_err(Arc::new).map(|blueprint| {
                    let traits = traits(&blueprint);
                    self.starts.entry(start).or_default().blueprint = Some(blueprint);
                    traits
                });
                Event::Resolved { start, outcome }
            }
            Action::Message(Message::Fetched { start, inputs }) => {
                // A start that is over has no use for them: its program's volumes are free again.
                let outcome = inputs.map_err(Arc::new).map(|inputs| {
                    if let Some(start) = self.starts.get_mut(&start) {
                        start.inputs = inputs;
                    }
                });
                Event::Prepared { start, outcome }
            }
            Action::Message(Message::Up { machine, running }) => {
                self.running.insert(machine, running);
                Event::Ready { machine }
            }
            Action::Message(Message::Failed { machine, error }) => {
                let suspect_files = run::suspects_files(&error);
                Event::Failed { machine, failure: Arc::new(error), suspect_files }
            }
            Action::Message(Message::Executions(reply)) => {
                let _ = reply.send(self.state.executions().collect());
                return;
            }
        };
        for effect in self.state.handle(event, now) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect<Arc<StartError>>) {
        match effect {
            Effect::Resolve { start, item_hash } => {
                work::look_up(self.workshop.clone(), self.mailbox.clone(), start, item_hash);
            }
            Effect::Prepare { start } => {
                let blueprint = self.starts.get(&start).and_then(|start| start.blueprint.clone());
                work::fetch(self.workshop.clone(), self.mailbox.clone(), start, blueprint);
            }
            Effect::Heal { start } => {
                let inputs = self.starts.get_mut(&start).map(|start| std::mem::take(&mut start.inputs));
                work::heal(self.workshop.clone(), self.mailbox.clone(), start, inputs.unwrap_or_default());
            }
            Effect::Gather { start, from } => {
                if let Some(running) = self.running.get(&from) {
                    let blueprint = Some(Arc::clone(&running.blueprint));
                    // A program with persistent volumes has one machine.
                    let inputs = Inputs { files: running.files.clone(), persistent: Vec::new() };
                    self.starts.insert(start, Start { blueprint, inputs });
                }
            }
            Effect::Boot { start, machine } => {
                let stop = CancellationToken::new();
                self.stops.insert(machine, stop.clone());
                let start = self.starts.get(&start);
                let order = run::Order {
                    machine,
                    blueprint: start.and_then(|start| start.blueprint.clone()),
                    inputs: start.map(|start| start.inputs.clone()).unwrap_or_default(),
                    stop,
                };
                run::machine(self.workshop.clone(), self.mailbox.clone(), order);
            }
            Effect::Discard { start } => drop(self.starts.remove(&start)),
            Effect::Stop { machine } => {
                if let Some(stop) = self.stops.get(&machine) {
                    stop.cancel();
                }
            }
            Effect::Answer { waiter, answer } => self.answer(waiter, answer),
            Effect::Drained => drop(self.drained.send_replace(true)),
        }
    }

    fn answer(&mut self, waiter: WaiterId, answer: Result<MachineId, CallError>) {
        let answer = match answer {
            Ok(id) => match self.running.get(&id) {
                Some(running) => Ok(Lease {
                    id,
                    running: running.clone(),
                    crashed: AtomicBool::new(false),
                    mailbox: self.mailbox.clone(),
                }),
                None => Err(Refusal::Start(Arc::new(StartError::Defect))),
            },
            Err(refusal) => Err(refusal),
        };
        if let Some((item_hash, reply)) = self.replies.remove(&waiter) {
            if let Err(refusal) = &answer
                && let Some(silent) = self.refusals.say(Instant::now())
            {
                tracing::info!(%item_hash, why = refusal.name(), silent, "a call is refused");
            }
            // A lease that nobody takes is dropped here, which releases it.
            let _ = reply.send(answer);
        }
    }
}

fn traits(blueprint: &Blueprint) -> Traits {
    let number = |variable| blueprint.variable(variable)?.parse().ok();
    Traits {
        need: run::need(blueprint),
        listens_late: blueprint.interface == Interface::Binary,
        calls_at_once: number(CONCURRENCY_VARIABLE),
        // The second one would wait for the volumes of the first.
        max_machines: if blueprint.has_persistent_volume() {
            Some(NonZeroUsize::MIN)
        } else {
            number(MACHINES_VARIABLE)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::program::tests::blueprint;
    use serde_json::{Value, json};

    #[test]
    fn a_program_with_a_persistent_volume_has_one_machine() {
        let check = |volumes: Value, machines: &str, most: Option<usize>| {
            let blueprint = blueprint(&volumes, &json!({MACHINES_VARIABLE: machines}), 1).expect("a blueprint");
            assert_eq!(traits(&blueprint).max_machines.map(NonZeroUsize::get), most, "{volumes} {machines}");
        };
        let persistent = json!([{"persistence": "host", "name": "a", "size_mib": 5}]);
        check(json!([]), "7", Some(7));
        check(json!([{"ephemeral": true, "size_mib": 5}]), "", None);
        check(persistent.clone(), "7", Some(1));
        check(persistent, "", Some(1));
    }
}
