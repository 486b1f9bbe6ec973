//! Connections that are opened by SYN cookies.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_datapath_tests::node::{Pair, inside, listeners, sockets};
use edge_datapath_tests::setup::{LISTENER_PORT, config};
use edge_lab::wait_until;
use edge_model::{DataPathConfig, SynCookies};

use crate::{WORKERS, connect, load, vips};

/// A counter of the namespace's TCP (`TcpExt` in /proc/net/netstat).
pub(crate) fn tcp_counter(name: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let pair = names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(of, _)| *of == name);
    pair.context(name.to_owned())?.1.parse().context("a number")
}

#[test]
fn connections_by_cookie_carry_data_both_ways_and_keep_their_options() -> Result<()> {
    let pair = Pair::new()?;
    let _program = pair.client_program()?;
    inside(&pair.node, || {
        std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "2")?;
        let listeners = listeners(WORKERS, LISTENER_PORT)?;
        let mut datapath = load()?;
        let always = DataPathConfig {
            syn_cookies: Some(SynCookies::Always),
            ..config(WORKERS)
        };
        datapath.reconcile(&always, &sockets(&listeners, LISTENER_PORT))?;
        let before = tcp_counter("SyncookiesRecv")?;
        for vip in vips() {
            for _ in 0..20 {
                echo(&pair, &listeners, vip).with_context(|| vip.to_string())?;
            }
        }
        let answered: u64 = datapath.stats()?.replied.iter().map(|(_, count)| count).sum();
        // One SYN a second is the kernel's to answer.
        assert!(answered >= 20, "{answered}");
        assert_eq!(
            tcp_counter("SyncookiesRecv")? - before,
            40,
            "every connection came by a cookie"
        );
        assert_eq!(tcp_counter("SyncookiesFailed")?, 0);
        datapath.detach()?;
        Ok(())
    })
}

/// Connects, and sends 100 kB there and back.
fn echo(pair: &Pair, listeners: &[TcpListener], vip: SocketAddr) -> Result<()> {
    const LEN: usize = 100_000;
    let client = inside(&pair.client, || Ok(connect(vip)?))?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let accepted = std::cell::RefCell::new(None);
    wait_until("the connection is accepted", Duration::from_secs(5), || {
        *accepted.borrow_mut() = listeners.iter().find_map(|listener| listener.accept().ok());
        Ok(accepted.borrow().is_some())
    })?;
    let (server, _) = accepted.into_inner().context("accepted")?;
    server.set_nonblocking(false)?;
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> Result<()> {
            let mut bytes = vec![0; LEN];
            (&server).read_exact(&mut bytes)?;
            (&server).write_all(&bytes)?;
            Ok(())
        });
        (&client).write_all(&vec![7; LEN])?;
        let mut bytes = vec![0; LEN];
        (&client).read_exact(&mut bytes)?;
        ensure!(bytes.iter().all(|&byte| byte == 7), "other bytes came back");
        echo.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    })
}
