//! Sends ICMP errors where the flow goes that they quote.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use edge_common::connection::{self, Key};
use edge_common::icmp;
use edge_common::parse::Transport;
use edge_common::verdict::Trace;
use edge_common::vip::Entry;
use edge_common::worker::{self, Entry as Worker};
use edge_common::{Config, DropReason, FlowReason, PassReason, Verdict, parse};

use super::forward::SEND;
use super::{connection as table, forward, vip};
use crate::maps;
use crate::packet::Frame;
use crate::settle::{dropped, settle};
use crate::state::{self, Packet, settle_later};

/// Reads what an error quotes, whose header [`icmp`](super::icmp::icmp) read, and notes that flow in the place of the error's
/// own; [`READ`]: it is to be forwarded.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_quote(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let bytes = Frame::new(&context).len();
    match read(&context) {
        Ok(true) => READ,
        Ok(false) => settle_later(for_stack(PassReason::OtherProtocol), bytes),
        Err(reason) => settle_later(Verdict::drop(reason).into(), bytes),
    }
}

/// The fate of an error to the address of the packet in work that is not to be forwarded.
#[inline(always)]
fn for_stack(reason: PassReason) -> Trace {
    let (Some(config), Some(packet)) = (maps::CONFIG.get(0), state::packet()) else {
        return Verdict::Pass(reason).into();
    };
    // SAFETY: the element is this CPU's alone, and `icmp` wrote it.
    let address = unsafe { (*packet).network.destination };
    let is_elsewhere = vip::marker(address, config.flags).is_some_and(|marker| marker.is_elsewhere());
    if is_elsewhere {
        Verdict::drop(DropReason::IcmpQuote).into()
    } else {
        Verdict::Pass(reason).into()
    }
}

/// See [`read_quote`].
pub(crate) const READ: u32 = u32::MAX - 5;

/// False if the quoted packet has no ports.
#[inline(always)]
fn read(ctx: &XdpContext) -> Result<bool, DropReason> {
    let (Some(config), Some(packet)) = (maps::CONFIG.get(0), state::packet()) else {
        return Err(DropReason::Internal);
    };
    // SAFETY: the element is this CPU's alone, and `icmp` wrote both.
    let (network, message_at) = unsafe { ((*packet).network, (*packet).transport_at) };
    let mut frame = Frame::behind(ctx, message_at as usize + icmp::HEADER_LEN);
    let Some(flow) = icmp::quoted(&mut frame, &network)? else {
        return Ok(false);
    };
    let entry = vip::service(config, &flow).unwrap_or(Entry::marker(0));
    // SAFETY: the element is this CPU's alone.
    let packet = unsafe { &mut *packet };
    packet.network.source = flow.source;
    packet.transport = Transport {
        source_port: u32::from(flow.source_port),
        destination_port: u32::from(flow.destination_port),
        protocol: u32::from(flow.protocol),
        tcp_flags: 0,
        header_len: 0,
        sequence: 0,
        opens_connection: false,
    };
    packet.is_service = 1;
    packet.vip = entry;
    Ok(true)
}

/// Chooses the worker of the flow that the error in work quotes, which was noted; the answer is the XDP action, or [`SEND`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forward_quoted(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let (Some(config), Some(packet)) = (maps::CONFIG.get(0), state::packet()) else {
        return settle(&context, Verdict::Pass(PassReason::NotConfigured).into(), 0);
    };
    // SAFETY: the element is this CPU's alone.
    let packet = unsafe { &mut *packet };
    let bytes = packet.frame_len;
    if !packet.vip.has(Entry::FORWARDS) {
        return settle(&context, for_stack(PassReason::IcmpError), u64::from(bytes));
    }
    let Some(worker) = choose(config, packet) else {
        let vip = u32::from(packet.vip.vip);
        return dropped(ctx, DropReason::NoWorker.index(), vip, bytes);
    };
    if worker.mode == worker::LOCAL {
        return settle(
            &context,
            Verdict::Pass(PassReason::IcmpError).into(),
            u64::from(bytes),
        );
    }
    packet.flow = FlowReason::Quoted;
    SEND
}

/// The worker of the quoted flow, by the connection table, else by the selection. Nothing is remembered: an error proves
/// nothing about a flow.
#[inline(always)]
fn choose<'m>(config: &Config, packet: &mut Packet) -> Option<&'m Worker> {
    let keys = connection::keys(parse::flow(&packet.network, &packet.transport), packet.vip.flags);
    packet.hash = config.hash.hash(&keys.connection);
    if !packet.vip.has(Entry::NO_CONNECTION_TABLE) {
        let key = Key {
            source: keys.connection.source,
            ports: connection::ports(&keys.connection),
            vip: packet.vip.tag,
        };
        let bucket = table::bucket(config, packet.hash, key.source.is_v4())?;
        if let Some(found) = table::find(bucket, &key)
            && let Some(worker) = forward::owner(found)
        {
            packet.worker = worker::index(found.state.owner);
            return Some(worker);
        }
    }
    forward::select(packet, config.hash.hash(&keys.selection))
}
