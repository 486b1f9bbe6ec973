//! Sends a packet to a worker elsewhere: which worker, and by which way.

use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use edge_common::connection::{self, Evidence, Key, State};
use edge_common::parse::Transport;
use edge_common::verdict::Trace;
use edge_common::vip::Entry;
use edge_common::worker::{self, Entry as Worker};
use edge_common::{Config, DropReason, FlowReason, TCP, Verdict, parse};

use super::connection as table;
use super::tunnel;
use crate::maps;
use crate::settle::{dropped, settle};
use crate::state::{self, Packet};

/// The XDP action of a packet that was sent on its way.
#[inline(always)]
pub(crate) fn send() -> u32 {
    let interface = match state::packet() {
        // SAFETY: the element is this CPU's alone, and `forward` wrote the route.
        Some(packet) => unsafe { (*packet).route.interface },
        None => 0,
    };
    send_by(interface)
}

/// The same, by an interface; 0: the one that it came in by.
#[inline(always)]
pub(crate) fn send_by(interface: u32) -> u32 {
    if interface == 0 {
        XDP_TX
    } else {
        // An interface that is not in the map: the helper's answer is XDP_ABORTED.
        maps::DEVICES
            .redirect(interface, 0)
            .unwrap_or_else(|action| action)
    }
}

/// Chooses the worker of the packet in work; [`SEND`]: it is to be sent there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forward(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let (Some(config), Some(packet)) = (maps::CONFIG.get(0), state::packet()) else {
        return settle(&context, Verdict::drop(DropReason::NoWorker).into(), 0);
    };
    // SAFETY: the element is this CPU's alone.
    let packet = unsafe { &mut *packet };
    if choose(config, packet).is_none() {
        let vip = u32::from(packet.vip.vip);
        return dropped(ctx, DropReason::NoWorker.index(), vip, packet.frame_len);
    }
    if packet.is_adopted != 0 && packet.vip.has(Entry::SECOND_HOP) {
        return SECOND_HOP;
    }
    SEND
}

/// What [`forward_send`] answers if the packet does not fit ([`too_big`](super::too_big)).
pub(crate) const TOO_BIG: u32 = u32::MAX - 7;

/// What [`forward`] answers if another worker than the chosen one may have the packet's connection
/// ([`second_hop`](super::second_hop)).
pub(crate) const SECOND_HOP: u32 = u32::MAX - 4;

/// What [`forward`] answers if [`forward_send`] is to be called.
pub(crate) const SEND: u32 = u32::MAX - 8;

/// Sends the packet in work to the worker that was chosen; the answer is the XDP action.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forward_send(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let (Some(config), Some(packet)) = (maps::CONFIG.get(0), state::packet()) else {
        return settle(&context, Verdict::drop(DropReason::NoWorker).into(), 0);
    };
    // SAFETY: the element is this CPU's alone.
    let packet = unsafe { &mut *packet };
    let vip = u32::from(packet.vip.vip);
    let Some(worker) = maps::WORKERS.get(packet.worker) else {
        return dropped(ctx, DropReason::NoWorker.index(), vip, packet.frame_len);
    };
    match way(ctx, config, packet, worker) {
        Ok(verdict) => settle(&context, verdict, u64::from(packet.frame_len)),
        // No error is sent about an error (RFC 1122 3.2.2).
        Err(DropReason::TooBig) if packet.flow != FlowReason::Quoted => TOO_BIG,
        Err(reason) => dropped(ctx, reason.index(), vip, packet.frame_len),
    }
}

/// Prepares the frame for its way to the worker.
#[inline(always)]
fn way(ctx: *mut xdp_md, config: &Config, packet: &mut Packet, worker: &Worker) -> Result<Trace, DropReason> {
    let vip = u32::from(packet.vip.vip);
    let opens_connection = packet.transport.opens_connection;
    if worker.mode == worker::LOCAL {
        let delivered = Verdict::Deliver {
            vip,
            worker: packet.worker,
            opens_connection,
        };
        return Ok(delivered.into());
    }
    tunnel::enter(ctx, config, packet, worker)?;
    let forwarded = Verdict::Forward {
        vip,
        worker: packet.worker,
        flow: packet.flow,
        opens_connection,
    };
    Ok(forwarded.into())
}

