//! What is known of a packet's source: limits, penalties and lists.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use edge_datapath::{Action, Explainer};
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{ACK, Packet, TCP4, TCP6, UDP4, UDP6};
use edge_datapath_tests::setup::{config, limited};
use edge_model::{
    DataPathConfig, FloodLimits, Measure, Penalty, PenaltyReason, PenaltyScope, Prefix, SourceLists,
    TokenRate,
};

use crate::{WORKERS, check};

#[test]
fn a_source_beyond_its_rate_of_packets_is_dropped_and_no_other() {
    let mut explainer = explainer(&limited(WORKERS, 5, 5));
    let ack = Packet { flags: ACK, ..TCP4 };
    for _ in 0..5 {
        assert_eq!(run(&mut explainer, &ack.frame()).reason, "deliver");
    }
    let unserved = Packet {
        destination_port: 22,
        ..ack
    };
    let other = Packet {
        source: IpAddr::from([10, 77, 0, 9]),
        ..ack
    };
    check(
        &mut explainer,
        vec![
            ("the sixth packet", ack.frame(), Action::Drop, "flood_packets"),
            (
                "from another port",
                Packet {
                    source_port: 1,
                    ..ack
                }
                .frame(),
                Action::Drop,
                "flood_packets",
            ),
            (
                "to a port nobody serves",
                unserved.frame(),
                Action::Drop,
                "no_service",
            ),
            ("from another source", other.frame(), Action::Pass, "deliver"),
        ],
    );
}

#[test]
fn a_source_beyond_its_rate_of_connections_keeps_those_it_has() {
    let mut explainer = explainer(&limited(WORKERS, 1000, 3));
    let neighbour: IpAddr = "fd77::ffff:2".parse().expect("literal");
    let stranger: IpAddr = "fd77:0:0:1::1".parse().expect("literal");
    for _ in 0..3 {
        assert_eq!(run(&mut explainer, &TCP6.frame()).reason, "deliver");
    }
    check(
        &mut explainer,
        vec![
            (
                "a fourth connection",
                TCP6.frame(),
                Action::Drop,
                "flood_new_connections",
            ),
            (
                "from the same /64",
                Packet {
                    source: neighbour,
                    ..TCP6
                }
                .frame(),
                Action::Drop,
                "flood_new_connections",
            ),
            (
                "from another /64",
                Packet {
                    source: stranger,
                    ..TCP6
                }
                .frame(),
                Action::Pass,
                "deliver",
            ),
            (
                "a packet of a connection",
                Packet { flags: ACK, ..TCP6 }.frame(),
                Action::Pass,
                "deliver",
            ),
        ],
    );
}

/// With a slow rate, what was used lies so far ahead that a fast one would seem to be used up for as long.
#[test]
fn what_was_used_under_another_limit_does_not_count() {
    let rate = |per_second, burst| TokenRate { per_second, burst };
    let (slow, fast) = (rate(1, 100), rate(1000, 1000));
    let flood = |packets| DataPathConfig {
        flood: Some(FloodLimits {
            packets,
            new_connections: fast,
        }),
        ..config(WORKERS)
    };
    let vip = |limit| DataPathConfig {
        vip_limit: Some(limit),
        ..config(WORKERS)
    };
    let penalty = |rate| {
        penalty(
            "10.77.0.1",
            Duration::from_secs(60),
            Measure {
                rate: Some(rate),
                scope: PenaltyScope::Everything,
            },
        )
    };
    // Nothing is refused before the limit is reached.
    let use_up = |explainer: &mut Explainer, reason: &str| {
        for _ in 0..100 {
            assert_eq!(run(explainer, &TCP4.frame()).reason, "deliver");
        }
        assert_eq!(run(explainer, &TCP4.frame()).reason, reason);
    };
    for (reason, of_slow, of_fast) in [
        ("flood_packets", flood(slow), flood(fast)),
        ("vip_new_connections", vip(slow), vip(fast)),
    ] {
        let mut explainer = explainer(&of_slow);
        use_up(&mut explainer, reason);
        // Another change of the configuration gives nothing back.
        let mut unrelated = of_slow;
        unrelated.reflection_ports = vec![19];
        explainer.configure(&unrelated).expect("the configuration fits");
        assert_eq!(run(&mut explainer, &TCP4.frame()).reason, reason);
        explainer.configure(&of_fast).expect("the configuration fits");
        assert_eq!(run(&mut explainer, &TCP4.frame()).reason, "deliver", "{reason}");
    }
    let mut explainer = explainer(&config(WORKERS));
    explainer.penalise(&penalty(slow)).expect("fits");
    use_up(&mut explainer, "penalty_rate");
    explainer.penalise(&penalty(slow)).expect("fits");
    assert_eq!(run(&mut explainer, &TCP4.frame()).reason, "penalty_rate");
    explainer.penalise(&penalty(fast)).expect("fits");
    assert_eq!(run(&mut explainer, &TCP4.frame()).reason, "deliver");
}

