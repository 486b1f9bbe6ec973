//! The connection table without other CPUs: its rules one by one.

mod properties;
mod table;

use std::vec::Vec;

use self::table::{Answer, Family, IDLE, Table, flow};
use super::*;

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
