//! Two CPUs at a time in one bucket: loom tries the orders in which their accesses may be done and seen.

use std::sync::Arc;
use std::vec::Vec;

use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::*;
use crate::{Address, worker};

/// How often the other CPU may go on between two accesses of one. Without a bound the rows together take a minute, and
/// find no more.
const PREEMPTIONS: usize = 4;
const VIP: u16 = 1;
const NOW: u32 = 500;
const IDLE: u32 = 1000;

/// Memory as x86 has it, where the JIT makes each access of the program one instruction. Loads are done in their order
/// and stores in theirs, so who sees a store sees all that its CPU stored before it: a load acquires and a store
/// releases. The compare-and-swap is locked, so it does both.
///
/// There is one order of all stores, too. Of it the test needs that a store comes after those to its word that were done
/// already, also by other CPUs, which loom knows only of a step that reads as well: so a store is an exchange here whose
/// old value nobody looks at. Other CPUs may still see it late.
#[derive(Clone, Copy)]
struct Shared<'a>(&'a [AtomicU64]);

impl Place for Shared<'_> {
    fn at(self, offset: usize) -> Self {
        assert_eq!(offset % 8, 0);
        Self(&self.0[offset / 8..])
    }

    fn read(self) -> u64 {
        self.0[0].load(Acquire)
    }

    fn write(self, word: u64) {
        self.0[0].swap(word, Release);
    }

    /// loom has no halves. A store of one takes its turn among the word's other stores, and leaves of the word what it
    /// is then: one step that reads and writes the whole word.
    fn write_half(self, half: u32) {
        let halved = |word: u64| Some(word & !u64::from(u32::MAX) | u64::from(half));
        self.0[0]
            .fetch_update(Release, Relaxed, halved)
            .expect("it is always some");
    }

    fn exchange(self, old: u64, new: u64) -> bool {
        self.0[0].compare_exchange(old, new, AcqRel, Acquire).is_ok()
    }
}

/// What a CPU does, with a flow's number and the worker that it gets.
#[derive(Debug, Clone, Copy)]
enum Step {
    LookUp(u32),
    /// Looks it up and notes a packet.
    Touch(u32),
    /// Looks it up and gives it to another worker.
    Change(u32, u16),
    Record(u32, u16),
}

use Step::{Change, LookUp, Record, Touch};

/// The bucket is full of confirmed flows of these numbers. The first was seen last longest ago, so it gives its place
/// away; but one that was recorded, and is not confirmed, gives way before it.
const FULL: [u32; WAYS] = [0, 8, 9, 10];

impl Step {
    /// The worker that the step gives the flow, if it gives it one.
    fn gives(self, flow: u32) -> Option<u16> {
        match self {
            Change(number, owner) | Record(number, owner) if number == flow => Some(owner),
            Change(..) | Record(..) | LookUp(_) | Touch(_) => None,
        }
    }
}

/// A key of each family for a flow's number. Each of its lowest three bits is in another word of an IPv6 flow's: of
/// the words of flows 0 and 7 all flows of a smaller number could be put together.
trait Family: Way + 'static {
    fn source(number: u32) -> [u32; 4];

    fn key(number: u32) -> Key {
        Key {
            source: Address(Self::source(number)),
            ports: 1000 + (number >> 2 & 1),
            vip: VIP,
        }
    }
}

impl Family for Way4 {
    fn source(number: u32) -> [u32; 4] {
        [0, 0, 0, number & !4]
    }
}

impl Family for Way6 {
    fn source(number: u32) -> [u32; 4] {
        [number >> 3, number & 1, 0, number >> 1 & 1]
    }
}

fn owner_of_full(number: u32) -> Option<u16> {
    FULL.contains(&number).then_some(100 + number as u16)
}

fn full<W: Family>() -> Vec<AtomicU64> {
    let words = (0..WAYS * size_of::<W>() / 8)
        .map(|_| AtomicU64::new(0))
        .collect::<Vec<_>>();
    let ways = Shared(&words);
    for (at, number) in FULL.into_iter().enumerate() {
        let seen = at as u32;
        let owner = owner_of_full(number).expect("it is one of them");
        let state = State {
            stamp: State::default().touched(seen, Evidence::Segment),
            owner,
            vip: VIP,
        };
        let way = ways.at(at * size_of::<W>());
        W::write(way, &W::key(number));
        way.at(W::STATE).write(state.word());
    }
    words
}

/// Looks a flow up; a worker that was not recorded for it is a failure.
fn look_up<'a, W: Family>(
    ways: Shared<'a>,
    number: u32,
    steps: &[Step],
    row: &str,
) -> Option<Found<Shared<'a>>> {
    let found = find::<W, _>(ways, &W::key(number))?;
    let owner = Some(found.state.owner);
    let is_own = owner == owner_of_full(number) || steps.iter().any(|step| step.gives(number) == owner);
    assert!(is_own, "{row}: flow {number} has {:?}", found.state);
    Some(found)
}

