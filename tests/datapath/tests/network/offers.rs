//! What SYN-ACKs of XDP offer, beside those that the kernel sends with cookies of its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_common::verdict::ReplyReason;
use edge_datapath::{AttachedMode, DataPath, LoadOptions, XdpMode};
use edge_datapath_tests::frame::{Packet, TCP4, TCP6, completed};
use edge_datapath_tests::node::{Pair, inside, listeners, sockets, syn_ack};
use edge_datapath_tests::setup::{LISTENER_PORT, config};
use edge_lab::wait_until;
use edge_model::{DataPathConfig, SynCookies};
use socket2::Socket;

use crate::cookies::tcp_counter;
use crate::{WORKERS, vips};

const LIMIT: Duration = Duration::from_secs(10);

/// Where the client is, behind its interface's own addresses.
const CLIENTS: [&str; 2] = ["198.51.100.1", "2001:db8:77::1"];
/// Addresses of the node at which no XDP answers.
const OWN: [&str; 2] = ["10.77.0.2", "fd77::2"];

/// Something that is changed on the node while its data path runs.
struct Change {
    /// Words for ip(8).
    words: Vec<String>,
    /// Largest segment that is offered after it, over IPv4 and IPv6.
    offers: [u16; 2],
    /// Whether the kernel offers no more than that to the client.
    is_exact: bool,
}

/// What is changed, one after the other, with this for an MTU that is larger than usual.
fn changes(mtu: u16) -> Vec<Change> {
    let to_clients = |metric: [&str; 2]| {
        let [v4, v6] = metric;
        vec![
            format!("-4 route replace 198.51.100.0/24 via 10.77.0.1 {v4}"),
            format!("-6 route replace 2001:db8:77::/64 via fd77::1 {v6}"),
        ]
    };
    let change = |words, offers| Change {
        words,
        offers,
        is_exact: true,
    };
    let large = [mtu - 40, mtu - 60];
    vec![
        change(vec![], [1460, 1440]),
        change(vec![format!("link set node0 mtu {mtu}")], large),
        change(to_clients(["advmss 1200", "advmss 1230"]), [1200, 1230]),
        change(to_clients(["mtu 1400", "mtu 1400"]), [1360, 1340]),
        change(to_clients(["", ""]), large),
        // Answers do not depend on the interface that the SYN came by.
        Change {
            is_exact: false,
            ..change(vec!["link set other0 mtu 1300".into()], [1260, 1240])
        },
        change(vec![format!("link set other0 mtu {mtu}")], large),
        change(vec!["link set node0 mtu 1500".into()], [1460, 1440]),
    ]
}

/// A node that answers every SYN to its virtual addresses in XDP, and those to its own in the kernel.
struct Node<'p> {
    pair: &'p Pair,
    datapath: DataPath,
    /// What the client gets, of both families.
    clients: [Socket; 2],
    /// Source port of the last SYN.
    port: u16,
}

impl Node<'_> {
    /// What is answered to a SYN of the family from a client, and whether by XDP.
    fn answer(&mut self, to: SocketAddr, with_options: bool) -> Result<(Vec<u8>, bool)> {
        self.port += 1;
        let (of, at, source, client) = match to {
            SocketAddr::V4(_) => (TCP4, 34, CLIENTS[0], &mut self.clients[0]),
            SocketAddr::V6(_) => (TCP6, 54, CLIENTS[1], &mut self.clients[1]),
        };
        let packet = Packet {
            source: source.parse()?,
            destination: to.ip(),
            source_port: self.port,
            destination_port: to.port(),
            ..of
        };
        let syn = completed(if with_options {
            packet.linux_syn()
        } else {
            packet.frame()
        });
        let replied = |datapath: &DataPath| -> Result<u64> {
            Ok(datapath.stats()?.replied_with(ReplyReason::SynCookie))
        };
        let before = replied(&self.datapath)?;
        client.send_to(&syn[at..], &SocketAddr::new(to.ip(), 0).into())?;
        let answer =
            syn_ack(client, self.port).with_context(|| format!("{packet:?}, options: {with_options}"))?;
        Ok((answer, replied(&self.datapath)? > before))
    }

    /// What XDP answers to a SYN, and what the kernel does with a cookie of its own.
    fn answers(&mut self, vip: SocketAddr, own: SocketAddr, with_options: bool) -> Result<[Vec<u8>; 2]> {
        let sent = tcp_counter("SyncookiesSent")?;
        let (by_kernel, is_by_xdp) = self.answer(own, with_options)?;
        ensure!(
            !is_by_xdp && tcp_counter("SyncookiesSent")? == sent + 1,
            "the kernel's own cookie"
        );
        // One a second is left to the kernel.
        for _ in 0..9 {
            let (by_xdp, is_by_xdp) = self.answer(vip, with_options)?;
            if is_by_xdp {
                return Ok([by_xdp, by_kernel]);
            }
        }
        anyhow::bail!("XDP answers nothing")
    }

    /// Holds XDP's answers of both families to the kernel's and to what is expected.
    fn check(&mut self, offers: [u16; 2], is_exact: bool) -> Result<()> {
        for ((vip, own), expected) in vips().into_iter().zip(OWN).zip(offers) {
            let own = SocketAddr::new(own.parse()?, LISTENER_PORT);
            for with_options in [true, false] {
                let [by_xdp, by_kernel] = self.answers(vip, own, with_options)?;
                let name = format!("{vip}, options: {with_options}");
                assert_eq!(mss(&by_xdp), expected, "{name}");
                if is_exact {
                    assert_eq!(offered(by_xdp), offered(by_kernel), "{name}");
                } else {
                    assert!(mss(&by_xdp) < mss(&by_kernel), "{name}");
                }
            }
        }
        Ok(())
    }

    /// Gives IPv6 another MTU than the interface has, of which the kernel tells nobody.
    fn change_mtu_of_ipv6(&mut self) -> Result<()> {
        std::fs::write("/proc/sys/net/ipv6/conf/node0/mtu", "1400")?;
        let ([_, vip], own) = (vips(), SocketAddr::new(OWN[1].parse()?, LISTENER_PORT));
        wait_until("the MTU is seen", LIMIT, || {
            self.datapath.keep_routes()?;
            Ok(mss(&self.answers(vip, own, true)?[0]) == 1340)
        })?;
        self.check([1460, 1340], true)
    }

    fn change(&mut self, change: &Change) -> Result<()> {
        for words in &change.words {
            self.pair.node.ip(words)?;
        }
        // All that the kernel has told is looked at.
        self.datapath.keep_routes()?;
        self.check(change.offers, change.is_exact)
            .with_context(|| format!("{:?}", change.words))
    }
}

