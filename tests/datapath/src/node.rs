//! A client and a node in namespaces, with code of this process at work inside.

use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_common::decap::GUE_PORT;
use edge_datapath::{DataPath, LoadOptions, WorkerSocket};
use edge_lab::{End, NetNs, veth};
use edge_model::{Protocol, TunnelRole, Tunnels, WorkerId};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};
use socket2::{Domain, Socket, Type};

/// How long an answer may take on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Client and node, joined by a veth pair, with routes to the virtual addresses over the node.
#[derive(Debug)]
pub struct Pair {
    /// Where connections come from; its interface is `client0`.
    pub client: NetNs,
    /// Where the data path runs; its interface is `node0`.
    pub node: NetNs,
}

impl Pair {
    /// Makes both.
    ///
    /// # Errors
    /// This process is not root, or ip(8) refuses.
    pub fn new() -> Result<Self> {
        let pair = Self {
            client: NetNs::new("dp-client")?,
            node: NetNs::new("dp-node")?,
        };
        let addresses = |host: u8| [format!("10.77.0.{host}/24"), format!("fd77::{host}/64")];
        let (client, node) = (addresses(1), addresses(2));
        veth(
            End {
                netns: &pair.client,
                interface: "client0",
                addresses: &client,
            },
            End {
                netns: &pair.node,
                interface: "node0",
                addresses: &node,
            },
            1500,
        )?;
        pair.client.ip("route add 10.77.100.0/24 via 10.77.0.2")?;
        pair.client.ip("route add fd77:100::/64 via fd77::2")?;
        Ok(pair)
    }

    /// Index of the node's interface.
    ///
    /// # Errors
    /// ip(8) refuses, or says something else.
    pub fn index(&self) -> Result<u32> {
        let shown = self.shown()?;
        let (index, _) = shown.split_once(':').context("an index")?;
        Ok(index.trim().parse()?)
    }

    /// MAC address of the node's interface.
    ///
    /// # Errors
    /// As [`Pair::index`].
    pub fn mac(&self) -> Result<[u8; 6]> {
        let shown = self.shown()?;
        let (_, mac) = shown.split_once("link/ether ").context("a MAC address")?;
        let mac = mac.split(' ').next().unwrap_or_default();
        let octets = mac.split(':').map(|octet| u8::from_str_radix(octet, 16));
        let octets = octets.collect::<Result<Vec<_>, _>>()?;
        octets.try_into().ok().context("six octets")
    }

    /// Gives the client's interface a program, for as long as the result lives: frames that XDP sends back arrive at a veth's
    /// peer only if that has one, too.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn client_program(&self) -> Result<DataPath> {
        let options = LoadOptions {
            interfaces: vec!["client0".into()],
            ..LoadOptions::default()
        };
        inside(&self.client, || Ok(DataPath::load(options)?))
    }

    /// A socket that gets all TCP segments to an address of the client.
    ///
    /// # Errors
    /// The client has no such address.
    pub fn segments_to(&self, address: IpAddr) -> Result<Socket> {
        inside(&self.client, || {
            let address = SocketAddr::new(address, 0);
            let socket = Socket::new(
                Domain::for_address(address),
                Type::RAW,
                Some(socket2::Protocol::TCP),
            )?;
            socket.bind(&address.into())?;
            socket.set_read_timeout(Some(ANSWERS_WITHIN))?;
            Ok(socket)
        })
    }

    fn shown(&self) -> Result<String> {
        self.node.ip("-oneline link show node0")
    }

    /// Sends a frame from the client as it is.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        inside(&self.client, || {
            let is_link = |address: &InterfaceAddress| {
                let address = address
                    .address
                    .as_ref()
                    .filter(|_| address.interface_name == "client0");
                address.and_then(|address| address.as_link_addr().copied())
            };
            let link = getifaddrs()?.find_map(|address| is_link(&address));
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)?;
            let to = &link.context("an address of the link")?;
            sendto(socket.as_raw_fd(), frame, to, MsgFlags::empty())?;
            Ok(())
        })
    }
}

/// The TCP header of the next SYN-ACK to a port, of those that a socket of [`Pair::segments_to`] gets.
///
/// # Errors
/// None comes.
pub fn syn_ack(socket: &mut Socket, port: u16) -> Result<Vec<u8>> {
    let is_v4 = socket.domain()? == Domain::IPV4;
    loop {
        let mut bytes = [0; 256];
        let len = socket.read(&mut bytes).context("an answer")?;
        // Raw sockets of IPv4 get the IP header, too.
        let segment = bytes[..len].get(if is_v4 { 20 } else { 0 }..).unwrap_or_default();
        if segment.get(2..4) == Some(&port.to_be_bytes()) && segment.get(13) == Some(&0x12) {
            return Ok(segment.to_vec());
        }
    }
}

/// Ends of tunnels at the node, of both families; whoever it is may send by them.
///
/// # Panics
/// Never: the addresses are right.
#[must_use]
pub fn tunnels(role: TunnelRole) -> Tunnels {
    let ip = |text: &str| text.parse().expect("literal");
    Tunnels {
        endpoints: vec![ip("10.77.0.2"), ip("fd77::2")],
        relays: vec![],
        trusted: vec![],
        gue_port: GUE_PORT,
        role,
    }
}

/// Runs code on a thread of its own inside a namespace.
///
/// # Errors
/// The namespace cannot be entered, or the code fails.
///
/// # Panics
/// If the code does.
pub fn inside<T: Send>(netns: &NetNs, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    netns.enter(work)
}

/// Listening sockets as a proxy's workers have them: one each, all on one port of `[::]`, by SO_REUSEPORT.
///
/// # Errors
/// The port is taken.
pub fn listeners(workers: u16, port: u16) -> Result<Vec<TcpListener>> {
    let listen = |_| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
        socket.set_only_v6(false)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    };
    (0..workers).map(listen).collect()
}

/// The listeners as the data path takes them.
#[must_use]
pub fn sockets(listeners: &[TcpListener], port: u16) -> Vec<WorkerSocket<'_>> {
    let socket = |(listener, id): (_, u16)| {
        let listener: &TcpListener = listener;
        WorkerSocket {
            worker: WorkerId(id),
            port,
            address: None,
            protocol: Protocol::Tcp,
            fd: listener.as_fd(),
        }
    };
    listeners.iter().zip(0..).map(socket).collect()
}
