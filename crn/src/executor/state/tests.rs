//! Stories first, then a world that does whatever can happen, in any order.

use super::*;
use proptest::prelude::*;
use std::{
    collections::{BTreeSet, HashSet},
    num::NonZeroUsize,
    time::Duration,
};

type TestState = State<&'static str>;
type TestEvent = Event<&'static str>;
type TestEffect = Effect<&'static str>;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> Limits {
    Limits {
        capacity: Need { memory_mib: 400, vcpus: 10 },
        concurrent_boots: 2,
        max_waiting_calls: 200,
        max_calls: 150,
        calls_per_machine: 150,
        max_machines: 3,
        idle: 60 * SECOND,
        loading: 5 * SECOND,
        patience: 10 * SECOND,
        drain: 30 * SECOND,
    }
}

fn program(number: u8) -> ItemHash {
    format!("{number:02x}").repeat(32).parse().expect("an item hash")
}

const SMALL: Traits =
    Traits { need: Need { memory_mib: 100, vcpus: 1 }, listens_late: false, calls_at_once: None, max_machines: None };

/// A state with a clock of its own.
struct Story {
    state: TestState,
    now: Instant,
    calls: u64,
}

impl Story {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: Limits) -> Self {
        Self { state: State::new(limits), now: Instant::now(), calls: 0 }
    }

    fn happens(&mut self, event: TestEvent) -> Vec<TestEffect> {
        self.state.handle(event, self.now)
    }

    fn call(&mut self, number: u8) -> (WaiterId, Vec<TestEffect>) {
        self.calls += 1;
        let waiter = WaiterId(self.calls);
        (waiter, self.happens(Event::Call { waiter, item_hash: program(number) }))
    }

    fn passes(&mut self, time: Duration) -> Vec<TestEffect> {
        self.now += time;
        self.happens(Event::Tick)
    }

    /// Calls a program and takes its start up to the boot.
    fn boot(&mut self, number: u8, traits: Traits) -> (WaiterId, StartId, MachineId) {
        let (waiter, effects) = self.call(number);
        let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(self.happens(Event::Resolved { start, outcome: Ok(traits) }), [Effect::Prepare { start }]);
        let effects = self.happens(Event::Prepared { start, outcome: Ok(()) });
        let [Effect::Boot { machine, .. }] = effects[..] else { panic!("{effects:?}") };
        (waiter, start, machine)
    }

    /// The same up to an answered call.
    fn serve(&mut self, number: u8) -> MachineId {
        let (waiter, start, machine) = self.boot(number, SMALL);
        let effects = self.happens(Event::Ready { machine });
        assert_eq!(effects, [Effect::Discard { start }, Effect::Answer { waiter, answer: Ok(machine) }]);
        machine
    }

    fn release(&mut self, machine: MachineId) -> Vec<TestEffect> {
        self.happens(Event::Released { machine, crashed: false })
    }
}

#[test]
fn a_hundred_calls_of_a_cold_program_make_one_boot() {
    let mut story = Story::new();
    let (first, start, machine) = story.boot(1, SMALL);
    let mut waiters = vec![first];
    for _ in 0..99 {
        let (waiter, effects) = story.call(1);
        assert_eq!(effects, []);
        waiters.push(waiter);
    }
    let mut expected = vec![Effect::Discard { start }];
    expected.extend(waiters.into_iter().map(|waiter| Effect::Answer { waiter, answer: Ok(machine) }));
    assert_eq!(story.happens(Event::Ready { machine }), expected);
}

#[test]
fn a_warm_program_answers_at_once() {
    let mut story = Story::new();
    let machine = story.serve(1);
    let (waiter, effects) = story.call(1);
    assert_eq!(effects, [Effect::Answer { waiter, answer: Ok(machine) }]);
}

