//! What every program and machine of this node is doing, and what follows from what happens. Pure: no
//! clock, no task, no socket; [`State::handle`] takes an event and the time and returns what to do.
//!
//! A program:
//!
//! ```text
//!          call                plan              files            room and turn
//! (absent) ────▶ Resolving ─────────▶ Preparing ───────▶ Queued ───────────────▶ Booting
//!    ▲                                    ▲                                        │ program runs
//!    │                                    │ damaged                                ▼
//!    │◀─ any failure: all waiters ─── Healing ◀── failed to mount or unpack ──── Starting
//!    │   get it                                                                    │ listens
//!    └──────── idle too long, evicted, crashed, ended ──────────────────────────  Ready
//! ```
//!
//! A machine exists from `Boot` to `Ended`:
//!
//! ```text
//! Starting ──ready──▶ Serving ──crash of a call──▶ Retired ──last call──▶ Stopping ──▶ (gone)
//!     └──failed or told to stop──────▶ Stopping       Serving ──idle, evicted, drain──▶ Stopping
//! ```
//!
//! What always holds: a program has at most one start or one serving machine, however many calls wait;
//! every call is answered exactly once or abandoned; machines never take more than the limit together;
//! a retired machine serves the calls it has and gets no new one, so a call that follows a crash finds a
//! fresh machine.

use super::admit::{self, Hold, Need, Tenant, Verdict};
use ccn_message::ItemHash;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

/// A call that wants a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// One way of a program from absent to ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartId(pub u64);

/// One machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub u64);

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// What all machines may take together.
    pub capacity: Need,
    /// Machines that boot at once.
    pub concurrent_boots: usize,
    /// Calls that wait for one program; more are refused with [`Refusal::Busy`].
    pub max_waiting_calls: usize,
    /// Calls of one machine at once; more are refused likewise.
    pub max_calls: usize,
    /// How long a machine stays without a call.
    pub idle: Duration,
    /// How long a call waits for a binary that runs and does not listen.
    pub loading: Duration,
    /// How long a call waits for room when every machine is busy.
    pub patience: Duration,
    /// How long calls may take to end once the node stops.
    pub drain: Duration,
}

/// What a start must know of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// What its machine takes.
    pub need: Need,
    /// Whether it may run for a while before it listens, as binaries may; its callers then get a page
    /// that tries again instead of a long silence.
    pub listens_late: bool,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event<F> {
    /// A call wants its program.
    Call {
        /// The call.
        waiter: WaiterId,
        /// The program.
        item_hash: ItemHash,
    },
    /// A call that waited is gone.
    Abandoned {
        /// The call.
        waiter: WaiterId,
        /// The program.
        item_hash: ItemHash,
    },
    /// `Resolve` is done.
    Resolved {
        /// Of this start.
        start: StartId,
        /// What the program is.
        outcome: Result<Traits, F>,
    },
    /// `Prepare` is done.
    Prepared {
        /// Of this start.
        start: StartId,
        /// Whether all files are there.
        outcome: Result<(), F>,
    },
    /// `Heal` is done.
    Healed {
        /// Of this start.
        start: StartId,
        /// Whether a file was damaged, so that another attempt is worth it.
        damaged: bool,
    },
    /// The program runs; it may not listen yet.
    Started {
        /// In this machine.
        machine: MachineId,
    },
    /// The program listens.
    Ready {
        /// In this machine.
        machine: MachineId,
    },
    /// The machine will not become ready, and ends.
    Failed {
        /// This machine.
        machine: MachineId,
        /// Why.
        failure: F,
        /// Whether a damaged file may be the reason.
        suspect_files: bool,
    },
    /// A call is over.
    Released {
        /// In this machine.
        machine: MachineId,
        /// Whether it ended as if the program or the machine had crashed.
        crashed: bool,
    },
    /// The machine is gone; the last of it, after `Ready` or `Failed`.
    Ended {
        /// This machine.
        machine: MachineId,
    },
    /// Time has passed.
    Tick,
    /// The node stops.
    Drain,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<F> {
    /// Find out what the program is; answer with `Resolved`.
    Resolve {
        /// For this start.
        start: StartId,
        /// The program.
        item_hash: ItemHash,
    },
    /// Get the files; answer with `Prepared`.
    Prepare {
        /// For this start.
        start: StartId,
    },
    /// Look for damaged files; answer with `Healed`.
    Heal {
        /// For this start.
        start: StartId,
    },
    /// Make a machine; answer with `Started` (or not), `Ready` or `Failed`, and then `Ended`.
    Boot {
        /// Of this start.
        start: StartId,
        /// The machine's name from now on.
        machine: MachineId,
    },
    /// The start is over: what was gathered for it can go.
    Discard {
        /// This start.
        start: StartId,
    },
    /// End a machine, asking its program first.
    Stop {
        /// This machine.
        machine: MachineId,
    },
    /// Answer a call: with a machine, whose use ends with `Released`, or with a refusal.
    Answer {
        /// The call.
        waiter: WaiterId,
        /// The answer.
        answer: Result<MachineId, Refusal<F>>,
    },
    /// The node has stopped: nothing is left.
    Drained,
}

/// Why a call gets no machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal<F> {
    /// The start failed.
    Start(F),
    /// The node is full of working machines.
    Full,
    /// The program asks for more than this node has.
    TooLarge,
    /// Too many calls of this program.
    Busy,
    /// The program runs and does not listen yet.
    Loading,
    /// The node stops.
    Draining,
}

