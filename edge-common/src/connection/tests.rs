//! A table as the kernel keeps it, without other CPUs.

use core::cell::Cell;
use core::marker::PhantomData;
use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::shared::{Place, Way, find, record};
use super::*;
use crate::HashKey;

const BUCKETS: usize = 64;
const IDLE: u32 = 1000;

/// Memory that no other CPU sees.
#[derive(Clone, Copy)]
struct Plain<'a>(&'a [Cell<u64>]);

impl Place for Plain<'_> {
    fn at(self, offset: usize) -> Self {
        assert_eq!(offset % 8, 0);
        Self(&self.0[offset / 8..])
    }

    fn read(self) -> u64 {
        self.0[0].get()
    }

    fn write(self, word: u64) {
        self.0[0].set(word);
    }

    fn write_half(self, half: u32) {
        self.0[0].set(self.0[0].get() & !u64::from(u32::MAX) | u64::from(half));
    }

    fn exchange(self, old: u64, new: u64) -> bool {
        let is_old = self.read() == old;
        if is_old {
            self.write(new);
        }
        is_old
    }
}

/// Flows of a family.
trait Family: Way {
    fn client(number: u32) -> Address;
}

impl Family for Way4 {
    fn client(number: u32) -> Address {
        Address::v4((0x0a00_0000 + number / 8).to_be_bytes())
    }
}

impl Family for Way6 {
    fn client(number: u32) -> Address {
        Address([0x0120, number / 8 % 5, 0, number / 8])
    }
}

struct Table<W> {
    words: Vec<Cell<u64>>,
    hash: HashKey,
    ways: PhantomData<W>,
}

/// What the table made of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Known(u16),
    Recorded,
    Unrecorded,
}

impl<W: Family> Table<W> {
    fn new() -> Self {
        Self {
            words: vec![Cell::new(0); BUCKETS * WAYS * size_of::<W>() / 8],
            hash: HashKey::from_seed(3),
            ways: PhantomData,
        }
    }

    fn bucket(&self, flow: &Flow) -> Plain<'_> {
        let at = self.hash.hash(flow) as usize % BUCKETS;
        Plain(&self.words).at(at * WAYS * size_of::<W>())
    }

    /// Whether a flow of any VIP is in its bucket.
    fn has(&self, flow: &Flow) -> bool {
        let bucket = self.bucket(flow);
        (0..WAYS).any(|at| W::matches(bucket.at(at * size_of::<W>()), &key(flow, 0)))
    }

    /// The words of each key, with its state.
    fn ways(&self) -> impl Iterator<Item = (Vec<u64>, State)> {
        self.words.chunks(size_of::<W>() / 8).map(|way| {
            let key = way[..W::STATE / 8].iter().map(Cell::get).collect();
            (key, State::from_word(Plain(way).at(W::STATE).read()))
        })
    }

    /// One packet of a flow; `owner` is whom the selection would give it.
    fn packet(&self, flow: &Flow, vip: u16, owner: u16, now: u32, evidence: Evidence) -> Answer {
        let (bucket, key) = (self.bucket(flow), key(flow, vip));
        if let Some(found) = find::<W, _>(bucket, &key) {
            found.touch(now, evidence);
            return Answer::Known(found.state.owner);
        }
        let state = State::new(vip, owner, now, true);
        if record::<W, _>(bucket, &key, state, now, IDLE, evidence, |_| ()) {
            Answer::Recorded
        } else {
            Answer::Unrecorded
        }
    }
}

fn key(flow: &Flow, vip: u16) -> Key {
    Key {
        source: flow.source,
        ports: ports(flow),
        vip,
    }
}

fn flow<W: Family>(number: u32) -> Flow {
    Flow {
        source: W::client(number),
        destination: Address::v4([192, 0, 2, 1]),
        source_port: 1000 + (number % 8) as u16,
        destination_port: 80,
        protocol: crate::TCP,
    }
}

#[test]
fn a_flood_of_syns_pushes_out_no_confirmed_flow_and_new_flows_get_in() {
    flood_of_syns::<Way4>();
    flood_of_syns::<Way6>();
}

