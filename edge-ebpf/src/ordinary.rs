//! The short way of ordinary packets: untagged, IPv4 without options and whole or IPv6 without extension headers, TCP or
//! UDP, to a VIP whose flows are spread by all of their fields, and to a worker that is reached in one of the usual ways.
//!
//! Everything is inlined, and what is known of the packet stays in registers: on processors whose returns are guarded
//! against speculation (AMD's Safe RET, see `spec_rstack_overflow` in the kernel's documentation) a call costs as much as
//! a look-up. The stages are those of [`pipeline`](crate::pipeline), in its order; there are no rules here but which
//! packets are ordinary. All others are left to the program of the general way, untouched and uncounted. A packet that turns
//! out to be none of the ordinary ones after a stage has taken its tokens goes on there where it was left.

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::programs::XdpContext;
use edge_common::connection::{self, Evidence, Key};
use edge_common::cursor::{Cursor as _, Window as _};
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use edge_common::parse::{self, Network, Transport};
use edge_common::tunnel::Inner;
use edge_common::verdict::Trace;
use edge_common::vip::Entry;
use edge_common::worker::Entry as Worker;
use edge_common::{Config, DropReason, FlowReason, TCP, UDP, Verdict, vip as vips};

use crate::packet::Frame;
use crate::settle;
use crate::stage::connection::Bucket;
use crate::stage::source::Trust;
use crate::stage::syncookie::{self, Admission, Answers, Segment};
use crate::stage::{
    connection as table, flood, forward, malformed, penalty, prefixes, route, select, source, tunnel, vip,
};
use crate::{maps, state};

/// The action for an ordinary packet; `None`: it is none.
#[inline(always)]
pub(crate) fn judge(ctx: &XdpContext) -> Option<u32> {
    let config = maps::CONFIG.get(0)?;
    let mut frame = Frame::new(ctx);
    let bytes = frame.len() as u32;
    let ethernet = frame.take::<ETHERNET_LEN>()?;
    match ethernet.be16::<12>() {
        ETHERTYPE_IPV4 => {
            let network = parse::ipv4_fixed(&mut frame);
            addressed(ctx, config, frame, network, bytes)
        }
        ETHERTYPE_IPV6 => {
            let network = parse::ipv6(&mut frame);
            addressed(ctx, config, frame, network, bytes)
        }
        _ => None,
    }
}

/// Goes on when the IP header was read.
#[inline(always)]
fn addressed(
    ctx: &XdpContext,
    config: &Config,
    mut frame: Frame<'_>,
    network: Result<Network, DropReason>,
    bytes: u32,
) -> Option<u32> {
    let network = match network {
        Ok(network) => network,
        Err(_) if config.has(Config::HAS_TUNNELS) => return None,
        Err(reason) => return Some(settle::dropped(ctx.ctx, reason.index(), Trace::NONE, bytes)),
    };
    // What may come by a tunnel is not looked into here.
    let may_be_tunnelled = config.has(Config::HAS_TUNNELS) && network.next_header() != TCP;
    if !network.is_plain() || network.is_fragment() || may_be_tunnelled {
        return None;
    }
    if let Err(Verdict::Pass(reason)) = vip::prefilter(config, &network) {
        return Some(settle::passed(&Verdict::Pass(reason).into()));
    }
    let len = network.payload_len();
    let transport = match network.next_header() {
        TCP => parse::tcp(&mut frame, len),
        UDP => parse::udp(&mut frame, len),
        _ => return None,
    };
    let transport = transport.ok()?;
    let (port, protocol) = (transport.destination_port as u16, transport.protocol as u8);
    let entry = vip::lookup(&vips::Key::service(network.destination, port, protocol))?;
    guarded(ctx, config, &network, &transport, entry, bytes)
}

/// Asks the stages that refuse packets.
#[inline(always)]
fn guarded(
    ctx: &XdpContext,
    config: &Config,
    network: &Network,
    transport: &Transport,
    entry: Entry,
    bytes: u32,
) -> Option<u32> {
    if entry.flags & !(Entry::FORWARDS | Entry::SECOND_HOP) != 0 {
        return None;
    }
    let vip = u32::from(entry.vip);
    let dropped = |reason: DropReason| Some(settle::dropped(ctx.ctx, reason.index(), vip, bytes));
    let forwards = entry.has(Entry::FORWARDS);
    // Packets for this node need their flow's hash only if they are let through.
    let mut way = None;
    if forwards {
        let Some(found) = Way::new(config, network, transport) else {
            return dropped(DropReason::NoWorker);
        };
        // The flow's bucket is seldom in a cache: it is on its way while the next stages work.
        if !prefixes::refuse_now() {
            table::prefetch(found.bucket);
        }
        way = Some(found);
    }
    let marks = prefixes::marks(config, network.source);
    let trust = match source::check(config, network.source, marks) {
        Ok(trust) => trust,
        Err(reason) => {
            prefixes::note_refusal();
            return dropped(reason);
        }
    };
    if let Err(reason) = malformed::check(config, network, transport, true) {
        return dropped(reason);
    }
    let opens = transport.opens_connection;
    if trust == Trust::Ordinary
        && let Err(reason) = penalty::check(config, network.source, marks, opens)
    {
        prefixes::note_refusal();
        return dropped(reason);
    }
    if trust == Trust::Ordinary
        && let Err(reason) = flood::check(config, network.source, opens)
    {
        return dropped(reason);
    }
    let segment = Segment {
        network,
        transport,
        offset: ETHERNET_LEN + network.header_len(),
        is_ordinary: true,
    };
    let answers = if forwards { Answers::Nowhere } else { Answers::Back };
    let admission = match syncookie::check(ctx, config, &segment, vip, answers) {
        Ok(admission) => admission,
        Err(verdict) => return Some(settle::settle(ctx, verdict.into(), u64::from(bytes))),
    };
    if let Some(way) = way {
        return forwarded(ctx, config, network, transport, entry, way, bytes);
    }
    let hash = config.hash.hash(&parse::flow(network, transport));
    let worker = match select::by_hash(hash) {
        Ok(worker) => worker,
        Err(reason) => return dropped(reason),
    };
    let delivered = Verdict::Deliver {
        vip,
        worker,
        opens_connection: transport.opens_connection || admission == Admission::Opens,
    };
    Some(settle::settle(ctx, delivered.into(), u64::from(bytes)))
}

