//! The words between the state and what surrounds it.

use crate::executor::admit::Need;
use ccn_message::ItemHash;
use std::{
    num::NonZeroUsize,
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
    /// Calls of one machine at once; more wait for one of them to end.
    pub max_calls: usize,
    /// Calls for each of its machines at which a program gets another one.
    pub calls_per_machine: usize,
    /// Machines of one program at once.
    pub max_machines: usize,
    /// How long a machine stays without a call.
    pub idle: Duration,
    /// How long a call waits for a binary that runs and does not listen.
    pub loading: Duration,
    /// How long a call waits for room when every machine is busy, and how long a program that got no further machine waits before it
    /// asks for one again.
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
    /// Calls that each of its machines gets at once; none where the program leaves that to the node.
    pub calls_at_once: Option<NonZeroUsize>,
    /// Machines of it at once; none where the program leaves that to the node.
    pub max_machines: Option<NonZeroUsize>,
}

impl Traits {
    /// Calls that one machine may have.
    #[must_use]
    pub fn room(&self, limits: &Limits) -> usize {
        self.calls_at_once.map_or(limits.max_calls, |calls| calls.get().min(limits.max_calls))
    }

    /// Machines that there should be for so many calls.
    #[must_use]
    pub fn wanted(&self, limits: &Limits, calls: usize) -> usize {
        let each = self.calls_at_once.map_or(limits.calls_per_machine, NonZeroUsize::get).min(limits.max_calls);
        let most = self.max_machines.map_or(limits.max_machines, |most| most.get().min(limits.max_machines));
        calls.div_ceil(each.max(1)).min(most.max(1))
    }
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
    /// Take for this start what a machine that serves was made of.
    Gather {
        /// For this start.
        start: StartId,
        /// Of this machine.
        from: MachineId,
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
