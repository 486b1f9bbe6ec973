//! Samples of dropped packets, fetched from the data path.

use std::collections::BTreeMap;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use edge_common::DropReason;
use edge_common::event::Event;
use nix::net::if_::if_indextoname;

use crate::image::{Image, VipId};
use crate::sys;

/// A dropped packet: one of each reason in each timer tick of each CPU, at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropEvent {
    /// How long ago, to a timer tick.
    pub age: Duration,
    /// Why.
    pub reason: DropReason,
    /// The VIP that it was for, where that is known.
    pub vip: Option<VipId>,
    /// Interface that received it.
    pub interface: String,
    /// Length of the frame, in bytes.
    pub frame_len: u32,
    /// The frame from its Ethernet header on, as far as it was kept.
    pub head: Vec<u8>,
}

/// Takes what the data path has written down since the last call. There is one reader: what it took is gone.
pub(crate) fn fetch(ring: &mut RingBuf<MapData>, image: &Image) -> Vec<DropEvent> {
    let (mut events, mut names) = (Vec::new(), BTreeMap::new());
    let now = sys::monotonic_ns();
    while let Some(item) = ring.next() {
        events.extend(Event::from_bytes(&item).and_then(|event| read(&event, now, &mut names, image)));
    }
    events
}

/// The event as the image names things; `None` if it has a reason that there is not.
fn read(event: &Event, now: u64, names: &mut BTreeMap<u32, String>, image: &Image) -> Option<DropEvent> {
    let vip = (event.vip != Event::NO_VIP).then_some(event.vip);
    Some(DropEvent {
        age: Duration::from_nanos(now.saturating_sub(event.time_ns)),
        reason: *DropReason::ALL.get(event.reason as usize)?,
        vip: vip.and_then(|index| image.vip_at(index)),
        interface: names
            .entry(event.interface)
            .or_insert_with(|| interface(event.interface))
            .clone(),
        frame_len: event.frame_len,
        head: event.frame().to_vec(),
    })
}

/// Name of an interface; its number, if it is gone.
fn interface(index: u32) -> String {
    let name = if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("if{index}"))
}
