//! The connection table: which worker has a flow.
//!
//! Arrays of buckets, and a flow's hash names its bucket: one of four ways (16 bytes for an IPv4 client, so a bucket is
//! one cache line; 32 bytes for an IPv6 client, two lines). A way holds the whole key, so no flow is taken for another.
//! A new flow is recorded in the way that is worth the least: an empty one, then the unconfirmed that was seen last
//! longest ago, then a confirmed one that has been idle for long. SYNs and datagrams, which anybody can send in another's
//! name, take no place of a confirmed flow that is alive; so a flood of them, whatever its size, pushes out only its own.
//! Another segment is recorded in any case, so a TCP flow whose SYN found no place gets one by its next: as a rule its
//! sender got an answer. Segments that were made up take the place of the confirmed flow of a bucket that was seen last
//! longest ago, and then each other's. [`Evidence`] is what is made of a packet.
//!
//! CPUs share the table without locks ([`shared`]). A way's [`State`] is one word. Who records a flow exchanges the word
//! for [`State::LOCKED`] by compare-and-swap, writes the key, then the new state; who looks a flow up reads key and state
//! twice. So nobody takes one flow's worker for another's. Half of the word, the stamp, is overwritten on the way: that
//! may give a flow that took the way just then the other's time and marks, but never its worker.

pub mod shared;

use core::mem::offset_of;

use crate::malformed::tcp_flags;
use crate::parse::Transport;
use crate::verdict::Eviction;
use crate::{Address, Flow, assert_size, vip, worker};

/// Places of a bucket.
pub const WAYS: usize = 4;

/// Who has a flow, and since when nobody has asked for it.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// [`ticks`] of the last packet, shifted by [`STAMP_SHIFT`]; below, how much is known of the flow.
    pub stamp: u32,
    /// The worker ([`worker::owner`]).
    pub owner: u16,
    /// The VIP ([`vip::tag`]).
    pub vip: u16,
}

/// A flow of an IPv4 client.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way4 {
    /// Client's address, network byte order.
    pub source: u32,
    /// [`ports`] of the flow.
    pub ports: u32,
    /// Whose it is.
    pub state: State,
}

/// A flow of an IPv6 client.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way6 {
    /// Client's address.
    pub source: [u32; 4],
    /// [`ports`] of the flow.
    pub ports: u32,
    /// To a multiple of eight bytes.
    pub padding: u32,
    /// Whose it is.
    pub state: State,
}

/// Element of `CONNECTIONS4`: one cache line.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket4 {
    /// In no order.
    pub ways: [Way4; WAYS],
}

/// Element of `CONNECTIONS6`: two cache lines that stand together.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket6 {
    /// In no order.
    pub ways: [Way6; WAYS],
}

impl Bucket4 {
    /// Offset of a byte that is always 0. Writing that 0 asks memory for the line, and nothing waits for it: a load would
    /// keep all that comes after it from being done with (`edge-ebpf/src/stage/connection.rs`).
    pub const PREFETCH: usize = (WAYS - 1) * size_of::<Way4>() + STAMP_AT + offset_of!(Way4, state);
}

impl Bucket6 {
    /// Offset of such a byte in each of the two lines.
    pub const PREFETCH: [usize; 2] = [
        size_of::<Way6>() + offset_of!(Way6, padding),
        3 * size_of::<Way6>() + offset_of!(Way6, padding),
    ];
}

/// Place of a stamp's highest byte in a state.
const STAMP_AT: usize = offset_of!(State, stamp) + size_of::<u32>() - 1;

// Ways stand from a bucket's begin (`shared`).
const _: () = assert!(offset_of!(Bucket4, ways) == 0 && offset_of!(Bucket6, ways) == 0);
assert_size!(State = 8, Way4 = 16, Way6 = 32, Bucket4 = 64, Bucket6 = 128);

/// What a flow is looked up by. The VIP stands for the address and protocol that the client connects to; of a VIP of a prefix
/// it does not say which address, so two flows from one port of a client to two of them that fall into one bucket (the hash
/// has the address) are one here, and share a worker, which serves both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Client's address.
    pub source: Address,
    /// [`ports`] of the flow.
    pub ports: u32,
    /// The VIP's tag.
    pub vip: u16,
}

/// What a packet says of the flow that it belongs to.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing: a SYN.
    Syn,
    /// Nothing if it is the flow's first. One that comes in a later tick confirms the flow: a flood of made-up datagrams
    /// does not come back to the same flow.
    Datagram,
    /// A segment without SYN confirms its flow.
    Segment,
    /// So does one with FIN or RST, after which the client may use its port for another connection.
    Closing,
}

