//! Packets in tunnels.

use std::net::IpAddr;

use edge_common::checksum;
use edge_common::decap::{IPV4_IN_IP, IPV6_IN_IP};
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// What a tunnel puts between its IP header and the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Ip,
    /// UDP to a port.
    Gue(u16),
    /// UDP to a port, and a GUE header.
    GueWithHeader(u16),
}

/// Puts a frame's packet into a tunnel. The frame keeps its link header, and has no VLAN tag.
#[must_use]
pub fn tunnelled(frame: &[u8], kind: Kind, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (link, packet) = frame.split_at(ETHERNET_LEN);
    let inner = if packet[0] >> 4 == 6 {
        IPV6_IN_IP
    } else {
        IPV4_IN_IP
    };
    let (protocol, payload) = match kind {
        Kind::Ip => (inner, packet.to_vec()),
        Kind::Gue(port) => (17, datagram(port, packet.to_vec())),
        Kind::GueWithHeader(port) => {
            let header = [0, inner, 0, 0];
            (17, datagram(port, [&header, packet].concat()))
        }
    };
    let (ethertype, ip) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut ip = vec![0x45, 0];
            ip.extend((20 + payload.len() as u16).to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            ip.extend(source.octets());
            ip.extend(destination.octets());
            complete_checksum(&mut ip);
            (ETHERTYPE_IPV4, ip)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut ip = vec![0x60, 0, 0, 0];
            ip.extend((payload.len() as u16).to_be_bytes());
            ip.extend([protocol, 64]);
            ip.extend(source.octets());
            ip.extend(destination.octets());
            (ETHERTYPE_IPV6, ip)
        }
        (source, destination) => panic!("{source} and {destination} are of different families"),
    };
    [&link[..12], &ethertype.to_be_bytes(), &ip, &payload].concat()
}

fn datagram(port: u16, payload: Vec<u8>) -> Vec<u8> {
    let mut datagram = 50_000_u16.to_be_bytes().to_vec();
    datagram.extend(port.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// The frame with one hop less to live, as it comes out of a tunnel. Its checksum changes likewise, right or not (RFC 1624).
#[must_use]
pub fn aged(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[ETHERNET_LEN] >> 4 == 6 {
        frame[ETHERNET_LEN + 7] -= 1;
        return frame;
    }
    let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (ttl, sum) = (ETHERNET_LEN + 8, ETHERNET_LEN + 10);
    let before = word(&frame, ttl);
    frame[ttl] -= 1;
    let new = checksum::replace(word(&frame, sum), before, word(&frame, ttl));
    frame[sum..sum + 2].copy_from_slice(&new.to_be_bytes());
    frame
}

/// Writes the checksum of an IPv4 header without options.
pub fn complete_checksum(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let words = ip[..20].chunks_exact(2);
    let sum = words
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    ip[10..12].copy_from_slice(&checksum::of(sum).to_be_bytes());
}
