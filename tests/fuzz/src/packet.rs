//! Frames: the parser and the rules that the XDP program is compiled from, on the host.

use edge_common::cursor::{Cursor as _, Slice};
use edge_common::decap::{self, GUE_PORT, Settings};
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use edge_common::{Address, HashKey, TCP, UDP, malformed, parse};

/// Ends of tunnels, as the seeds have them.
const ENDS: [Address; 2] = [
    Address::v4([10, 9, 0, 2]),
    Address([
        u32::from_ne_bytes([0xfd, 9, 0, 0]),
        0,
        0,
        u32::from_ne_bytes([0, 0, 0, 2]),
    ]),
];

/// A frame from its Ethernet header on.
///
/// # Panics
/// If a promise is broken: what the parser accepts lies in the frame, has the fields that it says, and is read alike
/// whatever stands behind it.
pub fn target(data: &[u8]) {
    judge(data);
    unpack(data);
}

/// Parses a frame as a packet to a VIP, and holds the result against the frame.
fn judge(frame: &[u8]) {
    let mut cursor = Slice::new(frame);
    let Ok(network) = parse::network(&mut cursor) else {
        return;
    };
    let Ok(transport) = parse::transport(&mut cursor, &network) else {
        return;
    };
    let protocol = transport.protocol as u8;
    assert!(matches!(protocol, TCP | UDP), "no other protocol has ports");
    // The cursor stands behind the fixed part of the transport header.
    let fixed = if protocol == TCP { 20 } else { 8 };
    let end = frame.len() - cursor.remaining();
    let header = &frame[end - fixed..];
    let port = |at: usize| u32::from(u16::from_be_bytes([header[at], header[at + 1]]));
    assert_eq!(
        (transport.source_port, transport.destination_port),
        (port(0), port(2))
    );
    assert!(
        transport.header_len as usize <= header.len(),
        "the header with its options lies in the frame"
    );
    if protocol == UDP {
        assert_eq!((transport.tcp_flags, transport.opens_connection), (0, false));
    }
    let flow = parse::flow(&network, &transport);
    assert_eq!(
        (flow.source, flow.destination),
        (network.source, network.destination)
    );
    let key = HashKey::from_seed(7);
    assert_eq!(
        key.hash(&flow),
        key.hash(&flow),
        "a hash depends on the flow alone"
    );
    // Padding of the link layer is nobody's.
    let verdict = malformed::check(&network, &transport, true);
    let mut padded = frame.to_vec();
    padded.extend([0xa5; 46]);
    let mut cursor = Slice::new(&padded);
    let again = parse::network(&mut cursor).and_then(|network| {
        let transport = parse::transport(&mut cursor, &network)?;
        Ok((network, transport))
    });
    assert_eq!(again, Ok((network, transport)), "padding changes nothing");
    assert_eq!(malformed::check(&network, &transport, true), verdict);
}

/// Takes a frame out of its tunnel, and holds what comes out against the frame.
fn unpack(frame: &[u8]) {
    let settings = Settings {
        endpoints: [ENDS[0], ENDS[1], ENDS[0], ENDS[0]],
        gue_port: GUE_PORT.into(),
        trusted: 0,
        ..Settings::default()
    };
    let mut cursor = Slice::new(frame);
    let Ok(ethertype) = parse::ethertype(&mut cursor) else {
        return;
    };
    let link_len = frame.len() - cursor.remaining();
    let Ok(Some(outer)) = decap::outer(&mut cursor, ethertype, &settings) else {
        return;
    };
    assert_eq!(
        frame.len() - cursor.remaining(),
        link_len + outer.len,
        "the cursor stands where the headers end"
    );
    assert!(ENDS.contains(&outer.destination), "it ends here");
    let Ok(inner) = decap::inner(&mut cursor, &outer) else {
        return;
    };
    let packet = &frame[link_len + outer.len..];
    assert!(inner.len <= outer.payload_len && outer.payload_len <= packet.len());
    let ethertype = if outer.is_inner_v6 {
        ETHERTYPE_IPV6
    } else {
        ETHERTYPE_IPV4
    };
    let alone = [&[0; ETHERNET_LEN - 2], &ethertype.to_be_bytes()[..], packet].concat();
    if let Ok(network) = parse::network(&mut Slice::new(&alone)) {
        assert_eq!(
            (network.source, network.destination),
            (inner.source, inner.destination),
            "the pipeline reads the packet as it was judged in the tunnel"
        );
    }
    judge(&alone);
}
