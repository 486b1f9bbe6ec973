//! What is put around packets, and who is told that they do not fit.

use super::*;

/// A name, a configuration, a frame, how its answer begins behind the addresses, and the bytes of what is put around it.
type TunnelRow = (&'static str, DataPathConfig, Vec<u8>, &'static [u8], usize);

#[test]
fn tunnels_carry_the_packet_as_it_is() {
    let v6_worker: IpAddr = "fd00::1".parse().expect("literal");
    let gue = ForwardMode::Gue { port: 6080 };
    let to = |mode, address: Option<IpAddr>| {
        let mut config = config(mode);
        for member in &mut config.pools[0].members {
            member.address = address.unwrap_or(member.address);
        }
        config.pools[0]
            .members
            .truncate(if address.is_some() { 1 } else { 4 });
        config
    };
    let rows: [TunnelRow; 9] = [
        (
            "IPIP",
            to(ForwardMode::Ipip, None),
            TCP4.frame(),
            &[0x08, 0, 0x45],
            20,
        ),
        (
            "6in4",
            to(ForwardMode::Ipip, None),
            TCP6.frame(),
            &[0x08, 0, 0x45],
            20,
        ),
        (
            "IPv4 in IPv6",
            to(ForwardMode::Ipip, Some(v6_worker)),
            TCP4.frame(),
            &[0x86, 0xdd, 0x60],
            40,
        ),
        (
            "IP6IP6",
            to(ForwardMode::Ipip, Some(v6_worker)),
            TCP6.frame(),
            &[0x86, 0xdd, 0x60],
            40,
        ),
        ("GUE", to(gue, None), UDP4.frame(), &[0x08, 0, 0x45], 28),
        (
            "GUE over IPv6",
            to(gue, Some(v6_worker)),
            TCP6.frame(),
            &[0x86, 0xdd, 0x60],
            48,
        ),
        (
            "VLAN",
            to(ForwardMode::Ipip, None),
            tagged(TCP4.frame()),
            &[0x81, 0, 0, 7, 0x08, 0, 0x45],
            20,
        ),
        (
            "QinQ",
            to(gue, None),
            tagged(tagged(TCP4.frame())),
            &[0x81, 0, 0, 7, 0x81, 0, 0, 7, 0x08, 0, 0x45],
            28,
        ),
        (
            "layer 2",
            to(ForwardMode::L2, None),
            TCP4.frame(),
            &[0x08, 0, 0x45],
            0,
        ),
    ];
    for (name, mut config, frame, head, overhead) in rows {
        for member in &mut config.pools[0].members {
            member.next_hop = Some(GATEWAY);
        }
        let answer = run(&mut explainer(&config), &frame);
        assert_eq!((answer.action, answer.reason), (Action::Tx, "forward"), "{name}");
        let out = &answer.packet_out;
        assert_eq!(out.len(), frame.len() + overhead, "{name}");
        assert_eq!(out[..6], GATEWAY, "{name}");
        assert_eq!(out[6..12], frame[..6], "{name}");
        assert!(out[12..].starts_with(head), "{name}: {out:02x?}");
        let link = 12 + head.len() - 1;
        assert_eq!(out[link + overhead..], frame[link..], "{name}");
    }
}

#[test]
fn what_no_tunnel_carries_is_dropped_with_its_reason() {
    let mut small = config(ForwardMode::Ipip);
    small.tunnel.mtu = 59;
    let mut nobody = config(ForwardMode::Ipip);
    nobody.pools[0].members.clear();
    let options = with(inserted(TCP4.frame(), 34, &[1; 8]), 14, &[0x47, 0, 0, 48]);
    let all = config(ForwardMode::Ipip);
    let rows = [
        ("options", &all, options, "ip_options"),
        ("a fragment", &all, with(TCP4.frame(), 20, &[0x20, 0]), "fragment"),
        (
            "too big, and fragments allowed",
            &small,
            with(TCP4.frame(), 20, &[0]),
            "too_big",
        ),
        ("no worker", &nobody, TCP4.frame(), "no_worker"),
        (
            "an unserved port",
            &all,
            Packet {
                destination_port: 81,
                ..TCP4
            }
            .frame(),
            "no_service",
        ),
    ];
    for (name, config, frame, reason) in rows {
        let answer = run(&mut explainer(config), &frame);
        assert_eq!((answer.action, answer.reason), (Action::Drop, reason), "{name}");
    }
}

