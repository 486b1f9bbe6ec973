//! The lab of demo and end-to-end tests: a client and a node, joined by one link.
//!
//! ```text
//!  namespace client                             namespace node
//!  good client  10.77.0.2, fd77::2              edge, attached to `uplink`
//!  abuser       10.77.0.66, fd77::66    veth    10.77.0.1, fd77::1
//!  flood        10.77.0.100 to .131    ------   virtual 10.77.100.1, fd77:100::1 (routed here, on no interface)
//!              `eth0`                 `uplink`  backends 10.77.1.1 to .9 on the loopback
//! ```

use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cleanup;
use crate::netns::{End, NetNs, veth};

/// The lab's addresses.
pub mod address {
    /// The node's own address.
    pub const NODE: &str = "10.77.0.1";
    /// The node's own IPv6 address.
    pub const NODE_V6: &str = "fd77::1";
    /// The client that behaves. It is the source that the kernel chooses, so wrk uses it.
    pub const CLIENT: &str = "10.77.0.2";
    /// The IPv6 address of the client that behaves.
    pub const CLIENT_V6: &str = "fd77::2";
    /// The client that goes on past its rate limit.
    pub const ABUSER: &str = "10.77.0.66";
    /// The IPv6 address of the client that goes on past its rate limit.
    pub const ABUSER_V6: &str = "fd77::66";
    /// The virtual address that the client reaches through the node.
    pub const VIP: &str = "10.77.100.1";
    /// The virtual IPv6 address that the client reaches through the node.
    pub const VIP_V6: &str = "fd77:100::1";
    /// How many addresses [`backend`] has.
    pub const BACKENDS: u8 = 9;

    /// The sources of a flood: 32 addresses of the client's link.
    #[must_use]
    pub fn flooders() -> Vec<String> {
        (100..=131).map(|last| format!("10.77.0.{last}")).collect()
    }

    /// The address of the n-th backend on the node's loopback, from 1 to [`BACKENDS`].
    #[must_use]
    pub fn backend(number: u8) -> String {
        format!("10.77.1.{number}")
    }
}

/// The client's end of the link.
const CLIENT_INTERFACE: &str = "eth0";
/// The node's end of the link: where XDP attaches.
const NODE_INTERFACE: &str = "uplink";
/// Ethernet's.
const MTU: u32 = 1500;

/// A client and a node. Both namespaces, what runs inside and the folder go with the value.
#[derive(Debug)]
pub struct Lab {
    client: NetNs,
    node: NetNs,
    dir: TempDir,
}

impl Lab {
    /// Makes the lab, after removing what killed processes left behind.
    ///
    /// # Errors
    /// If this process is not root, or a program of `cargo xtask setup` is missing.
    pub fn new() -> Result<Self> {
        // Other labs of this process go on.
        cleanup::remove_stale();
        let dir = tempfile::Builder::new()
            .prefix("edge-lab-")
            .tempdir()
            .context("no folder for logs")?;
        let lab = Self {
            client: NetNs::new("client")?,
            node: NetNs::new("node")?,
            dir,
        };
        lab.link()?;
        lab.add_backend_addresses()?;
        lab.route_virtual_addresses()?;
        Ok(lab)
    }

    /// The namespace of all clients, good and bad.
    #[must_use]
    pub fn client(&self) -> &NetNs {
        &self.client
    }

    /// The namespace of edge and its backends.
    #[must_use]
    pub fn node(&self) -> &NetNs {
        &self.node
    }