fn flood_of_syns<W: Family>() {
    let table = Table::<W>::new();
    // Three quarters of the places on average.
    let established: Vec<_> = (0..192).map(flow::<W>).collect();
    let mut kept = Vec::new();
    for flow in &established {
        table.packet(flow, 1, 7, 0, Evidence::Syn);
        if table.packet(flow, 1, 7, 0, Evidence::Segment) == Answer::Known(7) {
            kept.push(*flow);
        }
    }
    assert!(kept.len() > 150, "{}", kept.len());
    for number in 10_000..110_000 {
        table.packet(&flow::<W>(number), 1, 8, 1 + number / 1000, Evidence::Syn);
        if number % 1000 == 0 {
            // A client in the middle of the flood: its SYN finds a place, or its ACK does.
            let client = flow::<W>(1_000_000 + number);
            table.packet(&client, 1, 9, 1 + number / 1000, Evidence::Syn);
            table.packet(&client, 1, 9, 1 + number / 1000, Evidence::Segment);
            assert_eq!(
                table.packet(&client, 1, 8, 1 + number / 1000, Evidence::Segment),
                Answer::Known(9)
            );
        }
    }
    let lost = kept
        .iter()
        .filter(|flow| table.packet(flow, 1, 8, 200, Evidence::Segment) != Answer::Known(7))
        .count();
    // A client in the flood may take the place of one in a bucket of four established flows.
    assert!(lost <= 100, "{lost} of {}", kept.len());
}

#[test]
fn what_anybody_can_send_takes_no_place_of_a_live_flow() {
    let confirmed = State {
        stamp: State::default().touched(5, Evidence::Segment),
        owner: 1,
        vip: 1,
    };
    let new = State::new(1, 2, 5, true);
    let rows = [
        (
            "an empty way",
            [confirmed, confirmed, State::default(), new],
            10,
            Evidence::Syn,
            Some(2),
        ),
        (
            "the unconfirmed way",
            [confirmed, new, confirmed, confirmed],
            10,
            Evidence::Syn,
            Some(1),
        ),
        ("no way for a SYN", [confirmed; 4], 10, Evidence::Syn, None),
        (
            "the idle way",
            [
                confirmed,
                State {
                    stamp: confirmed.touched(9, Evidence::Segment),
                    ..confirmed
                },
                new,
                confirmed,
            ],
            2000,
            Evidence::Syn,
            Some(2),
        ),
        (
            "no way for a datagram",
            [confirmed; 4],
            10,
            Evidence::Datagram,
            None,
        ),
        (
            "an idle way for a datagram",
            [confirmed; 4],
            2000,
            Evidence::Datagram,
            Some(0),
        ),
        (
            "an idle way for a SYN",
            [confirmed; 4],
            2000,
            Evidence::Syn,
            Some(0),
        ),
        (
            "the oldest for a flow that is proven",
            [
                State {
                    stamp: confirmed.touched(9, Evidence::Segment),
                    ..confirmed
                },
                confirmed,
                State::LOCKED,
                State::LOCKED,
            ],
            10,
            Evidence::Segment,
            Some(1),
        ),
        (
            "no way that is being written",
            [State::LOCKED; 4],
            10,
            Evidence::Segment,
            None,
        ),
    ];
    for (name, states, now, evidence, expected) in rows {
        assert_eq!(victim(states, now, IDLE, evidence), expected, "{name}");
    }
}

#[test]
fn what_gives_way_is_told_apart() {
    let now = 5000;
    let seen = |at, evidence| {
        let mut state = State::new(1, 2, at, true);
        state.stamp = state.touched(at, evidence);
        state
    };
    let rows = [
        (State::default(), None),
        (seen(now, Evidence::Syn), Some(Eviction::Unconfirmed)),
        (seen(now - 2 * IDLE, Evidence::Syn), Some(Eviction::Unconfirmed)),
        (seen(now - IDLE + 1, Evidence::Segment), Some(Eviction::Confirmed)),
        (seen(now - IDLE, Evidence::Segment), Some(Eviction::Idle)),
    ];
    for (state, expected) in rows {
        assert_eq!(state.eviction(now, IDLE), expected, "{state:?}");
    }
}

#[test]
fn a_state_survives_the_way_into_a_word_and_a_touched_lock_is_still_one() {
    let state = State::new(0x1234, 0x0567, 99, true);
    assert_eq!(State::from_word(state.word()), state);
    let touched = State {
        stamp: State::LOCKED.touched(4, Evidence::Segment),
        ..State::LOCKED
    };
    assert!(!touched.is_readable() && touched.dispensability(9, IDLE, Evidence::Segment) == 0);
    assert_eq!((state.age(100), state.age(98)), (1, TICKS));
}

