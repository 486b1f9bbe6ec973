//! What the programs are attached to, and what is left when they are not any more.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use edge_datapath::{AttachedMode, DataPath, Error, LoadOptions, XdpMode};
use edge_datapath_tests::node::{Pair, inside};
use edge_datapath_tests::setup::config;
use edge_lab::wait_until;

use crate::{connect, load, vips};

#[test]
fn an_interface_without_native_xdp_falls_back_and_says_so() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let options = |mode| LoadOptions {
            interfaces: vec!["lo".into()],
            mode,
            manage_local_routes: false,
            pinning: None,
            ..LoadOptions::default()
        };
        let datapath = DataPath::load(options(XdpMode::Auto))?;
        let mode = datapath.interfaces()[0].mode.clone();
        assert!(
            matches!(&mode, AttachedMode::Generic { because: Some(_) }),
            "{mode:?}"
        );
        drop(datapath);
        let native = DataPath::load(options(XdpMode::Native))
            .err()
            .context("lo has no native XDP")?;
        assert!(
            native
                .to_string()
                .starts_with("interface lo: XDP cannot be attached in native mode"),
            "{native}"
        );
        let nowhere = LoadOptions {
            interfaces: vec!["nowhere0".into()],
            ..options(XdpMode::Auto)
        };
        let unknown = DataPath::load(nowhere)
            .err()
            .context("there is no such interface")?;
        assert!(matches!(unknown, Error::UnknownInterface { .. }), "{unknown}");
        let _first = load()?;
        let busy = load().err().context("the interface has a program")?;
        assert!(matches!(busy, Error::InterfaceBusy { .. }), "{busy}");
        Ok(())
    })
}

#[test]
fn detaching_leaves_nothing_behind_and_only_own_routes_are_removed() -> Result<()> {
    let pair = Pair::new()?;
    // The IPv6 VIP is configured on an interface, so its local route is not the data path's.
    pair.node.ip("address add fd77:100::1/128 dev node0 nodad")?;
    let stranger = inside(&pair.node, || Ok(TcpListener::bind("[::]:80")?))?;
    let connects = || inside(&pair.client, || Ok(connect(vips()[1]).is_ok()));
    let program = inside(&pair.node, || {
        let mut datapath = load()?;
        datapath.reconcile(&config(1), &[])?;
        assert!(pair.node.ip("route show table local")?.contains("10.77.100.1"));
        assert!(!connects()?, "a stranger's socket is not for the VIP");
        let program = program_on(&pair, "node0")?.context("the program is attached")?;
        datapath.detach()?;
        Ok(program)
    })?;
    assert!(connects()?, "socket selection is gone");
    drop(stranger);
    assert!(!pair.node.ip("route show table local")?.contains("10.77.100.1"));
    assert!(pair.node.ip("-6 route show table local")?.contains("fd77:100::1"));
    assert_eq!(program_on(&pair, "node0")?, None);
    // The kernel frees programs a little after the last link is gone.
    wait_until("the program is freed", Duration::from_secs(5), || {
        let loaded: Result<Vec<_>, _> = loaded_programs().collect();
        Ok(loaded?.iter().all(|loaded| loaded.id() != program))
    })
}

/// Id of the XDP program on an interface of the node.
fn program_on(pair: &Pair, interface: &str) -> Result<Option<u32>> {
    let link = pair.node.ip(&format!("link show {interface}"))?;
    let mut words = link
        .split_whitespace()
        .skip_while(|word| !word.starts_with("prog/xdp"));
    words.nth(2).map(|id| id.parse().context("an id")).transpose()
}

#[test]
fn what_a_killed_process_left_behind_is_cleaned_up() -> Result<()> {
    let pair = Pair::new()?;
    pair.node.ip("route add local 10.77.100.9/32 dev lo proto 237")?;
    pair.node.ip("route add local 10.77.100.10/32 dev lo")?;
    inside(&pair.node, || {
        let mut datapath = load()?;
        let left = pair.node.ip("route show table local")?;
        assert!(
            left.contains("10.77.100.9"),
            "packets keep coming until there is a configuration"
        );
        datapath.reconcile(&config(1), &[])?;
        let routes = pair.node.ip("route show table local")?;
        assert!(!routes.contains("10.77.100.9/"), "{routes}");
        assert!(!routes.contains("10.77.100.9 "), "{routes}");
        assert!(routes.contains("10.77.100.10"), "{routes}");
        datapath.detach()?;
        Ok(())
    })
}