/// When a machine passed its stations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    /// The first call.
    pub defined: Instant,
    /// The message was read.
    pub preparing: Option<Instant>,
    /// The files were there.
    pub prepared: Option<Instant>,
    /// The boot began.
    pub starting: Option<Instant>,
    /// The program listened.
    pub started: Option<Instant>,
    /// The end began.
    pub stopping: Option<Instant>,
}

/// Everything, owned by the executor's one task.
#[derive(Debug)]
pub struct State<F> {
    limits: Limits,
    programs: HashMap<ItemHash, Program<F>>,
    machines: BTreeMap<MachineId, Machine>,
    /// Programs whose files are there, in order of arrival.
    queue: VecDeque<ItemHash>,
    starts: HashMap<StartId, ItemHash>,
    /// Until when the first of the queue waits for room that busy machines have; none while it waits for anything else.
    patient_until: Option<Instant>,
    /// Until when calls may go on, once the node stops.
    draining: Option<Instant>,
    drained: bool,
    last_id: u64,
}

#[derive(Debug)]
struct Program<F> {
    phase: Phase<F>,
    waiters: VecDeque<Waiter>,
    traits: Option<Traits>,
    /// Files were healed once for this start.
    healed: bool,
    timeline: Timeline,
}

#[derive(Debug)]
enum Phase<F> {
    Resolving(StartId),
    Preparing(StartId),
    Queued(StartId, Instant),
    Booting(StartId, MachineId),
    Starting(StartId, MachineId, Instant),
    Healing(StartId, F),
    Ready(MachineId),
}

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    since: Instant,
}

#[derive(Debug)]
struct Machine {
    item_hash: ItemHash,
    need: Need,
    stage: Stage,
    calls: usize,
    timeline: Timeline,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Serving { idle_since: Instant, idle_order: u64 },
    Retired,
    Stopping,
}

impl<F> Phase<F> {
    fn start(&self) -> Option<StartId> {
        match self {
            Self::Resolving(start)
            | Self::Preparing(start)
            | Self::Queued(start, _)
            | Self::Booting(start, _)
            | Self::Starting(start, ..)
            | Self::Healing(start, _) => Some(*start),
            Self::Ready(_) => None,
        }
    }

    fn machine(&self) -> Option<MachineId> {
        match self {
            Self::Booting(_, machine) | Self::Starting(_, machine, _) | Self::Ready(machine) => Some(*machine),
            Self::Resolving(_) | Self::Preparing(_) | Self::Queued(..) | Self::Healing(..) => None,
        }
    }
}