#[test]
fn a_failure_goes_to_all_who_wait_and_the_next_call_starts_anew() {
    for stage in 0..3 {
        let mut story = Story::new();
        let (first, effects) = story.call(1);
        let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
        let (second, _) = story.call(1);
        let effects = match stage {
            0 => story.happens(Event::Resolved { start, outcome: Err("no") }),
            1 => {
                story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
                story.happens(Event::Prepared { start, outcome: Err("no") })
            }
            _ => {
                story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
                let effects = story.happens(Event::Prepared { start, outcome: Ok(()) });
                let [Effect::Boot { machine, .. }] = effects[..] else { panic!("{effects:?}") };
                story.happens(Event::Failed { machine, failure: "no", suspect_files: false })
            }
        };
        let refused = |waiter| Effect::Answer { waiter, answer: Err(Refusal::Start("no")) };
        assert_eq!(effects, [refused(first), refused(second), Effect::Discard { start }]);
        let (_, effects) = story.call(1);
        assert!(matches!(effects[..], [Effect::Resolve { .. }]), "{effects:?}");
    }
}

#[test]
fn damaged_files_are_healed_once_and_the_waiters_keep_waiting() {
    let mut story = Story::new();
    let (waiter, start, machine) = story.boot(1, SMALL);
    let failed = Event::Failed { machine, failure: "does not mount", suspect_files: true };
    assert_eq!(story.happens(failed), [Effect::Heal { start }]);
    assert_eq!(story.happens(Event::Ended { machine }), []);
    assert_eq!(story.happens(Event::Healed { start, damaged: true }), [Effect::Prepare { start }]);
    let effects = story.happens(Event::Prepared { start, outcome: Ok(()) });
    let [Effect::Boot { machine, .. }] = effects[..] else { panic!("{effects:?}") };
    let failed = Event::Failed { machine, failure: "still not", suspect_files: true };
    let refused = Effect::Answer { waiter, answer: Err(Refusal::Start("still not")) };
    assert_eq!(story.happens(failed), [refused, Effect::Discard { start }]);
}

#[test]
fn files_that_are_sound_are_not_to_blame() {
    let mut story = Story::new();
    let (waiter, start, machine) = story.boot(1, SMALL);
    story.happens(Event::Failed { machine, failure: "no squashfs", suspect_files: true });
    let refused = Effect::Answer { waiter, answer: Err(Refusal::Start("no squashfs")) };
    assert_eq!(story.happens(Event::Healed { start, damaged: false }), [refused, Effect::Discard { start }]);
}

#[test]
fn an_idle_machine_stops_in_time_and_a_busy_one_does_not() {
    let mut story = Story::new();
    let machine = story.serve(1);
    assert_eq!(story.passes(1000 * SECOND), []);
    assert_eq!(story.release(machine), []);
    assert_eq!(story.state.next_deadline(), Some(story.now + 60 * SECOND));
    assert_eq!(story.passes(59 * SECOND), []);
    assert_eq!(story.passes(SECOND), [Effect::Stop { machine }]);
    // A call meanwhile starts a new machine, and the end of the old one does not touch it.
    let (_, start, next) = story.boot(1, SMALL);
    assert_eq!(story.happens(Event::Ended { machine }), []);
    assert!(story.happens(Event::Ready { machine: next }).contains(&Effect::Discard { start }));
}

#[test]
fn a_crash_retires_the_machine_and_spares_its_other_calls() {
    let mut story = Story::new();
    let machine = story.serve(1);
    story.call(1);
    assert_eq!(story.happens(Event::Released { machine, crashed: true }), []);
    let (_, _, next) = story.boot(1, SMALL);
    assert_ne!(next, machine);
    assert_eq!(story.release(machine), [Effect::Stop { machine }]);
}

#[test]
fn a_machine_that_ends_by_itself_leaves_nothing() {
    let mut story = Story::new();
    let machine = story.serve(1);
    assert_eq!(story.happens(Event::Ended { machine }), []);
    assert_eq!(story.release(machine), []);
    assert_eq!(story.state.taken(), Need::default());
    story.boot(1, SMALL);
}

#[test]
fn idle_machines_make_room_for_a_newcomer_who_waits_for_their_end() {
    let mut story = Story::new();
    let machines: Vec<_> = (1..=4).map(|number| story.serve(number)).collect();
    for machine in [machines[1], machines[0]] {
        story.release(machine);
    }
    let (_, effects) = story.call(5);
    let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
    story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
    assert_eq!(story.happens(Event::Prepared { start, outcome: Ok(()) }), [Effect::Stop { machine: machines[1] }]);
    let effects = story.happens(Event::Ended { machine: machines[1] });
    assert!(matches!(effects[..], [Effect::Boot { .. }]), "{effects:?}");
}

