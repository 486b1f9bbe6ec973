//! `edge explain packets`: the real program's answer for packets of every kind and length.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use edge_lab::bin;
use serde_json::{Value, json};

use crate::fixture::demo_config;

const CLIENT: [u8; 4] = [10, 77, 0, 2];
const VIP: [u8; 4] = [10, 77, 100, 1];
const STRANGER: [u8; 4] = [192, 0, 2, 1];
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An 802.1Q tag before the EtherType of a frame.
fn tagged(frame: &[u8]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend([0x81, 0, 0, 7]);
    out.extend(&frame[12..]);
    out
}

fn ipv4(destination: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("short");
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(CLIENT);
    packet.extend(destination);
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

fn ipv6(destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
    packet.extend([protocol, 64]);
    packet.extend("fd77::2".parse::<Ipv6Addr>().expect("an address").octets());
    packet.extend(destination.parse::<Ipv6Addr>().expect("an address").octets());
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut segment = 40_000_u16.to_be_bytes().to_vec();
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

fn udp(port: u16, length: u16) -> Vec<u8> {
    let mut datagram = 40_000_u16.to_be_bytes().to_vec();
    datagram.extend(port.to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0, 1, 2, 3, 4]);
    datagram
}

/// Sends the frames through `edge explain packets` in one go, with the demo's configuration.
fn explain(frames: &[(String, Vec<u8>)]) -> Vec<Value> {
    explain_with(&demo_config(), frames)
}

fn explain_with(config: &Path, frames: &[(String, Vec<u8>)]) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("packets.jsonl");
    let mut text = String::new();
    for (name, frame) in frames {
        writeln!(text, "{}", json!({"name": name, "hex": hex(frame)})).expect("a String takes all");
    }
    fs::write(&file, text).expect("written");
    let output = std::process::Command::new(bin("edge").expect("it is built"))
        .args([
            "explain",
            "packets",
            "--config",
            &config.display().to_string(),
            "--in",
        ])
        .arg(&file)
        .output()
        .expect("it starts");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(answers.len(), frames.len());
    for (answer, (name, _)) in answers.iter().zip(frames) {
        assert_eq!(answer["name"], *name);
    }
    answers
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_kind_of_packet_gets_its_action_and_its_reason() {
    let far = ipv4(VIP, 6, 0, &tcp(80, SYN));
    let mut bad_version = far.clone();
    bad_version[14] = 0x55;
    let mut bad_header_length = far.clone();
    bad_header_length[14] = 0x44;
    let mut bad_total_length = far.clone();
    bad_total_length[16..18].copy_from_slice(&1500_u16.to_be_bytes());
    let mut bad_offset = tcp(80, SYN);
    bad_offset[12] = 0x40;
    let rows: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("syn", far.clone(), "XDP_PASS", "deliver"),
        ("tagged syn", tagged(&far), "XDP_PASS", "deliver"),
        ("twice tagged syn", tagged(&tagged(&far)), "XDP_PASS", "deliver"),
        (
            "syn to 443 over IPv6",
            ipv6("fd77:100::1", 6, &tcp(443, SYN)),
            "XDP_PASS",
            "deliver",
        ),
        ("ack", ipv4(VIP, 6, 0, &tcp(80, ACK)), "XDP_PASS", "deliver"),
        (
            "port that nobody serves",
            ipv4(VIP, 6, 0, &tcp(22, SYN)),
            "XDP_DROP",
            "no_service",
        ),
        (
            "udp to a tcp service",
            ipv4(VIP, 17, 0, &udp(80, 12)),
            "XDP_DROP",
            "no_service",
        ),
        (
            "no VIP",
            ipv4(STRANGER, 6, 0, &tcp(80, SYN)),
            "XDP_PASS",
            "no_vip",
        ),
        (
            "no VIP over IPv6",
            ipv6("fd77::9", 17, &udp(80, 12)),
            "XDP_PASS",
            "no_vip",
        ),
        (
            "an error about a connection",
            ipv4(VIP, 1, 0, &[11, 0, 0, 0, 0, 0, 0, 0]),
            "XDP_PASS",
            "other_protocol",
        ),
        (
            "a redirect",
            ipv4(VIP, 1, 0, &[5, 1, 0, 0, 0, 0, 0, 0]),
            "XDP_DROP",
            "icmp_type",
        ),
        ("arp", ethernet(0x0806, &[0; 28]), "XDP_PASS", "not_ip"),
        (
            "first fragment",
            ipv4(VIP, 6, 0x2000, &tcp(80, ACK)),
            "XDP_DROP",
            "fragment",
        ),
        (
            "later fragment",
            ipv4(VIP, 17, 0x00b9, &[0; 32]),
            "XDP_DROP",
            "fragment",
        ),
        ("bad version", bad_version, "XDP_DROP", "bad_ipv4_version"),
        (
            "bad header length",
            bad_header_length,
            "XDP_DROP",
            "bad_ipv4_header_length",
        ),
        (
            "bad total length",
            bad_total_length,
            "XDP_DROP",
            "bad_ipv4_total_length",
        ),
        (
            "bad data offset",
            ipv4(VIP, 6, 0, &bad_offset),
            "XDP_DROP",
            "bad_tcp_data_offset",
        ),
        (
            "cut udp",
            ipv4(VIP, 17, 0, &udp(80, 12)[..6]),
            "XDP_DROP",
            "truncated_udp",
        ),
        (
            "long udp",
            ipv4(VIP, 17, 0, &udp(80, 999)),
            "XDP_DROP",
            "bad_udp_length",
        ),
    ];
    let frames: Vec<_> = rows
        .iter()
        .map(|(name, frame, ..)| ((*name).to_owned(), frame.clone()))
        .collect();
    for (answer, (name, frame, action, reason)) in explain(&frames).iter().zip(&rows) {
        assert_eq!(
            (answer["action"].as_str(), answer["reason"].as_str()),
            (Some(*action), Some(*reason)),
            "{name}: {answer}"
        );
        assert_eq!(answer["hex"], hex(frame), "{name} is not changed");
        let delivered = *reason == "deliver";
        assert_eq!(answer["worker"].is_u64(), delivered, "{name}: {answer}");
        assert_eq!(answer["vip"].is_string(), delivered, "{name}: {answer}");
    }
}

