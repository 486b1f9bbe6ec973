//! What the connection table holds, flow by flow.

use std::net::IpAddr;
use std::ops::Range;

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

/// The buckets of a part of the table. Places count those of IPv4 clients, then those of IPv6 clients.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Places {
    v4: Range<u32>,
    v6: Range<u32>,
    /// Where the next part begins.
    next: Option<u32>,
}

impl Places {
    /// Those from a place on, of a table with so many buckets.
    fn of([v4, v6]: [u32; 2], first: u32) -> Self {
        let all = v4.saturating_add(v6);
        let end = first.saturating_add(PAGE).min(all);
        Self {
            v4: first.min(v4)..end.min(v4),
            v6: first.clamp(v4, all) - v4..end.max(v4) - v4,
            next: (end < all).then_some(end),
        }
    }
}

/// Reads a part of the table, from a place on.
pub(crate) fn page(
    maps: &Maps,
    image: &Image,
    buckets: [u32; 2],
    first: u32,
) -> Result<ConnectionPage, Error> {
    let places = Places::of(buckets, first);
    let mut connections = Vec::new();
    let mut add = |source: Address, ports, state| connections.extend(read(image, source, ports, state));
    for at in places.v4 {
        let failed = Error::map(names::CONNECTIONS4, "read");
        let bucket = maps.connections4.get(&at, 0).map_err(failed)?;
        for way in bucket.ways {
            add(Address::v4_word(way.source), way.ports, way.state);
        }
    }
    for at in places.v6 {
        let failed = Error::map(names::CONNECTIONS6, "read");
        let bucket = maps.connections6.get(&at, 0).map_err(failed)?;
        for way in bucket.ways {
            add(Address(way.source), way.ports, way.state);
        }
    }
    Ok(ConnectionPage {
        connections,
        next: places.next,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_over_both_families_without_a_gap() {
        let rows = [
            ([8, 8], 0, (0..8, 0..8, None)),
            ([8, 8], 3, (3..8, 0..8, None)),
            ([8, 8], 11, (8..8, 3..8, None)),
            ([PAGE, PAGE], 0, (0..PAGE, 0..0, Some(PAGE))),
            ([PAGE, PAGE], 1, (1..PAGE, 0..1, Some(PAGE + 1))),
            ([PAGE, PAGE], PAGE, (PAGE..PAGE, 0..PAGE, None)),
            ([2 * PAGE, 8], PAGE, (PAGE..2 * PAGE, 0..0, Some(2 * PAGE))),
            // Whoever asks for what is behind the end gets nothing.
            ([8, 8], 16, (8..8, 8..8, None)),
            ([8, 8], u32::MAX, (8..8, 8..8, None)),
            ([u32::MAX, 8], u32::MAX, (u32::MAX..u32::MAX, 0..0, None)),
        ];
        for (buckets, first, (v4, v6, next)) in rows {
            assert_eq!(
                Places::of(buckets, first),
                Places { v4, v6, next },
                "{buckets:?} from {first}"
            );
        }
        let (buckets, mut read) = ([3 * PAGE + 5, 2 * PAGE + 7], (0, 0));
        let mut first = Some(0);
        while let Some(place) = first {
            let places = Places::of(buckets, place);
            for (next, part) in [(&mut read.0, places.v4), (&mut read.1, places.v6)] {
                assert!(part.is_empty() || part.start == *next, "{place}: {part:?}");
                *next += part.len() as u32;
            }
            first = places.next;
        }
        assert_eq!(read, buckets.into());
    }
}
