//! Pools, tunnels, SYN cookies, lists and limits.

use super::*;

#[test]
fn pools_and_tunnels_reach_the_checked_file() {
    let text = "forwarding: {source4: 172.16.0.0/16, mtu: 1600, nextHop: '2:0:0:0:0:a'}
connections: {flows: 4096, idle: 1m}
pools:
- name: web
  workers:
  - {name: a, address: 10.0.0.11, mode: gue, port: 7000, weight: 3, state: draining, nextHop: '02:00:00:00:00:01'}
  - {address: 10.0.0.12}
  - {address: 'fd00::1', mode: l2, number: 4095}
virtualAddresses:
- address: 192.0.2.0/24
  unservedPorts: pass
  ports: [{port: 0, pool: web, spread: source, connectionTable: false}, {port: 53, protocol: UDP, pool: web}]
";
    let found = parse(text).expect("all of it is right");
    let [pool] = found.pools.as_slice() else {
        panic!("{:?}", found.pools)
    };
    let members: Vec<_> = pool
        .members
        .iter()
        .map(|member| (&*member.name, member.mode, member.weight, member.state))
        .collect();
    let gue = ForwardMode::Gue { port: 7000 };
    assert_eq!(
        members,
        [
            ("a", gue, 3, MemberState::Draining),
            ("10.0.0.12", ForwardMode::Ipip, 1, MemberState::Active),
            ("fd00::1", ForwardMode::L2, 1, MemberState::Active),
        ]
    );
    let numbers: Vec<_> = pool.numbered().map(|(number, _)| number).collect();
    assert_eq!(numbers, [0, 1, 4095]);
    assert_eq!(pool.members[0].next_hop, Some([2, 0, 0, 0, 0, 1]));
    assert_eq!(
        (found.tunnel.mtu, found.tunnel.next_hop),
        (1600, Some([2, 0, 0, 0, 0, 10]))
    );
    assert_eq!(
        (found.flows, found.connections.idle),
        (4096, Duration::from_secs(60))
    );
    let address = &found.virtual_addresses[0];
    assert_eq!((address.free_bits, address.unserved), (8, Unserved::Pass));
    let ports: Vec<_> = address
        .ports
        .iter()
        .map(|port| (port.port, port.protocol, port.pool, port.spread, port.remembers))
        .collect();
    assert_eq!(
        ports,
        [
            (0, Protocol::Tcp, Some(0), Spread::Source, false),
            (53, Protocol::Udp, Some(0), Spread::Flow, true),
        ]
    );
}

#[test]
fn mistakes_in_pools_and_tunnels_are_named() {
    let rows = [
        (
            "pools: [{name: a, workers: [{address: 10.0.0.1}]}]",
            "pools[0].workers[0].mode",
        ),
        (
            "pools: [{name: a, workers: [{address: host}]}]",
            "pools[0].workers[0].address",
        ),
        ("pools: [{name: a}, {name: a}]", "pools[1].name"),
        (
            "pools: [{name: a, workers: [{address: 10.0.0.1, mode: l2, nextHop: '1:0:0:0:0:0'}]}]",
            "pools[0].workers[0].nextHop",
        ),
        ("forwarding: {source4: 'fd00::/64'}", "forwarding.source4"),
        ("forwarding: {mtu: 1000}", "forwarding.mtu"),
        ("connections: {flows: 0}", "connections.flows"),
        ("connections: {idle: 25h}", "connections.idle"),
        (
            "virtualAddresses: [{address: 192.0.2.0/24}]",
            "virtualAddresses[0].ports",
        ),
        (
            "virtualAddresses: [{address: 192.0.2.1, ports: [{port: 80, pool: b}]}]",
            "virtualAddresses[0].ports[0].pool",
        ),
        (
            "virtualAddresses: [{address: 192.0.2.1, ports: [{port: 0}]}]",
            "virtualAddresses[0].ports[0].port",
        ),
        (
            "virtualAddresses: [{address: 192.0.2.1, ports: [{port: 53, protocol: UDP}]}]",
            "virtualAddresses[0].ports[0].protocol",
        ),
        (
            "virtualAddresses: [{address: 192.0.2.1, ports: [{port: 80, spread: source}]}]",
            "virtualAddresses[0].ports[0]",
        ),
    ];
    for (text, field) in rows {
        let problems = parse(text).expect_err(text);
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, [field], "{text}");
    }
}