#[test]
fn a_full_node_is_waited_for_and_then_refused() {
    let mut story = Story::new();
    let machines: Vec<_> = (1..=4).map(|number| story.serve(number)).collect();
    let mut waiting = Vec::new();
    for number in [5, 6] {
        let (waiter, effects) = story.call(number);
        let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
        story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
        assert_eq!(story.happens(Event::Prepared { start, outcome: Ok(()) }), []);
        waiting.push((waiter, start));
    }
    // One becomes idle in time: it goes, for the first who came.
    story.passes(9 * SECOND);
    assert_eq!(story.release(machines[2]), [Effect::Stop { machine: machines[2] }]);
    let effects = story.happens(Event::Ended { machine: machines[2] });
    assert!(matches!(effects[..], [Effect::Boot { start, .. }] if start == waiting[0].1), "{effects:?}");
    let refused = Effect::Answer { waiter: waiting[1].0, answer: Err(Refusal::Full) };
    assert_eq!(story.passes(SECOND), [refused, Effect::Discard { start: waiting[1].1 }]);
}

#[test]
fn what_never_fits_is_refused_before_anything_is_fetched() {
    let mut story = Story::new();
    let (waiter, effects) = story.call(1);
    let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
    let giant = Traits { need: Need { memory_mib: 1_048_576, vcpus: 256 }, ..SMALL };
    let refused = Effect::Answer { waiter, answer: Err(Refusal::TooLarge) };
    assert_eq!(story.happens(Event::Resolved { start, outcome: Ok(giant) }), [refused, Effect::Discard { start }]);
}

#[test]
fn boots_of_different_programs_go_side_by_side_up_to_the_bound() {
    let mut story = Story::new();
    let (_, _, first) = story.boot(1, SMALL);
    story.boot(2, SMALL);
    let (_, effects) = story.call(3);
    let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
    story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
    assert_eq!(story.happens(Event::Prepared { start, outcome: Ok(()) }), []);
    let effects = story.happens(Event::Started { machine: first });
    assert!(matches!(effects[..], [Effect::Boot { .. }]), "{effects:?}");
}

#[test]
fn a_binary_that_does_not_listen_yet_gives_a_page_and_boots_on() {
    let mut story = Story::new();
    let (waiter, _, machine) = story.boot(1, Traits { listens_late: true, ..SMALL });
    // The boot itself is waited for.
    assert_eq!(story.passes(20 * SECOND), []);
    story.happens(Event::Started { machine });
    assert_eq!(story.passes(4 * SECOND), []);
    let (later, _) = story.call(1);
    assert_eq!(story.passes(SECOND), [Effect::Answer { waiter, answer: Err(Refusal::Loading) }]);
    assert_eq!(story.passes(3 * SECOND), []);
    let effects = story.happens(Event::Ready { machine });
    assert_eq!(effects[1], Effect::Answer { waiter: later, answer: Ok(machine) });
}

#[test]
fn an_application_is_waited_for_however_long_it_starts() {
    let mut story = Story::new();
    let (_, _, machine) = story.boot(1, SMALL);
    story.happens(Event::Started { machine });
    assert_eq!(story.passes(1000 * SECOND), []);
}

#[test]
fn waiters_and_calls_are_bounded() {
    let mut story = Story::with(Limits { max_waiting_calls: 2, max_calls: 1, max_machines: 1, ..limits() });
    let (first, start, machine) = story.boot(1, SMALL);
    let (second, _) = story.call(1);
    let (third, effects) = story.call(1);
    let busy = |waiter| Effect::Answer { waiter, answer: Err(Refusal::Busy) };
    assert_eq!(effects, [busy(third)]);
    let served = Effect::Answer { waiter: first, answer: Ok(machine) };
    assert_eq!(story.happens(Event::Ready { machine }), [Effect::Discard { start }, served]);
    let (fourth, effects) = story.call(1);
    assert_eq!(effects, []);
    let (fifth, effects) = story.call(1);
    assert_eq!(effects, [busy(fifth)]);
    assert_eq!(story.passes(10 * SECOND), [busy(second), busy(fourth)]);
}

