//! A deny list as long as those that people subscribe to.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{Packet, TCP4, TCP6};
use edge_datapath_tests::setup::config;
use edge_model::{DataPathConfig, Prefix, SourceLists};
use fastrand::Rng;

use crate::WORKERS;

/// Prefixes of each family: 100,000 together.
const V4: usize = 75_000;
/// See [`V4`].
const V6: usize = 25_000;
/// Sources that are compared.
const SAMPLES: usize = 6_000;

/// Which addresses are denied, found without cleverness: every length that there is, the longest first. Nothing of it is
/// the data path's own code.
#[derive(Default)]
struct Oracle {
    /// By length: the bits of the prefixes, as a number.
    by_len: BTreeMap<u8, HashSet<u128>>,
}

impl Oracle {
    /// Whether it is new.
    fn add(&mut self, bits: u128, len: u8) -> bool {
        self.by_len.entry(len).or_default().insert(bits)
    }

    /// The longest prefix that an address of `width` bits is in.
    fn longest(&self, address: u128, width: u8) -> Option<u8> {
        let lengths = self.by_len.iter().rev();
        lengths
            .filter(|(len, _)| **len <= width)
            .find(|(len, prefixes)| prefixes.contains(&(address >> (width - **len))))
            .map(|(len, _)| *len)
    }
}

/// Prefixes of one family, and what is known of them.
struct Family {
    /// Bits of an address.
    width: u8,
    oracle: Oracle,
    /// Their bits and lengths, in the order in which they were drawn.
    drawn: Vec<(u128, u8)>,
}

impl Family {
    /// Draws so many different prefixes of unicast addresses.
    fn draw(random: &mut Rng, width: u8, count: usize, len: fn(&mut Rng) -> u8) -> Self {
        let mut family = Self {
            width,
            oracle: Oracle::default(),
            drawn: Vec::new(),
        };
        while family.drawn.len() < count {
            let len = len(random);
            let bits = family.unicast(random) >> (width - len);
            if family.oracle.add(bits, len) {
                family.drawn.push((bits, len));
            }
        }
        family
    }

    /// An address that may be a packet's source: of 1.0.0.0 to 126.255.255.255, or of 2000::/3.
    fn unicast(&self, random: &mut Rng) -> u128 {
        if self.width == 32 {
            random.u32(0x0100_0000..0x7f00_0000).into()
        } else {
            random.u128(..) >> 3 | 1 << 125
        }
    }

    fn address(&self, bits: u128) -> IpAddr {
        if self.width == 32 {
            IpAddr::from((bits as u32).to_be_bytes())
        } else {
            IpAddr::from(bits.to_be_bytes())
        }
    }

    fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.drawn.iter().map(|&(bits, len)| {
            let address = self.address(bits << (self.width - len));
            Prefix::new(address, len).expect("a length of the family")
        })
    }

    /// A source in a prefix, one beside it, or any.
    fn sample(&self, random: &mut Rng, kind: usize) -> u128 {
        let (bits, len) = self.drawn[random.usize(..self.drawn.len())];
        let free = self.width - len;
        let below = random.u128(..) & ((1 << free) - 1);
        match kind {
            0 => bits << free | below,
            1 => (bits ^ 1) << free | below,
            _ => self.unicast(random),
        }
    }
}

#[test]
fn a_deny_list_of_100_000_prefixes_denies_what_is_on_it_and_nothing_else() {
    let mut random = Rng::with_seed(17);
    let families = [
        Family::draw(&mut random, 32, V4, |random| random.u8(16..=32)),
        // Other lengths stand in the table as several of the next one that is a multiple of 4.
        Family::draw(&mut random, 128, V6, |random| 4 * random.u8(8..=32)),
    ];
    let deny: Vec<Prefix> = families.iter().flat_map(Family::prefixes).collect();
    assert_eq!(deny.len(), 100_000);
    let mut explainer = explainer(&DataPathConfig {
        sources: SourceLists {
            deny: deny.into(),
            ..SourceLists::default()
        },
        ..config(WORKERS)
    });
    // Of each family: denied ones by the length of the longest prefix, and others.
    let mut seen = [BTreeMap::<u8, u32>::new(), BTreeMap::new()];
    let mut others = [0, 0];
    for number in 0..SAMPLES {
        let which = number % 2;
        let (family, template) = (&families[which], [TCP4, TCP6][which]);
        let bits = family.sample(&mut random, number / 2 % 3);
        let source = family.address(bits);
        let longest = family.oracle.longest(bits, family.width);
        let expected = if longest.is_some() { "denied" } else { "deliver" };
        let answer = run(&mut explainer, &Packet { source, ..template }.frame());
        assert_eq!(answer.reason, expected, "{source}, longest prefix {longest:?}");
        match longest {
            Some(len) => *seen[which].entry(len).or_default() += 1,
            None => others[which] += 1,
        }
    }
    assert_eq!(seen[0].len(), 17, "every length is tried: {seen:?}");
    assert_eq!(seen[1].len(), 25, "every length is tried: {seen:?}");
    assert!(others.iter().all(|&count| count > 500), "{others:?}");
}
