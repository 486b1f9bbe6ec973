//! Socket selection: hands a flow to the worker that XDP counted it for.
//!
//! The kernel asks this program for every packet that no established connection claims. Hash and table are those
//! of the XDP program, so both name the same worker. The socket is assigned with
//! `BPF_SK_LOOKUP_F_NO_REUSEPORT`: workers' listeners share their port by SO_REUSEPORT, and without the flag the
//! kernel would choose among them by its own hash.
//!
//! There is no `sk_reuseport` program. It would be asked where the queued connections of a closing listener go;
//! but the workers of a process close their listeners together, when the process ends, and then there is no
//! other socket to take them. A worker that is taken out alone gets weight 0 first, and empties its queue before
//! it closes.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup};
use aya_ebpf::programs::SkLookupContext;
use edge_common::vip::{Entry, Key};
use edge_common::{Address, Config, Flow, maps as names};

use crate::stage::{select, vip};
use crate::{counters, log_limit, maps};

/// Sockets that are tried for one flow: the worker's own, then those of the next workers.
const MAX_TRIES: u32 = 8;

/// Address family numbers, as the kernel's `struct bpf_sk_lookup` gives them.
const AF_INET: u32 = 2;

/// Assigns a VIP's flow its worker's socket; leaves everything else to the kernel's own look-up.
///
/// A flow for which no worker has a socket is refused: the kernel's own look-up could find a stranger's socket
/// on the VIP's port.
#[inline(always)]
pub(crate) fn steer(ctx: &SkLookupContext) -> u32 {
    let Some(config) = maps::CONFIG.get(0) else {
        return SK_PASS;
    };
    let Some((flow, entry)) = service(ctx, config) else {
        return SK_PASS;
    };
    let Ok(worker) = select::worker(config, &flow) else {
        if log_limit::no_worker() {
            aya_log_ebpf::warn!(ctx, "connection refused: VIP {} has no worker", entry.vip);
        }
        return SK_DROP;
    };
    if assign(ctx, config, entry, worker) {
        return SK_PASS;
    }
    counters::no_socket(worker);
    if log_limit::no_socket() {
        aya_log_ebpf::warn!(
            ctx,
            "connection refused: VIP {}, worker {}: no socket",
            entry.vip,
            worker
        );
    }
    SK_DROP
}

/// The flow and its VIP, if it is for one.
#[inline(always)]
fn service(ctx: &SkLookupContext, config: &Config) -> Option<(Flow, Entry)> {
    let flow = flow(ctx);
    let may_be_virtual = config.vips.may_contain(&flow.destination)
        || config.has(Config::HAS_VIP_PREFIXES) && config.vip_prefixes.may_cover(&flow.destination);
    if !may_be_virtual {
        return None;
    }
    let key = Key::service(flow.destination, flow.destination_port, flow.protocol);
    let entry = vip::lookup(&key).or_else(|| vip::wide(key, config.flags))?;
    Some((flow, entry))
}

/// Assigns the socket of the worker, or, while that has none, of one of the next.
#[inline(always)]
fn assign(ctx: &SkLookupContext, config: &Config, entry: Entry, worker: u32) -> bool {
    let mut candidate = worker;
    for attempt in 0..MAX_TRIES {
        let index = names::socket_index(entry.listener, candidate);
        if maps::WORKER_SOCKETS
            .redirect_sk_lookup(ctx, index, BPF_SK_LOOKUP_F_NO_REUSEPORT as u64)
            .is_ok()
        {
            counters::steered(worker, attempt == 0);
            return true;
        }
        candidate = if candidate + 1 < config.workers {
            candidate + 1
        } else {
            0
        };
        if candidate == worker {
            break;
        }
    }
    false
}

/// The 5-tuple that the kernel looks a socket up for.
#[inline(always)]
fn flow(ctx: &SkLookupContext) -> Flow {
    let lookup = ctx.lookup;
    let (source, destination) = if word::<{ offset_of!(bpf_sk_lookup, family) }>(lookup) == AF_INET {
        let source = word::<{ offset_of!(bpf_sk_lookup, remote_ip4) }>(lookup);
        let destination = word::<{ offset_of!(bpf_sk_lookup, local_ip4) }>(lookup);
        (Address::v4_word(source), Address::v4_word(destination))
    } else {
        const SOURCE: usize = offset_of!(bpf_sk_lookup, remote_ip6);
        const DESTINATION: usize = offset_of!(bpf_sk_lookup, local_ip6);
        let source = [
            word::<SOURCE>(lookup),
            word::<{ SOURCE + 4 }>(lookup),
            word::<{ SOURCE + 8 }>(lookup),
            word::<{ SOURCE + 12 }>(lookup),
        ];
        let destination = [
            word::<DESTINATION>(lookup),
            word::<{ DESTINATION + 4 }>(lookup),
            word::<{ DESTINATION + 8 }>(lookup),
            word::<{ DESTINATION + 12 }>(lookup),
        ];
        (Address(source), Address(destination))
    };
    Flow {
        source,
        destination,
        // The remote port is in network byte order, the local one in the host's.
        source_port: u16::from_be(word::<{ offset_of!(bpf_sk_lookup, remote_port) }>(lookup) as u16),
        destination_port: word::<{ offset_of!(bpf_sk_lookup, local_port) }>(lookup) as u16,
        protocol: word::<{ offset_of!(bpf_sk_lookup, protocol) }>(lookup) as u8,
    }
}

/// Reads one word of the context.
///
/// The context is not plain memory: the verifier allows single fields to be read at fixed offsets from the
/// pointer as it was handed over. The compiler would merge reads of neighbours, or the last read of two branches
/// into one with a computed offset; it does neither to an instruction that it is given.
#[inline(always)]
fn word<const OFFSET: usize>(lookup: *mut bpf_sk_lookup) -> u32 {
    let value: u64;
    // SAFETY: the kernel hands over a valid pointer, and the offsets above are those of fields.
    unsafe {
        asm!(
            "{value} = *(u32 *)({lookup} + {offset})",
            value = lateout(reg) value,
            lookup = in(reg) lookup,
            offset = const OFFSET,
            options(pure, readonly, nostack),
        );
    }
    value as u32
}
