//! Sockets of this node's TCP connections.

use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, xdp_md};
use aya_ebpf::helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp};
use edge_common::parse::{Network, Transport};

/// State of a listening socket (`TCP_LISTEN` in net/tcp_states.h): it takes every packet of its port, and so says
/// nothing of a connection.
const LISTEN: u32 = 10;

/// Whether the node has a socket for just this connection: source and destination address, then both ports in one word, all
/// as they stand in the packet (the kernel's `struct bpf_sock_tuple`). Half-open ones and those in TIME_WAIT count.
#[inline(always)]
pub(crate) fn has_connection4(ctx: *mut xdp_md, mut tuple: [u32; 3]) -> bool {
    find(ctx, tuple.as_mut_ptr(), size_of::<[u32; 3]>() as u32)
}

/// The same over IPv6, whose addresses are four words each.
#[inline(always)]
pub(crate) fn has_connection6(ctx: *mut xdp_md, mut tuple: [u32; 9]) -> bool {
    find(ctx, tuple.as_mut_ptr(), size_of::<[u32; 9]>() as u32)
}

/// Whether the node has a socket for the connection of a segment.
#[inline(always)]
pub(crate) fn has_connection(ctx: *mut xdp_md, network: &Network, transport: &Transport) -> bool {
    let ports = (transport.source_port << 16 | transport.destination_port & 0xffff).to_be();
    let ([a, b, c, d], [e, f, g, h]) = (network.source.0, network.destination.0);
    if network.is_v6() {
        has_connection6(ctx, [a, b, c, d, e, f, g, h, ports])
    } else {
        has_connection4(ctx, [d, h, ports])
    }
}

#[inline(always)]
fn find(ctx: *mut xdp_md, tuple: *mut u32, len: u32) -> bool {
    let netns = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the tuple is as long as it is told; a socket that was found is released before the end.
    unsafe {
        let socket = bpf_skc_lookup_tcp(ctx.cast(), tuple.cast(), len, netns, 0);
        if socket.is_null() {
            return false;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state != LISTEN
    }
}
