//! The contract of the benchmark's harness: a program that puts the packet back as it was, makes it the next of
//! its flows and hands it to the program under test.

use crate::assert_size;

/// Name of the harness program.
pub const PROGRAM: &str = "edge_bench";
/// XDP program that drops at once: the least that any program costs.
pub const DROP_AT_ONCE: &str = "bench_drop";
/// XDP program that reads addresses, protocol and ports, and drops: the least that any load balancer costs.
pub const PARSE_AND_DROP: &str = "bench_parse";
/// XDP program that does the same and has the kernel make a SYN cookie, of a SYN over IPv4, and drops: the least that an
/// answer with a cookie costs.
pub const COOKIE_AND_DROP: &str = "bench_cookie";
/// `Array<Settings>`, one element. Written by userspace.
pub const SETTINGS: &str = "SETTINGS";
/// `Array<State>`, one element. Written by userspace before a run, and by the harness.
pub const STATE: &str = "STATE";
/// `ProgramArray`, one element: the program under test.
pub const TARGET: &str = "TARGET";

/// Words of the frame that a run may change and the harness writes anew: 96 bytes.
pub const HEAD_WORDS: usize = 12;

/// The packets of a run.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// First bytes of the frame, as they stand in memory. The IPv4 identification field is overwritten.
    pub head: [u64; HEAD_WORDS],
    /// Number of flows, a power of two: 16 of them come from each source address.
    pub flows: u64,
    /// Length of the frame: at least 64.
    pub len: u32,
    /// 1: IPv6; 0: IPv4, without options.
    pub is_v6: u32,
    /// First source: the address, or the last word of an IPv6 address, as a number.
    pub source: u32,
    /// First destination, likewise.
    pub destination: u32,
    /// Number of destinations.
    pub destinations: u32,
    /// To a multiple of eight bytes.
    pub padding: u32,
}

/// Where a run stands.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// Number of the next packet.
    pub sequence: u64,
    /// Address of the frame before the first packet; 0 before a run.
    pub home: u64,
    /// Address of the frame as the last packet left it.
    pub now: u64,
}

assert_size!(Settings = 128, State = 24);

/// What distinguishes a flow of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variation {
    /// Source address, or its last word, as a number.
    pub source: u32,
    /// Destination address, or its last word, as a number.
    pub destination: u32,
    /// Source port.
    pub source_port: u16,
}

impl Settings {
    /// The flow of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn variation(&self, sequence: u64) -> Variation {
        let flow = sequence & (self.flows - 1);
        // Multiplied by an odd constant, neighbours get destinations far from each other; scaled by a
        // multiplication, since a division would cost more than the parser.
        let spread = (flow as u32).wrapping_mul(0x9e37_79b1) as u64;
        let destination = (spread * self.destinations as u64) >> 32;
        Variation {
            source: self.source.wrapping_add(((flow >> 4) & 0xffff) as u32),
            destination: self.destination.wrapping_add(destination as u32),
            source_port: 1024 + (((flow >> 20) << 4 | flow & 15) & 0x7fff) as u16,
        }
    }
}

impl Variation {
    /// The IPv4 identification that makes a header's checksum one and the same for all variations (RFC 1071): the
    /// complement of the addresses' sum.
    #[inline(always)]
    #[must_use]
    pub const fn identification(&self) -> u16 {
        let sum = (self.source >> 16)
            + (self.source & 0xffff)
            + (self.destination >> 16)
            + (self.destination & 0xffff);
        let once = (sum >> 16) + (sum & 0xffff);
        !(((once >> 16) + once) as u16)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn settings(flows: u64, destinations: u32) -> Settings {
        Settings {
            flows,
            destinations,
            source: 0x0a00_0000,
            destination: 0xc612_0000,
            ..Settings::default()
        }
    }

    #[test]
    fn flows_differ_from_each_other_and_come_round() {
        for (flows, destinations) in [(1, 1), (1 << 16, 1), (1 << 20, 64), (1 << 23, 1000)] {
            let settings = settings(flows, destinations);
            let step = (flows / 4096).max(1) as usize;
            let tuples: HashSet<_> = (0..flows)
                .step_by(step)
                .map(|n| {
                    let flow = settings.variation(n);
                    (flow.source, flow.source_port)
                })
                .collect();
            assert_eq!(tuples.len() as u64, flows.div_ceil(step as u64));
            assert_eq!(settings.variation(flows + 3), settings.variation(3 % flows));
        }
    }

    #[test]
    fn destinations_are_used_evenly() {
        let settings = settings(1 << 16, 64);
        let mut counts = [0_u32; 64];
        for flow in 0..1 << 16 {
            counts[(settings.variation(flow).destination - settings.destination) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&count| (900..1150).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_identification_keeps_the_sum() {
        let settings = settings(1 << 20, 1000);
        for n in [0, 1, 77, 0xffff, 0xf_ffff] {
            let flow = settings.variation(n);
            let sum = (flow.source >> 16)
                + (flow.source & 0xffff)
                + (flow.destination >> 16)
                + (flow.destination & 0xffff)
                + u32::from(flow.identification());
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "{flow:?}");
        }
    }
}
