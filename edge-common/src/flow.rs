//! Flows and their keyed hash.
//!
//! XDP chooses a worker and `sk_lookup` chooses a socket by the same hash over the same fields, so both agree
//! on every connection without telling each other.

use crate::{Address, assert_size};

/// The 5-tuple of a packet on its way to a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Client's address.
    pub source: Address,
    /// Virtual address.
    pub destination: Address,
    /// Client's port.
    pub source_port: u16,
    /// The VIP's port.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

/// 32-bit words that a flow is hashed as: two addresses, the ports, the protocol.
const WORDS: usize = 10;

/// Key of the flow hash, spread out from a 64-bit seed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashKey {
    words: [u32; WORDS],
}

assert_size!(HashKey = 40);

impl HashKey {
    /// The key that belongs to a seed. Nodes with the same seed hash alike.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut state = seed;
        let mut words = [0; WORDS];
        for pair in words.chunks_exact_mut(2) {
            let value = splitmix64(&mut state);
            pair.copy_from_slice(&[value as u32, (value >> 32) as u32]);
        }
        Self { words }
    }

    /// A word of the key, for hashes of other things.
    #[inline(always)]
    #[must_use]
    pub const fn salt(&self) -> u32 {
        self.words[0]
    }

    /// 64-bit hash of a flow; its upper 32 bits are the well-mixed ones.
    ///
    /// NH (RFC 4418 5.2): the sum of products of keyed word pairs. Two flows that a sender picks without
    /// knowing the key collide with a probability of at most 2^-32, and on BPF each pair costs two additions
    /// and one multiplication. A finaliser spreads the sum over all bits.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, flow: &Flow) -> u64 {
        let [source, destination] = [flow.source.0, flow.destination.0];
        let ports = (flow.source_port as u32) << 16 | flow.destination_port as u32;
        let key = &self.words;
        let sum = product(source[0], key[0], source[1], key[1])
            .wrapping_add(product(source[2], key[2], source[3], key[3]))
            .wrapping_add(product(destination[0], key[4], destination[1], key[5]))
            .wrapping_add(product(destination[2], key[6], destination[3], key[7]))
            .wrapping_add(product(ports, key[8], flow.protocol as u32, key[9]));
        finalise(sum)
    }
}

#[inline(always)]
const fn product(left: u32, left_key: u32, right: u32, right_key: u32) -> u64 {
    left.wrapping_add(left_key) as u64 * right.wrapping_add(right_key) as u64
}

/// The finaliser of MurmurHash3: every input bit changes every output bit with a probability near one half.
#[inline(always)]
const fn finalise(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// SplitMix64 (Steele, Lea, Flood 2014): spreads a seed of few bits over as many words as wanted.
const fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::maglev;

    fn flow(source: u32, source_port: u16) -> Flow {
        Flow {
            source: Address::v4(source.to_be_bytes()),
            destination: Address::v4([192, 0, 2, 80]),
            source_port,
            destination_port: 80,
            protocol: crate::TCP,
        }
    }

    #[test]
    fn flows_that_differ_in_the_source_port_alone_spread_evenly_over_the_table() {
        let key = HashKey::from_seed(7);
        const BUCKETS: usize = 16;
        let mut buckets = [0_u32; BUCKETS];
        for port in 0..=u16::MAX {
            let slot = maglev::slot(key.hash(&flow(0x0a00_0001, port)));
            buckets[slot * BUCKETS / maglev::SLOTS] += 1;
        }
        // 4096 are expected in each; 5 % is three standard deviations of a random spread.
        assert!(
            buckets.iter().all(|&count| count.abs_diff(4096) < 205),
            "{buckets:?}"
        );
    }

    #[test]
    fn a_million_flows_do_not_collide() {
        let key = HashKey::from_seed(1);
        let hashes: HashSet<u64> = (0..1_000_000_u32)
            .map(|n| key.hash(&flow(n / 64, (n % 64) as u16)))
            .collect();
        assert_eq!(hashes.len(), 1_000_000);
    }

    fn any_flow() -> impl Strategy<Value = Flow> {
        (
            any::<[u32; 4]>(),
            any::<[u32; 4]>(),
            any::<u16>(),
            any::<u16>(),
            any::<u8>(),
        )
            .prop_map(
                |(source, destination, source_port, destination_port, protocol)| Flow {
                    source: Address(source),
                    destination: Address(destination),
                    source_port,
                    destination_port,
                    protocol,
                },
            )
    }

    proptest! {
        #[test]
        fn every_field_of_a_flow_and_the_seed_take_part(flow in any_flow(), seed in any::<u64>(), bit in 0..32_u32) {
            let key = HashKey::from_seed(seed);
            let hash = key.hash(&flow);
            for word in 0..4 {
                let mut changed = flow;
                changed.source.0[word] ^= 1 << bit;
                prop_assert_ne!(key.hash(&changed), hash);
                let mut changed = flow;
                changed.destination.0[word] ^= 1 << bit;
                prop_assert_ne!(key.hash(&changed), hash);
            }
            let port = 1 << (bit % 16);
            prop_assert_ne!(key.hash(&Flow { source_port: flow.source_port ^ port, ..flow }), hash);
            prop_assert_ne!(key.hash(&Flow { destination_port: flow.destination_port ^ port, ..flow }), hash);
            prop_assert_ne!(key.hash(&Flow { protocol: flow.protocol ^ (1 << (bit % 8)), ..flow }), hash);
            prop_assert_ne!(HashKey::from_seed(seed ^ (1 << bit)).hash(&flow), hash);
        }
    }
}