#[test]
fn flags_choose_what_stands_for_a_flow() {
    let one = flow::<Way4>(1);
    let other_port = Flow {
        source_port: 9,
        ..one
    };
    let other_source = Flow {
        source: Address::v4([203, 0, 113, 1]),
        ..other_port
    };
    let other_service = Flow {
        destination_port: 443,
        ..other_port
    };
    let rows = [
        (0, [false, false, false], [false, false, false]),
        (
            vip::Entry::HASH_NO_SOURCE_PORT,
            [true, false, false],
            [false, false, false],
        ),
        (
            vip::Entry::HASH_DESTINATION_PORT,
            [true, true, false],
            [false, false, false],
        ),
        (
            vip::Entry::SOURCE_AFFINITY,
            [true, false, true],
            [true, false, true],
        ),
    ];
    for (flags, selection, connection) in rows {
        let like = |flow: Flow| keys(flow, flags);
        let others = [other_port, other_source, other_service].map(like);
        assert_eq!(
            others.map(|keys| keys.selection == like(one).selection),
            selection,
            "{flags}"
        );
        assert_eq!(
            others.map(|keys| keys.connection == like(one).connection),
            connection,
            "{flags}"
        );
    }
}

#[test]
fn a_datagram_in_a_later_tick_confirms_its_flow_and_one_in_the_same_does_not() {
    let first = State::new(1, 2, 7, true);
    let after = |state: State, now, evidence| State {
        stamp: state.touched(now, evidence),
        ..state
    };
    let copy = after(first, 7, Evidence::Datagram);
    assert!(!copy.is_confirmed());
    let later = after(copy, 8, Evidence::Datagram);
    assert!(later.is_confirmed());
    assert!(after(later, 8, Evidence::Datagram).is_confirmed());
    assert!(!after(first, 8, Evidence::Syn).is_confirmed());
    assert!(after(first, 7, Evidence::Segment).is_confirmed());
}

#[test]
fn what_may_begin_a_connection_begins_another_after_the_end_of_one_or_the_idle_time() {
    let after = |state: State, now, evidence| State {
        stamp: state.touched(now, evidence),
        ..state
    };
    let new = State::new(1, 2, 10, false);
    let open = after(new, 10, Evidence::Segment);
    let ended = after(open, 10, Evidence::Closing);
    // The other side may still send, and the client acknowledge it.
    let half_closed = after(ended, 10, Evidence::Segment);
    assert!(ended.is_confirmed() && half_closed.is_confirmed());
    let (fresh, idle) = (10, 10 + IDLE);
    let rows = [
        ("a SYN sent again", new, fresh, Evidence::Syn, false),
        ("a SYN in an open connection", open, fresh, Evidence::Syn, false),
        ("a datagram", open, idle - 1, Evidence::Datagram, false),
        ("a SYN after the end", ended, fresh, Evidence::Syn, true),
        (
            "a SYN after the last acknowledgement",
            half_closed,
            fresh,
            Evidence::Syn,
            true,
        ),
        ("an acknowledgement", ended, idle, Evidence::Segment, false),
        ("a FIN sent again", ended, idle, Evidence::Closing, false),
        (
            "a segment after the idle time",
            open,
            idle,
            Evidence::Segment,
            false,
        ),
        ("a SYN after it", open, idle, Evidence::Syn, true),
        ("a datagram after it", open, idle, Evidence::Datagram, true),
    ];
    for (name, state, now, evidence, is_over) in rows {
        assert_eq!(state.is_over(now, IDLE, evidence), is_over, "{name}");
    }
    let again = after(half_closed, 11, Evidence::Syn);
    assert!(!again.is_confirmed() && !again.is_adopted());
    assert!(!after(again, 11, Evidence::Segment).is_over(11, IDLE, Evidence::Syn));
    assert!(after(open, 11, Evidence::Syn).is_adopted());
}

#[test]
fn the_byte_that_is_written_to_prefetch_a_bucket_is_always_0() {
    let farthest = State::new(u16::MAX, 0xfff, ticks(u64::MAX), false);
    let states = [
        State::LOCKED,
        farthest,
        State {
            stamp: farthest.touched(ticks(u64::MAX), Evidence::Segment),
            ..farthest
        },
        State {
            stamp: State::LOCKED.touched(ticks(u64::MAX), Evidence::Segment),
            ..State::LOCKED
        },
    ];
    for state in states {
        let key = [0xff; 8];
        let way = [key, state.word().to_le_bytes()].concat();
        assert_eq!(way.repeat(WAYS)[Bucket4::PREFETCH], 0, "{state:?}");
    }
    assert_eq!(Bucket4::PREFETCH, 59);
    assert_eq!(Bucket6::PREFETCH, [52, 116]);
}

fn evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        Just(Evidence::Syn),
        Just(Evidence::Datagram),
        Just(Evidence::Segment),
        Just(Evidence::Closing)
    ]
}

