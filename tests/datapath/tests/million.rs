//! A million random and mutated packets through the real program (BPF_PROG_TEST_RUN), beside the same code on the host:
//! nothing passes that must drop, nothing drops that must pass, and nothing aborts. Needs root.

use std::net::IpAddr;
use std::thread;

use edge_common::DropReason;
use edge_datapath::{Action, Explainer};
use edge_datapath_tests::frame::{TCP4, TCP6, UDP4, UDP6, mutated};
use edge_datapath_tests::host::reason_to_drop;
use edge_datapath_tests::setup::config;
use edge_datapath_tests::tunnel::{Kind, tunnelled};
use edge_model::{DataPathConfig, TunnelRole, Tunnels};
use fastrand::Rng;

/// Packets of the test. `EDGE_PACKETS=100000000 cargo test -p edge-datapath-tests --test million` runs more.
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

/// Runs packets, and answers how many dropped.
fn run(seed: u64, packets: u64) -> u64 {
    let config = node();
    let mut explainer = Explainer::load().expect("needs root and a kernel with BPF");
    explainer.configure(&config).expect("the configuration fits");
    let templates = templates();
    let mut random = Rng::with_seed(seed);
    let mut dropped = 0;
    for _ in 0..packets {
        let frame = mutated(&mut random, &templates);
        let answer = explainer.run(&frame).expect("the kernel runs the frame");
        let found = (answer.action == Action::Drop).then_some(answer.reason);
        let expected = reason_to_drop(&frame, &config).map(DropReason::name);
        assert_eq!(found, expected, "{frame:02x?}");
        assert_ne!(answer.action, Action::Aborted, "{frame:02x?}");
        dropped += u64::from(found.is_some());
    }
    dropped
}

#[test]
fn a_million_packets_get_the_same_verdict_from_the_kernel_and_the_host() {
    let packets = std::env::var("EDGE_PACKETS").map_or(PACKETS, |text| text.parse().expect("a number"));
    let share = packets / THREADS;
    let dropped: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|seed| scope.spawn(move || run(2026 + seed, share)))
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no difference"));
        joined.sum()
    });
    assert!(
        dropped * 10 > packets && dropped * 10 < packets * 9,
        "both fates are tried: {dropped} of {packets} dropped"
    );
}
