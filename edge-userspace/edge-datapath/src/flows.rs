//! How large the connection tables are.

use edge_common::connection::WAYS;

/// Flows that are remembered, of IPv4 clients and as many of IPv6 clients. An IPv4 flow takes 16 bytes and an IPv6 flow
/// 32, so a million of each take 48 MiB, used or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flows {
    /// How many; rounded up to a power of two.
    pub limit: u32,
}

impl Flows {
    /// As few as suit a node that forwards nothing, or a test: 3 MiB.
    pub const FEW: Self = Self { limit: 1 << 16 };

    /// Most that may be asked for: the tables take 3 GiB.
    pub const MOST: u32 = 1 << 26;

    /// Buckets of both tables, powers of two.
    pub(crate) const fn buckets(self) -> [u32; 2] {
        let limit = if self.limit > Self::MOST {
            Self::MOST
        } else {
            self.limit
        };
        let buckets = limit.div_ceil(WAYS as u32).next_power_of_two();
        [buckets, buckets]
    }
}

impl Default for Flows {
    fn default() -> Self {
        Self::FEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_a_power_of_two_and_have_room_for_the_flows() {
        let rows = [(0, 1), (1, 1), (5, 2), (1 << 20, 1 << 18), (u32::MAX, 1 << 24)];
        for (limit, buckets) in rows {
            assert_eq!(Flows { limit }.buckets(), [buckets; 2], "{limit}");
        }
    }
}
