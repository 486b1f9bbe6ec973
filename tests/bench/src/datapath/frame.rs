//! The frames that are sent, 64 bytes or a little more. What varies from flow to flow is left at zero.

use edge_common::{TCP, UDP};

/// Flags of a segment that opens a connection.
const SYN: u8 = 0x02;
/// Flags of a segment in the middle of one.
const ACK: u8 = 0x10;
/// Shortest frame: 60 bytes on the wire and the four of the check sequence, as pktgen counts them.
const SHORTEST: usize = 64;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP segment in the middle of a connection.
    Ack,
    /// TCP segment that opens a connection, with the options that Linux sends.
    Syn,
    /// UDP datagram.
    Udp,
    /// IPv4 header that claims more bytes than the frame has.
    BadLength,
}

/// A frame to port 80, from addresses and a port that the harness fills in.
pub(crate) fn build(kind: Kind, is_v6: bool) -> Vec<u8> {
    let payload = payload(kind);
    let protocol = if kind == Kind::Udp { UDP } else { TCP };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if is_v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend([0xfd, 0x77, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend([0xfd, 0x77, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    } else {
        let len = if kind == Kind::BadLength {
            1500
        } else {
            20 + payload.len() as u16
        };
        frame.extend([0x08, 0x00]);
        let mut header = [
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        header[2..4].copy_from_slice(&len.to_be_bytes());
        // Addresses and identification add up to ones, which is zero in this arithmetic.
        let sum: u32 = header
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(header);
    }
    frame.extend(payload);
    frame.resize(frame.len().max(SHORTEST), 0);
    frame
}

fn payload(kind: Kind) -> Vec<u8> {
    // Both ports, source first.
    let mut bytes = vec![0, 0, 0, 80];
    let tcp = |offset: u8, flags: u8| [0, 0, 0, 1, 0, 0, 0, 0, offset << 4, flags, 0xff, 0xff, 0, 0, 0, 0];
    match kind {
        Kind::Ack | Kind::BadLength => bytes.extend(tcp(5, ACK)),
        Kind::Syn => {
            bytes.extend(tcp(10, SYN));
            // MSS 1460, SACK permitted, timestamps, no-op, window scale 7.
            bytes.extend([2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
        }
        Kind::Udp => bytes.extend([0, 26, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use edge_common::cursor::Slice;
    use edge_common::parse;

    use super::*;

    #[test]
    fn frames_are_what_the_parser_takes_them_for() {
        for is_v6 in [false, true] {
            for (kind, opens) in [(Kind::Ack, false), (Kind::Syn, true), (Kind::Udp, false)] {
                let frame = build(kind, is_v6);
                let mut cursor = Slice::new(&frame);
                let network = parse::network(&mut cursor).expect("sound");
                let transport = parse::transport(&mut cursor, &network).expect("sound");
                assert_eq!(
                    (transport.destination_port, transport.opens_connection),
                    (80, opens)
                );
            }
        }
        let frame = build(Kind::BadLength, false);
        assert!(parse::network(&mut Slice::new(&frame)).is_err());
    }
}
