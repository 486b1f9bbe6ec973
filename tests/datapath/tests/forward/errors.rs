//! ICMP errors follow the flow that they quote.

use super::*;

/// An ICMP error of a router about a packet of a connection of `client`'s, which the virtual address sent.
fn error_about(client: &Packet, kind: u8) -> Vec<u8> {
    let is_v6 = client.source.is_ipv6();
    let quoted = Packet {
        source: client.destination,
        destination: client.source,
        source_port: client.destination_port,
        destination_port: client.source_port,
        flags: ACK,
        ..*client
    };
    let router: IpAddr = if is_v6 { "fd77::99" } else { "10.77.9.9" }
        .parse()
        .expect("literal");
    let mut frame = Packet {
        source: router,
        protocol: if is_v6 { 58 } else { 1 },
        ..*client
    }
    .frame();
    let at = if is_v6 { 54 } else { 34 };
    frame.truncate(at);
    frame.extend([kind, 4, 0, 0, 0, 0, 5, 0x78]);
    frame.extend(&quoted.frame()[14..]);
    let len = (frame.len() - at) as u16;
    let (field, len) = if is_v6 { (18, len) } else { (16, len + 20) };
    with(frame, field, &len.to_be_bytes())
}

#[test]
fn an_icmp_error_goes_to_the_worker_of_the_flow_that_it_quotes() {
    let mut now = config(ForwardMode::Ipip);
    let mut explainer = explainer(&now);
    for (packet, kinds) in [(TCP4, [3, 11, 12]), (TCP6, [1, 2, 3]), (UDP4, [3, 11, 12])] {
        for port in 100..110 {
            let packet = Packet {
                source_port: port,
                ..packet
            };
            let (_, worker) = flow(&mut explainer, &packet);
            for kind in kinds {
                let frame = error_about(&packet, kind);
                let answer = run(&mut explainer, &frame);
                assert_eq!(
                    (answer.action, answer.flow),
                    (Action::Tx, Some("quoted")),
                    "{packet:?}"
                );
                assert_eq!(answer.member.map(|member| member.address), worker, "{packet:?}");
                assert_eq!(answer.packet_out[34..], frame[14..], "{packet:?}");
            }
        }
    }
    // The connection table decides, not the selection of today.
    let packet = Packet {
        source_port: 100,
        ..TCP4
    };
    let (_, worker) = flow(&mut explainer, &packet);
    for member in &mut now.pools[0].members {
        if Some(member.address) == worker {
            member.state = MemberState::Draining;
        }
    }
    explainer.configure(&now).expect("the configuration fits");
    let answer = run(&mut explainer, &error_about(&packet, 3));
    assert_eq!(answer.member.map(|member| member.address), worker);
    // An error proves nothing about a flow: it is not remembered.
    let unknown = Packet {
        source_port: 7,
        ..TCP4
    };
    assert_eq!(
        run(&mut explainer, &error_about(&unknown, 3)).flow,
        Some("quoted")
    );
    assert_eq!(flow(&mut explainer, &unknown).0, Some("new"));
}

#[test]
fn an_icmp_error_that_follows_no_flow_has_its_reason() {
    let mut local = config(ForwardMode::Ipip);
    for member in &mut local.pools[0].members {
        member.mode = ForwardMode::Local;
    }
    let all = config(ForwardMode::Ipip);
    let other_port = Packet {
        destination_port: 81,
        ..TCP4
    };
    let whole = error_about(&TCP4, 3);
    let rows = [
        ("a worker of this node", &local, whole.clone(), "icmp_error"),
        (
            "an unserved port",
            &local,
            error_about(&other_port, 3),
            "icmp_error",
        ),
        (
            "an unserved port, and nobody here",
            &all,
            error_about(&other_port, 3),
            "icmp_quote",
        ),
        (
            "another address's packet",
            &all,
            with(whole.clone(), 14 + 20 + 8 + 12, &[10, 77, 100, 2]),
            "icmp_quote",
        ),
        (
            "a later fragment",
            &all,
            with(whole.clone(), 14 + 20 + 8 + 7, &[9]),
            "icmp_quote",
        ),
        ("no ports", &all, with(whole.clone(), 16, &[0, 48]), "icmp_quote"),
        (
            "options before it",
            &all,
            with(inserted(whole, 34, &[1; 8]), 14, &[0x47, 0, 0, 76]),
            "ip_options",
        ),
    ];
    for (name, config, frame, reason) in rows {
        let answer = run(&mut explainer(config), &frame);
        assert_eq!(answer.reason, reason, "{name}");
        assert_eq!(answer.packet_out, frame, "{name}");
    }
}
