//! A million random and mutated packets through the real program (BPF_PROG_TEST_RUN), beside the same code on the host, on a
//! node with gateway workers and on one that balances: nothing passes that must drop, nothing drops that must pass, and
//! nothing aborts. Needs root.

use std::net::IpAddr;
use std::thread;

use edge_common::DropReason;
use edge_datapath::{Action, Explainer};
use edge_datapath_tests::frame::{TCP4, TCP6, UDP4, UDP6, mutated};
use edge_datapath_tests::host::reason_to_drop;
use edge_datapath_tests::setup::{self, config, member};
use edge_datapath_tests::tunnel::{Kind, tunnelled};
use edge_model::{DataPathConfig, ForwardMode, Member, TunnelRole, Tunnels};
use fastrand::Rng;

/// Packets of each test. `EDGE_PACKETS=100000000 cargo test -p edge-datapath-tests --test million` runs more.
const PACKETS: u64 = 1_000_000;
/// Threads, each with a program of its own.
const THREADS: u64 = 2;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

fn node() -> DataPathConfig {
    DataPathConfig {
        tunnels: Some(Tunnels {
            endpoints: vec![ip("10.9.0.2"), ip("fd09::2")],
            relays: vec![],
            trusted: vec![],
            gue_port: 6080,
            role: TunnelRole::Gateway,
        }),
        ..config(4)
    }
}

/// A node whose VIPs have workers elsewhere, in each mode.
fn balancer() -> DataPathConfig {
    let modes = [
        ("10.0.0.1", ForwardMode::Ipip),
        ("fd00::2", ForwardMode::Ipip),
        ("10.0.0.3", ForwardMode::Gue { port: 6080 }),
        ("10.0.0.4", ForwardMode::L2),
    ];
    let members = modes.map(|(address, mode)| Member {
        next_hop: Some([2, 0, 0, 0, 0, 0xfe]),
        ..member(address, ip(address), mode)
    });
    setup::balancer(members.into(), None)
}

/// Packets to VIPs, alone and in every kind of tunnel, tunnels in tunnels among them.
fn templates() -> Vec<Vec<u8>> {
    let alone = [TCP4, UDP4, TCP6, UDP6].map(|packet| packet.frame());
    let mut all = alone.to_vec();
    for frame in &alone {
        for kind in [Kind::Ip, Kind::Gue(6080), Kind::GueWithHeader(6080)] {
            let over_v4 = tunnelled(frame, kind, ip("10.9.0.1"), ip("10.9.0.2"));
            all.push(tunnelled(&over_v4, kind, ip("fd09::1"), ip("fd09::2")));
            all.push(tunnelled(frame, kind, ip("fd09::1"), ip("fd09::2")));
            all.push(over_v4);
        }
    }
    // Most packets are not in tunnels.
    for _ in 0..alone.len() {
        all.extend(alone.iter().cloned());
    }
    all
}

/// What became of packets.
#[derive(Debug, Clone, Copy, Default)]
struct Fates {
    dropped: u64,
    /// Sent on to workers elsewhere.
    forwarded: u64,
}

/// Runs packets.
fn run(config: &DataPathConfig, seed: u64, packets: u64) -> Fates {
    let mut explainer = Explainer::load().expect("needs root and a kernel with BPF");
    explainer.configure(config).expect("the configuration fits");
    let templates = templates();
    let mut random = Rng::with_seed(seed);
    let mut fates = Fates::default();
    for _ in 0..packets {
        let frame = mutated(&mut random, &templates);
        let answer = explainer.run(&frame).expect("the kernel runs the frame");
        let found = (answer.action == Action::Drop).then_some(answer.reason);
        let expected = reason_to_drop(&frame, config).map(DropReason::name);
        assert_eq!(found, expected, "{frame:02x?}");
        assert_ne!(answer.action, Action::Aborted, "{frame:02x?}");
        fates.dropped += u64::from(found.is_some());
        fates.forwarded += u64::from(answer.reason == "forward");
    }
    fates
}

/// Runs a test's packets, and refuses one of which nearly all have the same fate.
fn run_all(config: &DataPathConfig) -> Fates {
    let packets = std::env::var("EDGE_PACKETS").map_or(PACKETS, |text| text.parse().expect("a number"));
    let share = packets / THREADS;
    let fates: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| scope.spawn(move || run(config, 2026 + seed, share)))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|fates| fates.expect("no difference")).collect()
    });
    let sum = |of: fn(&Fates) -> u64| fates.iter().map(of).sum::<u64>();
    let fates = Fates {
        dropped: sum(|fates| fates.dropped),
        forwarded: sum(|fates| fates.forwarded),
    };
    let dropped = fates.dropped;
    assert!(
        dropped * 10 > packets && dropped * 10 < packets * 9,
        "both fates are tried: {dropped} of {packets} dropped"
    );
    fates
}

#[test]
fn a_million_packets_get_the_same_verdict_from_the_kernel_and_the_host() {
    assert_eq!(run_all(&node()).forwarded, 0);
}

#[test]
fn a_million_packets_get_the_same_verdict_where_workers_are_elsewhere() {
    let fates = run_all(&balancer());
    assert!(fates.forwarded * 5 > fates.dropped, "{fates:?}");
}
