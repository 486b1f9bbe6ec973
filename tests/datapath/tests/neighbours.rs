//! A worker that nobody has told the MAC address of, on real links. Needs root.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use edge_common::DropReason;
use edge_datapath::{DataPath, LoadOptions, OnStop, Pinning, XdpMode};
use edge_datapath_tests::node::{Pair, inside};
use edge_datapath_tests::setup::{VIP4, VIP6, member};
use edge_lab::{BpfFs, End, NetNs, veth};
use edge_model::{DataPathConfig, ForwardMode, Pool, Protocol, Vip};

/// Port of the worker's server.
const PORT: u16 = 53;
/// Ample for a datagram on a virtual link.
const LIMIT: Duration = Duration::from_secs(20);
/// How often the neighbour tables are emptied.
const FLUSHES: u32 = 20;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

/// Links a worker with the virtual addresses to the node, which forwards its answers.
fn worker(pair: &Pair) -> Result<NetNs> {
    let worker = NetNs::new("dp-worker")?;
    let end = |netns, interface, addresses| End {
        netns,
        interface,
        addresses,
    };
    let theirs = ["10.78.0.1/24".to_owned(), "fd78::1/64".to_owned()];
    let ours = ["10.78.0.2/24".to_owned(), "fd78::2/64".to_owned()];
    veth(
        end(&worker, "worker0", &theirs),
        end(&pair.node, "node1", &ours),
        1500,
    )?;
    worker.ip("route add default via 10.78.0.2")?;
    worker.ip("-6 route add default via fd78::2")?;
    for vip in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
        worker.ip(&format!("address add {vip} dev lo"))?;
    }
    // A veth takes frames that XDP redirects to it where there is GRO.
    worker.exec(&["ethtool", "-K", "worker0", "gro", "on"])?;
    worker.complete_checksums("worker0")?;
    pair.client.complete_checksums("client0")?;
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.node0.rp_filter", "0"),
        ("net.ipv4.conf.node1.rp_filter", "0"),
    ] {
        pair.node.sysctl(name, value)?;
    }
    Ok(worker)
}

fn config() -> DataPathConfig {
    let pool = |name: &str, address| Pool {
        name: name.into(),
        members: vec![member("worker", ip(address), ForwardMode::L2)],
    };
    let vip = |address: IpAddr, pool| Vip {
        pool: Some(pool),
        ..Vip::local(address, PORT, Protocol::Udp, PORT)
    };
    DataPathConfig {
        vips: vec![vip(VIP4.into(), 0), vip(VIP6.into(), 1)],
        pools: vec![pool("v4", "10.78.0.1"), pool("v6", "fd78::1")],
        hash_seed: 1,
        ..DataPathConfig::default()
    }
}

/// Sends numbered datagrams, each when the one before was answered, until it is told to stop. None is sent twice.
fn ask(vip: IpAddr, is_over: &AtomicBool) -> Result<u32> {
    let any = if vip.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind((ip(any), 0))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(SocketAddr::new(vip, PORT))?;
    let mut number = 0_u32;
    while !is_over.load(Ordering::Relaxed) {
        socket.send(&number.to_be_bytes())?;
        let mut answer = [0; 4];
        socket
            .recv(&mut answer)
            .with_context(|| format!("{vip}: datagram {number} is lost"))?;
        ensure!(
            answer == number.to_be_bytes(),
            "{vip}: datagram {number}: {answer:?}"
        );
        number += 1;
    }
    Ok(number)
}

fn managed(pair: &Pair) -> Result<usize> {
    let count = |family: &str| -> Result<usize> {
        let shown = pair
            .node
            .ip(&format!("-details {family} neighbour show dev node1"))?;
        Ok(shown.matches(" managed").count())
    };
    Ok(count("-4")? + count("-6")?)
}

/// Waits for so many neighbours to be in the kernel's care.
fn expect_managed(pair: &Pair, expected: usize) -> Result<()> {
    let start = Instant::now();
    while managed(pair)? != expected && start.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(10));
    }
    ensure!(managed(pair)? == expected, "{} are managed", managed(pair)?);
    Ok(())
}