/// A machine for those who look at the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// The program.
    pub item_hash: ItemHash,
    /// When it did what.
    pub timeline: Timeline,
    /// Whether it serves calls.
    pub running: bool,
}

impl<F: Clone> State<F> {
    /// A node without programs.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            programs: HashMap::new(),
            machines: BTreeMap::new(),
            queue: VecDeque::new(),
            starts: HashMap::new(),
            patient_until: None,
            draining: None,
            drained: false,
            last_id: 0,
        }
    }

    /// Takes in what happened and returns what to do, in order.
    #[must_use]
    pub fn handle(&mut self, event: Event<F>, now: Instant) -> Vec<Effect<F>> {
        let mut effects = Vec::new();
        match event {
            Event::Call { waiter, item_hash } => self.call(waiter, item_hash, now, &mut effects),
            Event::Abandoned { waiter, item_hash } => {
                if let Some(program) = self.programs.get_mut(&item_hash) {
                    program.waiters.retain(|other| other.id != waiter);
                }
            }
            Event::Resolved { start, outcome } => self.resolved(start, outcome, now, &mut effects),
            Event::Prepared { start, outcome } => self.prepared(start, outcome, now, &mut effects),
            Event::Healed { start, damaged } => self.healed(start, damaged, &mut effects),
            Event::Started { machine } => {
                if let Some(program) = self.program_of(machine)
                    && let Phase::Booting(start, machine) = program.phase
                {
                    program.phase = Phase::Starting(start, machine, now);
                }
            }
            Event::Ready { machine } => self.ready(machine, now, &mut effects),
            Event::Failed { machine, failure, suspect_files } => {
                self.failed(machine, failure, suspect_files, now, &mut effects);
            }
            Event::Released { machine, crashed } => self.released(machine, crashed, now, &mut effects),
            Event::Ended { machine } => self.ended(machine),
            Event::Tick => {}
            Event::Drain => self.draining = self.draining.or(Some(now + self.limits.drain)),
        }
        self.expire(now, &mut effects);
        self.drain(now, &mut effects);
        self.boot_next(now, &mut effects);
        if self.draining.is_some() && !self.drained && self.programs.is_empty() && self.machines.is_empty() {
            self.drained = true;
            effects.push(Effect::Drained);
        }
        effects
    }

    /// When a [`Event::Tick`] is due, if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let idle = self.machines.values().filter_map(|machine| match machine.stage {
            Stage::Serving { idle_since, .. } if machine.calls == 0 => Some(idle_since + self.limits.idle),
            _ => None,
        });
        let loading = self.programs.values().filter_map(|program| self.loading_deadline(program));
        // Once everything was told to stop, only its end is waited for.
        let drain = self.draining.filter(|_| {
            !self.programs.is_empty() || self.machines.values().any(|machine| machine.stage != Stage::Stopping)
        });
        idle.chain(loading).chain(self.patient_until).chain(drain).min()
    }

    /// The machines there are.
    pub fn executions(&self) -> impl Iterator<Item = Execution> {
        self.machines.values().map(|machine| Execution {
            item_hash: machine.item_hash.clone(),
            timeline: machine.timeline,
            running: matches!(machine.stage, Stage::Serving { .. }),
        })
    }

    /// What all machines take.
    #[must_use]
    pub fn taken(&self) -> Need {
        Need::sum(self.machines.values().map(|machine| machine.need))
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn program_of(&mut self, machine: MachineId) -> Option<&mut Program<F>> {
        let item_hash = &self.machines.get(&machine)?.item_hash;
        self.programs.get_mut(item_hash).filter(|program| program.phase.machine() == Some(machine))
    }

    fn call(&mut self, waiter: WaiterId, item_hash: ItemHash, now: Instant, effects: &mut Vec<Effect<F>>) {
        let mut refuse = |refusal| effects.push(Effect::Answer { waiter, answer: Err(refusal) });
        if self.draining.is_some() {
            return refuse(Refusal::Draining);
        }
        let Some(program) = self.programs.get_mut(&item_hash) else {
            let start = StartId(self.next_id());
            let timeline = Timeline {
                defined: now,
                preparing: None,
                prepared: None,
                starting: None,
                started: None,
                stopping: None,
            };
            let program = Program {
                phase: Phase::Resolving(start),
                waiters: VecDeque::from([Waiter { id: waiter, since: now }]),
                traits: None,
                healed: false,
                timeline,
            };
            self.starts.insert(start, item_hash.clone());
            self.programs.insert(item_hash.clone(), program);
            return effects.push(Effect::Resolve { start, item_hash });
        };
        if let Phase::Ready(id) = program.phase {
            let machine = self.machines.get_mut(&id).expect("a ready program has its machine");
            if machine.calls >= self.limits.max_calls {
                return refuse(Refusal::Busy);
            }
            machine.calls += 1;
            return effects.push(Effect::Answer { waiter, answer: Ok(id) });
        }
        if program.waiters.len() >= self.limits.max_waiting_calls {
            return refuse(Refusal::Busy);
        }
        program.waiters.push_back(Waiter { id: waiter, since: now });
    }

    fn resolved(&mut self, start: StartId, outcome: Result<Traits, F>, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(item_hash) = self.starts.get(&start).cloned() else { return };
        match outcome {
            Ok(traits) if admit::decide::<()>(self.limits.capacity, &[], traits.need) == Verdict::TooLarge => {
                self.refuse_all(&item_hash, &Refusal::TooLarge, effects);
            }
            Ok(traits) => {
                if let Some(program) = self.programs.get_mut(&item_hash) {
                    program.traits = Some(traits);
                    program.timeline.preparing = Some(now);
                    program.phase = Phase::Preparing(start);
                    effects.push(Effect::Prepare { start });
                }
            }
            Err(failure) => self.refuse_all(&item_hash, &Refusal::Start(failure), effects),
        }
    }

    fn prepared(&mut self, start: StartId, outcome: Result<(), F>, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(item_hash) = self.starts.get(&start).cloned() else { return };
        match outcome {
            Ok(()) => {
                if let Some(program) = self.programs.get_mut(&item_hash) {
                    program.timeline.prepared = Some(now);
                    program.phase = Phase::Queued(start, now);
                    self.queue.push_back(item_hash);
                }
            }
            Err(failure) => self.refuse_all(&item_hash, &Refusal::Start(failure), effects),
        }
    }

    fn healed(&mut self, start: StartId, damaged: bool, effects: &mut Vec<Effect<F>>) {
        let Some(item_hash) = self.starts.get(&start).cloned() else { return };
        let Some(program) = self.programs.get_mut(&item_hash) else { return };
        let Phase::Healing(_, failure) = &program.phase else { return };
        if damaged {
            program.healed = true;
            program.phase = Phase::Preparing(start);
            effects.push(Effect::Prepare { start });
        } else {
            let refusal = Refusal::Start(failure.clone());
            self.refuse_all(&item_hash, &refusal, effects);
        }
    }

    fn ready(&mut self, id: MachineId, now: Instant, effects: &mut Vec<Effect<F>>) {
        let idle_order = self.next_id();
        // A machine that was told to stop meanwhile has no program any more.
        let Some(program) = self.program_of(id) else { return };
        let Some(start) = program.phase.start() else { return };
        program.phase = Phase::Ready(id);
        program.timeline.started = Some(now);
        let waiters = std::mem::take(&mut program.waiters);
        let timeline = program.timeline;
        let max_calls = self.limits.max_calls;
        let machine = self.machines.get_mut(&id).expect("the program was found by it");
        machine.stage = Stage::Serving { idle_since: now, idle_order };
        machine.timeline = timeline;
        for waiter in waiters {
            let answer = if machine.calls < max_calls {
                machine.calls += 1;
                Ok(id)
            } else {
                Err(Refusal::Busy)
            };
            effects.push(Effect::Answer { waiter: waiter.id, answer });
        }
        self.discard(start, effects);
    }

    fn failed(&mut self, id: MachineId, failure: F, suspect_files: bool, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.stage = Stage::Stopping;
        machine.timeline.stopping = Some(now);
        let item_hash = machine.item_hash.clone();
        let Some(program) = self.program_of(id) else { return };
        let Some(start) = program.phase.start() else { return };
        if suspect_files && !program.healed {
            program.phase = Phase::Healing(start, failure);
            effects.push(Effect::Heal { start });
        } else {
            self.refuse_all(&item_hash, &Refusal::Start(failure), effects);
        }
    }

    fn released(&mut self, id: MachineId, crashed: bool, now: Instant, effects: &mut Vec<Effect<F>>) {
        let idle_order = self.next_id();
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.calls = machine.calls.saturating_sub(1);
        let calls = machine.calls;
        match &mut machine.stage {
            Stage::Serving { .. } if crashed => {
                machine.stage = Stage::Retired;
                let item_hash = machine.item_hash.clone();
                self.programs.remove(&item_hash);
            }
            Stage::Serving { idle_since, idle_order: order } => (*idle_since, *order) = (now, idle_order),
            Stage::Starting | Stage::Retired | Stage::Stopping => {}
        }
        if calls == 0 && self.machines.get(&id).is_some_and(|machine| machine.stage == Stage::Retired) {
            self.stop(id, now, effects);
        }
    }

    fn ended(&mut self, id: MachineId) {
        let item_hash = match self.program_of(id) {
            Some(Program { phase: Phase::Ready(_), .. }) => {
                self.machines.get(&id).map(|machine| machine.item_hash.clone())
            }
            _ => None,
        };
        if let Some(item_hash) = item_hash {
            self.programs.remove(&item_hash);
        }
        self.machines.remove(&id);
    }

    /// Begins the end of a machine. A program that it serves is absent from now on.
    fn stop(&mut self, id: MachineId, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        if machine.stage == Stage::Stopping {
            return;
        }
        machine.stage = Stage::Stopping;
        machine.timeline.stopping = Some(now);
        let item_hash = machine.item_hash.clone();
        effects.push(Effect::Stop { machine: id });
        if let Some(program) = self.program_of(id) {
            let start = program.phase.start();
            self.programs.remove(&item_hash);
            if let Some(start) = start {
                self.discard(start, effects);
            }
        }
    }

    /// Ends a start: everybody who waits for it gets the same refusal, and the program is absent.
    fn refuse_all(&mut self, item_hash: &ItemHash, refusal: &Refusal<F>, effects: &mut Vec<Effect<F>>) {
        let Some(program) = self.programs.remove(item_hash) else { return };
        for waiter in program.waiters {
            effects.push(Effect::Answer { waiter: waiter.id, answer: Err(refusal.clone()) });
        }
        if let Some(start) = program.phase.start() {
            self.discard(start, effects);
        }
        self.queue.retain(|queued| queued != item_hash);
    }

    fn discard(&mut self, start: StartId, effects: &mut Vec<Effect<F>>) {
        if self.starts.remove(&start).is_some() {
            effects.push(Effect::Discard { start });
        }
    }

    fn loading_deadline(&self, program: &Program<F>) -> Option<Instant> {
        let Phase::Starting(_, _, since) = program.phase else { return None };
        let first = program.waiters.front().filter(|_| program.traits.is_some_and(|traits| traits.listens_late))?;
        Some(first.since.max(since) + self.limits.loading)
    }

    /// What is over by now: patience with programs that do not listen, and with idle machines.
    fn expire(&mut self, now: Instant, effects: &mut Vec<Effect<F>>) {
        let impatient: Vec<ItemHash> = self
            .programs
            .iter()
            .filter(|(_, program)| self.loading_deadline(program).is_some_and(|at| at <= now))
            .map(|(item_hash, _)| item_hash.clone())
            .collect();
        for item_hash in impatient {
            while let Some(program) = self.programs.get(&item_hash)
                && self.loading_deadline(program).is_some_and(|at| at <= now)
                && let Some(waiter) = self.programs.get_mut(&item_hash).and_then(|program| program.waiters.pop_front())
            {
                effects.push(Effect::Answer { waiter: waiter.id, answer: Err(Refusal::Loading) });
            }
        }
        let idle: Vec<MachineId> = self
            .machines
            .iter()
            .filter(|(_, machine)| match machine.stage {
                Stage::Serving { idle_since, .. } => machine.calls == 0 && idle_since + self.limits.idle <= now,
                Stage::Starting | Stage::Retired | Stage::Stopping => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.stop(id, now, effects);
        }
    }

    /// While the node stops: ends what nobody waits for, and at the deadline everything.
    fn drain(&mut self, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(until) = self.draining else { return };
        let over = until <= now;
        let unwanted: Vec<ItemHash> = self
            .programs
            .iter()
            .filter(|(_, program)| match program.phase {
                Phase::Ready(_) => false,
                _ => over || program.waiters.is_empty(),
            })
            .map(|(item_hash, _)| item_hash.clone())
            .collect();
        for item_hash in unwanted {
            let machine = self.programs.get(&item_hash).and_then(|program| program.phase.machine());
            self.refuse_all(&item_hash, &Refusal::Draining, effects);
            if let Some(machine) = machine {
                self.stop(machine, now, effects);
            }
        }
        let done: Vec<MachineId> = self
            .machines
            .iter()
            .filter(|(_, machine)| match machine.stage {
                Stage::Serving { .. } => over || machine.calls == 0,
                Stage::Starting | Stage::Retired => over,
                Stage::Stopping => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            self.stop(id, now, effects);
        }
    }

    /// Boots what waits for its turn, as far as there is room.
    fn boot_next(&mut self, now: Instant, effects: &mut Vec<Effect<F>>) {
        self.patient_until = None;
        loop {
            let booting = self.programs.values().filter(|program| matches!(program.phase, Phase::Booting(..))).count();
            if booting >= self.limits.concurrent_boots {
                return;
            }
            let Some(item_hash) = self.queue.front().cloned() else { return };
            let program = self.programs.get(&item_hash);
            let Some((Phase::Queued(start, since), Some(traits))) =
                program.map(|program| (&program.phase, program.traits))
            else {
                self.queue.pop_front();
                continue;
            };
            let (start, since) = (*start, *since);
            if program.is_some_and(|program| program.waiters.is_empty()) {
                // Everybody left before the boot began.
                self.refuse_all(&item_hash, &Refusal::Draining, effects);
                continue;
            }
            match admit::decide(self.limits.capacity, &self.tenants(), traits.need) {
                Verdict::Admit => {
                    let machine = MachineId(self.next_id());
                    let program = self.programs.get_mut(&item_hash).expect("found above");
                    program.phase = Phase::Booting(start, machine);
                    program.timeline.starting = Some(now);
                    let timeline = program.timeline;
                    self.queue.pop_front();
                    self.machines.insert(
                        machine,
                        Machine { item_hash, need: traits.need, stage: Stage::Starting, calls: 0, timeline },
                    );
                    effects.push(Effect::Boot { start, machine });
                }
                Verdict::AfterEnding(idle) => {
                    for id in idle {
                        self.stop(id, now, effects);
                    }
                    // In order of arrival: who comes later does not take the room that is being made.
                    return;
                }
                Verdict::Full if now < since + self.limits.patience => {
                    self.patient_until = Some(since + self.limits.patience);
                    return;
                }
                Verdict::Full => self.refuse_all(&item_hash, &Refusal::Full, effects),
                Verdict::TooLarge => self.refuse_all(&item_hash, &Refusal::TooLarge, effects),
            }
        }
    }

    fn tenants(&self) -> Vec<Tenant<MachineId>> {
        let hold = |machine: &Machine| match machine.stage {
            Stage::Serving { idle_order, .. } if machine.calls == 0 => Hold::Idle(idle_order),
            Stage::Starting | Stage::Serving { .. } | Stage::Retired => Hold::Busy,
            Stage::Stopping => Hold::Ending,
        };
        self.machines.iter().map(|(id, machine)| Tenant { key: *id, need: machine.need, hold: hold(machine) }).collect()
    }
}

#[cfg(test)]
mod tests;
