//! What happens to packets while edge is killed and started again.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use edge_lab::{BpfFs, Curl, Process, Programs, Site, address, wait_until};
use serde_json::Value;

use crate::fixture::{LIMIT, SHOP, demo_config, url};

/// Datagrams that nobody has asked for: XDP drops them, and whatever it misses the kernel counts.
const DATAGRAMS_PER_SECOND: &str = "20000";
/// Kills and starts within one stream.
const ROUNDS: u32 = 3;

/// A site whose links and maps are pinned on a file system.
fn pinned_site(fs: &BpfFs) -> Site {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(demo_config()).expect("the demo's files").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
        }
    }
    let bootstrap = folder.path().join("edge.yaml");
    let mut file = OpenOptions::new()
        .append(true)
        .open(bootstrap)
        .expect("edge.yaml");
    let path = fs.path().join("edge");
    writeln!(file, "pinning: {{path: {}}}\nhashSeed: 0x5eed", path.display()).expect("written");
    Site::open(folder.path(), Programs::default()).expect("the site comes up")
}

/// Datagrams that reached the node's stack and found no socket.
fn missed(site: &Site) -> u64 {
    let snmp = site
        .lab()
        .node()
        .exec(&["cat", "/proc/net/snmp"])
        .expect("counters");
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names
        .split(' ')
        .position(|name| name == "NoPorts")
        .expect("NoPorts");
    values
        .split(' ')
        .nth(at)
        .and_then(|value| value.parse().ok())
        .expect("a number")
}

/// A stream of datagrams during which edge is killed and started again: how many were sent, and missed.
fn kill_and_start_under_traffic(site: &mut Site) -> (u64, u64) {
    // Without GRO a veth takes redirected frames only while an XDP program is attached, and loses the others uncounted.
    site.lab()
        .node()
        .exec(&["ethtool", "-K", "uplink", "gro", "on"])
        .expect("GRO is there");
    // Longer than any machine takes; it is ended before.
    let most = Duration::from_secs(300);
    let mut command = site.flood_command("udp", 16, most).expect("it is built");
    command.args(["--pps", DATAGRAMS_PER_SECOND]);
    let mut stream = Process::spawn("stream", &mut command, site.lab().dir()).expect("it starts");
    // The generator first asks the node for its MAC address, by a datagram that finds no socket.
    let has_begun = || Ok(site.dropped("no_service")? > 0);
    wait_until("the stream", LIMIT, has_begun).expect("it begins");
    let before = missed(site);
    for _ in 0..ROUNDS {
        site.edge().kill().expect("it runs");
        // The program is alone for a while: nothing but the kernel holds it.
        std::thread::sleep(Duration::from_millis(200));
        site.restart_edge().expect("it comes up again");
    }
    assert!(
        stream.is_running().expect("known"),
        "the stream lasted through all rounds"
    );
    assert!(
        stream.terminate(LIMIT).expect("it ends").success(),
        "{}",
        stream.tail()
    );
    let log = stream.log().expect("a log");
    let report: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    let sent = report["sent"].as_u64().expect("a number");
    (sent, missed(site) - before)
}

#[test]
fn a_killed_edge_leaves_its_program_at_work_and_the_next_one_takes_over_without_missing_a_packet() {
    let fs = BpfFs::mount().expect("root may mount");
    let mut site = pinned_site(&fs);
    let (sent, missed) = kill_and_start_under_traffic(&mut site);
    assert!(sent > 10_000, "{sent}");
    assert_eq!(missed, 0, "of {sent} datagrams");
    let answer = Curl::new(site.lab().client())
        .header(SHOP)
        .get(&url("/"))
        .expect("an answer");
    assert_eq!(answer.status, 200, "the new workers are steered to");
    assert!(site.log().expect("a log").contains("took over"));
    // An orderly end leaves nothing.
    assert!(site.edge().terminate(LIMIT).expect("it ends").success());
    let link = site.lab().node().ip("link show uplink").expect("it is there");
    assert!(!link.contains("prog/xdp"), "{link}");
    let routes = site.lab().node().ip("route show table local").expect("routes");
    assert!(!routes.contains(address::VIP), "{routes}");
}

#[test]
fn without_pins_packets_pass_a_killed_edge_by() {
    let mut site = crate::fixture::site();
    let (sent, missed) = kill_and_start_under_traffic(&mut site);
    assert!(missed > 0, "the measure sees what XDP misses, {missed} of {sent}");
}