fn one_at_once() -> Traits {
    Traits { calls_at_once: NonZeroUsize::new(1), ..SMALL }
}

/// The further machines that a call made the program want.
fn gathered(effects: &[TestEffect]) -> Vec<StartId> {
    let start = |effect: &TestEffect| match effect {
        Effect::Gather { start, .. } => Some(*start),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

fn booted(effects: &[TestEffect]) -> Vec<MachineId> {
    let machine = |effect: &TestEffect| match effect {
        Effect::Boot { machine, .. } => Some(*machine),
        _ => None,
    };
    effects.iter().filter_map(machine).collect()
}

#[test]
fn a_program_that_bears_one_call_at_once_gets_a_machine_for_each() {
    let mut story = Story::new();
    let (first, start, machine) = story.boot(1, one_at_once());
    // While it is not known whether it comes up at all, nothing more is started.
    let (second, effects) = story.call(1);
    assert_eq!(effects, []);
    let effects = story.happens(Event::Ready { machine });
    assert_eq!(effects[..2], [Effect::Discard { start }, Effect::Answer { waiter: first, answer: Ok(machine) }]);
    let (further, clones) = (gathered(&effects), booted(&effects));
    assert_eq!((further.len(), clones.len()), (1, 1), "{effects:?}");
    assert_eq!(
        story.happens(Event::Ready { machine: clones[0] }),
        [Effect::Discard { start: further[0] }, Effect::Answer { waiter: second, answer: Ok(clones[0]) }]
    );
    // Whoever is free takes the next one, and nothing more is started for it.
    assert_eq!(story.release(machine), []);
    let (third, effects) = story.call(1);
    assert_eq!(effects, [Effect::Answer { waiter: third, answer: Ok(machine) }]);
}

#[test]
fn machines_of_a_program_have_a_bound_and_those_who_come_after_wait_for_a_call_to_end() {
    let mut story = Story::new();
    let (_, _, machine) = story.boot(1, Traits { max_machines: NonZeroUsize::new(1), ..one_at_once() });
    story.happens(Event::Ready { machine });
    let (second, effects) = story.call(1);
    assert_eq!(effects, []);
    let (third, _) = story.call(1);
    assert_eq!(story.passes(9 * SECOND), []);
    assert_eq!(story.release(machine), [Effect::Answer { waiter: second, answer: Ok(machine) }]);
    assert_eq!(story.state.next_deadline(), Some(story.now + SECOND));
    assert_eq!(story.passes(SECOND), [Effect::Answer { waiter: third, answer: Err(Refusal::Busy) }]);
}

#[test]
fn calls_spread_over_the_machines_and_what_is_too_many_becomes_idle() {
    let mut story = Story::with(Limits { calls_per_machine: 2, ..limits() });
    let first = story.serve(1);
    let (_, effects) = story.call(1);
    assert_eq!(gathered(&effects), [], "two are what a machine should have");
    let (third, effects) = story.call(1);
    // It does not wait for the machine that it wants.
    assert_eq!(effects[0], Effect::Answer { waiter: third, answer: Ok(first) });
    let [second] = booted(&effects)[..] else { panic!("{effects:?}") };
    story.happens(Event::Ready { machine: second });
    let (fourth, effects) = story.call(1);
    assert_eq!(effects, [Effect::Answer { waiter: fourth, answer: Ok(second) }], "the one with fewer calls");
    for machine in [first, first, first, second] {
        story.release(machine);
    }
    story.passes(30 * SECOND);
    let (fifth, effects) = story.call(1);
    assert_eq!(effects, [Effect::Answer { waiter: fifth, answer: Ok(second) }], "the one that had a call last");
    assert_eq!(story.passes(30 * SECOND), [Effect::Stop { machine: first }]);
}

#[test]
fn a_further_machine_that_cannot_be_had_takes_nothing_from_those_who_are_served() {
    for full in [true, false] {
        let mut story = Story::new();
        let (_, _, machine) = story.boot(1, one_at_once());
        story.happens(Event::Ready { machine });
        let others = if full { (2..=4).map(|number| story.serve(number)).collect() } else { Vec::new() };
        assert_eq!(others.len(), if full { 3 } else { 0 });
        let (second, effects) = story.call(1);
        let [start] = gathered(&effects)[..] else { panic!("{effects:?}") };
        let gone = [Effect::Discard { start }];
        match booted(&effects)[..] {
            [] if full => assert_eq!(effects[1..], gone),
            [failing] if !full => {
                let failed = Event::Failed { machine: failing, failure: "no", suspect_files: true };
                assert_eq!(story.happens(failed), gone);
                story.happens(Event::Ended { machine: failing });
            }
            _ => panic!("{effects:?}"),
        }
        // The next call does not ask again at once; the one that waits gets the machine that there is.
        let (_, effects) = story.call(1);
        assert_eq!(effects, []);
        story.passes(9 * SECOND);
        assert_eq!(story.release(machine), [Effect::Answer { waiter: second, answer: Ok(machine) }]);
        story.passes(SECOND);
        for other in others {
            story.release(other);
        }
        let (_, effects) = story.call(1);
        assert_eq!(gathered(&effects).len(), 1, "{effects:?}");
    }
}

#[test]
fn who_waits_for_a_call_that_breaks_the_machine_gets_another() {
    let mut story = Story::new();
    let (_, _, machine) = story.boot(1, Traits { max_machines: NonZeroUsize::new(1), ..one_at_once() });
    story.happens(Event::Ready { machine });
    story.call(1);
    let effects = story.happens(Event::Released { machine, crashed: true });
    assert!(matches!(effects[..], [Effect::Resolve { .. }, Effect::Stop { .. }]), "{effects:?}");
}

#[test]
fn a_machine_that_was_asked_for_in_vain_is_not_started() {
    let mut story = Story::with(Limits { concurrent_boots: 1, ..limits() });
    let (_, _, machine) = story.boot(1, one_at_once());
    story.happens(Event::Ready { machine });
    story.boot(2, SMALL);
    let (second, effects) = story.call(1);
    let [start] = gathered(&effects)[..] else { panic!("{effects:?}") };
    let effects = story.release(machine);
    assert_eq!(effects, [Effect::Answer { waiter: second, answer: Ok(machine) }]);
    let starting: Vec<_> = story.state.machines.keys().copied().filter(|id| *id != machine).collect();
    let effects = story.happens(Event::Ready { machine: starting[0] });
    assert!(effects.contains(&Effect::Discard { start }) && booted(&effects).is_empty(), "{effects:?}");
}

/// The cheapest to come back goes first, not the one that was used least recently.
#[test]
fn of_idle_machines_the_one_goes_that_is_back_soonest() {
    let mut story = Story::new();
    let mut machines = Vec::new();
    for number in 1..=4 {
        let (_, _, machine) = story.boot(number, SMALL);
        // The first takes longest.
        story.now += (5 - u32::from(number)) * SECOND;
        story.happens(Event::Ready { machine });
        machines.push(machine);
    }
    for machine in &machines[..3] {
        story.release(*machine);
    }
    let (_, effects) = story.call(5);
    let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
    story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
    assert_eq!(story.happens(Event::Prepared { start, outcome: Ok(()) }), [Effect::Stop { machine: machines[2] }]);
}

#[test]
fn a_boot_that_nobody_waits_for_any_more_does_not_begin() {
    let mut story = Story::new();
    let (waiter, effects) = story.call(1);
    let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
    story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
    story.happens(Event::Abandoned { waiter, item_hash: program(1) });
    assert_eq!(story.happens(Event::Prepared { start, outcome: Ok(()) }), [Effect::Discard { start }]);
}

#[test]
fn a_drain_lets_calls_end_and_takes_no_new_ones() {
    let mut story = Story::new();
    let busy = story.serve(1);
    let idle = story.serve(2);
    story.release(idle);
    assert_eq!(story.happens(Event::Drain), [Effect::Stop { machine: idle }]);
    let (waiter, effects) = story.call(1);
    assert_eq!(effects, [Effect::Answer { waiter, answer: Err(Refusal::Draining) }]);
    assert_eq!(story.happens(Event::Ended { machine: idle }), []);
    assert_eq!(story.release(busy), [Effect::Stop { machine: busy }]);
    assert_eq!(story.happens(Event::Ended { machine: busy }), [Effect::Drained]);
}

#[test]
fn a_drain_ends() {
    let mut story = Story::new();
    let busy = story.serve(1);
    let (waiter, start, starting) = story.boot(2, SMALL);
    assert_eq!(story.happens(Event::Drain), []);
    assert_eq!(story.state.next_deadline(), Some(story.now + 30 * SECOND));
    let refused = Effect::Answer { waiter, answer: Err(Refusal::Draining) };
    let stops = [Effect::Stop { machine: starting }, Effect::Stop { machine: busy }];
    assert_eq!(story.passes(30 * SECOND), [&[refused, Effect::Discard { start }][..], &stops].concat());
    story.happens(Event::Ended { machine: starting });
    assert_eq!(story.happens(Event::Ended { machine: busy }), [Effect::Drained]);
}

/// With no machine there was no deadline: a download that hung kept the node from stopping.
#[test]
fn a_drain_ends_although_something_hangs_before_there_is_a_machine() {
    for stage in 0..2 {
        let mut story = Story::new();
        let (waiter, effects) = story.call(1);
        let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
        if stage == 1 {
            story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
        }
        assert_eq!(story.happens(Event::Drain), []);
        assert_eq!(story.state.next_deadline(), Some(story.now + 30 * SECOND));
        let refused = Effect::Answer { waiter, answer: Err(Refusal::Draining) };
        assert_eq!(story.passes(30 * SECOND), [refused, Effect::Discard { start }, Effect::Drained]);
        assert_eq!(story.state.next_deadline(), None);
    }
}

/// Their patience is with busy machines. Counted for these too it was a deadline in the past: the one task of the executor did
/// nothing but tick until a boot or an end was over.
#[test]
fn those_who_wait_for_a_boot_or_an_end_are_patient_and_the_clock_is_not_asked_for_the_past() {
    let mut story = Story::new();
    story.boot(1, SMALL);
    let (_, _, booting) = story.boot(2, SMALL);
    let (_, effects) = story.call(3);
    let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
    story.happens(Event::Resolved { start, outcome: Ok(SMALL) });
    assert_eq!(story.happens(Event::Prepared { start, outcome: Ok(()) }), [], "two boot at once");
    assert_eq!(story.passes(11 * SECOND), []);
    assert_eq!(story.state.next_deadline(), None);
    let effects = story.happens(Event::Ready { machine: booting });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Boot { .. })), "{effects:?}");

    let mut story = Story::new();
    let idle = story.serve(1);
    story.release(idle);
    let (_, effects) = story.call(2);
    let [Effect::Resolve { start, .. }] = effects[..] else { panic!("{effects:?}") };
    let large = Traits { need: Need { memory_mib: 400, vcpus: 1 }, ..SMALL };
    story.happens(Event::Resolved { start, outcome: Ok(large) });
    assert_eq!(story.happens(Event::Prepared { start, outcome: Ok(()) }), [Effect::Stop { machine: idle }]);
    assert_eq!(story.passes(11 * SECOND), []);
    assert_eq!(story.state.next_deadline(), None);
}

