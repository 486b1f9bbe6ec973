//! The fabric's links: client, router, and the segment of balancers and workers.

use anyhow::Result;

use super::segment_address;
use crate::{End, NetNs, veth};

/// MTU between router, balancers and workers: room for a tunnel's headers around a packet of 1500 bytes.
const SEGMENT_MTU: u32 = 1600;
/// MTU between client and router, and of what workers answer with.
const CLIENT_MTU: u32 = 1500;
/// Least, first and most bytes of a TCP buffer of the client, to send or to receive. A veth in native XDP holds 256 frames
/// and loses what comes beyond (`VETH_RING_SIZE`, drivers/net/veth.c), and TCP left to itself grows until that happens:
/// four transfers of full frames fit with these, so that a datagram beside them which is lost was lost by the edge.
const CLIENT_BUFFER: &str = "4096 65536 65536";

/// Joins client and router, and makes the segment in the router.
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
    router.ip(&format!(
        "link add segment mtu {SEGMENT_MTU} type bridge mcast_snooping 0"
    ))?;
    let [v4, v6] = segment_address(1);
    router.ip(&format!("address add {v4}/24 dev segment"))?;
    router.ip(&format!("address add {v6}/64 dev segment nodad"))?;
    router.ip("link set segment up")?;
    router.complete_checksums("segment")
}

/// A new host on the segment, behind the router's port of the same name. Workers have the virtual addresses.
pub(super) fn join(router: &NetNs, name: &str, last: u8) -> Result<NetNs> {
    let host = NetNs::new(name)?;
    let [v4, v6] = segment_address(last);
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
    ] {
        host.sysctl(name, value)?;
    }
    let own = [format!("{v4}/24"), format!("{v6}/64")];
    let end = |netns, interface, addresses| End {
        netns,
        interface,
        addresses,
    };
    veth(end(&host, "eth0", &own), end(router, name, &[]), SEGMENT_MTU)?;
    host.ip(&format!("link set eth0 address {}", mac(last)))?;
    router.ip(&format!("link set {name} master segment"))?;
    router.complete_checksums(name)?;
    let [v4, v6] = segment_address(1);
    host.ip(&format!("route add default via {v4} mtu {CLIENT_MTU}"))?;
    host.ip(&format!("-6 route add default via {v6} mtu {CLIENT_MTU}"))?;
    Ok(host)
}

/// MAC address of a host on the segment.
fn mac(last: u8) -> String {
    format!("02:80:00:00:01:{last:02x}")
}