/// Sum of 16-bit words.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum()
}

#[test]
fn the_sender_of_a_packet_that_does_not_fit_is_told_what_does() {
    let v6_worker: IpAddr = "fd00::1".parse().expect("literal");
    let gue = ForwardMode::Gue { port: 6080 };
    for (of, mode, address, overhead) in [
        (TCP4, ForwardMode::Ipip, None, 20),
        (TCP4, gue, Some(v6_worker), 48),
        (TCP6, ForwardMode::Ipip, Some(v6_worker), 40),
        (TCP6, gue, None, 28),
        (UDP4, ForwardMode::Ipip, None, 20),
    ] {
        let mut config = config(mode);
        for member in &mut config.pools[0].members {
            member.address = address.unwrap_or(member.address);
        }
        config.pools[0].members.truncate(1);
        let is_v6 = of.source.is_ipv6();
        for (extra, vlan) in [(1, false), (600, false), (1481, true)] {
            // A packet that is `extra` bytes too long.
            let mut frame = of.frame();
            let fits = 1500 - overhead;
            frame.resize(14 + fits + extra, 0x5a);
            let len = (frame.len() - 14) as u16;
            if is_v6 {
                frame = with(frame, 18, &(len - 40).to_be_bytes());
            } else {
                frame = with(frame, 16, &len.to_be_bytes());
            }
            if of.protocol == 17 {
                frame = with(frame, 38, &(len - 20).to_be_bytes());
            }
            let link = if vlan { 18 } else { 14 };
            let frame = if vlan { tagged(frame) } else { frame };
            let name = format!("{mode:?} {of:?}, {extra} bytes");
            let answer = run(&mut explainer(&config), &frame);
            assert_eq!(
                (answer.action, answer.reason),
                (Action::Tx, "icmp_too_big"),
                "{name}"
            );
            let out = &answer.packet_out;
            assert_eq!((&out[..6], &out[6..12]), (&frame[6..12], &frame[..6]), "{name}");
            assert_eq!(out[12..link], frame[12..link], "{name}");
            let (packet, asked) = (&out[link..], &frame[link..]);
            if is_v6 {
                assert_eq!(packet.len(), 1280, "{name}");
                assert_eq!((&packet[8..24], &packet[24..40]), (&asked[24..40], &asked[8..24]));
                let len = packet.len() as u64 - 40;
                assert_eq!((packet[6], sum(&packet[4..6])), (58, len), "{name}");
                assert_eq!(checksum::of(sum(&packet[8..]) + len + 58), 0, "{name}");
                assert_eq!((packet[40], packet[41]), (2, 0), "{name}");
                assert_eq!(
                    sum(&packet[44..46]) << 16 | sum(&packet[46..48]),
                    fits as u64,
                    "{name}"
                );
                assert_eq!(packet[48..], asked[..1232], "{name}");
            } else {
                assert_eq!(packet.len(), 576, "{name}");
                assert_eq!(
                    (&packet[12..16], &packet[16..20]),
                    (&asked[16..20], &asked[12..16])
                );
                assert_eq!(checksum::of(sum(&packet[..20])), 0, "{name}");
                assert_eq!((packet[9], sum(&packet[2..4])), (1, 576), "{name}");
                assert_eq!(checksum::of(sum(&packet[20..])), 0, "{name}");
                assert_eq!(
                    (packet[20], packet[21], sum(&packet[26..28])),
                    (3, 4, fits as u64)
                );
                assert_eq!(packet[28..], asked[..548], "{name}");
            }
        }
    }
}

#[test]
fn errors_about_big_packets_are_few() {
    let mut small = config(ForwardMode::Ipip);
    small.tunnel.mtu = 59;
    let mut explainer = explainer(&small);
    let reasons: Vec<_> = (0..2000)
        .map(|_| run(&mut explainer, &TCP4.frame()).reason)
        .collect();
    let count = |reason| reasons.iter().filter(|of| **of == reason).count();
    // Fifty at once and a thousand a second: the rest comes too fast, unless each took a millisecond.
    assert!(count("icmp_too_big") >= 50, "{}", count("icmp_too_big"));
    assert_eq!(count("icmp_too_big") + count("icmp_rate"), 2000);
}
