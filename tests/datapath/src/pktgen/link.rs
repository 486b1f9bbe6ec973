//! What ip(8) knows about the interface and the way from it.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// Port of the datagram that makes the kernel look a neighbour up (discard, RFC 863).
const DISCARD: u16 = 9;

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let octets: Result<Vec<u8>, _> = text
            .split(':')
            .map(|octet| u8::from_str_radix(octet, 16))
            .collect();
        let octets: Option<[u8; 6]> = octets.ok().and_then(|octets| octets.try_into().ok());
        octets
            .map(Self)
            .with_context(|| format!("{text} is no MAC address (six octets, 02:00:00:00:00:01)"))
    }
}

/// A virtual Ethernet interface.
#[derive(Debug)]
pub(crate) struct Link {
    name: String,
    pub(crate) index: u32,
    pub(crate) mac: Mac,
}

impl Link {
    /// Looks an interface up, and refuses any but one end of a veth pair.
    pub(crate) fn find(name: &str) -> Result<Self> {
        let link = first(&["-details", "link", "show", "dev", name])?;
        let kind = link
            .pointer("/linkinfo/info_kind")
            .and_then(Value::as_str)
            .unwrap_or("a physical interface");
        ensure!(
            kind == "veth",
            "{name} is {kind}: floods leave from virtual Ethernet pairs (veth) only"
        );
        let index = link
            .get("ifindex")
            .and_then(Value::as_u64)
            .context("ip(8) gives no index")?;
        let mac = link
            .get("address")
            .and_then(Value::as_str)
            .context("ip(8) gives no MAC address")?;
        Ok(Self {
            name: name.to_owned(),
            index: u32::try_from(index)?,
            mac: Mac::parse(mac)?,
        })
    }

    /// The MAC address of the next hop on the way to an address.
    pub(crate) fn next_hop(&self, destination: Ipv4Addr) -> Result<Mac> {
        let route = first(&["route", "get", &destination.to_string()])?;
        let device = route.get("dev").and_then(Value::as_str).unwrap_or_default();
        ensure!(
            device == self.name,
            "the way to {destination} leaves by {device}: name the MAC with --dst-mac"
        );
        let hop = match route.get("gateway").and_then(Value::as_str) {
            Some(gateway) => gateway.to_owned(),
            None => destination.to_string(),
        };
        for _ in 0..20 {
            // A datagram makes the kernel ask for the neighbour, if it does not know it.
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(&[0], (hop.as_str(), DISCARD))?;
            thread::sleep(Duration::from_millis(50));
            let neighbours = query(&["neighbour", "show", "to", &hop, "dev", &self.name])?;
            let mac = neighbours
                .first()
                .and_then(|neighbour| neighbour.get("lladdr"))
                .and_then(Value::as_str);
            if let Some(mac) = mac {
                return Mac::parse(mac);
            }
        }
        bail!("{hop} answers no ARP request: name its MAC address with --dst-mac")
    }

    /// Frames that the peer's ring had no room for.
    pub(crate) fn transmit_drops(&self) -> Result<u64> {
        let link = first(&["-statistics", "link", "show", "dev", &self.name])?;
        link.pointer("/stats64/tx/dropped")
            .and_then(Value::as_u64)
            .context("ip(8) gives no statistics")
    }
}

fn first(words: &[&str]) -> Result<Value> {
    let answer = query(words)?;
    answer
        .into_iter()
        .next()
        .with_context(|| format!("`ip {}` says nothing", words.join(" ")))
}

fn query(words: &[&str]) -> Result<Vec<Value>> {
    let output = Command::new("ip")
        .arg("-json")
        .args(words)
        .output()
        .context("ip(8) of iproute2 is needed")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`ip {}`: {}",
        words.join(" "),
        stderr.trim()
    );
    if output.stdout.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("the answer to `ip {}`", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_has_six_octets() {
        assert_eq!(
            Mac::parse("02:00:00:00:00:ff").expect("one"),
            Mac([2, 0, 0, 0, 0, 255])
        );
        for text in [
            "",
            "auto",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "02:00:00:00:00:1ff",
        ] {
            assert!(Mac::parse(text).is_err(), "{text}");
        }
    }
}