#[test]
fn a_drain_of_an_empty_node_is_over_at_once() {
    assert_eq!(Story::new().happens(Event::Drain), [Effect::Drained]);
}

/// Everything outside the state: what was asked for and is not answered yet.
#[derive(Default)]
struct World {
    resolving: Vec<StartId>,
    preparing: Vec<StartId>,
    healing: Vec<StartId>,
    /// Machines that were neither ready nor failed yet, and whether their program runs.
    booting: Vec<(MachineId, bool)>,
    /// Machines that may end.
    up: Vec<MachineId>,
    told_to_stop: HashSet<MachineId>,
    leases: Vec<MachineId>,
    waiting: BTreeSet<(WaiterId, u8)>,
    hash_of: HashMap<MachineId, ItemHash>,
    hash_of_start: HashMap<StartId, ItemHash>,
    /// Starts of programs that served already.
    further: HashSet<StartId>,
    started: usize,
    drained: usize,
}

impl World {
    fn take(&mut self, effects: Vec<TestEffect>) {
        for effect in effects {
            match effect {
                Effect::Resolve { start, item_hash } => {
                    self.hash_of_start.insert(start, item_hash);
                    self.resolving.push(start);
                }
                Effect::Prepare { start } => self.preparing.push(start),
                Effect::Gather { start, from } => {
                    assert!(self.up.contains(&from) && !self.told_to_stop.contains(&from), "from one that serves");
                    self.hash_of_start.insert(start, self.hash_of[&from].clone());
                    self.further.insert(start);
                }
                Effect::Heal { start } => self.healing.push(start),
                Effect::Boot { start, machine } => {
                    let item_hash = self.hash_of_start[&start].clone();
                    let twin = self
                        .booting
                        .iter()
                        .any(|(other, _)| self.hash_of[other] == item_hash && !self.told_to_stop.contains(other));
                    assert!(!twin || self.further.contains(&start), "two first starts of one program");
                    self.hash_of.insert(machine, item_hash);
                    self.booting.push((machine, false));
                    self.started += 1;
                }
                Effect::Discard { .. } => {}
                Effect::Stop { machine } => {
                    assert!(self.told_to_stop.insert(machine), "told to stop once");
                }
                Effect::Answer { waiter, answer } => {
                    let before = self.waiting.len();
                    self.waiting.retain(|(other, _)| *other != waiter);
                    assert_eq!(self.waiting.len() + 1, before, "{waiter:?} is answered once");
                    if let Ok(machine) = answer {
                        assert!(
                            self.up.contains(&machine) && !self.told_to_stop.contains(&machine),
                            "an answer is a machine that serves"
                        );
                        self.leases.push(machine);
                    }
                }
                Effect::Drained => self.drained += 1,
            }
        }
    }