/// The worker of the packet's flow; index and reason are noted.
#[inline(always)]
fn choose<'m>(config: &Config, packet: &mut Packet) -> Option<&'m Worker> {
    let keys = connection::keys(parse::flow(&packet.network, &packet.transport), packet.vip.flags);
    let hash = config.hash.hash(&keys.connection);
    packet.hash = hash;
    packet.is_adopted = 0;
    let spread = Entry::HASH_NO_SOURCE_PORT | Entry::HASH_DESTINATION_PORT;
    if packet.vip.has(Entry::NO_CONNECTION_TABLE) {
        let selection = if packet.vip.has(spread) {
            config.hash.hash(&keys.selection)
        } else {
            hash
        };
        packet.flow = FlowReason::Stateless;
        return select(packet, selection);
    }
    let key = Key {
        source: keys.connection.source,
        ports: connection::ports(&keys.connection),
        vip: packet.vip.tag,
    };
    let now = table::now();
    let bucket = table::bucket(config, hash, key.source.is_v4())?;
    let is_syn = packet.transport.opens_connection;
    let evidence = if packet.vip.has(Entry::SOURCE_AFFINITY) {
        Evidence::of_one_among_others(&packet.transport)
    } else {
        Evidence::of(&packet.transport)
    };
    let found = table::find(bucket, &key);
    let is_over = found.is_some_and(|found| found.state.is_over(now, config.idle_ticks, evidence));
    if let Some(found) = found
        && let Some(worker) = owner(found)
        && (!is_over || worker.takes_new(packet.vip.pool))
    {
        found.touch(now, evidence);
        packet.worker = worker::index(found.state.owner);
        packet.flow = FlowReason::Known;
        packet.is_adopted = u32::from(found.state.is_adopted()) & (u32::from(is_syn) ^ 1);
        return Some(worker);
    }
    let selection = if packet.vip.has(spread) {
        config.hash.hash(&keys.selection)
    } else {
        hash
    };
    let worker = select(packet, selection)?;
    packet.flow = match found {
        Some(found) if is_over => {
            found.change(State::new(key.vip, worker.owner, now, true));
            FlowReason::New
        }
        Some(found) => {
            found.change(found.state.given_to(worker.owner, now, evidence));
            FlowReason::Reselected
        }
        None => {
            packet.is_adopted = u32::from(!is_first(&packet.transport));
            record(config, bucket, &key, worker.owner, &packet.transport, now)
        }
    };
    Some(worker)
}

/// The worker that has a flow, if it still takes packets.
#[inline(always)]
pub(crate) fn owner<'m>(found: table::Found) -> Option<&'m Worker> {
    let worker = maps::WORKERS.get(worker::index(found.state.owner))?;
    (worker.owner == found.state.owner && worker.keeps_flows()).then_some(worker)
}

/// Whether a packet of a flow that the table does not know may be its first. Of UDP nobody knows.
#[inline(always)]
pub(crate) fn is_first(transport: &Transport) -> bool {
    transport.opens_connection || transport.protocol != u32::from(TCP)
}

/// Remembers a flow's worker.
#[inline(always)]
pub(crate) fn record(
    config: &Config,
    bucket: table::Bucket,
    key: &Key,
    owner: u16,
    transport: &Transport,
    now: u32,
) -> FlowReason {
    let is_first = is_first(transport);
    let state = State::new(key.vip, owner, now, is_first);
    match table::record(
        bucket,
        key,
        state,
        now,
        config.idle_ticks,
        Evidence::of(transport),
    ) {
        true if is_first => FlowReason::New,
        true => FlowReason::Adopted,
        false => FlowReason::Unrecorded,
    }
}

/// The worker that the packet's pool has for a hash; its index is noted.
#[inline(always)]
pub(crate) fn select<'m>(packet: &mut Packet, hash: u64) -> Option<&'m Worker> {
    let (index, worker) = member(packet.vip.pool, hash)?;
    packet.worker = index;
    Some(worker)
}

/// The worker that a pool's Maglev table has for a hash, with its index.
#[inline(always)]
pub(crate) fn member<'m>(pool: u16, hash: u64) -> Option<(u32, &'m Worker)> {
    let table = maps::MAGLEV.get(u32::from(pool))?;
    let index = u32::from(table.worker(hash)?);
    Some((index, maps::WORKERS.get(index)?))
}
