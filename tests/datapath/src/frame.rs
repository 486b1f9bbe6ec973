//! Frames, built from the outside in.

use std::net::IpAddr;

use edge_common::header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use edge_common::{TCP, UDP, checksum};
use fastrand::Rng;

use crate::setup::{VIP4, VIP6};
use crate::tunnel::complete_checksum;

/// Flags of a TCP segment that opens a connection.
pub const SYN: u8 = 0x02;
/// Flag of the last segment that a side sends.
pub const FIN: u8 = 0x01;
/// Flags of a TCP segment that ends a connection at once.
pub const RST: u8 = 0x04;
/// Flags of a TCP segment in the middle of a connection.
pub const ACK: u8 = 0x10;

/// A packet to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IANA protocol number. Others than TCP and UDP get 8 bytes of payload.
    pub protocol: u8,
    /// TCP flags.
    pub flags: u8,
}

/// A TCP segment from a client to port 80 of the IPv4 VIP.
pub const TCP4: Packet = Packet {
    source: IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1)),
    destination: IpAddr::V4(std::net::Ipv4Addr::new(VIP4[0], VIP4[1], VIP4[2], VIP4[3])),
    source_port: 40_000,
    destination_port: 80,
    protocol: TCP,
    flags: SYN,
};

/// The same over IPv6.
pub const TCP6: Packet = Packet {
    source: IpAddr::V6(std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)),
    destination: IpAddr::V6(std::net::Ipv6Addr::new(VIP6[0], VIP6[1], 0, 0, 0, 0, 0, VIP6[7])),
    ..TCP4
};

/// A datagram from a client to port 53 of the IPv4 VIP.
pub const UDP4: Packet = Packet {
    destination_port: 53,
    protocol: UDP,
    ..TCP4
};

/// The same over IPv6.
pub const UDP6: Packet = Packet {
    destination_port: 53,
    protocol: UDP,
    ..TCP6
};

impl Packet {
    /// The whole frame. Checksums are left at zero: the data path leaves them to the stack.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let payload = self.payload();
        let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [high, low] = (20 + payload.len() as u16).to_be_bytes();
                frame.extend(ETHERTYPE_IPV4.to_be_bytes());
                frame.extend([0x45, 0, high, low, 0, 0, 0x40, 0, 64, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let [high, low] = (payload.len() as u16).to_be_bytes();
                frame.extend(ETHERTYPE_IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0, high, low, self.protocol, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (source, destination) => panic!("{source} and {destination} are of different families"),
        }
        frame.extend(payload);
        frame
    }

    /// A SYN with the options of Linux.
    #[must_use]
    pub fn linux_syn(self) -> Vec<u8> {
        let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let frame = Self { flags: SYN, ..self }.frame();
        let (tcp, lengths) = if self.source.is_ipv4() {
            (34, (16, 60))
        } else {
            (54, (18, 40))
        };
        let frame = with(frame, tcp + 12, &[0xa0]);
        let frame = with(frame, lengths.0, &[0, lengths.1]);
        inserted(frame, tcp + 20, &options)
    }

    /// The ACK that ends the handshake of the SYN by its cookie.
    #[must_use]
    pub fn cookie_ack(self, cookie: u32) -> Vec<u8> {
        let tcp = if self.source.is_ipv4() { 34 } else { 54 };
        let frame = Self { flags: ACK, ..self }.frame();
        let frame = with(frame, tcp + 4, &[0, 0, 0, 2]);
        with(frame, tcp + 8, &cookie.wrapping_add(1).to_be_bytes())
    }

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        match self.protocol {
            TCP => bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]),
            _ => bytes.extend([0, 8, 0, 0]),
        }
        bytes
    }
}

/// A frame with some of its bytes replaced.
#[must_use]
pub fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame.splice(at..at + bytes.len(), bytes.iter().copied());
    frame
}

/// A frame with bytes inserted.
#[must_use]
pub fn inserted(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame.splice(at..at, bytes.iter().copied());
    frame
}

/// A packet of TCP without payload, its checksums completed.
#[must_use]
pub fn completed(mut frame: Vec<u8>) -> Vec<u8> {
    let is_v4 = frame[12] == 8;
    if is_v4 {
        complete_checksum(&mut frame[14..]);
    }
    let (tcp, addresses) = if is_v4 { (34, 26) } else { (54, 22) };
    let words = |bytes: &[u8]| -> u64 {
        let pairs = bytes.chunks_exact(2);
        pairs
            .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum()
    };
    let sum = words(&frame[addresses..tcp]) + words(&frame[tcp..]) + 6 + (frame.len() - tcp) as u64;
    with(frame, tcp + 16, &checksum::of(sum).to_be_bytes())
}

/// A frame with an 802.1Q tag.
#[must_use]
pub fn tagged(frame: Vec<u8>) -> Vec<u8> {
    inserted(frame, 12, &[0x81, 0x00, 0x00, 0x07])
}

/// One of the packets with some bytes changed, tags before it, or another end.
#[must_use]
pub fn mutated(random: &mut Rng, templates: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = templates[random.usize(..templates.len())].clone();
    for _ in 0..random.usize(0..4) {
        let at = random.usize(12..frame.len());
        frame[at] = match random.u8(0..3) {
            0 => random.u8(..),
            1 => frame[at] ^ 1 << random.u8(0..8),
            _ => [0, 1, 0x7f, 0x80, 0xff][random.usize(0..5)],
        };
    }
    // With its checksum wrong a tunnel would not be looked into.
    if random.bool() && frame.len() >= 34 && frame[14] == 0x45 {
        complete_checksum(&mut frame[14..]);
    }
    if random.u8(0..7) == 0 {
        frame = tagged(frame);
    }
    match random.u8(0..8) {
        0 => frame.truncate(random.usize(14..frame.len())),
        1 => frame.extend((0..random.usize(1..40)).map(|_| 0)),
        2 => frame[14..].fill_with(|| random.u8(..)),
        _ => {}
    }
    frame
}