/// Largest segment that a SYN-ACK offers.
fn mss(segment: &[u8]) -> u16 {
    u16::from_be_bytes([segment[22], segment[23]])
}

/// What two answers have in common that offer the same: lengths, flags, window, options, but neither numbers nor the time. The
/// lowest six bits of the time stamp hold options.
fn offered(mut segment: Vec<u8>) -> [Vec<u8>; 2] {
    if let Some([.., last]) = segment.get_mut(28..32) {
        *last &= 0x3f;
        segment[28..31].fill(0);
    }
    [segment[12..16].to_vec(), segment[20..].to_vec()]
}

#[test]
fn answers_of_xdp_offer_what_the_kernels_own_do_whatever_becomes_of_interfaces_and_routes() -> Result<()> {
    // A driver of veth takes a program only for frames that fit into a page.
    for (mode, mtu) in [(XdpMode::Native, 3000), (XdpMode::Generic, 9000)] {
        let pair = Pair::new()?;
        // Which goes for the client's, too, and frames that a driver sends back arrive only if that has one.
        let _program = (mode == XdpMode::Native)
            .then(|| pair.client_program())
            .transpose()?;
        for client in CLIENTS {
            pair.client.ip(&format!("address add {client} dev lo nodad"))?;
        }
        pair.node
            .ip(&format!("link add other0 mtu {mtu} type veth peer name other1"))?;
        pair.node.ip("link set other0 up")?;
        pair.node.ip("-4 route add 198.51.100.0/24 via 10.77.0.1")?;
        pair.node.ip("-6 route add 2001:db8:77::/64 via fd77::1")?;
        inside(&pair.node, || {
            std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "2")?;
            let listeners = listeners(WORKERS, LISTENER_PORT)?;
            let mut datapath = DataPath::load(LoadOptions {
                interfaces: vec!["node0".into(), "other0".into()],
                mode,
                manage_local_routes: true,
                ..LoadOptions::default()
            })?;
            let attached = &datapath.interfaces()[0].mode;
            ensure!(
                matches!(attached, AttachedMode::Native) == (mode == XdpMode::Native),
                "{attached:?}"
            );
            let always = DataPathConfig {
                syn_cookies: Some(SynCookies::Always),
                ..config(WORKERS)
            };
            datapath.reconcile(&always, &sockets(&listeners, LISTENER_PORT))?;
            let [v4, v6] = CLIENTS.map(|client| client.parse::<IpAddr>());
            let mut node = Node {
                pair: &pair,
                datapath,
                clients: [pair.segments_to(v4?)?, pair.segments_to(v6?)?],
                port: 5000,
            };
            for change in &changes(mtu) {
                node.change(change).with_context(|| format!("{mode:?}"))?;
            }
            node.change_mtu_of_ipv6().with_context(|| format!("{mode:?}"))?;
            node.datapath.detach()?;
            Ok(())
        })?;
    }
    Ok(())
}
