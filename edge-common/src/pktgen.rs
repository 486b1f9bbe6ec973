//! The contract of the lab's packet generator: settings, and the frame that each sequence number stands for.

use crate::header::ETHERTYPE_IPV4;
use crate::{UDP, assert_size};

/// Name of the generator's XDP program.
pub const PROGRAM: &str = "edge_pktgen";
/// `Array<Settings>`, one element. Written by userspace.
pub const SETTINGS: &str = "SETTINGS";
/// `PerCpuArray<Progress>`, one element. Written by the generator.
pub const PROGRESS: &str = "PROGRESS";

/// Length of every frame: the shortest that Ethernet has, without the frame check sequence.
pub const FRAME_LEN: usize = 60;

/// What to send.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Interface that the frames leave from.
    pub interface: u32,
    /// First source address, as a number.
    pub source_base: u32,
    /// Number of source addresses from the first on; at least 1.
    pub source_count: u32,
    /// Destination address, as a number.
    pub destination: u32,
    /// Destination port.
    pub destination_port: u16,
    /// [`TCP`](crate::TCP): segments with SYN alone. [`UDP`]: datagrams with 18 zero bytes.
    pub protocol: u8,
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// To a multiple of four bytes.
    pub padding: [u8; 1],
}

/// What was sent by one CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Frames made, which is the sequence number of the next.
    pub frames: u64,
}

assert_size!(Settings = 32, Progress = 8);

/// The frame with a sequence number, whole, so that nothing of an earlier one is left in a recycled page.
///
/// Source addresses follow each other; after each round of them the source port counts up. Checksums are right.
#[inline(always)]
#[must_use]
pub fn frame(settings: &Settings, sequence: u64) -> [u8; FRAME_LEN] {
    let count = if settings.source_count == 0 {
        1
    } else {
        settings.source_count as u64
    };
    let source = settings.source_base.wrapping_add((sequence % count) as u32);
    let port = FIRST_SOURCE_PORT + (sequence / count % SOURCE_PORTS) as u16;
    let mut frame = [0; FRAME_LEN];
    ethernet(&mut frame, settings);
    let payload_len = if settings.protocol == UDP {
        UDP_LEN
    } else {
        TCP_LEN
    };
    ipv4(&mut frame, settings, source, payload_len);
    put(&mut frame, 34, port.to_be_bytes());
    put(&mut frame, 36, settings.destination_port.to_be_bytes());
    let mut sum =
        pseudo_header(settings, source, payload_len) + port as u32 + settings.destination_port as u32;
    if settings.protocol == UDP {
        put(&mut frame, 38, UDP_LEN.to_be_bytes());
        sum += UDP_LEN as u32;
        put(&mut frame, 40, checksum(sum).to_be_bytes());
    } else {
        let number = sequence as u32;
        put(&mut frame, 38, number.to_be_bytes());
        put(&mut frame, 46, OFFSET_AND_SYN.to_be_bytes());
        put(&mut frame, 48, WINDOW.to_be_bytes());
        sum += (number >> 16) + (number & 0xffff) + OFFSET_AND_SYN as u32 + WINDOW as u32;
        put(&mut frame, 50, checksum(sum).to_be_bytes());
    }
    frame
}

const FIRST_SOURCE_PORT: u16 = 1024;
const SOURCE_PORTS: u64 = 64_000;
/// UDP header and 18 bytes fill the frame.
const UDP_LEN: u16 = 26;
/// TCP header alone; six bytes of Ethernet padding follow.
const TCP_LEN: u16 = 20;
/// Data offset of five words, flags SYN.
const OFFSET_AND_SYN: u16 = 0x5002;
const WINDOW: u16 = 64_240;
/// Version 4, header of five words, no type of service.
const VERSION_AND_LENGTH: u16 = 0x4500;
/// Don't fragment.
const FRAGMENT_FIELD: u16 = 0x4000;
const TTL: u8 = 64;

#[inline(always)]
fn ethernet(frame: &mut [u8; FRAME_LEN], settings: &Settings) {
    put(frame, 0, settings.destination_mac);
    put(frame, 6, settings.source_mac);
    put(frame, 12, ETHERTYPE_IPV4.to_be_bytes());
}