/// A loaded data path on the client's side of the node, in the calling thread's namespace.
fn load(pinning: Option<Pinning>) -> Result<DataPath> {
    let mut datapath = DataPath::load(LoadOptions {
        interfaces: vec!["node0".into()],
        mode: XdpMode::Native,
        pinning,
        ..LoadOptions::default()
    })?;
    datapath.reconcile(&config(), &[])?;
    Ok(datapath)
}

#[test]
fn a_neighbour_is_found_at_once_and_an_emptied_table_loses_no_packet() -> Result<()> {
    let pair = Pair::new()?;
    let worker = worker(&pair)?;
    let vips = [IpAddr::from(VIP4), IpAddr::from(VIP6)];
    for vip in vips {
        let socket = inside(&worker, || Ok(UdpSocket::bind((vip, PORT))?))?;
        // It ends with the test.
        thread::spawn(move || {
            let mut bytes = [0; 64];
            while let Ok((len, from)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(&bytes[..len], from);
            }
        });
    }
    let is_over = AtomicBool::new(false);
    let flushed = AtomicU32::new(0);
    let (asked, datapath) = thread::scope(|scope| -> Result<_> {
        let (ready, wait) = std::sync::mpsc::channel();
        let (is_over, flushed, pair) = (&is_over, &flushed, &pair);
        let node = scope.spawn(move || {
            inside(&pair.node, move || {
                let mut datapath = load(None)?;
                ready.send(())?;
                while !is_over.load(Ordering::Relaxed) {
                    datapath.keep_routes()?;
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(datapath)
            })
        });
        wait.recv_timeout(LIMIT * 6)
            .context("the data path is not loaded")?;
        let asking = vips.map(|vip| scope.spawn(move || inside(&pair.client, || ask(vip, is_over))));
        while flushed.load(Ordering::Relaxed) < FLUSHES && !asking.iter().any(|asking| asking.is_finished()) {
            for family in ["-4", "-6"] {
                pair.node.ip(&format!("{family} neighbour flush dev node1"))?;
            }
            flushed.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(50));
        }
        // Both are asked for once more.
        expect_managed(pair, 2)?;
        // Who enters an address by hand takes it from the kernel's care; it is given back.
        let shown = pair.node.ip("-4 neighbour show dev node1")?;
        let known = shown.lines().find_map(|line| line.split_once(" lladdr "));
        let (address, rest) = known.context("a neighbour is known")?;
        let mac = rest.split(' ').next().unwrap_or_default();
        pair.node.ip(&format!(
            "neighbour replace {address} lladdr {mac} dev node1 nud reachable"
        ))?;
        expect_managed(pair, 2)?;
        is_over.store(true, Ordering::Relaxed);
        let asked = asking.map(|asking| asking.join().expect("it does not panic"));
        let datapath = node.join().expect("it does not panic")?;
        Ok((asked, datapath))
    })?;
    for answered in asked {
        assert!(answered? > 0);
    }
    assert_eq!(datapath.stats()?.dropped_for(DropReason::NoRoute), 0);
    inside(&pair.node, || Ok(datapath.detach()?))?;
    assert_eq!(managed(&pair)?, 0, "the kernel has them to itself again");
    Ok(())
}

#[test]
fn what_stays_attached_keeps_its_neighbours() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    let _worker = worker(&pair)?;
    let load = |on_stop| {
        load(Some(Pinning {
            path: fs.path().to_owned(),
            on_stop,
        }))
    };
    inside(&pair.node, || {
        let first = load(OnStop::Keep)?;
        expect_managed(&pair, 2)?;
        first.detach()?;
        expect_managed(&pair, 2).context("the programs stay attached")?;
        let second = load(OnStop::Detach)?;
        let third = load(OnStop::Detach)?;
        second.detach()?;
        expect_managed(&pair, 2).context("the third has taken over")?;
        third.detach()?;
        expect_managed(&pair, 0)
    })
}