    /// One of the things that can happen now, picked by two numbers.
    fn event(&mut self, kind: u8, pick: usize, next_waiter: &mut u64) -> Option<TestEvent> {
        fn pull<T>(from: &mut Vec<T>, pick: usize) -> Option<T> {
            if from.is_empty() { None } else { Some(from.swap_remove(pick % from.len())) }
        }
        let fine = !pick.is_multiple_of(5);
        Some(match kind {
            0..=2 => {
                *next_waiter += 1;
                let number = (pick % 6) as u8;
                self.waiting.insert((WaiterId(*next_waiter), number));
                Event::Call { waiter: WaiterId(*next_waiter), item_hash: program(number) }
            }
            3 => {
                let (waiter, number) = *self.waiting.iter().nth(pick % self.waiting.len().max(1))?;
                self.waiting.remove(&(waiter, number));
                Event::Abandoned { waiter, item_hash: program(number) }
            }
            4 => {
                let traits = Traits {
                    need: Need { memory_mib: [100, 150, 401][pick % 3], vcpus: 1 },
                    listens_late: pick.is_multiple_of(2),
                    calls_at_once: [None, NonZeroUsize::new(1), NonZeroUsize::new(2)][pick / 2 % 3],
                    max_machines: [None, NonZeroUsize::new(1)][pick / 6 % 2],
                };
                Event::Resolved {
                    start: pull(&mut self.resolving, pick)?,
                    outcome: if fine { Ok(traits) } else { Err("no") },
                }
            }
            5 => Event::Prepared {
                start: pull(&mut self.preparing, pick)?,
                outcome: if fine { Ok(()) } else { Err("no") },
            },
            6 => Event::Healed { start: pull(&mut self.healing, pick)?, damaged: fine },
            7 => {
                let index = pick % self.booting.len().max(1);
                let (machine, started) = self.booting.get_mut(index)?;
                *started = true;
                Event::Started { machine: *machine }
            }
            8 | 9 => {
                let (machine, _) = pull(&mut self.booting, pick)?;
                self.up.push(machine);
                if fine && !self.told_to_stop.contains(&machine) {
                    Event::Ready { machine }
                } else {
                    Event::Failed { machine, failure: "no", suspect_files: pick.is_multiple_of(2) }
                }
            }
            10 | 11 => Event::Released { machine: pull(&mut self.leases, pick)?, crashed: !fine },
            12 => Event::Ended { machine: pull(&mut self.up, pick)? },
            _ => Event::Tick,
        })
    }
}

