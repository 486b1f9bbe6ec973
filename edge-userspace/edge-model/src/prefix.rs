//! Address prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses that share their first bits (CIDR, RFC 4632); a single address is the longest prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// Why a text is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no address or prefix such as 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32")]
pub struct NotAPrefix;

impl Prefix {
    /// The prefix of `len` bits around an address; bits after it are dropped. `None` if the family has fewer bits. An
    /// IPv4 address in its IPv6 form is taken for the IPv4 address.
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if len > bits {
            return None;
        }
        let mask = u128::MAX.checked_shl(u32::from(128 - len)).unwrap_or(0);
        let address = match address {
            IpAddr::V4(v4) => IpAddr::from((v4.to_bits() & (mask >> 96) as u32).to_be_bytes()),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => return Self::new(v4.into(), len.checked_sub(96)?),
                None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask)),
            },
        };
        Some(Self { address, len })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.len) == Some(*self)
    }

    /// First address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that the addresses share.
    #[must_use]
    pub const fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether it is a single address.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        self.len == if self.address.is_ipv4() { 32 } else { 128 }
    }
}

/// The prefix that holds one address.
impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let len = if address.is_ipv4() { 32 } else { 128 };
        Self { address, len }
    }
}

/// `192.0.2.0/24`, or an address alone.
impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let Some((address, len)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| NotAPrefix);
        };
        let (address, len) = (address.parse().ok(), len.parse().ok());
        address
            .zip(len)
            .and_then(|(address, len)| Self::new(address, len))
            .ok_or(NotAPrefix)
    }
}

/// As it is written: a single address without its length.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_and_written_in_its_shortest_form() {
        let rows = [
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("192.0.2.77/24", Some("192.0.2.0/24")),
            ("192.0.2.77", Some("192.0.2.77")),
            ("192.0.2.77/32", Some("192.0.2.77")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("::/0", Some("::/0")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("::ffff:192.0.2.7/120", Some("192.0.2.0/24")),
            ("192.0.2.0/33", None),
            ("2001:db8::/129", None),
            ("192.0.2.0/", None),
            ("192.0.2/24", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let prefix = text.parse::<Prefix>().ok().map(|prefix| prefix.to_string());
            assert_eq!(prefix.as_deref(), expected, "{text}");
        }
    }
}