/// Where a flow's worker is looked up.
#[derive(Clone, Copy)]
struct Way {
    hash: u64,
    bucket: Bucket,
}

impl Way {
    #[inline(always)]
    fn new(config: &Config, network: &Network, transport: &Transport) -> Option<Self> {
        let hash = config.hash.hash(&parse::flow(network, transport));
        let bucket = table::bucket(config, hash, !network.is_v6())?;
        Some(Self { hash, bucket })
    }
}

/// Sends a packet to its worker elsewhere.
///
/// The packet is made ready for the worker that the pool's Maglev table names, and only then is the connection table asked
/// whether the flow is that worker's, which nearly all are: so the flow's bucket has time to come from memory. One that is
/// another's is put back as it was.
#[inline(always)]
fn forwarded(
    ctx: &XdpContext,
    config: &Config,
    network: &Network,
    transport: &Transport,
    entry: Entry,
    way: Way,
    bytes: u32,
) -> Option<u32> {
    let Some((index, worker)) = forward::member(entry.pool, way.hash) else {
        return hand_over(ctx);
    };
    let (Some(inner), Some(link)) = (fitting(ctx, network, worker), tunnel::link(ctx)) else {
        return hand_over(ctx);
    };
    let vip = u32::from(entry.vip);
    let sent = route::fixed(ctx.ctx, worker)
        .and_then(|hop| tunnel::encapsulate(ctx.ctx, config, way.hash, worker, inner, hop, ETHERNET_LEN));
    if let Err(reason) = sent {
        return Some(settle::dropped(ctx.ctx, reason.index(), vip, bytes));
    }
    let key = Key {
        source: network.source,
        ports: connection::ports(&parse::flow(network, transport)),
        vip: entry.tag,
    };
    let now = table::now();
    let found = table::find(way.bucket, &key);
    // Another worker may have the connection, and the general way asks both.
    let began_elsewhere = entry.has(Entry::SECOND_HOP)
        && !transport.opens_connection
        && found.is_none_or(|found| found.state.is_adopted());
    let flow = match found {
        Some(found) if found.state.owner == worker.owner && worker.keeps_flows() && !began_elsewhere => {
            found.touch(now, Evidence::of(transport));
            FlowReason::Known
        }
        None if !began_elsewhere => forward::record(config, way.bucket, &key, worker.owner, transport, now),
        _ => {
            return match tunnel::take_off(ctx, worker.overhead(), link, network.is_v6()) {
                Ok(()) => hand_over(ctx),
                Err(reason) => Some(settle::dropped(ctx.ctx, reason.index(), vip, bytes)),
            };
        }
    };
    let verdict = Verdict::Forward {
        vip,
        worker: index,
        flow,
        opens_connection: transport.opens_connection,
    };
    settle::forwarded(&verdict.into(), u64::from(bytes));
    Some(forward::send_by(route::leaves_by(ctx.ctx, worker)))
}

/// What the tunnel's headers take from the packet's, if it fits into the worker's tunnel and its next hop is known.
#[inline(always)]
fn fitting(ctx: &XdpContext, network: &Network, worker: &Worker) -> Option<Inner> {
    let inner = tunnel::inner(ctx, ETHERNET_LEN, network.is_v6())?;
    let fits = inner.len + worker.overhead() <= u32::from(worker.mtu);
    (fits && worker.is_in_tunnel() && worker.vlan == 0 && route::is_fixed(worker)).then_some(inner)
}

/// Leaves a packet to the general way, whose stages have let it through here.
#[inline(always)]
fn hand_over(ctx: &XdpContext) -> Option<u32> {
    state::skip_stages();
    Some(general(ctx))
}

/// Goes on in the program of the general way. It is there as long as this one is; were it not, nobody could say what is to
/// become of the packet.
#[inline(always)]
pub(crate) fn general(ctx: &XdpContext) -> u32 {
    // SAFETY: nothing here waits to be dropped.
    unsafe { maps::GENERAL.tail_call(ctx, 0) };
    XDP_ABORTED
}
