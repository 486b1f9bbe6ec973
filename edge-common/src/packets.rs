//! Packets for tests.

use core::net::IpAddr;
use std::vec::Vec;

use crate::checksum;

/// An IP header before a payload, with a right checksum.
pub(crate) fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (
        source.parse().expect("literal"),
        destination.parse().expect("literal"),
    ) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend((20 + payload.len() as u16).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            with_checksum(&mut packet);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => panic!("{source} and {destination} are of different families"),
    }
    packet.extend(payload);
    packet
}

/// Writes the checksum of an IPv4 header without options.
pub(crate) fn with_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let words = packet[..20]
        .chunks_exact(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = checksum::of(words.sum());
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}
