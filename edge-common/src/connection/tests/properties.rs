//! What holds of a table whatever packets come.

use std::collections::HashMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::table::{Answer, Family, IDLE, Table, flow};
use super::*;

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
