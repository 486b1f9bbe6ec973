//! The PROXY protocol, versions 1 and 2: how a proxy in front tells whose connection it passes on, and how this one tells
//! its endpoints. The specification is HAProxy's `proxy-protocol.txt`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use edge_model::ProxyProtocolVersion;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How a header of version 2 begins (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// How one of version 1 begins.
const TEXT: &[u8] = b"PROXY ";

/// Longest header of version 1, with its line end (section 2.1).
const MAX_TEXT: usize = 107;

/// Longest payload of version 2 that is read; nobody sends more than a certificate's name.
const MAX_PAYLOAD: usize = 4096;

/// The record that carries a checksum over the header (section 2.2.3).
const CRC32C: u8 = 0x03;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The proxy's own, for example to see whether this one is healthy.
    Local,
    /// A client's.
    Client {
        source: SocketAddr,
        destination: SocketAddr,
    },
}

/// Reads the header that a connection begins with, and not a byte more.
///
/// # Errors
/// When there is none, or it is malformed: nothing of the stream can be trusted then.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Origin> {
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if length > MAX_PAYLOAD {
            return Err(invalid("a header that is too long"));
        }
        let mut header = [&begin[..], &rest].concat();
        header.resize(header.len() + length, 0);
        stream.read_exact(&mut header[SIGNATURE.len() + 4..]).await?;
        return parse_binary(&header).map_err(invalid);
    }
    if !begin.starts_with(TEXT) {
        return Err(invalid("no PROXY header"));
    }
    let mut line = begin.to_vec();
    while !line.ends_with(b"\r\n") {
        let mut ahead = [0; MAX_TEXT];
        let room = MAX_TEXT.saturating_sub(line.len());
        let length = stream.peek(&mut ahead[..room]).await?;
        if length == 0 {
            return Err(invalid("a header without its end"));
        }
        let end = ahead[..length].iter().position(|byte| *byte == b'\n');
        let begin = line.len();
        line.resize(begin + end.map_or(length, |end| end + 1), 0);
        stream.read_exact(&mut line[begin..]).await?;
        if end.is_some() && !line.ends_with(b"\r\n") {
            return Err(invalid("a line does not end with CR LF"));
        }
    }
    parse_text(&line).map_err(invalid)
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// A whole header of version 1: `PROXY TCP4 source destination port port` and CR LF, with single spaces.
pub(crate) fn parse_text(line: &[u8]) -> Result<Origin, &'static str> {
    let line = line.strip_suffix(b"\r\n").ok_or("a header without its end")?;
    let line = line.strip_prefix(TEXT).ok_or("no PROXY header")?;
    let text = std::str::from_utf8(line).map_err(|_| "a header that is no text")?;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Origin::Local);
    }
    let mut words = text.split(' ');
    let family = words.next().unwrap_or("");
    let (Some(source), Some(destination), Some(from), Some(to), None) = (
        words.next(),
        words.next(),
        words.next(),
        words.next(),
        words.next(),
    ) else {
        return Err("a header of other than six words");
    };
    let address = |text: &str| -> Result<IpAddr, &'static str> {
        match family {
            "TCP4" => text
                .parse::<Ipv4Addr>()
                .map(IpAddr::from)
                .map_err(|_| "an invalid address"),
            "TCP6" => text
                .parse::<Ipv6Addr>()
                .map(IpAddr::from)
                .map_err(|_| "an invalid address"),
            _ => Err("an unknown protocol"),
        }
    };
    Ok(Origin::Client {
        source: SocketAddr::new(address(source)?, port(from)?),
        destination: SocketAddr::new(address(destination)?, port(to)?),
    })
}

/// Digits without zeros in front.
fn port(text: &str) -> Result<u16, &'static str> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let port = text.parse().ok().filter(|_| is_number);
    port.ok_or("an invalid port")
}

