//! What the answer to a SYN says, however it is written.

use edge_common::TCP;
use edge_common::checksum;
use edge_common::header::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN};
use edge_common::syncookie::{Offer, Settings, SynAck};

use crate::clock;

pub(super) const IPV4_WORDS: usize = IPV4_LEN / 4;
pub(super) const IPV6_WORDS: usize = IPV6_LEN / 4;

/// That of a SYN with the MSS for its only option.
pub(super) const MSS_ONLY_LEN: u32 = 24;

/// Shortest Ethernet frame, without its check sequence. A SYN may have come in one.
pub(super) const SHORTEST_FRAME: usize = 60;
const _: () = assert!(ETHERNET_LEN + IPV4_LEN + TCP_LEN < SHORTEST_FRAME);

/// Hop limit and time to live of an answer, as the kernel's.
const TTL: u32 = 64;

/// Whether the answer has more options than the MSS.
#[inline(always)]
pub(super) fn takes_options(settings: &Settings, offer: &Offer) -> bool {
    offer.has_timestamp != 0 && settings.has_timestamps != 0
}

/// The answer's TCP header, with more options than the MSS or without. `ports` and `sequence` are the SYN's.
#[inline(always)]
pub(super) fn syn_ack(
    settings: &Settings,
    offer: &Offer,
    with_options: bool,
    is_v6: bool,
    ports: u32,
    sequence: u32,
    cookie: u32,
) -> SynAck {
    SynAck {
        ports: ports.rotate_left(16),
        cookie,
        sequence,
        mss: if is_v6 { settings.mss6 } else { settings.mss4 },
        window: match (is_v6, with_options) {
            (false, false) => settings.window4,
            (false, true) => settings.stamped_window4,
            (true, false) => settings.window6,
            (true, true) => settings.stamped_window6,
        },
        window_scale: u32::from(settings.window_scale),
        timestamp: offer.encode(clock::last_ms() as u32),
    }
}

/// The answer's IPv4 header, as it stands in memory, before a TCP header of so many words.
#[inline(always)]
pub(super) fn header4(client: u32, service: u32, tcp_words: usize) -> [u32; IPV4_WORDS] {
    let first = 0x4500 << 16 | ((IPV4_WORDS + tcp_words) * 4) as u32;
    let fragments = 0x4000_u32;
    let third = TTL << 24 | u32::from(TCP) << 16;
    let addresses = u64::from(u32::from_be(client)) + u64::from(u32::from_be(service));
    let sum = u64::from(first) + u64::from(fragments) + u64::from(third) + addresses;
    [
        first.to_be(),
        fragments.to_be(),
        (third | u32::from(checksum::of(sum))).to_be(),
        service,
        client,
    ]
}

/// Likewise its IPv6 header.
#[inline(always)]
pub(super) fn header6(client: [u32; 4], service: [u32; 4], tcp_words: usize) -> [u32; IPV6_WORDS] {
    let [a, b, c, d] = service;
    let [e, f, g, h] = client;
    let second = (tcp_words as u32 * 4) << 16 | u32::from(TCP) << 8 | TTL;
    [(6_u32 << 28).to_be(), second.to_be(), a, b, c, d, e, f, g, h]
}
