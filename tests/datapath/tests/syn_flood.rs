//! A flood of SYNs from addresses that do not exist, and the clients that there are meanwhile. Needs root.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use edge_common::verdict::ReplyReason;
use edge_datapath::{DataPath, LoadOptions, XdpMode};
use edge_datapath_tests::node::{Pair, inside, listeners, sockets};
use edge_datapath_tests::setup::{LISTENER_PORT, VIP4, config};
use edge_lab::{End, NetNs, Process, bin, veth};
use edge_model::{DataPathConfig, SynCookies, TokenRate};
use serde_json::Value;

/// SYNs a second that are wanted, unless `EDGE_FLOOD_PPS` says another number: ten times what hping3 sends. A machine that has
/// other things to do reaches less, and says how much.
const PPS: u32 = 1_000_000;
/// Priority of the flood: it comes before what else the machine does, as one from elsewhere would, before the clients, too.
const NICENESS: &str = "-15";
/// How long the flood lasts at least.
const LEAST: Duration = Duration::from_secs(3);
/// How long it lasts at most, in seconds, on a machine on which little gets done meanwhile.
const MOST: &str = "300";
/// Connections that are opened while it lasts.
const OPENED: usize = 1000;
/// Clients that open them, one after the other each. One whose SYN found the interface's ring full waits for a second.
const CLIENTS: usize = 16;
/// Time that a client waits for an answer: several times what TCP takes to send something again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that are open all the time.
const KEPT: usize = 8;

/// Links an attacker to the node, beside the client.
fn attacker(pair: &Pair) -> Result<NetNs> {
    let attacker = NetNs::new("dp-attacker")?;
    veth(
        End {
            netns: &attacker,
            interface: "attack0",
            addresses: &["10.78.0.1/24".to_owned()],
        },
        End {
            netns: &pair.node,
            interface: "node1",
            addresses: &["10.78.0.2/24".to_owned()],
        },
        1500,
    )?;
    attacker.ip("route add 10.77.100.0/24 via 10.78.0.2")?;
    Ok(attacker)
}

/// Sends back what comes, on threads that end with the test.
fn serve(listeners: &[TcpListener]) -> Result<()> {
    for listener in listeners {
        let listener = listener.try_clone()?;
        listener.set_nonblocking(false)?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
    }
    Ok(())
}

fn connect() -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((VIP4, 80)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends something there and back.
fn echo(mut stream: &TcpStream) -> Result<()> {
    let mut answer = [0; 4];
    stream.write_all(b"ping")?;
    stream.read_exact(&mut answer)?;
    ensure!(answer == *b"ping", "{answer:?}");
    Ok(())
}

/// What became of the clients.
#[derive(Debug, Default)]
struct Served {
    opened: usize,
    refused: Vec<String>,
    broken: Vec<String>,
}

/// Uses the connections that there are, and opens others, until there were enough of them. The flood goes on all the time;
/// what fails ends it.
fn clients(kept: &[TcpStream], flood: &mut Process) -> Result<Served> {
    let start = Instant::now();
    let (opened, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let goes_on = || {
        let is_enough = opened.load(Ordering::Relaxed) >= OPENED && start.elapsed() >= LEAST;
        !is_enough && !failed.load(Ordering::Relaxed)
    };
    let open = || {
        while goes_on() {
            if let Err(error) = connect().and_then(|stream| echo(&stream)) {
                failed.store(true, Ordering::Relaxed);
                return Some(format!("{error:#}"));
            }
            opened.fetch_add(1, Ordering::Relaxed);
        }
        None
    };
    let mut served = Served::default();
    thread::scope(|scope| {
        let openers: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(open)).collect();
        while goes_on() {
            let errors = kept.iter().filter_map(|stream| echo(stream).err());
            served.broken.extend(errors.map(|error| format!("{error:#}")));
            if !served.broken.is_empty() || !matches!(flood.is_running(), Ok(true)) {
                failed.store(true, Ordering::Relaxed);
            }
        }
        let ended = openers.into_iter().map(|opener| opener.join());
        served.refused = ended.filter_map(|ended| ended.expect("it ends")).collect();
    });
    served.opened = opened.into_inner();
    Ok(served)
}

#[test]
fn clients_keep_and_open_connections_through_a_flood_of_spoofed_syns() -> Result<()> {
    let pair = Pair::new()?;
    let attacker = attacker(&pair)?;
    let _program = pair.client_program()?;
    let listeners = inside(&pair.node, || listeners(2, LISTENER_PORT))?;
    let datapath = inside(&pair.node, || {
        let mut datapath = DataPath::load(LoadOptions {
            interfaces: vec!["node0".into(), "node1".into()],
            mode: XdpMode::Native,
            manage_local_routes: true,
            ..LoadOptions::default()
        })?;
        let auto = SynCookies::Above(TokenRate {
            per_second: 1000,
            burst: 1000,
        });
        let config = DataPathConfig {
            syn_cookies: Some(auto),
            ..config(2)
        };
        datapath.reconcile(&config, &sockets(&listeners, LISTENER_PORT))?;
        Ok(datapath)
    })?;
    serve(&listeners)?;
    let kept = inside(&pair.client, || {
        (0..KEPT).map(|_| connect()).collect::<Result<Vec<_>>>()
    })?;
    kept.iter().try_for_each(echo)?;
    let before = datapath.stats()?;
    assert_eq!(
        before.replied_with(ReplyReason::SynCookie),
        0,
        "what few clients do brings no cookies"
    );

    let pps = std::env::var("EDGE_FLOOD_PPS").unwrap_or_else(|_| PPS.to_string());
    let mut command = attacker.command("nice");
    command.args(["-n", NICENESS]).arg(bin("edge-pktgen")?);
    command.args(["--interface", "attack0", "--kind", "syn", "--json", "--pps", &pps]);
    command.args([
        "--src-base",
        "198.18.0.1",
        "--src-count",
        "65000",
        "--seconds",
        MOST,
    ]);
    command.args(["--dst", "10.77.100.1", "--dst-port", "80"]);
    let folder = tempfile::tempdir()?;
    let mut flood = Process::spawn("flood", &mut command, folder.path())?;
    let served = inside(&pair.client, || clients(&kept, &mut flood))?;
    ensure!(flood.terminate(PATIENCE)?.success(), "{}", flood.tail());
    let log = flood.log()?;
    let report: Value = serde_json::from_str(log.lines().last().context("a report")?)?;
    let sent = report["sent"].as_u64().context("a number")?;
    let after = datapath.stats()?;
    let answered = after.replied_with(ReplyReason::SynCookie);
    let rate = report["pps"].as_u64().context("a number")?;
    println!(
        "{pps} a second wanted, {rate} reached; {sent} sent, {answered} answered with cookies; {served:?}"
    );

    assert!(served.opened >= OPENED, "{served:?}");
    assert_eq!((&served.refused[..], &served.broken[..]), (&[][..], &[][..]));
    // Until the rate of unanswered ones was passed, and one a second after, the kernel answered; and the ring of the
    // interface may be full. Clients' own are not the flood's.
    let answered = answered.saturating_sub(served.opened as u64);
    assert!(sent > 10_000 && answered * 10 > sent * 9, "{answered} of {sent}");
    inside(&pair.node, || Ok(datapath.detach()?))
}