proptest! {
    /// Whatever is sent in other names, as often and in whatever order.
    #[test]
    fn syns_and_datagrams_push_out_no_confirmed_flow(
        established in 1..300_u32,
        floods in prop::collection::vec((0..5000_u32, any::<bool>(), 0..3_u32), 1..3000),
    ) {
        keeps_confirmed::<Way4>(established, &floods)?;
        keeps_confirmed::<Way6>(established, &floods)?;
    }

    /// Each from another source, so that none is seen twice.
    #[test]
    fn made_up_segments_take_one_place_of_a_bucket_and_that_of_the_flow_seen_last_longest_ago(
        ages in prop::array::uniform4(1..IDLE), floods in 1..200_u32,
    ) {
        let now = IDLE;
        let confirmed = |age| {
            let state = State::new(1, 7, now - age, true);
            State { stamp: state.touched(now - age, Evidence::Segment), ..state }
        };
        let mut states = ages.map(confirmed);
        for _ in 0..floods {
            if let Some(way) = victim(states, now, IDLE, Evidence::Segment) {
                states[way] = State::new(1, 8, now, false);
            }
        }
        let oldest = ages.iter().max();
        let left: Vec<_> = states.iter().filter(|state| state.owner == 7).collect();
        prop_assert_eq!(left.len(), WAYS - 1);
        let lost = ages.iter().zip(states).find(|(_, state)| state.owner == 8).map(|(age, _)| age);
        prop_assert_eq!(lost, oldest);
    }

    #[test]
    fn a_flow_has_one_owner_and_never_that_of_another_flow(
        packets in prop::collection::vec((0..600_u32, evidence(), 0..3_u32), 1..3000),
    ) {
        has_one_owner::<Way4>(&packets)?;
        has_one_owner::<Way6>(&packets)?;
    }

    #[test]
    fn the_same_ports_of_another_vip_are_another_flow(number in 0..9999_u32) {
        is_another_by_its_vip::<Way4>(number)?;
        is_another_by_its_vip::<Way6>(number)?;
    }
}

fn keeps_confirmed<W: Family>(established: u32, floods: &[(u32, bool, u32)]) -> Result<(), TestCaseError> {
    let table = Table::<W>::new();
    let mut kept = Vec::new();
    for number in 0..established {
        table.packet(&flow::<W>(number), 1, 7, 0, Evidence::Segment);
        table.packet(&flow::<W>(number), 1, 7, 0, Evidence::Segment);
    }
    for number in 0..established {
        if table.has(&flow::<W>(number)) {
            kept.push(number);
        }
    }
    let mut now = 0;
    for &(number, is_datagram, later) in floods {
        now = (now + later).min(IDLE - 1);
        let evidence = if is_datagram {
            Evidence::Datagram
        } else {
            Evidence::Syn
        };
        table.packet(&flow::<W>(1_000_000 + number), 1, 8, now, evidence);
    }
    for number in kept {
        let answer = table.packet(&flow::<W>(number), 1, 9, now, Evidence::Segment);
        prop_assert_eq!(answer, Answer::Known(7));
    }
    Ok(())
}

fn has_one_owner<W: Family>(packets: &[(u32, Evidence, u32)]) -> Result<(), TestCaseError> {
    let table = Table::<W>::new();
    let mut now = 0;
    let mut owners: HashMap<u32, u16> = HashMap::new();
    for &(number, evidence, later) in packets {
        now += later;
        // Whom the selection names changes from packet to packet, as if the workers did.
        let owner = (number % 4000) as u16 + (now % 90) as u16;
        match table.packet(&flow::<W>(number), 1, owner, now, evidence) {
            Answer::Known(known) => prop_assert_eq!(owners.get(&number), Some(&known)),
            Answer::Recorded => {
                owners.insert(number, owner);
            }
            Answer::Unrecorded => prop_assert!(evidence.may_begin()),
        }
    }
    let mut seen = HashMap::new();
    for (key, state) in table.ways().filter(|(_, state)| state.is_readable()) {
        prop_assert_eq!(seen.insert((key, state.vip), state.owner), None);
    }
    Ok(())
}

fn is_another_by_its_vip<W: Family>(number: u32) -> Result<(), TestCaseError> {
    let table = Table::<W>::new();
    let flow = flow::<W>(number);
    table.packet(&flow, 1, 5, 0, Evidence::Segment);
    prop_assert_eq!(table.packet(&flow, 2, 6, 0, Evidence::Segment), Answer::Recorded);
    prop_assert_eq!(table.packet(&flow, 1, 9, 0, Evidence::Segment), Answer::Known(5));
    prop_assert_eq!(table.packet(&flow, 2, 9, 0, Evidence::Segment), Answer::Known(6));
    Ok(())
}