/// A whole header of version 2.
pub(crate) fn parse_binary(header: &[u8]) -> Result<Origin, &'static str> {
    let rest = header.strip_prefix(&SIGNATURE).ok_or("no PROXY header")?;
    let (&[command, family, high, low], payload) =
        rest.split_first_chunk().ok_or("a header without its end")?;
    if payload.len() != usize::from(u16::from_be_bytes([high, low])) {
        return Err("a header of another length than it says");
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err("an unknown version or command"),
    };
    let length = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        // Sockets of the proxy's machine, which say nothing here.
        0x31 | 0x32 => 216,
        _ => return Err("an unknown protocol"),
    };
    let (addresses, records) = payload
        .split_at_checked(length)
        .ok_or("addresses that are cut off")?;
    // Without a family the rest is to be ignored.
    if family != 0 {
        check_records(header, records)?;
    }
    if is_local {
        return Ok(Origin::Local);
    }
    Ok(match addresses {
        [a, b, c, d, e, f, g, h, ports @ ..] if family == 0x11 => Origin::Client {
            source: SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), number(ports, 0)),
            destination: SocketAddr::new(Ipv4Addr::new(*e, *f, *g, *h).into(), number(ports, 2)),
        },
        _ if family == 0x21 => Origin::Client {
            source: SocketAddr::new(address(addresses, 0), number(addresses, 32)),
            destination: SocketAddr::new(address(addresses, 16), number(addresses, 34)),
        },
        _ => Origin::Local,
    })
}

fn number(bytes: &[u8], at: usize) -> u16 {
    let octets = bytes.get(at..).and_then(<[u8]>::first_chunk);
    octets.map_or(0, |octets| u16::from_be_bytes(*octets))
}

fn address(bytes: &[u8], at: usize) -> IpAddr {
    let octets = bytes.get(at..).and_then(<[u8]>::first_chunk::<16>);
    Ipv6Addr::from(octets.copied().unwrap_or_default()).into()
}

/// Records of type, length and value that fill the header, and their checksum if there is one.
fn check_records(header: &[u8], mut records: &[u8]) -> Result<(), &'static str> {
    while !records.is_empty() {
        let (&[kind, high, low], rest) = records.split_first_chunk().ok_or("a record that is cut off")?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or("a record that is cut off")?;
        if kind == CRC32C {
            let at = header.len() - rest.len() - value.len();
            let told = value.first_chunk().ok_or("an invalid checksum")?;
            let covered = header.iter().enumerate();
            let covered = covered.map(|(place, byte)| if (at..at + 4).contains(&place) { 0 } else { *byte });
            if value.len() != 4 || crc32c(covered) != u32::from_be_bytes(*told) {
                return Err("a wrong checksum");
            }
        }
        records = rest;
    }
    Ok(())
}

/// CRC-32C (RFC 9260 appendix A), bit by bit: headers are short and rare.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum: u32, _| match sum & 1 {
            1 => (sum >> 1) ^ 0x82f6_3b78,
            _ => sum >> 1,
        })
    })
}