impl Evidence {
    /// That of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn of(transport: &Transport) -> Self {
        if transport.opens_connection {
            Self::Syn
        } else if transport.protocol != crate::TCP as u32 {
            Self::Datagram
        } else if transport.tcp_flags & (tcp_flags::FIN | tcp_flags::RST) == 0 {
            Self::Segment
        } else {
            Self::Closing
        }
    }

    /// The same of a packet of something that one connection's end does not end: all that a client has with a VIP of
    /// [`SOURCE_AFFINITY`](vip::Entry::SOURCE_AFFINITY).
    #[inline(always)]
    #[must_use]
    pub const fn of_one_among_others(transport: &Transport) -> Self {
        match Self::of(transport) {
            Self::Closing => Self::Segment,
            other @ (Self::Syn | Self::Datagram | Self::Segment) => other,
        }
    }

    /// Whether the packet may be the first of a connection.
    #[inline(always)]
    #[must_use]
    pub const fn may_begin(self) -> bool {
        (self as u32) <= Self::Datagram as u32
    }
}

/// Nothing is in the way.
const EMPTY: u32 = 0;
/// One packet was seen, or SYNs alone, or datagrams of one tick.
const UNCONFIRMED: u32 = 1;
/// Somebody answers: a segment without SYN came, or a datagram in another tick than the one before.
const CONFIRMED: u32 = 2;
/// The same, and the client has ended its connection, or reset it. It may go on acknowledging what it is sent; a SYN is of
/// the next one.
const CLOSING: u32 = 3;
const KIND: u32 = 3;
/// Bit beside the kind: nobody saw the flow's first packet here, so another worker than its owner may have it.
const ADOPTED: u32 = 4;

/// Bits of a stamp below the ticks.
pub const STAMP_SHIFT: u32 = 3;
/// Bits of a stamp that are used: the highest byte is always 0, which [`Bucket4::PREFETCH`] is about.
const STAMP: u32 = u32::MAX >> 8;
/// Bits of the ticks that a stamp has room for: they come round after 37 hours if the kernel's timer ticks a thousand
/// times a second, and later if less often.
const TICKS: u32 = STAMP >> STAMP_SHIFT;
/// The kernel's timer ticks (jiffies) in one of the table's, as a power of two: between 64 and 640 ms.
pub const TICK_SHIFT: u32 = 6;

/// The table's time for the kernel's (`bpf_jiffies64`).
#[inline(always)]
#[must_use]
pub const fn ticks(jiffies: u64) -> u32 {
    (jiffies >> TICK_SHIFT) as u32 & TICKS
}

/// Both ports in one word, the client's first.
#[inline(always)]
#[must_use]
pub const fn ports(flow: &Flow) -> u32 {
    (flow.source_port as u32) << 16 | flow.destination_port as u32
}

impl State {
    /// Somebody writes the way.
    pub const LOCKED: Self = Self {
        stamp: STAMP,
        owner: worker::NO_OWNER,
        vip: u16::MAX,
    };

    /// State of a flow that is recorded now; `is_first`: by its first packet, as far as anybody can tell.
    #[inline(always)]
    #[must_use]
    pub const fn new(vip: u16, owner: u16, now: u32, is_first: bool) -> Self {
        Self {
            stamp: now << STAMP_SHIFT | (!is_first as u32) << ADOPTED.ilog2() | UNCONFIRMED,
            owner,
            vip,
        }
    }

