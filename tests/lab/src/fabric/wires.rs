//! The fabric's links: client, router, and the segment of balancers and workers.

use anyhow::Result;

use crate::{End, NetNs, veth};

/// MTU between router, balancers and workers: room for a tunnel's headers around a packet of 1500 bytes.
const SEGMENT_MTU: u32 = 1600;
/// MTU between client and router, and of what workers answer with.
const CLIENT_MTU: u32 = 1500;
/// Least, first and most bytes of a TCP buffer of the client, to send or to receive. A veth in native XDP holds 256 frames
/// and loses what comes beyond (`VETH_RING_SIZE`, drivers/net/veth.c), and TCP left to itself grows until that happens:
/// four transfers of full frames fit with these, so that a datagram beside them which is lost was lost by the edge.
const CLIENT_BUFFER: &str = "4096 65536 65536";

/// A network of the fabric, a bridge in the router, which is its first host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Segment {
    /// That of the balancers' first interface, `eth0`.
    #[default]
    Front,
    /// That of their second one, `eth1`, if workers are there.
    Back,
}

impl Segment {
    /// A host's addresses, by their last byte.
    pub(super) fn address(self, last: u8) -> [String; 2] {
        let net = self.number();
        [format!("10.80.{net}.{last}"), format!("fd80:{net}::{last}")]
    }

    const fn number(self) -> u8 {
        1 + self as u8
    }

    const fn bridge(self) -> &'static str {
        match self {
            Self::Front => "segment",
            Self::Back => "back",
        }
    }

    /// Makes it in the router.
    pub(super) fn make(self, router: &NetNs) -> Result<()> {
        let bridge = self.bridge();
        router.ip(&format!(
            "link add {bridge} mtu {SEGMENT_MTU} type bridge mcast_snooping 0"
        ))?;
        let [v4, v6] = self.address(1);
        router.ip(&format!("address add {v4}/24 dev {bridge}"))?;
        router.ip(&format!("address add {v6}/64 dev {bridge} nodad"))?;
        router.ip(&format!("link set {bridge} up"))?;
        router.complete_checksums(bridge)
    }

    /// Plugs an interface of a host into it, by the router's port of the name.
    pub(super) fn plug(
        self,
        router: &NetNs,
        port: &str,
        (host, interface): (&NetNs, &str),
        last: u8,
    ) -> Result<()> {
        let [v4, v6] = self.address(last);
        let own = [format!("{v4}/24"), format!("{v6}/64")];
        let end = |netns, interface, addresses| End {
            netns,
            interface,
            addresses,
        };
        veth(end(host, interface, &own), end(router, port, &[]), SEGMENT_MTU)?;
        let net = self.number();
        host.ip(&format!(
            "link set {interface} address 02:80:00:00:{net:02x}:{last:02x}"
        ))?;
        router.ip(&format!("link set {port} master {}", self.bridge()))?;
        router.complete_checksums(port)
    }
}

/// Joins client and router.
pub(super) fn link_client(client: &NetNs, router: &NetNs) -> Result<()> {
    let addresses = |host: u8| [format!("10.80.0.{host}/24"), format!("fd80::{host}/64")];
    let (ours, theirs) = (addresses(2), addresses(1));
    let end = |netns, interface, addresses| End {
        netns,
        interface,
        addresses,
    };
    veth(
        end(client, "eth0", &ours),
        end(router, "client0", &theirs),
        CLIENT_MTU,
    )?;
    client.complete_checksums("eth0")?;
    for direction in ["net.ipv4.tcp_wmem", "net.ipv4.tcp_rmem"] {
        client.sysctl(direction, CLIENT_BUFFER)?;
    }
    client.ip("route add default via 10.80.0.1")?;
    client.ip("-6 route add default via fd80::1")?;
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        // By ports too, as switches do.
        ("net.ipv4.fib_multipath_hash_policy", "1"),
        ("net.ipv6.fib_multipath_hash_policy", "1"),
    ] {
        router.sysctl(name, value)?;
    }
    Ok(())
}

/// A new host on a segment, behind the router's port of the same name, with answers for the client by way of the router.
pub(super) fn join(router: &NetNs, name: &str, segment: Segment, last: u8) -> Result<NetNs> {
    let host = NetNs::new(name)?;
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
    ] {
        host.sysctl(name, value)?;
    }
    segment.plug(router, name, (&host, "eth0"), last)?;
    let [v4, v6] = segment.address(1);
    host.ip(&format!("route add default via {v4} mtu {CLIENT_MTU}"))?;
    host.ip(&format!("-6 route add default via {v6} mtu {CLIENT_MTU}"))?;
    Ok(host)
}