fn cpu<W: Family>(ways: Shared<'_>, does: &[Step], all: &[Step], row: &str) {
    for step in does {
        match *step {
            LookUp(number) => {
                look_up::<W>(ways, number, all, row);
            }
            Touch(number) => {
                if let Some(found) = look_up::<W>(ways, number, all, row) {
                    found.touch(NOW, Evidence::Segment);
                }
            }
            Change(number, owner) => {
                if let Some(found) = look_up::<W>(ways, number, all, row) {
                    found.change(found.state.given_to(owner, NOW, Evidence::Segment));
                }
            }
            Record(number, owner) => {
                let state = State::new(VIP, owner, NOW, true);
                record::<W, _>(ways, &W::key(number), state, NOW, IDLE, Evidence::Segment, |_| ());
            }
        }
    }
}

/// No way is locked, and each has a flow that was recorded, with a worker that was recorded for it.
fn settled<W: Family>(ways: Shared<'_>, all: &[Step], row: &str) {
    for at in 0..WAYS {
        let way = ways.at(at * size_of::<W>());
        let state = State::from_word(way.at(W::STATE).read());
        assert_ne!(state.owner, worker::NO_OWNER, "{row}: way {at} is locked");
        let number = (0..16).find(|number| W::matches(way, &W::key(*number)));
        let number = number.unwrap_or_else(|| panic!("{row}: way {at} has nobody's key"));
        let owner = Some(state.owner);
        let is_own = owner == owner_of_full(number) || all.iter().any(|step| step.gives(number) == owner);
        assert!(is_own, "{row}: flow {number} has {state:?}");
    }
}

fn check<W: Family>(row: &'static str, one: &'static [Step], other: &'static [Step]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    let all: Arc<[Step]> = [one, other].concat().into();
    builder.check(move || {
        let bucket = loom::sync::Arc::new(full::<W>());
        let second = loom::thread::spawn({
            let (bucket, all) = (bucket.clone(), all.clone());
            move || cpu::<W>(Shared(&bucket), other, &all, row)
        });
        cpu::<W>(Shared(&bucket), one, &all, row);
        second.join().expect("it does not panic");
        settled::<W>(Shared(&bucket), &all, row);
    });
}

/// What two CPUs do at a time, with a sentence for it.
const ROWS: &[(&str, &[Step], &[Step])] = &[
    (
        "two flows are recorded",
        &[Record(7, 1), LookUp(7)],
        &[Record(6, 2), LookUp(6)],
    ),
    (
        "one flow is recorded twice",
        &[Record(7, 1), LookUp(7)],
        &[Record(7, 2), LookUp(7)],
    ),
    (
        "a flow is looked up while its way is taken",
        &[LookUp(0)],
        &[Record(7, 1)],
    ),
    (
        "a flow is looked up while its way is taken twice",
        &[LookUp(0)],
        &[Record(7, 1), Record(6, 2)],
    ),
    (
        "a flow is looked up while its way is taken and given back",
        &[LookUp(0)],
        &[Record(7, 1), Record(0, 2)],
    ),
    (
        "a flow is looked up while it is recorded",
        &[LookUp(7)],
        &[Record(7, 1)],
    ),
    (
        "a flow is looked up while it is recorded and gives way",
        &[LookUp(7)],
        &[Record(7, 1), Record(6, 2)],
    ),
    (
        "a flow whose key is the new one's by its first word",
        &[LookUp(1)],
        &[Record(7, 1)],
    ),
    ("by its second", &[LookUp(2)], &[Record(7, 1)]),
    ("by both", &[LookUp(3)], &[Record(7, 1)]),
    ("by its third", &[LookUp(4)], &[Record(7, 1)]),
    ("by its first and third", &[LookUp(5)], &[Record(7, 1)]),
    ("by its second and third", &[LookUp(6)], &[Record(7, 1)]),
    (
        "a flow is touched while its way is taken",
        &[Touch(0)],
        &[Record(7, 1), LookUp(7)],
    ),
    (
        "a flow is touched while its way is taken twice",
        &[Touch(0)],
        &[Record(7, 1), Record(6, 2)],
    ),
    (
        "a flow is touched while it gets another worker",
        &[Touch(0), LookUp(0)],
        &[Change(0, 1), LookUp(0)],
    ),
    (
        "a flow gets another worker while its way is taken",
        &[Change(0, 1)],
        &[Record(7, 2), LookUp(7)],
    ),
    (
        "a flow gets two other workers",
        &[Change(0, 1), LookUp(0)],
        &[Change(0, 2), LookUp(0)],
    ),
];

fn check_all<W: Family>() {
    for &(row, one, other) in ROWS {
        check::<W>(row, one, other);
    }
}

#[test]
fn two_cpus_in_a_bucket_of_ipv4_flows_give_no_flow_the_worker_of_another() {
    check_all::<Way4>();
}

#[test]
fn two_cpus_in_a_bucket_of_ipv6_flows_give_no_flow_the_worker_of_another() {
    check_all::<Way6>();
}
