//! The connection table: flows stay with their workers, whatever else comes.

use super::*;

#[test]
fn a_flow_stays_with_its_worker_while_others_come_drain_and_fail() {
    let mut now = config(ForwardMode::Ipip);
    let mut explainer = explainer(&now);
    let flows: Vec<Packet> = (0..64)
        .map(|number| Packet {
            source_port: 20_000 + number,
            ..TCP4
        })
        .collect();
    let later = |packet: &Packet| Packet {
        flags: ACK,
        ..*packet
    };
    let first: Vec<_> = flows.iter().map(|packet| flow(&mut explainer, packet)).collect();
    assert!(
        first.iter().all(|(reason, _)| *reason == Some("new")),
        "{first:?}"
    );
    let busy = first[0].1;
    let of_busy = first.iter().filter(|(_, worker)| *worker == busy).count();
    let index = now.pools[0]
        .members
        .iter()
        .position(|member| Some(member.address) == busy)
        .expect("it is one of them");
    let check = |explainer: &mut Explainer, now: &DataPathConfig, moved: usize| {
        explainer.configure(now).expect("the configuration fits");
        let answers: Vec<_> = flows
            .iter()
            .map(|packet| flow(explainer, &later(packet)))
            .collect();
        let others = answers
            .iter()
            .zip(&first)
            .filter(|(answer, first)| answer.1 != first.1);
        assert_eq!(others.count(), moved);
        answers
    };
    check(&mut explainer, &now, 0);
    now.pools[0].members.push(member(9, ForwardMode::Ipip));
    check(&mut explainer, &now, 0);
    now.pools[0].members[index].state = MemberState::Draining;
    check(&mut explainer, &now, 0);
    let new = Packet {
        source_port: 7,
        ..TCP4
    };
    let fresh: Vec<_> = (100..200)
        .map(|port| {
            flow(
                &mut explainer,
                &Packet {
                    source_port: port,
                    ..new
                },
            )
        })
        .collect();
    assert!(
        fresh
            .iter()
            .all(|(reason, worker)| *reason == Some("new") && *worker != busy)
    );
    now.pools[0].members[index].state = MemberState::Down;
    let answers = check(&mut explainer, &now, of_busy);
    let reselected = answers.iter().filter(|(reason, _)| *reason == Some("reselected"));
    assert_eq!(reselected.count(), of_busy);
    // The flows stay with those that took them over.
    now.pools[0].members[index].state = MemberState::Active;
    let back = check(&mut explainer, &now, of_busy);
    assert!(back.iter().all(|(reason, _)| *reason == Some("known")));
    now.pools[0].members.clear();
    explainer.configure(&now).expect("the configuration fits");
    assert_eq!(run(&mut explainer, &later(&flows[0]).frame()).reason, "no_worker");
}

#[test]
fn a_worker_that_takes_the_place_of_another_does_not_get_its_flows() {
    let mut now = config(ForwardMode::Ipip);
    now.pools[0].members.truncate(1);
    let mut explainer = explainer(&now);
    assert_eq!(flow(&mut explainer, &TCP4).0, Some("new"));
    now.pools[0].members = vec![member(2, ForwardMode::Ipip)];
    explainer.configure(&now).expect("the configuration fits");
    now.pools[0].members = vec![member(3, ForwardMode::Ipip)];
    explainer.configure(&now).expect("the configuration fits");
    let ack = Packet { flags: ACK, ..TCP4 };
    let third = Some(IpAddr::from([10, 0, 0, 3]));
    assert_eq!(flow(&mut explainer, &ack), (Some("reselected"), third));
    assert_eq!(flow(&mut explainer, &ack), (Some("known"), third));
}

/// Packets whose flows stand in the first bucket of the connection table, which has as many as `Flows::FEW` asks for.
fn of_the_first_bucket(template: Packet, count: usize) -> Vec<Packet> {
    let key = HashKey::from_seed(config(ForwardMode::Ipip).hash_seed);
    let buckets = u64::from(Flows::FEW.limit) / WAYS as u64;
    let packets = (0..u32::MAX).map(|number| Packet {
        source: IpAddr::from((0x0a4d_0000 + number % 65_536).to_be_bytes()),
        source_port: 1024 + (number / 65_536) as u16,
        ..template
    });
    let flow = |packet: &Packet| Flow {
        source: packet.source.into(),
        destination: packet.destination.into(),
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
    };
    let is_first = |packet: &Packet| key.hash(&flow(packet)).is_multiple_of(buckets);
    packets.filter(is_first).take(count).collect()
}

#[test]
fn syns_and_datagrams_push_out_no_flow_that_lives() {
    for load in [Explainer::load, Explainer::load_general] {
        let mut explainer = load().expect("needs root and a kernel with BPF");
        let config = config(ForwardMode::Ipip);
        explainer.configure(&config).expect("the configuration fits");
        let established = of_the_first_bucket(Packet { flags: ACK, ..TCP4 }, WAYS);
        for packet in &established {
            assert_eq!(
                flow(
                    &mut explainer,
                    &Packet {
                        flags: SYN,
                        ..*packet
                    }
                )
                .0,
                Some("new")
            );
            assert_eq!(flow(&mut explainer, packet).0, Some("known"));
        }
        let syns = of_the_first_bucket(TCP4, 3 * WAYS).split_off(WAYS);
        let datagrams = of_the_first_bucket(UDP4, 2 * WAYS);
        for packet in syns.iter().chain(&datagrams) {
            for _ in 0..2 {
                assert_eq!(flow(&mut explainer, packet).0, Some("unrecorded"), "{packet:?}");
            }
        }
        for packet in &established {
            assert_eq!(flow(&mut explainer, packet).0, Some("known"), "{packet:?}");
        }
        // A segment takes the place of one of them, and others that of the first.
        let segments = syns.iter().map(|packet| Packet {
            flags: ACK,
            ..*packet
        });
        for packet in segments {
            assert_eq!(flow(&mut explainer, &packet).0, Some("adopted"), "{packet:?}");
        }
        let left = established
            .iter()
            .filter(|packet| flow(&mut explainer, packet).0 == Some("known"));
        assert_eq!(left.count(), WAYS - 1);
    }
}

#[test]
fn a_flow_is_explained_by_what_is_known_of_it() {
    let mut now = config(ForwardMode::Ipip);
    let mut with_table = explainer(&now);
    let ack = Packet { flags: ACK, ..TCP4 };
    let other = Packet {
        source_port: 4,
        ..ack
    };
    let udp = Packet {
        source_port: 5,
        ..UDP4
    };
    let rows = [
        ("a SYN", TCP4, "new"),
        ("the SYN again", Packet { flags: SYN, ..TCP4 }, "known"),
        ("its ACK", ack, "known"),
        ("a segment of a connection from elsewhere", other, "adopted"),
        ("a datagram", udp, "new"),
        ("another", udp, "known"),
    ];
    for (name, packet, expected) in rows {
        assert_eq!(flow(&mut with_table, &packet).0, Some(expected), "{name}");
    }
    for vip in &mut now.vips {
        vip.remembers = false;
    }
    let mut without = explainer(&now);
    assert_eq!(flow(&mut without, &TCP4).0, Some("stateless"));
    assert_eq!(flow(&mut without, &ack).0, Some("stateless"));
}
