//! The head of a frame in a line for people. The frame may be cut off or wrong anywhere: what can be read is shown, and
//! the rest left out.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Reads big-endian numbers from a frame.
#[derive(Clone, Copy)]
struct Bytes<'f>(&'f [u8]);

impl<'f> Bytes<'f> {
    fn at<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn be16(self, offset: usize) -> Option<u16> {
        self.at(offset).map(u16::from_be_bytes)
    }

    fn from(self, offset: usize) -> Self {
        Self(self.0.get(offset..).unwrap_or_default())
    }
}

/// The frame in a line.
pub(crate) fn line(frame: &[u8]) -> String {
    let frame = Bytes(frame);
    let mut text = String::new();
    let mut at = 12;
    let mut ethertype = frame.be16(at);
    while let Some(tag) = ethertype.filter(|tag| VLAN_TAGS.contains(tag)) {
        let id = frame.be16(at + 2).map_or(0, |control| control & 0xfff);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{} {id} ",
            if tag == VLAN_TAGS[0] { "vlan" } else { "qinq" }
        );
        at += 4;
        ethertype = frame.be16(at);
    }
    let rest = frame.from(at + 2);
    let network = match ethertype {
        Some(ETHERTYPE_IPV4) => ipv4(rest),
        Some(ETHERTYPE_IPV6) => ipv6(rest),
        Some(other) => Some(format!("ethertype {other:#06x}")),
        None => None,
    };
    text + &network.unwrap_or_else(|| "cut off".to_owned())
}

fn ipv4(header: Bytes<'_>) -> Option<String> {
    let [first] = header.at(0)?;
    let (source, destination) = (
        Ipv4Addr::from(header.at::<4>(12)?),
        Ipv4Addr::from(header.at::<4>(16)?),
    );
    let [protocol] = header.at(9)?;
    let offset = header.be16(6)? & 0x1fff;
    let rest = header.from(usize::from(first & 0xf) * 4);
    let mut text = transport(source.into(), destination.into(), protocol, rest, offset > 0);
    if header.be16(6)? & 0x3fff != 0 {
        let _ = write!(text, " fragment at {}", u32::from(offset) * 8);
    }
    Some(text)
}

fn ipv6(header: Bytes<'_>) -> Option<String> {
    let (source, destination) = (
        Ipv6Addr::from(header.at::<16>(8)?),
        Ipv6Addr::from(header.at::<16>(24)?),
    );
    let [protocol] = header.at(6)?;
    Some(transport(
        source.into(),
        destination.into(),
        protocol,
        header.from(40),
        false,
    ))
}

fn transport(source: IpAddr, destination: IpAddr, protocol: u8, header: Bytes<'_>, no_ports: bool) -> String {
    let name = match protocol {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    };
    let ports = header.be16(0).zip(header.be16(2)).filter(|_| !no_ports);
    let Some((from, to)) = ports.filter(|_| matches!(protocol, TCP | UDP)) else {
        return format!("{name} {source} > {destination}");
    };
    let (from, to) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    let flags = header.at(13).filter(|_| protocol == TCP);
    let flags = flags.map_or_else(String::new, |[flags]| format!(" {}", tcp_flags(flags)));
    format!("{name} {from} > {to}{flags}")
}

/// The flags of a segment, as RFC 9293 3.1 names them.
fn tcp_flags(flags: u8) -> String {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set = NAMES.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1);
    let set: Vec<_> = set.map(|(_, name)| *name).collect();
    if set.is_empty() {
        "no flags".to_owned()
    } else {
        set.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(kind: &[u8], payload: &[u8]) -> Vec<u8> {
        [&[0; 12], kind, payload].concat()
    }

    fn ipv4(protocol: u8, fragment: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 40, 0, 1];
        header.extend(fragment);
        header.extend([64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
        header.extend(payload);
        header
    }

    const SYN: [u8; 20] = [
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn what_can_be_read_of_a_frame_is_shown() {
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        v6.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v6.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        v6.extend([0, 53, 0, 54, 0, 8, 0, 0]);
        let syn = ipv4(6, [0x40, 0], &SYN);
        let rows = [
            (
                ethernet(&[8, 0], &syn),
                "tcp 192.0.2.1:40000 > 198.51.100.7:80 SYN",
            ),
            (
                ethernet(&[0x81, 0, 0, 7, 8, 0], &syn),
                "vlan 7 tcp 192.0.2.1:40000 > 198.51.100.7:80 SYN",
            ),
            (
                ethernet(&[0x86, 0xdd], &v6),
                "udp [2001:db8::1]:53 > [2001:db8::2]:54",
            ),
            (
                ethernet(&[8, 0], &ipv4(17, [0, 5], &SYN)),
                "udp 192.0.2.1 > 198.51.100.7 fragment at 40",
            ),
            (
                ethernet(&[8, 0], &ipv4(47, [0, 0], &[])),
                "protocol 47 192.0.2.1 > 198.51.100.7",
            ),
            (
                ethernet(&[8, 0], &ipv4(6, [0, 0], &SYN[..3])),
                "tcp 192.0.2.1 > 198.51.100.7",
            ),
            (ethernet(&[8, 6], &[]), "ethertype 0x0806"),
            (ethernet(&[8, 0], &syn[..19]), "cut off"),
            (vec![0; 13], "cut off"),
            (vec![], "cut off"),
        ];
        for (frame, expected) in rows {
            assert_eq!(line(&frame), expected);
        }
        assert_eq!(tcp_flags(0), "no flags");
        assert_eq!(tcp_flags(0x29), "FIN,PSH,URG");
    }

    #[test]
    fn no_bytes_are_too_strange() {
        for len in 0..80 {
            for byte in [0, 0x45, 0x81, 0xff] {
                assert!(!line(&vec![byte; len]).is_empty());
            }
        }
    }
}