#[test]
fn a_penalty_drops_its_source_until_it_ends() {
    let mut explainer = explainer(&config(WORKERS));
    let penalty = |source: IpAddr, time| penalty(&source.to_string(), time, Measure::default());
    let minute = Duration::from_secs(60);
    explainer.penalise(&penalty(TCP4.source, minute)).expect("fits");
    explainer
        .penalise(&penalty(TCP6.source, Duration::ZERO))
        .expect("fits");
    // The data path's clock is as old as the last timer tick, at most 10 ms.
    std::thread::sleep(Duration::from_millis(20));
    let other = Packet {
        source: IpAddr::from([10, 77, 0, 9]),
        ..TCP4
    };
    let not_for_us = Packet {
        destination: IpAddr::from([10, 77, 0, 2]),
        ..TCP4
    };
    check(
        &mut explainer,
        vec![
            ("a SYN", TCP4.frame(), Action::Drop, "penalty"),
            ("UDP", UDP4.frame(), Action::Drop, "penalty"),
            (
                "a port nobody serves",
                Packet {
                    destination_port: 22,
                    ..TCP4
                }
                .frame(),
                Action::Drop,
                "no_service",
            ),
            ("another source", other.frame(), Action::Pass, "deliver"),
            (
                "the source's packets to other addresses",
                not_for_us.frame(),
                Action::Pass,
                "no_vip",
            ),
            (
                "a source whose penalty is over",
                TCP6.frame(),
                Action::Pass,
                "deliver",
            ),
        ],
    );
}

fn penalty(source: &str, time: Duration, measure: Measure) -> Penalty {
    Penalty {
        source: source.parse().expect("literal"),
        until: Instant::now() + time,
        reason: PenaltyReason::RateLimit,
        measure,
    }
}

#[test]
fn a_penalty_holds_a_prefix_to_a_rate_or_only_its_new_connections() {
    let mut explainer = explainer(&config(WORKERS));
    let minute = Duration::from_secs(60);
    let rate = Some(TokenRate {
        per_second: 1,
        burst: 3,
    });
    let measure = |rate, scope| Measure { rate, scope };
    for (source, measure) in [
        ("10.77.0.0/24", measure(rate, PenaltyScope::Everything)),
        ("fd77::/64", measure(None, PenaltyScope::NewConnections)),
        ("10.78.0.0/15", measure(rate, PenaltyScope::NewConnections)),
    ] {
        explainer
            .penalise(&penalty(source, minute, measure))
            .expect("fits");
    }
    let from = |source: &str, packet: Packet| Packet {
        source: source.parse().expect("literal"),
        ..packet
    };
    let ack = |packet: Packet| Packet { flags: ACK, ..packet };
    for (name, source) in [("first", 1), ("second", 2), ("third", 3)] {
        let packet = ack(from(&format!("10.77.0.{source}"), TCP4));
        assert_eq!(run(&mut explainer, &packet.frame()).reason, "deliver", "{name}");
        let opens = from(&format!("10.79.0.{source}"), TCP4);
        assert_eq!(run(&mut explainer, &opens.frame()).reason, "deliver", "{name}");
    }
    use Action::{Drop, Pass};
    let rows = [
        (
            "a fourth packet",
            ack(from("10.77.0.9", TCP4)),
            Drop,
            "penalty_rate",
        ),
        ("of another prefix", ack(from("10.77.1.9", TCP4)), Pass, "deliver"),
        (
            "a fourth connection",
            from("10.78.0.9", TCP4),
            Drop,
            "penalty_rate",
        ),
        (
            "a connection that exists",
            ack(from("10.78.0.9", TCP4)),
            Pass,
            "deliver",
        ),
        ("any new connection", from("fd77::9", TCP6), Drop, "penalty"),
        ("an old one", ack(from("fd77::9", TCP6)), Pass, "deliver"),
        ("a datagram", from("fd77::9", UDP6), Pass, "deliver"),
    ];
    let rows = rows.map(|(name, packet, action, reason)| (name, packet.frame(), action, reason));
    check(&mut explainer, rows.into());
}

#[test]
fn thousands_of_penalties_are_taken_kept_apart_and_forgotten() {
    let mut explainer = explainer(&config(WORKERS));
    let source = |n: u32| IpAddr::from((0x0a00_0000 + n * 97).to_be_bytes());
    let minute = Duration::from_secs(60);
    let start = Instant::now();
    for n in 0..10_000 {
        let penalty = penalty(&source(n).to_string(), minute, Measure::default());
        explainer.penalise(&penalty).expect("fits");
        // An update is no second penalty.
        explainer.penalise(&penalty).expect("fits");
    }
    let updates = 20_000.0 / start.elapsed().as_secs_f64();
    println!("{updates:.0} penalties and updates of them a second");
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..2000 {
        let n = random.u32(..1_000_000);
        let packet = Packet {
            source: source(n),
            ..TCP4
        };
        let expected = if n < 10_000 { "penalty" } else { "deliver" };
        assert_eq!(
            run(&mut explainer, &packet.frame()).reason,
            expected,
            "{packet:?}"
        );
    }
}