/// The header of a connection that the proxy opens for itself, between two addresses of its own. Version 1 has no word for
/// that but to tell them (Envoy does so, too).
pub(crate) fn header_of_own(version: ProxyProtocolVersion, local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    match version {
        ProxyProtocolVersion::V1 => header(version, local, remote),
        ProxyProtocolVersion::V2 => [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat(),
    }
}

/// The header that tells whose connection this is. Addresses of two families are told as IPv6.
pub(crate) fn header(version: ProxyProtocolVersion, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (IpAddr::V4(from), IpAddr::V4(to)),
        (from, to) => (mapped(from).into(), mapped(to).into()),
    };
    match version {
        ProxyProtocolVersion::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let (source, destination) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
        }
        ProxyProtocolVersion::V2 => {
            let addresses = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => [&from.octets()[..], &to.octets()].concat(),
                (from, to) => [mapped(from).octets(), mapped(to).octets()].concat(),
            };
            let family = if from.is_ipv4() { 0x11 } else { 0x21 };
            let length = u8::try_from(addresses.len() + 4).unwrap_or(0);
            let mut header = [&SIGNATURE[..], &[0x21, family, 0, length], &addresses].concat();
            header.extend(source.port().to_be_bytes());
            header.extend(destination.port().to_be_bytes());
            header
        }
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, destination: &str) -> Origin {
        Origin::Client {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn texts() {
        for (line, expected) in [
            (
                "PROXY TCP4 192.0.2.1 192.0.2.2 1 65535\r\n",
                Some(client("192.0.2.1:1", "192.0.2.2:65535")),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 0 80\r\n",
                Some(client("[2001:db8::1]:0", "[::1]:80")),
            ),
            ("PROXY UNKNOWN\r\n", Some(Origin::Local)),
            ("PROXY UNKNOWN ff ff 1 2\r\n", Some(Origin::Local)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", None),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", None),
            ("PROXY TCP4 ::1 192.0.2.2 1 2\r\n", None),
            ("PROXY TCP6 192.0.2.1 ::1 1 2\r\n", None),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", None),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", None),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", None),
            ("PROXY UNKNOWNS\r\n", None),
            ("proxy UNKNOWN\r\n", None),
        ] {
            assert_eq!(parse_text(line.as_bytes()).ok(), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
            for (source, destination, told) in [
                (
                    "192.0.2.1:5",
                    "192.0.2.2:80",
                    client("192.0.2.1:5", "192.0.2.2:80"),
                ),
                (
                    "[2001:db8::1]:5",
                    "[::1]:80",
                    client("[2001:db8::1]:5", "[::1]:80"),
                ),
                (
                    "192.0.2.1:5",
                    "[::1]:80",
                    client("[::ffff:192.0.2.1]:5", "[::1]:80"),
                ),
                (
                    "[::ffff:192.0.2.1]:5",
                    "192.0.2.2:80",
                    client("192.0.2.1:5", "192.0.2.2:80"),
                ),
            ] {
                let header = header(version, source.parse().unwrap(), destination.parse().unwrap());
                let read = match version {
                    ProxyProtocolVersion::V1 => parse_text(&header),
                    ProxyProtocolVersion::V2 => parse_binary(&header),
                };
                assert_eq!(read, Ok(told), "{version:?} {source}");
            }
        }
        let (local, remote) = ("192.0.2.1:5", "192.0.2.2:80");
        let own = |version| header_of_own(version, local.parse().unwrap(), remote.parse().unwrap());
        assert_eq!(parse_binary(&own(ProxyProtocolVersion::V2)), Ok(Origin::Local));
        assert_eq!(
            parse_text(&own(ProxyProtocolVersion::V1)),
            Ok(client(local, remote))
        );
    }

    #[test]
    fn binaries() {
        let addresses = [192, 0, 2, 1, 192, 0, 2, 2, 0, 5, 0, 80];
        let origin = client("192.0.2.1:5", "192.0.2.2:80");
        let check = |command, family, payload: &[u8], expected: Option<Origin>| {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let header = [&SIGNATURE[..], &[command, family], &length, payload].concat();
            assert_eq!(
                parse_binary(&header).ok(),
                expected,
                "{command:x} {family:x} {payload:x?}"
            );
            assert!(parse_binary(&header[..header.len() - 1]).is_err());
            assert!(parse_binary(&[&header[..], b"x"].concat()).is_err());
        };
        let with = |records: &[u8]| [&addresses[..], records].concat();
        check(0x21, 0x11, &addresses, Some(origin));
        check(0x20, 0x11, &addresses, Some(Origin::Local));
        check(0x21, 0x00, b"whatever", Some(Origin::Local));
        check(0x21, 0x31, &[0; 216], Some(Origin::Local));
        check(0x21, 0x11, &with(&[4, 0, 1, 9]), Some(origin));
        check(0x21, 0x11, &with(&[4, 0, 2, 9]), None);
        check(0x21, 0x11, &with(&[4, 0]), None);
        check(0x21, 0x11, &with(&[CRC32C, 0, 4, 1, 2, 3, 4]), None);
        check(0x21, 0x12, &addresses, None);
        check(0x21, 0x11, &addresses[..11], None);
        check(0x22, 0x11, &addresses, None);
        check(0x11, 0x11, &addresses, None);
    }

    #[test]
    fn checksums() {
        // RFC 9260 has none to compare with; 0xe3069283 is the check value of CRC-32C in all catalogues.
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        let mut header = header(
            ProxyProtocolVersion::V2,
            "192.0.2.1:5".parse().unwrap(),
            "192.0.2.2:80".parse().unwrap(),
        );
        header[15] += 7;
        header.extend([CRC32C, 0, 4, 0, 0, 0, 0]);
        let sum = crc32c(header.iter().copied()).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum);
        assert!(parse_binary(&header).is_ok());
        header[at] ^= 1;
        assert!(parse_binary(&header).is_err());
    }
}
