//! What every program and machine of this node is doing, and what follows from what happens. Pure: no
//! clock, no task, no socket; [`State::handle`] takes an event and the time and returns what to do.
//!
//! A program is there as long as it has a start under way or a machine that serves. A start:
//!
//! ```text
//!  first call            plan              files            room and turn
//! ───────────▶ Resolving ─────▶ Preparing ───────▶ Queued ───────────────▶ Booting
//!                                   ▲                ▲                       │ program runs
//!                                   │ damaged        │ more calls            ▼
//!                                Healing ◀─ failed ──┼─ than machines ──── Starting
//!                                                    │                       │ listens
//!                                                    └────────────── machine serves
//! ```
//!
//! A machine exists from `Boot` to `Ended`:
//!
//! ```text
//! Starting ──ready──▶ Serving ──crash of a call──▶ Retired ──last call──▶ Stopping ──▶ (gone)
//!     └──failed or told to stop──────▶ Stopping       Serving ──idle, evicted, drain──▶ Stopping
//! ```
//!
//! What always holds: a program of which nothing serves has one start, however many calls wait; one that
//! serves gets more machines as its calls become more than they should have, and keeps the ones it has when that
//! fails; every call is answered exactly once or abandoned; machines never take more than the limit together;
//! a retired machine serves the calls it has and gets no new one, so a call that follows a crash finds a
//! fresh machine.

mod event;

pub use event::{Effect, Event, Execution, Limits, MachineId, Refusal, StartId, Timeline, Traits, WaiterId};

use super::admit::{self, Hold, Need, Tenant, Verdict};
use crate::worth::Worth;
use ccn_message::ItemHash;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Instant,
};

/// Everything, owned by the executor's one task.
#[derive(Debug)]
pub struct State<F> {
    limits: Limits,
    programs: HashMap<ItemHash, Program>,
    starts: BTreeMap<StartId, Start<F>>,
    machines: BTreeMap<MachineId, Machine>,
    /// Starts whose files are there, in order of arrival.
    queue: VecDeque<StartId>,
    /// Until when the first of the queue waits for room that busy machines have; none while it waits for anything else.
    patient_until: Option<Instant>,
    /// Until when calls may go on, once the node stops.
    draining: Option<Instant>,
    drained: bool,
    /// Of idle machines: what the one was worth that had to go last.
    age: f64,
    last_id: u64,
}

#[derive(Debug)]
struct Program {
    /// In order of arrival.
    waiters: VecDeque<Waiter>,
    /// Known once its first start has found out.
    traits: Option<Traits>,
    starts: BTreeSet<StartId>,
    serving: BTreeSet<MachineId>,
    /// When a start of it was over last: from then on those who are left wait for each other's calls only.
    settled: Instant,
    /// A further machine could not be had; not before then is one asked for again.
    grows_after: Instant,
}

#[derive(Debug)]
struct Start<F> {
    item_hash: ItemHash,
    phase: Phase<F>,
    /// Files were healed once for it.
    healed: bool,
    timeline: Timeline,
}