#[test]
fn lists_decide_about_sources_and_the_allow_list_outweighs() {
    let list = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("literal")).collect();
    let with = |allow: &[&str], deny: &[&str]| DataPathConfig {
        sources: SourceLists {
            allow: list(allow),
            deny: list(deny),
        },
        ..limited(WORKERS, 1, 1)
    };
    let from = |source: &str| {
        let template = if source.contains(':') { TCP6 } else { TCP4 };
        Packet {
            source: source.parse().expect("literal"),
            ..template
        }
    };
    let deny = [
        "198.51.100.0/24",
        "203.0.112.0/21",
        "203.0.113.7",
        "2001:db8::/31",
        "11.0.0.0/8",
    ];
    let mut explainer = explainer(&with(&["203.0.113.0/25", "2001:db8:0:1::/64"], &deny));
    explainer
        .penalise(&penalty(
            "203.0.113.9",
            Duration::from_secs(60),
            Measure::default(),
        ))
        .expect("fits");
    use Action::{Drop, Pass};
    let not_for_us = Packet {
        destination: IpAddr::from([10, 77, 0, 2]),
        ..from("198.51.100.1")
    };
    let rows = [
        ("denied", from("198.51.100.255"), Drop, "denied"),
        ("next to it", from("198.51.101.0"), Pass, "deliver"),
        ("in a short prefix", from("11.255.0.1"), Drop, "denied"),
        ("in a wide one", from("203.0.113.200"), Drop, "denied"),
        ("allowed inside of it", from("203.0.113.100"), Pass, "deliver"),
        (
            "again, beyond the limit of others",
            from("203.0.113.100"),
            Pass,
            "deliver",
        ),
        (
            "allowed and denied by itself",
            from("203.0.113.7"),
            Pass,
            "deliver",
        ),
        ("allowed, with a penalty", from("203.0.113.9"), Pass, "deliver"),
        ("IPv6, denied", from("2001:db9::1"), Drop, "denied"),
        (
            "IPv6, allowed inside of it",
            from("2001:db8:0:1::9"),
            Pass,
            "deliver",
        ),
        ("IPv6, next to it", from("2001:dba::1"), Pass, "deliver"),
        ("denied, for another address", not_for_us, Pass, "no_vip"),
    ];
    let rows = rows.map(|(name, packet, action, reason)| (name, packet.frame(), action, reason));
    check(&mut explainer, rows.into());

    explainer.configure(&with(&[], &["203.0.113.7"])).expect("fits");
    let rows = [
        ("no longer denied", from("198.51.100.255"), Pass, "deliver"),
        ("no longer allowed", from("203.0.113.7"), Drop, "denied"),
    ];
    let rows = rows.map(|(name, packet, action, reason)| (name, packet.frame(), action, reason));
    check(&mut explainer, rows.into());
}

#[test]
fn the_data_path_agrees_with_a_long_deny_list() {
    let mut random = fastrand::Rng::with_seed(3);
    let deny: Vec<Prefix> = (0..5_000)
        .map(|n| match n % 5 {
            0 => Prefix::new(
                (random.u128(..) >> 3 | 1 << 125).to_be_bytes().into(),
                random.u8(29..=64),
            ),
            _ => Prefix::new(random.u32(..).to_be_bytes().into(), random.u8(14..=32)),
        })
        .map(|prefix| prefix.expect("a length of the family"))
        .collect();
    let config = DataPathConfig {
        sources: SourceLists {
            deny: deny.clone().into(),
            ..SourceLists::default()
        },
        ..config(WORKERS)
    };
    let mut explainer = explainer(&config);
    let mut denied = 0;
    for n in 0..4_000 {
        let near = deny[random.usize(..deny.len())];
        let source = match near.address() {
            IpAddr::V4(v4) if n % 2 == 0 => IpAddr::from((v4.to_bits() ^ random.u32(..) >> 16).to_be_bytes()),
            IpAddr::V4(_) => IpAddr::from(random.u32(..).to_be_bytes()),
            IpAddr::V6(v6) => {
                IpAddr::from((v6.to_bits() ^ random.u128(..) >> random.u32(32..100)).to_be_bytes())
            }
        };
        let first = source
            .to_string()
            .split('.')
            .next()
            .and_then(|octet| octet.parse::<u8>().ok());
        if first.is_some_and(|first| first == 0 || first == 127 || first >= 224) {
            continue;
        }
        let template = if source.is_ipv4() { TCP4 } else { TCP6 };
        let expected = deny
            .iter()
            .any(|prefix| Prefix::new(source, prefix.prefix_len()).is_some_and(|of| of == *prefix));
        denied += u32::from(expected);
        let answer = run(&mut explainer, &Packet { source, ..template }.frame());
        assert_eq!(
            answer.reason,
            if expected { "denied" } else { "deliver" },
            "{source}"
        );
    }
    assert!((500..3500).contains(&denied), "both kinds are tried: {denied}");
}
