//! What VIPs, listeners and workers are known by, to programs and to people.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use edge_common::{Address, tenant};
use edge_model::{ForwardMode, Protocol, Vip};

use super::indexes::Digest;
use crate::pools::MemberName;

/// What of a VIP counts as its identity: the listener's port may change.
pub(super) type VipName = (IpAddr, u8, u16, Protocol);

/// A port that workers listen on, and the address, if it is one alone.
pub(super) type ListenerName = (Option<IpAddr>, u16, Protocol);

/// What the sockets of a VIP listen on.
pub(super) fn listener_of(vip: &Vip) -> ListenerName {
    (vip.listener_address, vip.listener_port, vip.protocol)
}

/// A VIP's identity.
pub(super) fn name(vip: &Vip) -> VipName {
    (vip.address, vip.free_bits, vip.port, vip.protocol)
}

impl Digest for VipName {
    fn digest(&self) -> u64 {
        let (address, free_bits, port, protocol) = self;
        let [high, low] = port.to_be_bytes();
        let words = Address::from(*address).0.map(u32::to_ne_bytes);
        tenant::digest([words.as_flattened(), &[*free_bits, high, low, protocol.number()]])
    }
}

impl Digest for ListenerName {
    fn digest(&self) -> u64 {
        let (address, port, protocol) = self;
        let words = address.map(|address| Address::from(address).0.map(u32::to_ne_bytes));
        let address = words.as_ref().map_or(&[][..], |words| words.as_flattened());
        tenant::digest([address, &port.to_be_bytes(), &[protocol.number()]])
    }
}

/// A VIP by what clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipId {
    /// Virtual address.
    pub address: IpAddr,
    /// Bits at its end that do not count.
    pub free_bits: u8,
    /// Port; 0 stands for all.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// `192.0.2.80:443/tcp`, `[2001:db8::80]:443/tcp`; of a prefix `192.0.2.0/24:443/tcp`.
impl fmt::Display for VipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut address = std::net::SocketAddr::new(self.address, self.port).to_string();
        if self.free_bits > 0 {
            let bits: u8 = if self.address.is_ipv4() { 32 } else { 128 };
            let len = bits.saturating_sub(self.free_bits);
            address = format!("{}/{len}:{}", self.address, self.port);
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{address}/{protocol}")
    }
}

/// A pool's worker by how people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberId {
    /// Name of its pool.
    pub pool: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its address.
    pub address: IpAddr,
    /// How packets get there.
    pub mode: ForwardMode,
}

impl From<MemberName> for MemberId {
    fn from((pool, name, address, mode): MemberName) -> Self {
        Self {
            pool,
            name,
            address,
            mode,
        }
    }
}

/// `web/node-1 (10.0.0.11)`.
impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.pool, self.name, self.address)
    }
}
