//! What the connection table holds, flow by flow.

use std::net::IpAddr;

use edge_common::connection::{Key, State};
use edge_common::maps as names;
use edge_common::{Address, vip, worker};

use crate::Error;
use crate::image::{Image, MemberId, VipId};
use crate::maps::Maps;

/// A remembered flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Client's address.
    pub client: IpAddr,
    /// Client's port; 0 where the VIP's flows of a client all go to one worker (source affinity).
    pub client_port: u16,
    /// Port that it connects to; 0 likewise.
    pub port: u16,
    /// What it connects to.
    pub vip: VipId,
    /// Who has it; `None`: one that is gone, and the next packet is given to another.
    pub member: Option<MemberId>,
    /// Whether somebody answers: a segment without SYN came, or a datagram some time after another.
    pub is_confirmed: bool,
}

/// Part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionPage {
    /// Flows, in no order.
    pub connections: Vec<Connection>,
    /// Where the next part begins; `None`: this was the last.
    pub next: Option<u32>,
}

/// Buckets that are read at once, a system call each: some milliseconds.
const PAGE: u32 = 4096;

/// Reads a part of the table. Places count the buckets of IPv4 clients, then those of IPv6 clients.
pub(crate) fn page(
    maps: &Maps,
    image: &Image,
    [v4, v6]: [u32; 2],
    first: u32,
) -> Result<ConnectionPage, Error> {
    let all = v4.saturating_add(v6);
    let end = first.saturating_add(PAGE).min(all);
    let mut connections = Vec::new();
    let mut add = |source: Address, ports, state| connections.extend(read(image, source, ports, state));
    for at in first..end {
        if at < v4 {
            let failed = Error::map(names::CONNECTIONS4, "read");
            let bucket = maps.connections4.get(&at, 0).map_err(failed)?;
            for way in bucket.ways {
                let [a, b, c, _] = Address::from(IpAddr::from([0, 0, 0, 0])).0;
                add(Address([a, b, c, way.source]), way.ports, way.state);
            }
        } else {
            let failed = Error::map(names::CONNECTIONS6, "read");
            let bucket = maps.connections6.get(&(at - v4), 0).map_err(failed)?;
            for way in bucket.ways {
                add(Address(way.source), way.ports, way.state);
            }
        }
    }
    Ok(ConnectionPage {
        connections,
        next: (end < all).then_some(end),
    })
}

/// A way's flow; `None` if there is none, or it is one of a VIP that is gone.
fn read(image: &Image, source: Address, ports: u32, state: State) -> Option<Connection> {
    let key = Key {
        source,
        ports,
        vip: state.vip,
    };
    let index = vip::index(key.vip);
    let is_current = image.vip_tag(index) == Some(key.vip);
    if !state.is_readable() || !is_current {
        return None;
    }
    let worker = worker::index(state.owner) as u16;
    let is_there = |entry: &worker::Entry| entry.owner == state.owner;
    let member = image.pools.workers.get(&worker).filter(|entry| is_there(entry));
    Some(Connection {
        client: key.source.into(),
        client_port: (key.ports >> 16) as u16,
        port: key.ports as u16,
        vip: image.vip_at(index.into())?,
        member: member.and_then(|_| image.member(edge_model::WorkerId(worker))),
        is_confirmed: state.is_confirmed(),
    })
}