#[test]
fn no_two_workers_of_a_pool_have_the_same_number() {
    let pool = |numbers: &[&str]| {
        let workers = (1..)
            .zip(numbers)
            .map(|(host, number)| format!("  - {{address: 10.0.0.{host}, mode: l2{number}}}\n"));
        format!("pools:\n- name: a\n  workers:\n{}", workers.collect::<String>())
    };
    let rows: [(&[&str], &[&str]); 7] = [
        (&["", "", ""], &[]),
        (&[", number: 2", ", number: 0", ", number: 1"], &[]),
        (&[", number: 7", ", number: 4095", ""], &[]),
        (
            &[", number: 7", ", number: 7"],
            &["5 pools[0].workers[1].number: is 7, as that of pools[0].workers[0]"],
        ),
        (
            &[", number: 1", ""],
            &[
                "5 pools[0].workers[1].number: is not set, and so 1, its place in the list, as that of pools[0].workers[0]",
            ],
        ),
        (
            &["", ", number: 0"],
            &["5 pools[0].workers[1].number: is 0, as that of pools[0].workers[0]"],
        ),
        (
            &[", number: 4096", ", number: 70000"],
            &[
                "4 pools[0].workers[0].number: is not between 0 and 4095",
                "5 pools[0].workers[1].number: is not between 0 and 4095",
            ],
        ),
    ];
    for (numbers, expected) in rows {
        match expected {
            [] => assert!(parse(&pool(numbers)).is_ok(), "{numbers:?}"),
            _ => check(&pool(numbers), expected),
        }
    }
    // Another pool's workers have numbers of their own.
    let two = "pools: [{name: a, workers: [{address: 10.0.0.1, mode: l2, number: 3}]}, {name: b, workers: [{address: \
               10.0.0.1, mode: l2, number: 3}]}]";
    assert!(parse(two).is_ok());
}

#[test]
fn cookies_are_off_by_default_and_automatic_where_nothing_else_is_said() {
    let auto = |rate| {
        Some(SynCookies::Above(TokenRate {
            per_second: rate,
            burst: rate,
        }))
    };
    let rows = [
        ("", None),
        ("synCookies: null", None),
        ("synCookies: {}", auto(1000)),
        ("synCookies: {mode: never}", None),
        ("synCookies: {mode: always}", Some(SynCookies::Always)),
        ("synCookies: {unansweredPerSecond: 5}", auto(5)),
    ];
    for (text, expected) in rows {
        let found = parse(text).expect("all of it is right");
        assert_eq!(found.syn_cookies, expected, "{text}");
    }
}

#[test]
fn cookies_that_xdp_answers_none_of_are_warned_of() {
    let (host, pools) = (
        "answers nothing in XDP on a host",
        "answers nothing: every port has a pool",
    );
    let ports = |ports: &str| format!("virtualAddresses: [{{address: 192.0.2.10, ports: [{ports}]}}]\n");
    let pool = "pools: [{name: web, workers: [{address: 192.0.2.1, mode: ipip}]}]\nforwarding: {source4: 192.0.2.9}\n";
    let tunnels = |role: &str| format!("tunnels: {{endpoints: [192.0.2.20], role: {role}}}\n");
    let (elsewhere, here) = ("{port: 80, pool: web}", "{port: 81}");
    for (rest, expected) in [
        (String::new(), None),
        (ports("") + &tunnels("gateway"), None),
        (ports("") + &tunnels("host"), Some(host)),
        (ports(elsewhere) + pool, Some(pools)),
        (ports(elsewhere) + pool + &tunnels("gateway"), None),
        (ports(&format!("{elsewhere}, {here}")) + pool, None),
    ] {
        for mode in ["auto", "always", "never"] {
            let text = format!("synCookies: {{mode: {mode}}}\n{rest}");
            let mut problems = Vec::new();
            let read = Bootstrap::read("edge.yaml", &text, &mut problems);
            assert!(read.is_some(), "{text}{problems:?}");
            let expected = expected.filter(|_| mode != "never");
            let found: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(
                found,
                Vec::from_iter(expected.map(|_| "synCookies")),
                "{text}{problems:?}"
            );
            let message = problems.first().map_or("", |problem| &problem.message);
            assert!(
                message.starts_with(expected.unwrap_or_default()),
                "{text}{message}"
            );
        }
    }
}