fn check_invariants(story: &Story, world: &World) -> Result<(), TestCaseError> {
    let taken = story.state.taken();
    prop_assert!(taken.memory_mib <= 400 && taken.vcpus <= 10, "{taken:?}");
    prop_assert_eq!(story.state.machines.len(), world.booting.len() + world.up.len());
    let booting = story.state.starts.values().filter(|start| matches!(start.phase, Phase::Booting(_))).count();
    prop_assert!(booting <= 2);
    for (id, machine) in &story.state.machines {
        let leases = world.leases.iter().filter(|lease| *lease == id).count();
        prop_assert_eq!(machine.calls, leases, "calls of {:?}", id);
    }
    // The owner sleeps until there is something to do.
    prop_assert!(story.state.next_deadline().is_none_or(|deadline| deadline > story.now), "a deadline in the past");
    // Nobody waits for nothing: every waiter is in a program that is on its way.
    let waiting: usize = story.state.programs.values().map(|program| program.waiters.len()).sum();
    prop_assert_eq!(waiting, world.waiting.len());
    for (item_hash, program) in &story.state.programs {
        prop_assert!(!program.is_absent(), "a program without anything");
        prop_assert!(program.starts.len() + program.serving.len() <= 3, "more machines than a program may have");
        let room = program.traits.map_or(0, |traits| traits.room(&story.state.limits));
        for id in &program.serving {
            let machine = &story.state.machines[id];
            prop_assert!(world.up.contains(id) && machine.item_hash == *item_hash);
            prop_assert!(machine.calls <= room, "{} calls, {room} at most", machine.calls);
            prop_assert!(
                machine.calls == room || program.waiters.is_empty(),
                "a call waits beside a machine with room"
            );
        }
        for id in &program.starts {
            let under_way = match &story.state.starts[id].phase {
                Phase::Resolving => world.resolving.contains(id),
                Phase::Preparing => world.preparing.contains(id),
                Phase::Healing(_) => world.healing.contains(id),
                Phase::Queued { .. } => story.state.queue.contains(id),
                Phase::Booting(machine) | Phase::Starting(machine, _) => {
                    world.booting.iter().any(|(other, _)| other == machine)
                }
            };
            prop_assert!(under_way, "{:?}", story.state.starts[id].phase);
        }
    }
    let started: usize = story.state.programs.values().map(|program| program.starts.len()).sum();
    prop_assert_eq!(story.state.starts.len(), started);
    prop_assert!(story.state.queue.iter().all(|start| story.state.starts.contains_key(start)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn whatever_happens_nobody_is_lost_and_the_bounds_hold(steps in proptest::collection::vec((0..14_u8, any::<u16>(), 0..8_u32), 0..300)) {
        let mut story = Story::new();
        let mut world = World::default();
        let mut next_waiter = 0;
        for (kind, pick, seconds) in steps {
            story.now += seconds * SECOND;
            if let Some(event) = world.event(kind, usize::from(pick), &mut next_waiter) {
                let effects = story.happens(event);
                world.take(effects);
                check_invariants(&story, &world)?;
            }
        }
        // And in the end everything ends: calls are released, machines do what they are told.
        let effects = story.happens(Event::Drain);
        world.take(effects);
        for round in 0..10_000_usize {
            story.now += SECOND;
            let effects = story.happens(Event::Tick);
            world.take(effects);
            for kind in [4, 5, 6, 8, 10] {
                if let Some(event) = world.event(kind, round, &mut next_waiter) {
                    let effects = story.happens(event);
                    world.take(effects);
                }
            }
            if let Some(index) = world.up.iter().position(|machine| world.told_to_stop.contains(machine) || !story.state.machines.contains_key(machine) || story.state.machines[machine].stage == Stage::Stopping) {
                let machine = world.up.swap_remove(index);
                let effects = story.happens(Event::Ended { machine });
                world.take(effects);
            }
            check_invariants(&story, &world)?;
            if world.drained > 0 {
                break;
            }
        }
        prop_assert_eq!(world.drained, 1);
        prop_assert!(world.waiting.is_empty());
        prop_assert!(story.state.starts.is_empty() && story.state.queue.is_empty());
    }
}
