//! Sending a flood from the client: by the kernel's pktgen where it is there, else by XDP on live frames.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use edge_datapath_tests::node::Pair;
use edge_lab::{NetNs, bin, output};
use serde_json::Value;

/// First source address of the flood.
pub(crate) const SOURCES: &str = "10.77.16.0";
/// Last one that may be used.
const LAST_SOURCE: &str = "10.77.31.255";
/// Where it goes: an address behind the node, with a UDP port.
const DESTINATION: &str = "10.77.100.1";
const PORT: u16 = 53;
const INTERFACE: &str = "client0";

/// A way to send.
#[derive(Debug)]
pub(crate) struct Generator<'p> {
    pair: &'p Pair,
    cpu: usize,
    sources: u32,
    has_pktgen: bool,
}

/// What a flood was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Frames that were made.
    pub(crate) made: u64,
    /// Frames that the peer's interface took.
    pub(crate) taken: u64,
    /// How long it took.
    pub(crate) seconds: f64,
}

impl<'p> Generator<'p> {
    /// Looks which one there is.
    pub(crate) fn find(pair: &'p Pair, cpu: usize, sources: u32) -> Result<Self> {
        // A kernel that has it as a module has it loaded by this, and any other says no.
        let _ = Command::new("modprobe").arg("--quiet").arg("pktgen").output();
        let has_pktgen = pair
            .client
            .exec(&["test", "-e", "/proc/net/pktgen/pgctrl"])
            .is_ok();
        Ok(Self {
            pair,
            cpu,
            sources,
            has_pktgen,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.has_pktgen {
            "the kernel's pktgen"
        } else {
            "XDP live frames"
        }
    }

    /// Sends 64-byte frames (60 without the check sequence) for a time, as fast as it goes.
    pub(crate) fn send(&self, time: Duration) -> Result<Sent> {
        if self.has_pktgen {
            self.pktgen(time)
        } else {
            self.live_frames(time)
        }
    }

    fn live_frames(&self, time: Duration) -> Result<Sent> {
        let mut command = self.pair.client.command("taskset");
        command
            .arg("--cpu-list")
            .arg(self.cpu.to_string())
            .arg(bin("edge-pktgen")?);
        command.args(["--interface", INTERFACE, "--kind", "udp", "--src-base", SOURCES]);
        command.args(["--src-count", &self.sources.to_string(), "--dst", DESTINATION]);
        command.args([
            "--dst-port",
            &PORT.to_string(),
            "--dst-mac",
            &mac(&self.pair.node, "node0")?,
        ]);
        command.args(["--seconds", &time.as_secs_f64().to_string(), "--json"]);
        let report: Value = serde_json::from_str(&output(&mut command)?)?;
        let number = |key: &str| {
            report
                .get(key)
                .and_then(Value::as_u64)
                .with_context(|| key.to_owned())
        };
        let (taken, lost) = (number("sent")?, number("lost")?);
        Ok(Sent {
            made: taken + lost,
            taken,
            seconds: report.get("seconds").and_then(Value::as_f64).context("seconds")?,
        })
    }

    fn pktgen(&self, time: Duration) -> Result<Sent> {
        let before = transmitted(&self.pair.client)?;
        let script = script(self.cpu, self.sources, &mac(&self.pair.node, "node0")?, time);
        let start = Instant::now();
        let done = self.pair.client.exec(&["sh", "-ec", &script])?;
        ensure!(done.contains("OK"), "pktgen says: {done}");
        let after = transmitted(&self.pair.client)?;
        Ok(Sent {
            made: after.0 - before.0 + (after.1 - before.1),
            taken: after.0 - before.0,
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

/// What to write into pktgen's files (Documentation/networking/pktgen.rst): one thread, the one of the CPU, has the
/// interface; it makes frames of 64 bytes from random sources of the range, until it is told to stop.
fn script(cpu: usize, sources: u32, mac: &str, time: Duration) -> String {
    let device = format!("/proc/net/pktgen/{INTERFACE}");
    let last = LAST_SOURCE.to_owned();
    let settings = [
        "count 0".to_owned(),
        "delay 0".to_owned(),
        "pkt_size 60".to_owned(),
        format!("dst_mac {mac}"),
        format!("dst_min {DESTINATION}"),
        format!("dst_max {DESTINATION}"),
        format!("src_min {SOURCES}"),
        format!("src_max {last}"),
        "flag IPSRC_RND".to_owned(),
        format!("flows {sources}"),
        "flowlen 1".to_owned(),
        format!("udp_dst_min {PORT}"),
        format!("udp_dst_max {PORT}"),
        "flag QUEUE_MAP_CPU".to_owned(),
    ];
    let mut lines = vec![
        "for thread in /proc/net/pktgen/kpktgend_*; do echo rem_device_all > $thread; done".to_owned(),
        format!("echo add_device {INTERFACE} > /proc/net/pktgen/kpktgend_{cpu}"),
    ];
    lines.extend(settings.map(|setting| format!("echo {setting} > {device}")));
    // `start` lasts until all is sent, which is never.
    lines.push("echo start > /proc/net/pktgen/pgctrl &".to_owned());
    lines.push(format!("sleep {}", time.as_secs_f64()));
    lines.push("echo stop > /proc/net/pktgen/pgctrl; wait".to_owned());
    lines.push(format!("grep Result {device}"));
    lines.join("\n")
}

fn link(netns: &NetNs, interface: &str) -> Result<Value> {
    let text = netns.exec(&["ip", "-json", "-statistics", "link", "show", "dev", interface])?;
    let links: Value = serde_json::from_str(&text)?;
    links
        .get(0)
        .cloned()
        .with_context(|| format!("ip(8) says nothing of {interface}"))
}

fn mac(netns: &NetNs, interface: &str) -> Result<String> {
    let link = link(netns, interface)?;
    let address = link
        .get("address")
        .and_then(Value::as_str)
        .context("a MAC address")?;
    Ok(address.to_owned())
}

/// Frames that the client's interface has sent, and refused.
fn transmitted(netns: &NetNs) -> Result<(u64, u64)> {
    let link = link(netns, INTERFACE)?;
    let count = |key: &str| {
        let count = link
            .pointer(&format!("/stats64/tx/{key}"))
            .and_then(Value::as_u64);
        count.with_context(|| format!("ip(8) does not say {key}"))
    };
    Ok((count("packets")?, count("dropped")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_sets_thread_queue_size_and_flows() {
        let script = script(1, 256, "02:00:00:00:00:01", Duration::from_secs(2));
        for line in [
            "echo add_device client0 > /proc/net/pktgen/kpktgend_1",
            "echo pkt_size 60 > /proc/net/pktgen/client0",
            "echo dst_mac 02:00:00:00:00:01 > /proc/net/pktgen/client0",
            "echo flows 256 > /proc/net/pktgen/client0",
            "echo flag QUEUE_MAP_CPU > /proc/net/pktgen/client0",
            "sleep 2",
        ] {
            assert!(
                script.lines().any(|written| written == line),
                "{line} in {script}"
            );
        }
    }
}