#[derive(Debug)]
enum Phase<F> {
    Resolving,
    Preparing,
    Queued { since: Instant },
    Booting(MachineId),
    Starting(MachineId, Instant),
    Healing(F),
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

#[derive(Debug, PartialEq)]
enum Stage {
    Starting(StartId),
    Serving(Service),
    Retired,
    Stopping,
}

/// Of a machine that serves.
#[derive(Debug, PartialEq)]
struct Service {
    idle_since: Instant,
    idle_order: u64,
    /// What its program would miss of it, by the time that it took to come up.
    worth: Worth,
}

impl<F> Phase<F> {
    fn machine(&self) -> Option<MachineId> {
        match self {
            Self::Booting(machine) | Self::Starting(machine, _) => Some(*machine),
            Self::Resolving | Self::Preparing | Self::Queued { .. } | Self::Healing(_) => None,
        }
    }
}

impl Program {
    fn is_absent(&self) -> bool {
        self.starts.is_empty() && self.serving.is_empty()
    }
}

impl<F: Clone> State<F> {
    /// A node without programs.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            programs: HashMap::new(),
            starts: BTreeMap::new(),
            machines: BTreeMap::new(),
            queue: VecDeque::new(),
            patient_until: None,
            draining: None,
            drained: false,
            age: 0.0,
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
            Event::Healed { start, damaged } => self.healed(start, damaged, now, &mut effects),
            Event::Started { machine } => {
                if let Some(start) = self.start_of(machine).and_then(|start| self.starts.get_mut(&start))
                    && let Phase::Booting(machine) = start.phase
                {
                    start.phase = Phase::Starting(machine, now);
                }
            }
            Event::Ready { machine } => self.ready(machine, now, &mut effects),
            Event::Failed { machine, failure, suspect_files } => {
                self.failed(machine, failure, suspect_files, now, &mut effects);
            }
            Event::Released { machine, crashed } => self.released(machine, crashed, now, &mut effects),
            Event::Ended { machine } => self.ended(machine, now, &mut effects),
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
        let idle = self.machines.values().filter_map(|machine| match &machine.stage {
            Stage::Serving(service) if machine.calls == 0 => Some(service.idle_since + self.limits.idle),
            _ => None,
        });
        let waiting = self.programs.values().filter_map(|program| self.waiting_deadline(program).map(|(at, _)| at));
        // Once everything was told to stop, only its end is waited for.
        let drain = self.draining.filter(|_| {
            !self.programs.is_empty() || self.machines.values().any(|machine| machine.stage != Stage::Stopping)
        });
        idle.chain(waiting).chain(self.patient_until).chain(drain).min()
    }

