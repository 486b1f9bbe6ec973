//! Several interfaces at once. Needs root.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_datapath::{AttachedMode, DataPath, Error, LoadOptions, XdpMode};
use edge_datapath_tests::node::{Pair, inside, listeners, sockets};
use edge_datapath_tests::setup::{LISTENER_PORT, VIP4, config};
use edge_lab::{End, NetNs, veth};

fn load(interfaces: &[&str], mode: XdpMode) -> Result<DataPath, Error> {
    DataPath::load(LoadOptions {
        interfaces: interfaces.iter().map(ToString::to_string).collect(),
        mode,
        manage_local_routes: true,
        pinning: None,
        ..LoadOptions::default()
    })
}

/// A second client, whose link to the node has the interface `node1` there.
fn second_client(pair: &Pair) -> Result<NetNs> {
    let client = NetNs::new("dp-client2")?;
    let (near, far) = (["10.78.0.1/24".to_owned()], ["10.78.0.2/24".to_owned()]);
    veth(
        End {
            netns: &client,
            interface: "client1",
            addresses: &near,
        },
        End {
            netns: &pair.node,
            interface: "node1",
            addresses: &far,
        },
        1500,
    )?;
    client.ip("route add 10.77.100.0/24 via 10.78.0.2")?;
    Ok(client)
}

#[test]
fn clients_behind_every_interface_are_served_and_counted() -> Result<()> {
    let pair = Pair::new()?;
    let other = second_client(&pair)?;
    inside(&pair.node, || {
        let listeners = listeners(2, LISTENER_PORT)?;
        let mut datapath = load(&["node0", "node1"], XdpMode::Auto)?;
        datapath.reconcile(&config(2), &sockets(&listeners, LISTENER_PORT))?;
        for client in [&pair.client, &other] {
            let vip = SocketAddr::new(IpAddr::from(VIP4), 80);
            inside(client, || {
                let connect = || TcpStream::connect_timeout(&vip, Duration::from_secs(3));
                for _ in 0..10 {
                    connect().with_context(|| format!("from {}", client.name()))?;
                }
                Ok(())
            })?;
        }
        let workers = datapath.stats()?.workers;
        let opened: u64 = workers.iter().map(|worker| worker.traffic.new_connections).sum();
        assert_eq!(opened, 20);
        let interfaces = datapath.interfaces();
        let devices: Vec<_> = interfaces
            .iter()
            .flat_map(|interface| &interface.devices)
            .collect();
        assert_eq!(devices, ["node0", "node1"]);
        assert!(
            interfaces
                .iter()
                .all(|interface| interface.mode == AttachedMode::Native)
        );
        Ok(())
    })
}

#[test]
fn if_one_interface_cannot_take_the_program_no_other_keeps_it() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        for (interfaces, mode) in [
            (["node0", "nowhere0"], XdpMode::Auto),
            // A loopback's driver has no XDP.
            (["node0", "lo"], XdpMode::Native),
        ] {
            let error = load(&interfaces, mode).err().context("it cannot be done")?;
            assert!(error.to_string().contains(interfaces[1]), "{error}");
            assert!(!pair.node.ip("link show node0")?.contains("prog/xdp"), "{error}");
        }
        let mixed = load(&["node0", "lo"], XdpMode::Auto)?;
        let modes = mixed.interfaces();
        assert_eq!(modes[0].mode, AttachedMode::Native);
        assert!(matches!(
            modes[1].mode,
            AttachedMode::Generic { because: Some(_) }
        ));
        Ok(())
    })
}