#[test]
fn lists_and_limits_of_tier_1_are_checked() {
    check(
        "sources: {deny: [192.0.2.0/33, 192.0.2.1], allow: [host]}
reflectionPorts: [0, 65536, 53]
vipLimit: {newConnectionsPerSecond: 5}
synCookies: {unansweredPerSecond: 0}
penalties: {refusals: 1, window: 1s, duration: 1s, perSecond: 5}
",
        &[
            "1 sources.allow[0]: \"host\" is no address or prefix such as 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32",
            "1 sources.deny[0]: \"192.0.2.0/33\" is no address or prefix such as 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32",
            "2 reflectionPorts[0]: is not a port",
            "2 reflectionPorts[1]: is not a port",
            "3 vipLimit.newConnectionsBurst: is missing or 0, which would drop every new connection",
            "4 synCookies.unansweredPerSecond: must be at least 1",
            "5 penalties: has one of perSecond and burst without the other",
        ],
    );
}

#[test]
fn ends_of_tunnels_are_checked() {
    check(
        "virtualAddresses: [{address: 192.0.2.10}]
tunnels: {endpoints: [192.0.2.10, 192.0.2.1, 192.0.2.1, 0.0.0.0], trusted: [nobody], guePort: 0}
",
        &[
            "2 tunnels.endpoints[0]: is a virtual address",
            "2 tunnels.endpoints[2]: stands twice",
            "2 tunnels.endpoints[3]: is not the address of a host",
            "2 tunnels.trusted[0]: \"nobody\" is no address or prefix such as 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32",
            "2 tunnels.guePort: is not a port",
        ],
    );
    check(
        "tunnels: {}",
        &[
            "1 tunnels: brings nothing without a virtual address",
            "1 tunnels.endpoints: must have between 1 and 4 addresses, relays among them",
        ],
    );
}

#[test]
fn a_second_hop_that_brings_nothing_is_warned_of() {
    let worker = |mode: &str, last: u8| format!("{{address: 192.0.2.{last}, mode: {mode}}}");
    let pool = |modes: &[&str]| {
        let workers: Vec<_> = (1..).zip(modes).map(|(last, mode)| worker(mode, last)).collect();
        format!("pools: [{{name: web, workers: [{}]}}]\n", workers.join(", "))
    };
    let (alone, seedless) = (
        "brings nothing: no pool has",
        "brings nothing for connections of other",
    );
    let seed = "hashSeed: 1\n";
    for (pools, seed, expected) in [
        (pool(&["ipip", "gue"]), seed, None),
        (pool(&["ipip", "local"]), seed, None),
        (pool(&["ipip", "gue"]), "", Some(seedless)),
        (pool(&["ipip", "l2", "l2"]), seed, Some(alone)),
        (pool(&["gue"]), seed, Some(alone)),
        (String::new(), seed, Some(alone)),
    ] {
        for second_hop in [true, false] {
            let text = format!("forwarding: {{source4: 192.0.2.9, secondHop: {second_hop}}}\n{pools}{seed}");
            let mut problems = Vec::new();
            assert!(
                Bootstrap::read("edge.yaml", &text, &mut problems).is_some(),
                "{problems:?}"
            );
            let found: Vec<_> = problems
                .iter()
                .map(|problem| (problem.line, problem.severity, problem.field.as_str()))
                .collect();
            let expected = expected.filter(|_| second_hop);
            let one = expected.map(|_| (1, crate::Severity::Warning, "forwarding.secondHop"));
            assert_eq!(found, Vec::from_iter(one), "{text}");
            let message = problems.first().map_or("", |problem| &problem.message);
            assert!(
                message.starts_with(expected.unwrap_or_default()),
                "{text}{message}"
            );
        }
    }
}
