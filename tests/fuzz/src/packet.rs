//! Frames: the parser and the rules that the XDP program is compiled from, on the host.

use edge_common::cursor::{Cursor as _, Slice};
use edge_common::decap::{self, GUE_PORT, Inner, Outer, Settings};
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use edge_common::icmp::{self, Message};
use edge_common::parse::Transport;
use edge_common::syncookie::{OFFER_WORDS, Offer};
use edge_common::verdict::Verdict;
use edge_common::{Address, Flow, HashKey, ICMP, ICMPV6, PassReason, TCP, UDP, malformed, parse};

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

/// Length of a TCP header without options.
const TCP_LEN: usize = 20;

/// A frame from its Ethernet header on.
///
/// # Panics
/// If a promise is broken: what the parser accepts lies in the frame, has the fields that it says, and is read alike
/// whatever stands behind it.
pub fn target(data: &[u8]) {
    judge(data);
    message(data);
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
    offer(header, &transport);
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

/// Reads what a SYN offers, as it is read before it is answered with a cookie. `header` begins with the TCP header.
fn offer(header: &[u8], transport: &Transport) -> Option<Offer> {
    if !transport.opens_connection {
        return None;
    }
    let options = &header[TCP_LEN..transport.header_len as usize];
    let behind = |rest: u8| {
        let mut words = [[rest; 4]; OFFER_WORDS];
        let bytes = words.as_flattened_mut().iter_mut();
        bytes.zip(options).for_each(|(to, from)| *to = *from);
        Offer::read(words.map(u32::from_be_bytes), options.len())
    };
    let offer = behind(0);
    assert_eq!(offer, behind(0xee), "what stands behind the options is nobody's");
    assert!(
        offer.mss <= 0xffff && offer.window_scale <= 15,
        "it fits into its fields: {offer:?}"
    );
    assert!(offer.sack <= 1 && offer.has_timestamp <= 1, "{offer:?}");
    assert!(offer.has_timestamp == 1 || offer.timestamp == 0, "{offer:?}");
    Some(offer)
}

/// Reads a packet to a VIP that has no ports as a message of ICMP, and the flow of the packet that an error quotes.
fn message(frame: &[u8]) -> Option<(Message, Option<Flow>)> {
    let mut cursor = Slice::new(frame);
    let network = parse::network(&mut cursor).ok()?;
    let has_ports = parse::transport(
        &mut Slice::new(&frame[frame.len() - cursor.remaining()..]),
        &network,
    ) != Err(Verdict::Pass(PassReason::OtherProtocol));
    if has_ports {
        return None;
    }
    let message_at = frame.len() - cursor.remaining();
    let message = icmp::message(&mut cursor, &network).ok()?;
    if message == Message::ForStack {
        return Some((message, None));
    }
    let protocol = if network.is_v6() { ICMPV6 } else { ICMP };
    assert_eq!(network.next_header(), protocol);
    assert!(!network.is_fragment(), "it is there as a whole");
    assert_eq!(
        frame.len() - cursor.remaining(),
        message_at + icmp::HEADER_LEN,
        "the cursor stands behind the message's header"
    );
    if message == Message::Echo {
        return Some((message, None));
    }
    let flow = icmp::quoted(&mut cursor, &network).ok().flatten();
    if let Some(flow) = &flow {
        assert_eq!(
            flow.destination, network.destination,
            "the error went to who had sent the packet"
        );
        assert!(matches!(flow.protocol, TCP | UDP));
        let end = frame.len() - cursor.remaining();
        assert!(
            end <= message_at + network.payload_len(),
            "the ports lie in the message"
        );
        let [a, b, c, d] = [4, 3, 2, 1].map(|back| frame[end - back]);
        assert_eq!(
            (flow.destination_port, flow.source_port),
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        );
    }
    let mut padded = frame.to_vec();
    padded.extend([0xa5; 46]);
    let again = icmp::quoted(
        &mut Slice::new(&padded[message_at + icmp::HEADER_LEN..]),
        &network,
    );
    assert_eq!(again.ok().flatten(), flow, "padding changes nothing");
    Some((message, flow))
}

/// Takes a frame out of its tunnel, and holds what comes out against the frame. What a tunnel in the tunnel held.
fn unpack(frame: &[u8]) -> Option<Inner> {
    let settings = Settings {
        endpoints: [ENDS[0], ENDS[1], ENDS[0], ENDS[0]],
        gue_port: GUE_PORT.into(),
        trusted: 0,
        ..Settings::default()
    };
    let mut cursor = Slice::new(frame);
    let ethertype = parse::ethertype(&mut cursor).ok()?;
    let link_len = frame.len() - cursor.remaining();
    let outer = decap::outer(&mut cursor, ethertype, &settings).ok()??;
    assert_eq!(
        frame.len() - cursor.remaining(),
        link_len + outer.len,
        "the cursor stands where the headers end"
    );
    assert!(ENDS.contains(&outer.destination), "it ends here");
    let inner = decap::inner(&mut cursor, &outer).ok()?;
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
    message(&alone);
    if inner.is_plain && decap::may_be_tunnel(inner.protocol) {
        return unpack_nested(packet, &outer, &inner);
    }
    None
}

/// Takes a packet out of the tunnel that a tunnel held. `around` and `header` are what was read of both.
fn unpack_nested(packet: &[u8], around: &Outer, header: &Inner) -> Option<Inner> {
    // The stage keeps no more of the outer headers.
    let around = Outer {
        source: Address::default(),
        destination: Address::default(),
        ..*around
    };
    let mut cursor = Slice::new(packet);
    let (as_packet, second) = decap::nested(&mut cursor, &around).ok()?;
    assert_eq!(as_packet, *header, "the tunnel inside is read as any packet");
    assert_eq!(
        (second.source, second.destination),
        (header.source, header.destination)
    );
    assert_eq!(
        packet.len() - cursor.remaining(),
        second.len,
        "the cursor stands where the headers end"
    );
    assert!(
        second.len + second.payload_len <= header.len,
        "the tunnel inside is no longer than the packet that it is"
    );
    let inner = decap::inner(&mut cursor, &second).ok()?;
    assert!(inner.len <= second.payload_len);
    Some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! seed {
        ($name:literal) => {
            include_bytes!(concat!("../seeds/packet/", $name)).as_slice()
        };
    }

    #[test]
    fn seeds_reach_messages_and_what_errors_quote() {
        let client =
            |frame: &[u8]| message(frame).map(|(message, flow)| (message, flow.map(|flow| flow.source_port)));
        assert_eq!(client(seed!("echo4")), Some((Message::Echo, None)));
        assert_eq!(client(seed!("echo6")), Some((Message::Echo, None)));
        assert_eq!(client(seed!("error4")), Some((Message::Error, Some(40_000))));
        assert_eq!(client(seed!("error6")), Some((Message::Error, Some(40_000))));
        assert_eq!(message(seed!("tcp4")), None, "it has ports");
    }

    #[test]
    fn seeds_reach_tunnels_in_tunnels() {
        let protocol = |frame: &[u8]| unpack(frame).map(|inner| inner.protocol);
        assert_eq!(protocol(seed!("nested")), Some(TCP.into()));
        assert_eq!(protocol(seed!("nested_gue")), Some(TCP.into()));
        assert_eq!(protocol(seed!("ipip")), None, "there is one tunnel");
    }

    #[test]
    fn seeds_reach_every_layout_of_a_syns_options() {
        let offer = |frame: &[u8]| {
            let mut cursor = Slice::new(frame);
            let network = parse::network(&mut cursor).expect("a packet");
            let header = &frame[frame.len() - cursor.remaining()..];
            let transport = parse::transport(&mut cursor, &network).expect("a segment");
            let offer = offer(header, &transport).expect("a SYN");
            (offer.mss, offer.window_scale, offer.timestamp)
        };
        assert_eq!(offer(seed!("tcp4")), (1460, 7, 0x0102_0304));
        assert_eq!(offer(seed!("syn_freebsd")), (1460, 6, 0x0102_0304));
        assert_eq!(offer(seed!("syn_apple")), (1460, 6, 0x0102_0304));
    }
}
