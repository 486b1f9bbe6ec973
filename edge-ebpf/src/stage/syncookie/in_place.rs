//! The answer to an ordinary SYN, written over it word by word: no copies, and every offset a constant.

use aya_ebpf::helpers::generated::{
    bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_tail,
};
use aya_ebpf::programs::XdpContext;
use edge_common::header::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN};
use edge_common::syncookie::{Offer, SYN_ACK_WORDS, Settings, SynAck};

use super::general::{ANSWERED, NOT_ANSWERED};
use super::syn_ack::{MSS_ONLY_LEN, SHORTEST_FRAME, header4, header6, syn_ack, takes_options};
use crate::opaque::opaque;
use crate::word::{load as load_word, store};

/// Length of the TCP header of the SYNs that are answered in their place, without copies: that of most stacks.
pub(super) const USUAL_SYN_LEN: usize = TCP_LEN + 20;
/// Turns an ordinary packet into its answer; `None`: it does not begin with the MSS.
#[inline(always)]
pub(super) fn answer_in_place(ctx: &XdpContext, settings: &Settings, is_v6: bool) -> Option<u32> {
    let (data, end) = (ctx.data(), ctx.data_end());
    let tcp_at = ETHERNET_LEN + if is_v6 { IPV6_LEN } else { IPV4_LEN };
    if data + tcp_at + USUAL_SYN_LEN > end {
        return None;
    }
    let (ip, tcp) = (data + ETHERNET_LEN, data + tcp_at);
    let first = u32::from_be(load_word!("u32", tcp, TCP_LEN) as u32);
    if first >> 16 != 0x0204 {
        return None;
    }
    let options = [
        first,
        u32::from_be(load_word!("u32", tcp, TCP_LEN + 4) as u32),
        u32::from_be(load_word!("u32", tcp, TCP_LEN + 8) as u32),
        u32::from_be(load_word!("u32", tcp, TCP_LEN + 12) as u32),
        u32::from_be(load_word!("u32", tcp, TCP_LEN + 16) as u32),
        0,
    ];
    let offer = Offer::read(options, USUAL_SYN_LEN - TCP_LEN);
    // The helper reads no option but the MSS: the header is to end behind it (its length in words is the upper half of
    // the byte). It is written anew anyway.
    store!("u8", tcp, 12, (MSS_ONLY_LEN << 2) as u8);
    // SAFETY: both headers lie in the frame.
    let cookie = unsafe {
        let (ip, tcp) = (ip as *mut u8, tcp as *mut u8);
        if is_v6 {
            bpf_tcp_raw_gen_syncookie_ipv6(ip.cast(), tcp.cast(), MSS_ONLY_LEN)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv4(ip.cast(), tcp.cast(), MSS_ONLY_LEN)
        }
    };
    if cookie < 0 {
        return Some(NOT_ANSWERED);
    }
    let ports = u32::from_be(load_word!("u32", tcp, 0) as u32);
    let sequence = u32::from_be(load_word!("u32", tcp, 4) as u32);
    let with_options = takes_options(settings, &offer);
    let syn_ack = syn_ack(
        settings,
        &offer,
        with_options,
        is_v6,
        ports,
        sequence,
        cookie as u32,
    );
    let answered = write_in_place(ctx, is_v6, tcp_at, &syn_ack, &offer, with_options);
    Some(if answered.is_some() {
        ANSWERED
    } else {
        NOT_ANSWERED
    })
}

/// Writes the answer over an ordinary packet, the frame as long as it takes; `None`: there is no room for it.
#[inline(always)]
fn write_in_place(
    ctx: &XdpContext,
    is_v6: bool,
    tcp_at: usize,
    syn_ack: &SynAck,
    offer: &Offer,
    with_options: bool,
) -> Option<()> {
    let tcp_words = SynAck::words(USUAL_SYN_LEN / 4, with_options);
    let frame_len = (tcp_at + tcp_words * 4).max(SHORTEST_FRAME);
    let now_len = opaque(ctx.data_end() - ctx.data());
    // SAFETY: the context is the kernel's; no packet pointer from before is used after.
    if frame_len != now_len && unsafe { bpf_xdp_adjust_tail(ctx.ctx, frame_len as i32 - now_len as i32) } != 0
    {
        return None;
    }
    let (at, end) = (ctx.data(), ctx.data_end());
    let (ip, tcp) = (at + ETHERNET_LEN, at + tcp_at);
    if tcp + SYN_ACK_WORDS * 4 > end {
        return None;
    }
    let (a, b) = (load_word!("u32", at, 0), load_word!("u16", at, 4));
    let (c, d) = (load_word!("u32", at, 6), load_word!("u16", at, 10));
    store!("u32", at, 0, c);
    store!("u16", at, 4, d);
    store!("u32", at, 6, a);
    store!("u16", at, 10, b);
    let mut words = [0; SYN_ACK_WORDS];
    if is_v6 {
        let client = [
            load_word!("u32", ip, 8) as u32,
            load_word!("u32", ip, 12) as u32,
            load_word!("u32", ip, 16) as u32,
            load_word!("u32", ip, 20) as u32,
        ];
        let service = [
            load_word!("u32", ip, 24) as u32,
            load_word!("u32", ip, 28) as u32,
            load_word!("u32", ip, 32) as u32,
            load_word!("u32", ip, 36) as u32,
        ];
        let sum = |sum, word: u32| sum + u64::from(u32::from_be(word));
        let addresses = client.into_iter().chain(service).fold(0, sum);
        syn_ack.write(&mut words, tcp_words, offer, with_options, addresses);
        let [a, b, c, d, e, f, g, h, i, j] = header6(client, service, tcp_words);
        store!("u32", ip, 0, a);
        store!("u32", ip, 4, b);
        store!("u32", ip, 8, c);
        store!("u32", ip, 12, d);
        store!("u32", ip, 16, e);
        store!("u32", ip, 20, f);
        store!("u32", ip, 24, g);
        store!("u32", ip, 28, h);
        store!("u32", ip, 32, i);
        store!("u32", ip, 36, j);
    } else {
        let (client, service) = (load_word!("u32", ip, 12) as u32, load_word!("u32", ip, 16) as u32);
        let addresses = u64::from(u32::from_be(client)) + u64::from(u32::from_be(service));
        syn_ack.write(&mut words, tcp_words, offer, with_options, addresses);
        let [a, b, c, d, e] = header4(client, service, tcp_words);
        store!("u32", ip, 0, a);
        store!("u32", ip, 4, b);
        store!("u32", ip, 8, c);
        store!("u32", ip, 12, d);
        store!("u32", ip, 16, e);
    }
    let [a, b, c, d, e, f, g, h, i, j] = words;
    store!("u32", tcp, 0, a);
    store!("u32", tcp, 4, b);
    store!("u32", tcp, 8, c);
    store!("u32", tcp, 12, d);
    store!("u32", tcp, 16, e);
    store!("u32", tcp, 20, f);
    store!("u32", tcp, 24, g);
    store!("u32", tcp, 28, h);
    store!("u32", tcp, 32, i);
    store!("u32", tcp, 36, j);
    Some(())
}
