//! A table as the kernel keeps it, without other CPUs.

use std::collections::HashMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::HashKey;

const BUCKETS: usize = 64;
const IDLE: u32 = 1000;

struct Table {
    buckets: Vec<Bucket4>,
    hash: HashKey,
}

/// What the table made of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Known(u16),
    Recorded,
    Unrecorded,
}

impl Table {
    fn new() -> Self {
        Self {
            buckets: vec![Bucket4::default(); BUCKETS],
            hash: HashKey::from_seed(3),
        }
    }

    fn bucket(&mut self, flow: &Flow) -> &mut Bucket4 {
        let at = self.hash.hash(flow) as usize % BUCKETS;
        &mut self.buckets[at]
    }

    /// One packet of a flow; `owner` is whom the selection would give it.
    fn packet(&mut self, flow: &Flow, vip: u16, owner: u16, now: u32, proves: bool) -> Answer {
        let (source, ports) = (flow.source.0[3], ports(flow));
        let bucket = self.bucket(flow);
        let is_it = |way: &&mut Way4| {
            way.state.is_readable() && (way.source, way.ports, way.state.vip) == (source, ports, vip)
        };
        if let Some(way) = bucket.ways.iter_mut().find(is_it) {
            way.state.stamp = way.state.touched(now, proves);
            return Answer::Known(way.state.owner);
        }
        let Some(way) = victim(bucket.ways.map(|way| way.state), now, IDLE, proves) else {
            return Answer::Unrecorded;
        };
        bucket.ways[way] = Way4 {
            source,
            ports,
            state: State::new(vip, owner, now, true),
        };
        Answer::Recorded
    }
}

fn flow(number: u32) -> Flow {
    Flow {
        source: Address::v4((0x0a00_0000 + number / 8).to_be_bytes()),
        destination: Address::v4([192, 0, 2, 1]),
        source_port: 1000 + (number % 8) as u16,
        destination_port: 80,
        protocol: crate::TCP,
    }
}

#[test]
fn a_flood_of_syns_pushes_out_no_confirmed_flow_and_new_flows_get_in() {
    let mut table = Table::new();
    // Three quarters of the places on average.
    let established: Vec<_> = (0..192).map(flow).collect();
    let mut kept = Vec::new();
    for flow in &established {
        table.packet(flow, 1, 7, 0, false);
        if table.packet(flow, 1, 7, 0, true) == Answer::Known(7) {
            kept.push(*flow);
        }
    }
    assert!(kept.len() > 150, "{}", kept.len());
    for number in 10_000..110_000 {
        table.packet(&flow(number), 1, 8, 1 + number / 1000, false);
        if number % 1000 == 0 {
            // A client in the middle of the flood: its SYN finds a place, or its ACK does.
            let client = flow(1_000_000 + number);
            table.packet(&client, 1, 9, 1 + number / 1000, false);
            table.packet(&client, 1, 9, 1 + number / 1000, true);
            assert_eq!(
                table.packet(&client, 1, 8, 1 + number / 1000, true),
                Answer::Known(9)
            );
        }
    }
    let lost = kept
        .iter()
        .filter(|flow| table.packet(flow, 1, 8, 200, true) != Answer::Known(7))
        .count();
    // A client in the flood may take the place of one in a bucket of four established flows.
    assert!(lost <= 100, "{lost} of {}", kept.len());
}

#[test]
fn syns_alone_take_no_place_of_a_live_flow() {
    let confirmed = State {
        stamp: State::default().touched(5, true),
        owner: 1,
        vip: 1,
    };
    let new = State::new(1, 2, 5, true);
    let rows = [
        (
            "an empty way",
            [confirmed, confirmed, State::default(), new],
            10,
            false,
            Some(2),
        ),
        (
            "the unconfirmed way",
            [confirmed, new, confirmed, confirmed],
            10,
            false,
            Some(1),
        ),
        ("no way for a SYN", [confirmed; 4], 10, false, None),
        (
            "the idle way",
            [
                confirmed,
                State {
                    stamp: confirmed.touched(9, true),
                    ..confirmed
                },
                new,
                confirmed,
            ],
            2000,
            false,
            Some(2),
        ),
        ("an idle way for a SYN", [confirmed; 4], 2000, false, Some(0)),
        (
            "the oldest for a flow that is proven",
            [
                State {
                    stamp: confirmed.touched(9, true),
                    ..confirmed
                },
                confirmed,
                State::LOCKED,
                State::LOCKED,
            ],
            10,
            true,
            Some(1),
        ),
        ("no way that is being written", [State::LOCKED; 4], 10, true, None),
    ];
    for (name, states, now, proves, expected) in rows {
        assert_eq!(victim(states, now, IDLE, proves), expected, "{name}");
    }
}

#[test]
fn what_gives_way_is_told_apart() {
    let now = 5000;
    let seen = |at, proves| {
        let mut state = State::new(1, 2, at, true);
        state.stamp = state.touched(at, proves);
        state
    };
    let rows = [
        (State::default(), None),
        (seen(now, false), Some(Eviction::Unconfirmed)),
        (seen(now - 2 * IDLE, false), Some(Eviction::Unconfirmed)),
        (seen(now - IDLE + 1, true), Some(Eviction::Confirmed)),
        (seen(now - IDLE, true), Some(Eviction::Idle)),
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
        stamp: State::LOCKED.touched(4, true),
        ..State::LOCKED
    };
    assert!(!touched.is_readable() && touched.dispensability(9, IDLE, true) == 0);
    assert_eq!((state.age(100), state.age(98)), (1, TICKS));
}

#[test]
fn flags_choose_what_stands_for_a_flow() {
    let one = flow(1);
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

proptest! {
    #[test]
    fn a_flow_has_one_owner_and_never_that_of_another_flow(
        packets in prop::collection::vec((0..600_u32, any::<bool>(), 0..3_u32), 1..3000),
    ) {
        let mut table = Table::new();
        let mut now = 0;
        let mut owners: HashMap<u32, u16> = HashMap::new();
        for (number, proves, later) in packets {
            now += later;
            // Whom the selection names changes from packet to packet, as if the workers did.
            let owner = (number % 4000) as u16 + (now % 90) as u16;
            match table.packet(&flow(number), 1, owner, now, proves) {
                Answer::Known(known) => prop_assert_eq!(owners.get(&number), Some(&known)),
                Answer::Recorded => { owners.insert(number, owner); }
                Answer::Unrecorded => prop_assert!(!proves),
            }
        }
        let mut seen = HashMap::new();
        for way in table.buckets.iter().flat_map(|bucket| bucket.ways).filter(|way| way.state.is_readable()) {
            prop_assert_eq!(seen.insert((way.source, way.ports, way.state.vip), way.state.owner), None);
        }
    }

    #[test]
    fn the_same_ports_of_another_vip_are_another_flow(number in 0..9999_u32) {
        let mut table = Table::new();
        table.packet(&flow(number), 1, 5, 0, true);
        prop_assert_eq!(table.packet(&flow(number), 2, 6, 0, true), Answer::Recorded);
        prop_assert_eq!(table.packet(&flow(number), 1, 9, 0, true), Answer::Known(5));
        prop_assert_eq!(table.packet(&flow(number), 2, 9, 0, true), Answer::Known(6));
    }
}
