//! The stages of a packet, in order.

use aya_ebpf::programs::XdpContext;
use edge_common::header::TCP_LEN;
use edge_common::verdict::Trace;
use edge_common::{DropReason, PassReason, Verdict, parse};

use crate::maps;
use crate::packet::Frame;
use crate::stage::source::Trust;
use crate::stage::syncookie::Admission;
use crate::stage::vip::Target;
use crate::stage::{flood, malformed, penalty, prefixes, select, source, syncookie, vip};

/// The fate of a frame.
#[inline(always)]
pub(crate) fn judge(ctx: &XdpContext, frame: Frame<'_>) -> Trace {
    match diary(ctx, frame) {
        Ok(trace) | Err(trace) => trace,
    }
}

/// What happens to a frame, line by line; `Err` ends it early. Each verdict is turned into its trace where it is made,
/// because that is whole: an enum's fields that a variant does not have are nothing, and the verifier refuses to copy it.
///
/// The look-up of the VIP comes before lists, penalties and limits, so that packets for no VIP stay untouched and pay
/// next to nothing. Those then hold for everything that goes to a virtual address, served port or
/// not: the address may be the node's own too, with other services on it.
#[inline(always)]
fn diary(ctx: &XdpContext, mut frame: Frame<'_>) -> Result<Trace, Trace> {
    let config = maps::CONFIG
        .get(0)
        .ok_or(Verdict::Pass(PassReason::NotConfigured))?;
    let network = parse::network(&mut frame)?;
    vip::prefilter(config, &network)?;
    let transport = parse::transport(&mut frame, &network).map_err(|fate| vip::confirm(&network, fate))?;
    let transport_end = frame.offset(ctx);
    let target = vip::find(&network, &transport)?;
    let dropped = |reason: DropReason| Verdict::Drop {
        reason,
        vip: target.vip(),
    };
    let marks = prefixes::marks(config, network.source);
    let trust = source::check(config, network.source, marks).map_err(dropped)?;
    malformed::check(config, &network, &transport, target.vip().is_some()).map_err(dropped)?;
    if trust == Trust::Ordinary {
        penalty::check(config, network.source, marks, transport.opens_connection).map_err(dropped)?;
        flood::check(config, network.source, transport.opens_connection).map_err(dropped)?;
    }
    let Target::Service(service) = target else {
        return Err(Verdict::Pass(PassReason::PortNotServed).into());
    };
    let vip = u32::from(service.vip);
    let transport_at = transport_end - TCP_LEN;
    let admission = syncookie::check(ctx, config, &network, &transport, vip, transport_at)?;
    let worker = select::worker(config, &parse::flow(&network, &transport)).map_err(dropped)?;
    let opens_connection = transport.opens_connection || admission == Admission::Opens;
    let delivered = Verdict::Deliver {
        vip,
        worker,
        opens_connection,
    };
    Ok(delivered.into())
}
