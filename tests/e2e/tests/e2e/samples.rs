//! `edge events` and `edge capture`: samples of what is dropped, for any number of readers at once.

use std::process::Command;
use std::time::Duration;

use edge_lab::{Process, output};
use serde_json::Value;

use crate::fixture::{LIMIT, site};

#[test]
fn every_reader_gets_samples_of_what_is_dropped_and_tcpdump_reads_them() {
    let site = site();
    let file = site.lab().dir().join("drops.pcap");
    let path = file.display().to_string();
    let start = |name: &str, words: &[&str]| {
        let mut command = site.edge_command(words).expect("it is built");
        Process::spawn(name, &mut command, site.lab().dir()).expect("it starts")
    };
    let wanted = ["--reason", "no_service", "--vip", "none", "--count", "3"];
    let with = |words: &[&'static str]| -> Vec<&str> { words.iter().chain(&wanted).copied().collect() };
    let mut first = start("first", &with(&["events", "--json"]));
    let mut second = start("second", &with(&["events"]));
    let mut capture = start("capture", &[&["capture", "--out", &path][..], &wanted].concat());
    // It goes on until the readers have seen enough.
    let mut command = site
        .flood_command("udp", 4, Duration::from_secs(60))
        .expect("it is built");
    command.args(["--pps", "1000"]);
    let mut flood = Process::spawn("flood", &mut command, site.lab().dir()).expect("it starts");
    for reader in [&mut first, &mut second, &mut capture] {
        let status = reader.wait(LIMIT * 2).expect("it ends by itself");
        assert!(status.success(), "{}", reader.tail());
    }
    flood.kill().expect("it runs");

    let log = first.log().expect("a log");
    let samples: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(samples.len(), 3, "{log}");
    for sample in samples {
        assert_eq!(sample["reason"], "no_service");
        assert_eq!(sample["vip"], Value::Null);
        let packet = sample["packet"].as_str().expect("a text");
        assert!(
            packet.starts_with("udp ") && packet.contains(" > 10.77.100.1:"),
            "{packet}"
        );
        assert_eq!(sample["frame_len"], 60);
        assert_eq!(sample["head"].as_str().map(str::len), Some(120));
    }
    let log = second.log().expect("a log");
    assert_eq!(log.matches(" no_service: udp ").count(), 3, "{log}");

    let mut tcpdump = Command::new("tcpdump");
    // As root it would give its rights up, and then not come into the lab's folder.
    tcpdump.args(["-n", "-Z", "root", "-r"]).arg(&file);
    let packets = output(&mut tcpdump).expect("it reads the file");
    assert_eq!(packets.matches("UDP, length 18").count(), 3, "{packets}");
}

#[test]
fn a_reason_that_there_is_not_is_refused_with_those_that_there_are() {
    let edge = edge_lab::bin("edge").expect("it is built");
    let output = Command::new(edge)
        .args(["events", "--reason", "no_servce"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no_service, "), "{text}");
}
