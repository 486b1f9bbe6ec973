//! A table as the kernel keeps it, in memory that no other CPU sees.

use core::cell::Cell;
use core::marker::PhantomData;
use std::vec;
use std::vec::Vec;

use super::super::shared::{Place, Way, find, record};
use super::super::*;
use crate::HashKey;

const BUCKETS: usize = 64;
/// Ticks for which a confirmed flow that sends nothing keeps its place.
pub(super) const IDLE: u32 = 1000;

/// Memory that no other CPU sees.
#[derive(Clone, Copy)]
struct Plain<'a>(&'a [Cell<u64>]);

impl Place for Plain<'_> {
    fn at(self, offset: usize) -> Self {
        assert_eq!(offset % 8, 0);
        Self(&self.0[offset / 8..])
    }

    fn read(self) -> u64 {
        self.0[0].get()
    }

    fn write(self, word: u64) {
        self.0[0].set(word);
    }

    fn write_half(self, half: u32) {
        self.0[0].set(self.0[0].get() & !u64::from(u32::MAX) | u64::from(half));
    }

    fn exchange(self, old: u64, new: u64) -> bool {
        let is_old = self.read() == old;
        if is_old {
            self.write(new);
        }
        is_old
    }
}

/// Flows of a family.
pub(super) trait Family: Way {
    fn client(number: u32) -> Address;
}

impl Family for Way4 {
    fn client(number: u32) -> Address {
        Address::v4((0x0a00_0000 + number / 8).to_be_bytes())
    }
}

impl Family for Way6 {
    fn client(number: u32) -> Address {
        Address([0x0120, number / 8 % 5, 0, number / 8])
    }
}

pub(super) struct Table<W> {
    words: Vec<Cell<u64>>,
    hash: HashKey,
    ways: PhantomData<W>,
}

/// What the table made of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Known(u16),
    Recorded,
    Unrecorded,
}

impl<W: Family> Table<W> {
    pub(super) fn new() -> Self {
        Self {
            words: vec![Cell::new(0); BUCKETS * WAYS * size_of::<W>() / 8],
            hash: HashKey::from_seed(3),
            ways: PhantomData,
        }
    }

    fn bucket(&self, flow: &Flow) -> Plain<'_> {
        let at = self.hash.hash(flow) as usize % BUCKETS;
        Plain(&self.words).at(at * WAYS * size_of::<W>())
    }

    /// Whether a flow of any VIP is in its bucket.
    pub(super) fn has(&self, flow: &Flow) -> bool {
        let bucket = self.bucket(flow);
        (0..WAYS).any(|at| W::matches(bucket.at(at * size_of::<W>()), &key(flow, 0)))
    }

    /// The words of each key, with its state.
    pub(super) fn ways(&self) -> impl Iterator<Item = (Vec<u64>, State)> {
        self.words.chunks(size_of::<W>() / 8).map(|way| {
            let key = way[..W::STATE / 8].iter().map(Cell::get).collect();
            (key, State::from_word(Plain(way).at(W::STATE).read()))
        })
    }

    /// One packet of a flow; `owner` is whom the selection would give it.
    pub(super) fn packet(&self, flow: &Flow, vip: u16, owner: u16, now: u32, evidence: Evidence) -> Answer {
        let (bucket, key) = (self.bucket(flow), key(flow, vip));
        if let Some(found) = find::<W, _>(bucket, &key) {
            found.touch(now, evidence);
            return Answer::Known(found.state.owner);
        }
        let state = State::new(vip, owner, now, true);
        if record::<W, _>(bucket, &key, state, now, IDLE, evidence, |_| ()) {
            Answer::Recorded
        } else {
            Answer::Unrecorded
        }
    }
}

pub(super) fn key(flow: &Flow, vip: u16) -> Key {
    Key {
        source: flow.source,
        ports: ports(flow),
        vip,
    }
}

pub(super) fn flow<W: Family>(number: u32) -> Flow {
    Flow {
        source: W::client(number),
        destination: Address::v4([192, 0, 2, 1]),
        source_port: 1000 + (number % 8) as u16,
        destination_port: 80,
        protocol: crate::TCP,
    }
}