#[test]
fn a_frame_cut_to_any_length_never_reaches_a_worker() {
    let whole = [
        ("tcp4", ipv4(VIP, 6, 0, &tcp(80, SYN))),
        ("udp4", ipv4(VIP, 17, 0, &udp(80, 12))),
        ("tcp6", ipv6("fd77:100::1", 6, &tcp(80, SYN))),
        ("tagged", tagged(&ipv4(VIP, 6, 0, &tcp(80, SYN)))),
    ];
    for (kind, frame) in &whole {
        let cut: Vec<_> = (0..frame.len())
            .map(|length| (format!("{kind} {length}"), frame[..length].to_vec()))
            .collect();
        for answer in explain(&cut) {
            assert_eq!(answer["action"], "XDP_DROP", "{answer}");
        }
    }
}

#[test]
fn zeros_and_ones_of_any_length_up_to_80_bytes_get_an_answer() {
    for byte in [0, 0xff] {
        let frames: Vec<_> = (0..=80)
            .map(|length| (format!("{byte:02x} {length}"), vec![byte; length]))
            .collect();
        for answer in explain(&frames) {
            let reason = answer["reason"].as_str().expect("a reason");
            assert!(matches!(reason, "not_ip" | "truncated_ethernet"), "{answer}");
        }
    }
}

#[test]
fn a_source_beyond_its_flood_limit_is_dropped_packet_by_packet() {
    let syn = ipv4(VIP, 6, 0, &tcp(80, SYN));
    let frames: Vec<_> = (0..1000)
        .map(|number| (number.to_string(), syn.clone()))
        .collect();
    let answers = explain(&frames);
    let count = |reason: &str| answers.iter().filter(|answer| answer["reason"] == reason).count();
    // The demo lets 400 new connections through at once, and 200 a second after that.
    assert!((400..600).contains(&count("deliver")), "{}", count("deliver"));
    assert_eq!(count("deliver") + count("flood_new_connections"), 1000);
}