    /// Whether the flow was recorded by another than its first packet: its owner is the worker that was selected then, and
    /// may not be the one that has the connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_adopted(self) -> bool {
        self.stamp & ADOPTED != 0
    }

    /// Whether the way holds a flow that can be relied on.
    #[inline(always)]
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.stamp & KIND != EMPTY && self.owner != worker::NO_OWNER
    }

    /// Whether the flow is confirmed.
    #[inline(always)]
    #[must_use]
    pub const fn is_confirmed(self) -> bool {
        matches!(self.stamp & KIND, CONFIRMED | CLOSING)
    }

    /// Whether a packet that may begin a connection begins another than the one that the way stands for: that one was ended,
    /// or nothing was heard of it for `idle` ticks. Who has it then keeps it only as long as it takes new ones.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(self, now: u32, idle: u32, evidence: Evidence) -> bool {
        evidence.may_begin() & ((self.stamp & KIND == CLOSING) | (self.age(now) >= idle))
    }

    /// Ticks since the flow's last packet.
    #[inline(always)]
    #[must_use]
    pub const fn age(self, now: u32) -> u32 {
        now.wrapping_sub(self.stamp >> STAMP_SHIFT) & TICKS
    }

    /// The stamp after another packet of the flow.
    #[inline(always)]
    #[must_use]
    pub const fn touched(self, now: u32, evidence: Evidence) -> u32 {
        let (kind, adopted) = (self.stamp & KIND, self.stamp & ADOPTED);
        let (kind, adopted) = match evidence {
            // Another connection begins, whose first packet this is.
            Evidence::Syn if kind == CLOSING => (UNCONFIRMED, 0),
            Evidence::Syn => (kind, adopted),
            Evidence::Datagram if self.age(now) == 0 => (kind, adopted),
            Evidence::Segment if kind == CLOSING => (CLOSING, adopted),
            Evidence::Datagram | Evidence::Segment => (CONFIRMED, adopted),
            Evidence::Closing => (CLOSING, adopted),
        };
        now << STAMP_SHIFT | adopted | kind
    }

    /// The state after a packet that finds the flow's worker gone, and is given to another.
    #[inline(always)]
    #[must_use]
    pub const fn given_to(self, owner: u16, now: u32, evidence: Evidence) -> Self {
        Self {
            stamp: self.touched(now, evidence),
            owner,
            vip: self.vip,
        }
    }

    /// The state as the one word that it is in memory.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        (self.vip as u64) << 48 | (self.owner as u64) << 32 | self.stamp as u64
    }

    /// The state of a word.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            stamp: word as u32,
            owner: (word >> 32) as u16,
            vip: (word >> 48) as u16,
        }
    }

    /// What the flow was, if this way is given to another; `None`: nobody had it.
    #[inline(always)]
    #[must_use]
    pub const fn eviction(self, now: u32, idle: u32) -> Option<Eviction> {
        match self.stamp & KIND {
            EMPTY => None,
            UNCONFIRMED => Some(Eviction::Unconfirmed),
            _ if self.age(now) >= idle => Some(Eviction::Idle),
            _ => Some(Eviction::Confirmed),
        }
    }

    /// How little the way is worth: the greatest gives its place to a new flow, and 0 never does. `idle` is how long a
    /// confirmed flow keeps its place; `evidence` is of the packet that is to be recorded.
    #[inline(always)]
    #[must_use]
    pub const fn dispensability(self, now: u32, idle: u32, evidence: Evidence) -> u64 {
        let kind = self.stamp & KIND;
        let age = self.age(now) as u64;
        if kind == EMPTY {
            4 << 32
        } else if self.owner == worker::NO_OWNER {
            0
        } else if kind == UNCONFIRMED {
            3 << 32 | age
        } else if age >= idle as u64 {
            2 << 32 | age
        } else if !evidence.may_begin() {
            1 << 32 | age
        } else {
            0
        }
    }
}

/// Whose way a new flow takes; `None` if no way gives its place away.
#[inline(always)]
#[must_use]
pub const fn victim(states: [State; WAYS], now: u32, idle: u32, evidence: Evidence) -> Option<usize> {
    let [a, b, c, d] = states;
    let a = a.dispensability(now, idle, evidence);
    let b = b.dispensability(now, idle, evidence);
    let c = c.dispensability(now, idle, evidence);
    let d = d.dispensability(now, idle, evidence);
    let (left, first) = if b > a { (b, 1) } else { (a, 0) };
    let (right, second) = if d > c { (d, 3) } else { (c, 2) };
    let (most, way) = if right > left {
        (right, second)
    } else {
        (left, first)
    };
    if most == 0 { None } else { Some(way) }
}

/// The flow that stands for another in the connection table and in the selection, by the VIP's flags.
///
/// Both are the flow itself as a rule, and then one hash serves both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// What the table is asked for.
    pub connection: Flow,
    /// What the selection hashes.
    pub selection: Flow,
}

/// What stands for a flow of a VIP with these flags.
#[inline(always)]
#[must_use]
pub const fn keys(flow: Flow, flags: u32) -> Keys {
    use vip::Entry;
    let of_source = Flow {
        destination: Address([0; 4]),
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        ..flow
    };
    if flags & Entry::SOURCE_AFFINITY != 0 {
        return Keys {
            connection: of_source,
            selection: of_source,
        };
    }
    let mut selection = flow;
    if flags & Entry::HASH_DESTINATION_PORT != 0 {
        selection = Flow {
            source: Address([0; 4]),
            destination_port: flow.destination_port,
            ..of_source
        };
    } else if flags & Entry::HASH_NO_SOURCE_PORT != 0 {
        selection.source_port = 0;
    }
    Keys {
        connection: flow,
        selection,
    }
}

#[cfg(test)]
mod tests;