    /// The machines there are.
    pub fn executions(&self) -> impl Iterator<Item = Execution> {
        self.machines.values().map(|machine| Execution {
            item_hash: machine.item_hash.clone(),
            timeline: machine.timeline,
            running: matches!(machine.stage, Stage::Serving(_)),
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

    /// The start that a machine is of, until it serves.
    fn start_of(&self, machine: MachineId) -> Option<StartId> {
        match self.machines.get(&machine)?.stage {
            Stage::Starting(start) => Some(start),
            Stage::Serving(_) | Stage::Retired | Stage::Stopping => None,
        }
    }

    fn call(&mut self, waiter: WaiterId, item_hash: ItemHash, now: Instant, effects: &mut Vec<Effect<F>>) {
        let refusal = match self.programs.get(&item_hash) {
            _ if self.draining.is_some() => Some(Refusal::Draining),
            Some(program)
                if program.waiters.len() >= self.limits.max_waiting_calls && self.with_room(program).is_none() =>
            {
                Some(Refusal::Busy)
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            return effects.push(Effect::Answer { waiter, answer: Err(refusal) });
        }
        let program = self.programs.entry(item_hash.clone()).or_insert_with(|| Program {
            waiters: VecDeque::new(),
            traits: None,
            starts: BTreeSet::new(),
            serving: BTreeSet::new(),
            settled: now,
            grows_after: now,
        });
        program.waiters.push_back(Waiter { id: waiter, since: now });
        self.serve(&item_hash, now, effects);
    }

    /// The machine that gets a program's next call: of those with room the one with the fewest calls, and of these the one
    /// that had one last, so that what is too many becomes idle.
    fn with_room(&self, program: &Program) -> Option<MachineId> {
        let room = program.traits?.room(&self.limits);
        let serving = program.serving.iter().filter_map(|id| Some((*id, self.machines.get(id)?)));
        let last = |machine: &Machine| match &machine.stage {
            Stage::Serving(service) => service.idle_order,
            Stage::Starting(_) | Stage::Retired | Stage::Stopping => 0,
        };
        serving
            .filter(|(_, machine)| machine.calls < room)
            .min_by_key(|(_, machine)| (machine.calls, std::cmp::Reverse(last(machine))))
            .map(|(id, _)| id)
    }

    /// Gives calls to the machines that have room, and sees to it that there are enough machines.
    fn serve(&mut self, item_hash: &ItemHash, now: Instant, effects: &mut Vec<Effect<F>>) {
        while let Some(program) = self.programs.get(item_hash)
            && !program.waiters.is_empty()
            && let Some(id) = self.with_room(program)
            && let Some(machine) = self.machines.get_mut(&id)
            && let Some(waiter) = self.programs.get_mut(item_hash).and_then(|program| program.waiters.pop_front())
        {
            machine.calls += 1;
            effects.push(Effect::Answer { waiter: waiter.id, answer: Ok(id) });
        }
        let Some(program) = self.programs.get(item_hash) else { return };
        if program.is_absent() {
            return match (program.waiters.is_empty(), self.draining) {
                (true, _) => drop(self.programs.remove(item_hash)),
                (false, Some(_)) => self.refuse_all(item_hash, &Refusal::Draining, now, effects),
                (false, None) => self.begin(item_hash.clone(), now, effects),
            };
        }
        let (Some(from), None) = (program.serving.first().copied(), self.draining) else { return };
        let more = match program.grows_after <= now {
            true => self.wanted(program).saturating_sub(program.serving.len() + program.starts.len()),
            false => 0,
        };
        for _ in 0..more {
            let start = self.insert_start(item_hash, Phase::Queued { since: now }, now);
            if let Some(start) = self.starts.get_mut(&start) {
                (start.timeline.preparing, start.timeline.prepared) = (Some(now), Some(now));
            }
            self.queue.push_back(start);
            effects.push(Effect::Gather { start, from });
        }
    }

    /// Machines that a program should have for the calls that it has.
    fn wanted(&self, program: &Program) -> usize {
        let serving = program.serving.iter().filter_map(|id| self.machines.get(id));
        let calls = serving.map(|machine| machine.calls).sum::<usize>() + program.waiters.len();
        program.traits.map_or(calls.min(1), |traits| traits.wanted(&self.limits, calls))
    }

    /// The start of a program of which nothing is there.
    fn begin(&mut self, item_hash: ItemHash, now: Instant, effects: &mut Vec<Effect<F>>) {
        let start = self.insert_start(&item_hash, Phase::Resolving, now);
        effects.push(Effect::Resolve { start, item_hash });
    }

    fn insert_start(&mut self, item_hash: &ItemHash, phase: Phase<F>, now: Instant) -> StartId {
        let id = StartId(self.next_id());
        let timeline =
            Timeline { defined: now, preparing: None, prepared: None, starting: None, started: None, stopping: None };
        self.starts.insert(id, Start { item_hash: item_hash.clone(), phase, healed: false, timeline });
        if let Some(program) = self.programs.get_mut(item_hash) {
            program.starts.insert(id);
        }
        id
    }

    fn resolved(&mut self, id: StartId, outcome: Result<Traits, F>, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(start) = self.starts.get_mut(&id) else { return };
        match outcome {
            Ok(traits) if admit::decide::<()>(self.limits.capacity, &[], traits.need) == Verdict::TooLarge => {
                self.start_failed(id, &Refusal::TooLarge, now, effects);
            }
            Ok(traits) => {
                start.timeline.preparing = Some(now);
                start.phase = Phase::Preparing;
                if let Some(program) = self.programs.get_mut(&start.item_hash) {
                    program.traits = Some(traits);
                }
                effects.push(Effect::Prepare { start: id });
            }
            Err(failure) => self.start_failed(id, &Refusal::Start(failure), now, effects),
        }
    }

    fn prepared(&mut self, id: StartId, outcome: Result<(), F>, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(start) = self.starts.get_mut(&id) else { return };
        match outcome {
            Ok(()) => {
                start.timeline.prepared = Some(now);
                start.phase = Phase::Queued { since: now };
                self.queue.push_back(id);
            }
            Err(failure) => self.start_failed(id, &Refusal::Start(failure), now, effects),
        }
    }

    fn healed(&mut self, id: StartId, damaged: bool, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(start) = self.starts.get_mut(&id) else { return };
        let Phase::Healing(failure) = &start.phase else { return };
        if damaged {
            start.healed = true;
            start.phase = Phase::Preparing;
            effects.push(Effect::Prepare { start: id });
        } else {
            let refusal = Refusal::Start(failure.clone());
            self.start_failed(id, &refusal, now, effects);
        }
    }

    fn ready(&mut self, id: MachineId, now: Instant, effects: &mut Vec<Effect<F>>) {
        let idle_order = self.next_id();
        // A machine that was told to stop meanwhile has no start any more.
        let Some(start) = self.start_of(id) else { return };
        let Some(mut timeline) = self.starts.get(&start).map(|start| start.timeline) else { return };
        timeline.started = Some(now);
        let took = now.duration_since(timeline.starting.unwrap_or(now));
        let machine = self.machines.get_mut(&id).expect("its start was found by it");
        let saves_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let worth = Worth::new(machine.need.memory_mib, saves_ms, self.age);
        machine.stage = Stage::Serving(Service { idle_since: now, idle_order, worth });
        machine.timeline = timeline;
        let item_hash = machine.item_hash.clone();
        if let Some(program) = self.programs.get_mut(&item_hash) {
            program.serving.insert(id);
        }
        self.discard(start, now, effects);
        self.serve(&item_hash, now, effects);
    }

    fn failed(&mut self, id: MachineId, failure: F, suspect_files: bool, now: Instant, effects: &mut Vec<Effect<F>>) {
        let start = self.start_of(id);
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.timeline.stopping = Some(now);
        let was = std::mem::replace(&mut machine.stage, Stage::Stopping);
        let item_hash = machine.item_hash.clone();
        if matches!(was, Stage::Serving(_)) {
            return self.leaves(id, &item_hash, now, effects);
        }
        let Some(start) = start else { return };
        let alone = self.programs.get(&item_hash).is_some_and(|program| program.serving.is_empty());
        match self.starts.get_mut(&start) {
            // Where another machine of the program serves, its files are all right.
            Some(entry) if suspect_files && !entry.healed && alone => {
                entry.phase = Phase::Healing(failure);
                effects.push(Effect::Heal { start });
            }
            _ => self.start_failed(start, &Refusal::Start(failure), now, effects),
        }
    }

    fn released(&mut self, id: MachineId, crashed: bool, now: Instant, effects: &mut Vec<Effect<F>>) {
        let idle_order = self.next_id();
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.calls = machine.calls.saturating_sub(1);
        let item_hash = machine.item_hash.clone();
        match &mut machine.stage {
            Stage::Serving(_) if crashed => {
                machine.stage = Stage::Retired;
                self.leaves(id, &item_hash, now, effects);
            }
            Stage::Serving(service) => {
                (service.idle_since, service.idle_order) = (now, idle_order);
                service.worth.used(self.age);
                self.serve(&item_hash, now, effects);
            }
            Stage::Starting(_) | Stage::Retired | Stage::Stopping => {}
        }
        if self.machines.get(&id).is_some_and(|machine| machine.calls == 0 && machine.stage == Stage::Retired) {
            self.stop(id, now, effects);
        }
    }

    fn ended(&mut self, id: MachineId, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(machine) = self.machines.remove(&id) else { return };
        if matches!(machine.stage, Stage::Serving(_)) {
            self.leaves(id, &machine.item_hash, now, effects);
        }
    }

    /// A machine does not serve any more. Who waits for one of its calls to end gets another machine.
    fn leaves(&mut self, id: MachineId, item_hash: &ItemHash, now: Instant, effects: &mut Vec<Effect<F>>) {
        if let Some(program) = self.programs.get_mut(item_hash) {
            program.serving.remove(&id);
        }
        self.serve(item_hash, now, effects);
    }

    /// Begins the end of a machine.
    fn stop(&mut self, id: MachineId, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(machine) = self.machines.get_mut(&id) else { return };
        let was = std::mem::replace(&mut machine.stage, Stage::Stopping);
        if was == Stage::Stopping {
            return;
        }
        machine.timeline.stopping = Some(now);
        let item_hash = machine.item_hash.clone();
        effects.push(Effect::Stop { machine: id });
        if let Stage::Starting(start) = was {
            self.discard(start, now, effects);
        }
        if matches!(was, Stage::Starting(_) | Stage::Serving(_)) {
            self.leaves(id, &item_hash, now, effects);
        }
    }

    /// A start is over without a machine. If that was the program's last hope, everybody who waits gets the same refusal.
    fn start_failed(&mut self, start: StartId, refusal: &Refusal<F>, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(item_hash) = self.starts.get(&start).map(|start| start.item_hash.clone()) else { return };
        let others = |program: &Program| !program.serving.is_empty() || program.starts.len() > 1;
        match self.programs.get_mut(&item_hash) {
            Some(program) if others(program) => {
                program.grows_after = now + self.limits.patience;
                self.discard(start, now, effects);
            }
            _ => self.refuse_all(&item_hash, refusal, now, effects),
        }
    }

    /// Everybody who waits for a program gets the same refusal, and its starts are over.
    fn refuse_all(&mut self, item_hash: &ItemHash, refusal: &Refusal<F>, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(program) = self.programs.get_mut(item_hash) else { return };
        let waiters = std::mem::take(&mut program.waiters);
        effects.extend(waiters.iter().map(|waiter| Effect::Answer { waiter: waiter.id, answer: Err(refusal.clone()) }));
        for start in program.starts.clone() {
            self.discard(start, now, effects);
        }
        if self.programs.get(item_hash).is_some_and(Program::is_absent) {
            self.programs.remove(item_hash);
        }
    }

    fn discard(&mut self, id: StartId, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(start) = self.starts.remove(&id) else { return };
        if let Some(program) = self.programs.get_mut(&start.item_hash) {
            program.starts.remove(&id);
            program.settled = now;
        }
        self.queue.retain(|queued| *queued != id);
        effects.push(Effect::Discard { start: id });
    }

    /// Until when the first who waits for a program waits, and what it is told then; none while something is on its way that is
    /// waited for however long it takes.
    fn waiting_deadline(&self, program: &Program) -> Option<(Instant, Refusal<F>)> {
        let first = program.waiters.front()?;
        if program.starts.is_empty() {
            return Some((first.since.max(program.settled) + self.limits.patience, Refusal::Busy));
        }
        if !program.serving.is_empty() || !program.traits?.listens_late {
            return None;
        }
        let runs_since = |start: &StartId| match self.starts.get(start)?.phase {
            Phase::Starting(_, since) => Some(since),
            _ => None,
        };
        let since = program.starts.iter().filter_map(runs_since).min()?;
        Some((first.since.max(since) + self.limits.loading, Refusal::Loading))
    }

    /// What is over by now: patience with programs that do not listen or have no room, and with idle machines.
    fn expire(&mut self, now: Instant, effects: &mut Vec<Effect<F>>) {
        let late = |program: &Program| self.waiting_deadline(program).is_some_and(|(at, _)| at <= now);
        let impatient: Vec<ItemHash> =
            self.programs.iter().filter(|(_, program)| late(program)).map(|(hash, _)| hash.clone()).collect();
        for item_hash in impatient {
            while let Some(program) = self.programs.get(&item_hash)
                && let Some((at, refusal)) = self.waiting_deadline(program)
                && at <= now
                && let Some(waiter) = self.programs.get_mut(&item_hash).and_then(|program| program.waiters.pop_front())
            {
                effects.push(Effect::Answer { waiter: waiter.id, answer: Err(refusal) });
            }
        }
        let over = |machine: &Machine| match &machine.stage {
            Stage::Serving(service) => machine.calls == 0 && service.idle_since + self.limits.idle <= now,
            Stage::Starting(_) | Stage::Retired | Stage::Stopping => false,
        };
        let idle: Vec<MachineId> =
            self.machines.iter().filter(|(_, machine)| over(machine)).map(|(id, _)| *id).collect();
        for id in idle {
            self.stop(id, now, effects);
        }
    }

    /// While the node stops: ends what nobody waits for, and at the deadline everything.
    fn drain(&mut self, now: Instant, effects: &mut Vec<Effect<F>>) {
        let Some(until) = self.draining else { return };
        let over = until <= now;
        let unwanted = |program: &Program| over || (program.waiters.is_empty() && !program.starts.is_empty());
        let unwanted: Vec<ItemHash> =
            self.programs.iter().filter(|(_, program)| unwanted(program)).map(|(hash, _)| hash.clone()).collect();
        for item_hash in unwanted {
            let starts = self.programs.get(&item_hash).map(|program| program.starts.clone()).unwrap_or_default();
            let phases = starts.iter().filter_map(|start| self.starts.get(start));
            let machines: Vec<MachineId> = phases.filter_map(|start| start.phase.machine()).collect();
            self.refuse_all(&item_hash, &Refusal::Draining, now, effects);
            for machine in machines {
                self.stop(machine, now, effects);
            }
        }
        let done = |machine: &Machine| match machine.stage {
            Stage::Serving(_) => over || machine.calls == 0,
            Stage::Starting(_) | Stage::Retired => over,
            Stage::Stopping => false,
        };
        let done: Vec<MachineId> =
            self.machines.iter().filter(|(_, machine)| done(machine)).map(|(id, _)| *id).collect();
        for id in done {
            self.stop(id, now, effects);
        }
    }

    /// Boots what waits for its turn, as far as there is room.
    fn boot_next(&mut self, now: Instant, effects: &mut Vec<Effect<F>>) {
        self.patient_until = None;
        loop {
            let booting = self.starts.values().filter(|start| matches!(start.phase, Phase::Booting(_))).count();
            if booting >= self.limits.concurrent_boots {
                return;
            }
            let Some(id) = self.queue.front().copied() else { return };
            let start = self.starts.get(&id).expect("a start that is over leaves the queue");
            let item_hash = start.item_hash.clone();
            let program = self.programs.get(&item_hash).expect("a start has its program");
            let (Phase::Queued { since }, Some(traits)) = (&start.phase, program.traits) else {
                self.queue.pop_front();
                continue;
            };
            let since = *since;
            let others = |start: &&StartId| self.starts.get(start).is_some_and(|start| start.phase.machine().is_some());
            let there = program.serving.len() + program.starts.iter().filter(others).count();
            let is_first = there == 0;
            if there >= self.wanted(program) {
                // Who wanted it has left before its boot began, or was served meanwhile.
                self.discard(id, now, effects);
                self.serve(&item_hash, now, effects);
                continue;
            }
            match admit::decide(self.limits.capacity, &self.tenants(), traits.need) {
                Verdict::Admit => {
                    let machine = MachineId(self.next_id());
                    let start = self.starts.get_mut(&id).expect("found above");
                    start.phase = Phase::Booting(machine);
                    start.timeline.starting = Some(now);
                    let timeline = start.timeline;
                    self.queue.pop_front();
                    self.machines.insert(
                        machine,
                        Machine { item_hash, need: traits.need, stage: Stage::Starting(id), calls: 0, timeline },
                    );
                    effects.push(Effect::Boot { start: id, machine });
                }
                Verdict::AfterEnding(idle) => {
                    for id in idle {
                        self.evict(id, now, effects);
                    }
                    // In order of arrival: who comes later does not take the room that is being made.
                    return;
                }
                Verdict::Full if is_first && now < since + self.limits.patience => {
                    self.patient_until = Some(since + self.limits.patience);
                    return;
                }
                Verdict::Full => self.start_failed(id, &Refusal::Full, now, effects),
                Verdict::TooLarge => self.start_failed(id, &Refusal::TooLarge, now, effects),
            }
        }
    }

    /// Ends an idle machine for another's sake.
    fn evict(&mut self, id: MachineId, now: Instant, effects: &mut Vec<Effect<F>>) {
        if let Some(Stage::Serving(service)) = self.machines.get(&id).map(|machine| &machine.stage) {
            self.age = self.age.max(service.worth.value());
        }
        self.stop(id, now, effects);
    }

    /// The machines as admission sees them: idle ones in the order in which they would go.
    fn tenants(&self) -> Vec<Tenant<MachineId>> {
        let idle = |(id, machine): (&MachineId, &Machine)| match &machine.stage {
            Stage::Serving(service) if machine.calls == 0 => Some((*id, service.worth.value(), service.idle_order)),
            _ => None,
        };
        let mut idle: Vec<_> = self.machines.iter().filter_map(idle).collect();
        idle.sort_by(|one, other| one.1.total_cmp(&other.1).then(one.2.cmp(&other.2)));
        let rank: HashMap<MachineId, u64> = idle.iter().map(|(id, ..)| *id).zip(0..).collect();
        let hold = |id: &MachineId, machine: &Machine| match (&machine.stage, rank.get(id)) {
            (Stage::Stopping, _) => Hold::Ending,
            (_, Some(rank)) => Hold::Idle(*rank),
            (_, None) => Hold::Busy,
        };
        let tenant =
            |(id, machine): (&MachineId, &Machine)| Tenant { key: *id, need: machine.need, hold: hold(id, machine) };
        self.machines.iter().map(tenant).collect()
    }
}

#[cfg(test)]
mod tests;
