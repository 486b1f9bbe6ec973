//! The contract between tier 1 in the kernel and its control in userspace.
//!
//! Whatever both sides must see alike is here: the layout of map keys and values (fixed width, explicit
//! padding, sizes asserted at compile time), names and capacities of maps, the flow hash, the look-up in the
//! Maglev table, the token bucket, and the reasons why a packet passes or drops. Nothing here allocates, asks
//! the clock or touches a map, so all of it is tested on the host, and the parser that the XDP program runs is
//! the very function that the host's tests feed.

#![no_std]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod bench;
pub mod checksum;
pub mod config;
pub mod connection;
pub mod counter;
pub mod cursor;
pub mod decap;
pub mod event;
pub mod flood;
pub mod flow;
pub mod header;
pub mod icmp;
pub mod maglev;
pub mod malformed;
pub mod maps;
#[cfg(test)]
mod packets;
pub mod parse;
pub mod penalty;
pub mod pktgen;
pub mod prefix;
pub mod prefix_table;
pub mod route;
pub mod syncookie;
pub mod tenant;
pub mod tunnel;
#[cfg(feature = "user")]
mod user;
pub mod verdict;
pub mod vip;
pub mod vip_table;
pub mod worker;

pub use address::Address;
pub use config::Config;
pub use flow::{Flow, HashKey};
pub use verdict::{DropReason, FlowReason, PassReason, Verdict};

/// IANA protocol number of TCP.
pub const TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const UDP: u8 = 17;
/// IANA protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IANA protocol number of ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// IANA protocol number of an IPv4 packet inside of another (RFC 2003).
pub const IPIP: u8 = 4;
/// IANA protocol number of an IPv6 packet inside of another (RFC 2473, RFC 4213).
pub const IPV6: u8 = 41;

/// Asserts the size of a type that crosses the boundary: a change of layout must be a decision, not an accident.
macro_rules! assert_size {
    ($($type:ty = $size:expr),+ $(,)?) => {
        $(const _: () = assert!(core::mem::size_of::<$type>() == $size);)+
    };
}
pub(crate) use assert_size;
