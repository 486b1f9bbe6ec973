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

/// Two loads of the program: the short way of ordinary packets, and the general way alone.
const LOADS: [fn() -> Result<Explainer, edge_datapath::Error>; 2] =
    [Explainer::load, Explainer::load_general];

#[test]
fn a_clients_next_connection_goes_to_a_worker_that_takes_new_ones() {
    let with = |flags| Packet { flags, ..TCP4 };
    for load in LOADS {
        let mut now = config(ForwardMode::Ipip);
        let mut explainer = load().expect("needs root and a kernel with BPF");
        explainer.configure(&now).expect("the configuration fits");
        let (new, had) = flow(&mut explainer, &TCP4);
        assert_eq!(new, Some("new"));
        assert_eq!(flow(&mut explainer, &with(ACK)), (Some("known"), had));
        let members = &mut now.pools[0].members;
        let draining = members
            .iter_mut()
            .find(|member| Some(member.address) == had)
            .expect("one of them");
        draining.state = MemberState::Draining;
        explainer.configure(&now).expect("the configuration fits");
        // While the connection lasts, a SYN in its name moves nothing.
        for flags in [SYN, ACK, FIN | ACK, ACK] {
            assert_eq!(
                flow(&mut explainer, &with(flags)),
                (Some("known"), had),
                "{flags:#x}"
            );
        }
        let (new, next) = flow(&mut explainer, &TCP4);
        assert!(new == Some("new") && next != had, "{new:?} {next:?}");
        assert_eq!(flow(&mut explainer, &with(ACK)), (Some("known"), next));
        // One that is reset ends likewise, and stays where it is while its worker takes new ones.
        for flags in [RST, SYN, ACK] {
            assert_eq!(
                flow(&mut explainer, &with(flags)),
                (Some("known"), next),
                "{flags:#x}"
            );
        }
    }
}

#[test]
fn a_vip_that_moved_to_another_pool_keeps_its_connections_there_and_opens_none() {
    let with = |flags| Packet { flags, ..TCP4 };
    for load in LOADS {
        let mut now = config(ForwardMode::Ipip);
        let mut green = now.pools[0].clone();
        green.name = "green".into();
        green.members = vec![member(9, ForwardMode::Ipip)];
        now.pools.push(green);
        let mut explainer = load().expect("needs root and a kernel with BPF");
        explainer.configure(&now).expect("the configuration fits");
        let (_, blue) = flow(&mut explainer, &TCP4);
        for vip in &mut now.vips {
            if vip.address == TCP4.destination {
                vip.pool = Some(1);
            }
        }
        explainer.configure(&now).expect("the configuration fits");
        let green = Some(IpAddr::from([10, 0, 0, 9]));
        assert_eq!(flow(&mut explainer, &with(FIN | ACK)), (Some("known"), blue));
        assert_eq!(flow(&mut explainer, &TCP4), (Some("new"), green));
        assert_eq!(flow(&mut explainer, &with(ACK)), (Some("known"), green));
    }
}

#[test]
fn the_end_of_one_connection_moves_no_client_that_has_a_worker_of_its_own() {
    let mut now = config(ForwardMode::Ipip);
    for vip in &mut now.vips {
        vip.spread = Spread::Source;
    }
    let mut explainer = explainer(&now);
    let (_, had) = flow(&mut explainer, &TCP4);
    for member in &mut now.pools[0].members {
        if Some(member.address) == had {
            member.state = MemberState::Draining;
        }
    }
    explainer.configure(&now).expect("the configuration fits");
    for flags in [ACK, FIN | ACK, SYN] {
        let packet = Packet {
            flags,
            source_port: 4000 + u16::from(flags),
            ..TCP4
        };
        assert_eq!(flow(&mut explainer, &packet), (Some("known"), had), "{flags:#x}");
    }
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
    for load in LOADS {
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