#[inline(always)]
fn ipv4(frame: &mut [u8; FRAME_LEN], settings: &Settings, source: u32, payload_len: u16) {
    let total_len = 20 + payload_len;
    let ttl_and_protocol = u16::from_be_bytes([TTL, settings.protocol]);
    put(frame, 14, VERSION_AND_LENGTH.to_be_bytes());
    put(frame, 16, total_len.to_be_bytes());
    put(frame, 20, FRAGMENT_FIELD.to_be_bytes());
    put(frame, 22, ttl_and_protocol.to_be_bytes());
    put(frame, 26, source.to_be_bytes());
    put(frame, 30, settings.destination.to_be_bytes());
    let fixed = VERSION_AND_LENGTH as u32 + FRAGMENT_FIELD as u32;
    let sum = fixed + total_len as u32 + ttl_and_protocol as u32 + addresses(settings, source);
    put(frame, 24, checksum(sum).to_be_bytes());
}

/// Sum of the pseudo header that TCP and UDP checksums cover (RFC 9293 3.1).
#[inline(always)]
const fn pseudo_header(settings: &Settings, source: u32, payload_len: u16) -> u32 {
    addresses(settings, source) + settings.protocol as u32 + payload_len as u32
}

#[inline(always)]
const fn addresses(settings: &Settings, source: u32) -> u32 {
    (source >> 16) + (source & 0xffff) + (settings.destination >> 16) + (settings.destination & 0xffff)
}

/// Internet checksum (RFC 1071) of a sum of at most 2^16 words.
#[inline(always)]
const fn checksum(sum: u32) -> u16 {
    let once = (sum >> 16) + (sum & 0xffff);
    let twice = (once >> 16) + (once & 0xffff);
    !(twice as u16)
}

#[inline(always)]
fn put<const N: usize>(frame: &mut [u8; FRAME_LEN], at: usize, bytes: [u8; N]) {
    let mut i = 0;
    while i < N {
        if let Some(byte) = frame.get_mut(at + i) {
            *byte = bytes[i];
        }
        i += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::cursor::Slice;
    use crate::{Address, TCP, parse};

    fn settings(protocol: u8) -> Settings {
        Settings {
            interface: 1,
            source_base: u32::from(Ipv4Addr::new(198, 18, 0, 254)),
            source_count: 4,
            destination: u32::from(Ipv4Addr::new(192, 0, 2, 80)),
            destination_port: 443,
            protocol,
            destination_mac: [2, 0, 0, 0, 0, 1],
            source_mac: [2, 0, 0, 0, 0, 2],
            padding: [0],
        }
    }

    /// RFC 1071: the sum over data with its right checksum in it is all ones.
    fn sums_to_ones(words: impl Iterator<Item = u32>) -> bool {
        checksum(words.sum()) == 0
    }

    fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
        bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
    }

    #[test]
    fn frames_have_right_checksums() {
        for protocol in [TCP, UDP] {
            for sequence in [0, 1, 5, 70_000, u64::from(u32::MAX) + 9] {
                let frame = frame(&settings(protocol), sequence);
                assert!(
                    sums_to_ones(words(&frame[14..34])),
                    "IPv4, {protocol}, {sequence}"
                );
                let len = u32::from(u16::from_be_bytes([frame[16], frame[17]])) - 20;
                let pseudo = words(&frame[26..34]).chain([u32::from(protocol), len]);
                let payload = words(&frame[34..34 + len as usize]);
                assert!(
                    sums_to_ones(pseudo.chain(payload)),
                    "payload, {protocol}, {sequence}"
                );
            }
        }
    }

    #[test]
    fn frames_are_what_the_parser_takes_them_for() {
        for (protocol, sequence, source, port) in [
            (TCP, 0, [198, 18, 0, 254], 1024),
            (TCP, 3, [198, 18, 1, 1], 1024),
            (UDP, 6, [198, 18, 1, 0], 1025),
        ] {
            let frame = frame(&settings(protocol), sequence);
            let mut cursor = Slice::new(&frame);
            let network = parse::network(&mut cursor).expect("sound");
            let transport = parse::transport(&mut cursor, &network).expect("sound");
            assert_eq!(network.source, Address::v4(source));
            assert_eq!(
                (transport.source_port, transport.destination_port),
                (port, 443_u32)
            );
            assert_eq!(transport.opens_connection, protocol == TCP);
        }
    }
}
