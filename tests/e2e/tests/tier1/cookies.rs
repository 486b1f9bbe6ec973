//! SYN cookies of workers whose clients come by way of a load balancer: answered in XDP, past the balancer.

use std::time::{Duration, Instant};

use edge_lab::fabric::{Fabric, Mode, Role, Settings, VIP, WORKERS};
use edge_lab::{Process, bin};

use crate::fresh::open_while;
use crate::kept::Kept;

/// Connections of each kind: more than a second's, of which the kernel answers one on each worker.
const EACH: usize = 24;
/// Bytes of a transfer.
const TRANSFER: u64 = 2 << 20;
/// Connections that are opened while a flood lasts.
const OPENED: usize = 300;
/// How long a flood lasts at least.
const LEAST: Duration = Duration::from_secs(4);
/// How long it may take to end on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// Where a status counts SYNs that were answered past the balancer.
const ANSWERED: &str = "/datapath/replied/routed_syn_cookie";

/// Workers that are gateways, with these cookies.
fn open(cookies: &str, flows: u32) -> Fabric {
    let settings = Settings {
        flows,
        role: Role::Gateway(format!("synCookies: {cookies}")),
        ..Settings::default()
    };
    let fabric = Fabric::open(settings).expect("the fabric comes up");
    for worker in 0..WORKERS {
        let netns = fabric.worker(worker).expect("it is there");
        netns.sysctl("net.ipv4.tcp_timestamps", "2").expect("root may");
    }
    fabric
}

#[test]
fn connections_by_cookie_through_tunnels_carry_data_both_ways() {
    let fabric = open("{mode: always}", 65_536);
    let client = fabric.client();
    for mode in [Mode::Ipip4, Mode::Ipip6, Mode::Gue4, Mode::Gue6] {
        for is_v6 in [false, true] {
            let name = format!("{mode:?}, IPv6: {is_v6}");
            let before = fabric.total_of_workers(ANSWERED).expect("counted");
            let mut connections = client.connect(mode, is_v6, EACH).expect(&name);
            let answered = fabric.total_of_workers(ANSWERED).expect("counted") - before;
            // At least those that were not the first of a second at a worker, on a machine that is slow.
            assert!(answered as usize >= EACH / 2, "{name}: {answered} of {EACH}");
            for connection in &mut connections {
                connection
                    .ask()
                    .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            }
            connections[0]
                .transfer(TRANSFER)
                .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    }
    for worker in 0..WORKERS {
        let status = fabric.worker_status(worker).expect("a status");
        let left = status.pointer("/datapath/left_to_kernel").expect("reasons");
        let counts = left.as_object().expect("by reason").values();
        assert!(counts.into_iter().all(|count| *count == 0), "{left}");
    }
}

#[test]
fn a_flood_that_comes_by_tunnels_is_answered_with_cookies_and_clients_notice_nothing() {
    // The balancers forget SYNs before their ACKs come.
    let fabric = open("{mode: auto, unansweredPerSecond: 200}", 512);
    let mut kept = Kept::open(&fabric.client(), Mode::Ipip4, EACH);
    assert_eq!(
        fabric.total_of_workers(ANSWERED).expect("counted"),
        0,
        "few SYNs bring no cookies"
    );
    fabric.let_floods_through().expect("GRO is there");
    let client = fabric.client();
    let mut command = client.netns().command(bin("edge-pktgen").expect("it is built"));
    command.args(["--interface", "eth0", "--kind", "syn", "--json", "--pps", "20000"]);
    command.args(["--src-base", "198.18.0.1", "--src-count", "60000"]);
    let port = Mode::Ipip4.port().to_string();
    command.args(["--dst", VIP, "--dst-port", &port, "--seconds", "300"]);
    let folder = tempfile::tempdir().expect("a folder");
    let mut flood = Process::spawn("flood", &mut command, folder.path()).expect("it starts");
    let (start, mut asked) = (Instant::now(), 0);
    let opened = open_while(&client, Mode::Ipip4, OPENED..=usize::MAX, || {
        assert!(flood.is_running().expect("a process"), "{}", flood.tail());
        kept.assert_unbroken("while the flood lasts");
        asked += 1;
        start.elapsed() >= LEAST
    });
    assert!(
        flood.terminate(LIMIT).expect("it ends").success(),
        "{}",
        flood.tail()
    );
    let log = flood.log().expect("a log");
    let report: serde_json::Value =
        serde_json::from_str(log.lines().last().expect("a report")).expect("JSON");
    let sent = report["sent"].as_u64().expect("a number");
    let answered = fabric.total_of_workers(ANSWERED).expect("counted");
    println!("{sent} sent, {answered} answered; {asked} times all asked, {opened} opened");
    assert!(opened >= OPENED && sent > 10_000, "{opened} opened, {sent} sent");
    let of_flood = answered.saturating_sub(opened as u64);
    assert!(of_flood * 10 > sent * 8, "{of_flood} of {sent}");
    // What the flood pushed out of the balancers' tables would show now, had it gone elsewhere.
    kept.assert_unbroken("after the flood");
    fabric.route_over(&[1]).expect("routed");
    kept.assert_unbroken("by the other balancer");
}