#[test]
fn all_packets_of_a_flow_get_the_same_worker_and_flows_are_spread() {
    let flow = |port: u16, flags| {
        let mut segment = tcp(80, flags);
        segment[..2].copy_from_slice(&port.to_be_bytes());
        (format!("{port}"), ipv4(VIP, 6, 0, &segment))
    };
    let frames: Vec<_> = (20_000..20_200)
        .flat_map(|port| [flow(port, SYN), flow(port, ACK)])
        .collect();
    let answers = explain(&frames);
    let mut workers = std::collections::BTreeMap::new();
    for pair in answers.chunks(2) {
        assert_eq!(pair[0]["worker"], pair[1]["worker"], "{pair:?}");
        assert_eq!(pair[0]["vip"], format!("{}:80/tcp", Ipv4Addr::from(VIP)));
        *workers.entry(pair[0]["worker"].as_u64()).or_insert(0) += 1;
    }
    assert_eq!(workers.len(), 2, "{workers:?}");
    assert!(workers.values().all(|&flows| flows > 60), "{workers:?}");
}

/// A virtual address with two workers elsewhere, whose next hops are given.
const BALANCER: &str = r#"
interfaces: [uplink]
workers: 1
hashSeed: 7
forwarding: {source4: 172.16.0.0/16}
virtualAddresses:
  - address: 10.77.100.1
    ports: [{port: 80, protocol: TCP, pool: web}]
pools:
  - name: web
    workers:
      - {name: node-1, address: 10.0.0.11, mode: ipip, nextHop: "52:54:00:00:00:01"}
      - {name: node-2, address: 10.0.0.12, mode: ipip, nextHop: "52:54:00:00:00:02"}
"#;

#[test]
fn packets_to_a_pool_tell_which_member_they_go_to_and_how_it_was_found() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("edge.yaml"), BALANCER).expect("written");
    let segment = |port: u16, flags| {
        let mut segment = tcp(80, flags);
        segment[..2].copy_from_slice(&port.to_be_bytes());
        ipv4(VIP, 6, 0, &segment)
    };
    let rows = [
        ("a SYN", segment(20_000, SYN), Some("new")),
        ("the second packet", segment(20_000, ACK), Some("known")),
        (
            "of a connection from elsewhere",
            segment(20_001, ACK),
            Some("adopted"),
        ),
        ("the same again", segment(20_001, ACK), Some("known")),
        ("a port that nobody serves", ipv4(VIP, 6, 0, &tcp(22, SYN)), None),
    ];
    let frames: Vec<_> = rows
        .iter()
        .map(|(name, frame, _)| ((*name).to_owned(), frame.clone()))
        .collect();
    let answers = explain_with(dir.path(), &frames);
    for (answer, (name, frame, flow)) in answers.iter().zip(&rows) {
        assert_eq!(answer["flow"].as_str(), *flow, "{name}: {answer}");
        let Some(_) = flow else {
            assert_eq!(answer["reason"], "no_service", "{name}: {answer}");
            assert_eq!(answer["member"], Value::Null, "{name}: {answer}");
            continue;
        };
        assert_eq!(
            (&answer["action"], &answer["reason"]),
            (&json!("XDP_TX"), &json!("forward")),
            "{name}: {answer}"
        );
        assert_eq!(answer["vip"], "10.77.100.1:80/tcp", "{name}: {answer}");
        let number = match answer["member"].as_str() {
            Some("web/node-1 (10.0.0.11)") => 1,
            Some("web/node-2 (10.0.0.12)") => 2,
            _ => panic!("{name}: {answer}"),
        };
        let out = answer["hex"].as_str().expect("a frame");
        assert!(
            out.starts_with(&format!("52540000000{number}")),
            "{name}: to its next hop: {answer}"
        );
        // An IPv4 header to the worker, and behind it the packet as it was.
        assert_eq!(
            &out[60..68],
            format!("0a00000{}", if number == 1 { "b" } else { "c" }),
            "{name}"
        );
        assert_eq!(&out[68..], hex(&frame[14..]), "{name}");
    }
    assert_eq!(answers[0]["member"], answers[1]["member"]);
    assert_eq!(answers[2]["member"], answers[3]["member"]);
}