    /// The client's interface, which a flood leaves by.
    #[must_use]
    pub fn client_interface(&self) -> &'static str {
        CLIENT_INTERFACE
    }

    /// A folder for logs, certificates and configuration that goes with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves the lab up until Ctrl-C or SIGTERM, which takes it down and ends this process.
    ///
    /// The lab lives only as long as this process: what an ended one leaves, the next lab removes.
    pub fn hold(&self) -> ! {
        cleanup::on_signals();
        loop {
            std::thread::park();
        }
    }

    fn link(&self) -> Result<()> {
        let v4 = |address: &str| format!("{address}/24");
        let v6 = |address: &str| format!("{address}/64");
        // The first address of a subnet is the one that the kernel chooses as a source.
        let mut clients = vec![v4(address::CLIENT), v4(address::ABUSER)];
        clients.extend(address::flooders().iter().map(|flooder| v4(flooder)));
        // Of IPv6 addresses that are equal otherwise it chooses the latest.
        clients.extend([v6(address::ABUSER_V6), v6(address::CLIENT_V6)]);
        let node = [v4(address::NODE), v6(address::NODE_V6)];
        veth(
            End {
                netns: &self.client,
                interface: CLIENT_INTERFACE,
                addresses: &clients,
            },
            End {
                netns: &self.node,
                interface: NODE_INTERFACE,
                addresses: &node,
            },
            MTU,
        )?;
        self.client.complete_checksums(CLIENT_INTERFACE)
    }

    fn add_backend_addresses(&self) -> Result<()> {
        for number in 1..=address::BACKENDS {
            self.node
                .ip(&format!("address add {}/32 dev lo", address::backend(number)))?;
        }
        Ok(())
    }

    fn route_virtual_addresses(&self) -> Result<()> {
        self.client
            .ip(&format!("route add {}/32 via {}", address::VIP, address::NODE))?;
        self.client.ip(&format!(
            "-6 route add {}/128 via {}",
            address::VIP_V6,
            address::NODE_V6
        ))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cleanup::NETNS_DIR;

    #[test]
    fn a_lab_leaves_nothing_behind() {
        let lab = Lab::new().expect("the lab comes up");
        let dir = lab.dir().to_owned();
        let names = [lab.client().name().to_owned(), lab.node().name().to_owned()];
        drop(lab);
        assert!(!dir.exists());
        for name in names {
            assert!(
                !Path::new(NETNS_DIR).join(&name).exists(),
                "{name} is still there"
            );
        }
    }

    #[test]
    fn the_kernel_chooses_the_good_client_as_source_for_the_virtual_addresses() {
        let lab = Lab::new().expect("the lab comes up");
        for (target, source) in [
            (address::VIP, address::CLIENT),
            (address::VIP_V6, address::CLIENT_V6),
        ] {
            let route = lab
                .client()
                .ip(&format!("route get {target}"))
                .expect("there is a route");
            assert!(route.contains(&format!("src {source} ")), "{route}");
        }
    }

    #[test]
    fn two_labs_of_one_process_do_not_collide() {
        let (one, two) = (
            Lab::new().expect("one comes up"),
            Lab::new().expect("two comes up"),
        );
        drop(one);
        assert!(two.node().exec(&["ip", "link", "show", NODE_INTERFACE]).is_ok());
    }

    #[test]
    fn a_namespace_goes_when_its_owner_panics() {
        let name = std::panic::catch_unwind(|| {
            let netns = NetNs::new("panic").expect("the namespace comes up");
            std::panic::panic_any(netns.name().to_owned());
        });
        let name = name
            .expect_err("it panicked")
            .downcast::<String>()
            .expect("it said its name");
        assert!(!Path::new(NETNS_DIR).join(*name).exists());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_others_made_is_not() {
        // No process has the highest id there can be (PID_MAX_LIMIT is 2^22 on 64-bit machines).
        let dead = "edge-4194304-0-dead".to_owned();
        let foreign = format!("edge-other-{}", std::process::id());
        for name in [&dead, &foreign] {
            crate::programs::ip(&format!("netns add {name}")).expect("root may make namespaces");
        }
        cleanup::remove_stale();
        let left = [&dead, &foreign].map(|name| Path::new(NETNS_DIR).join(name).exists());
        crate::programs::ip(&format!("netns del {foreign}")).expect("it can be removed");
        assert_eq!(left, [false, true]);
    }
}
