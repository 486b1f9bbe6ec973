//! Listening sockets: one per address and worker, all in one SO_REUSEPORT group.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use edge_model::ListenAddress;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Connections that wait to be accepted. As large as a burst of new connections in the time a worker may be busy
/// with others; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Opens a listening socket: on a port of all addresses, IPv4 and IPv6, or of one. That one need not be on an interface
/// if it `is_virtual`: the data path may give it to the node a moment later.
///
/// # Errors
/// When the port is taken by a socket outside of the group, or needs a privilege, or the address is not the node's.
pub(crate) fn listen(address: ListenAddress, is_virtual: bool) -> io::Result<TcpListener> {
    let port = address.port;
    match address.bind {
        Some(address) => open(SocketAddr::new(address, port), is_virtual),
        None => match open((Ipv6Addr::UNSPECIFIED, port).into(), false) {
            Err(error) if lacks_ipv6(&error) => open((Ipv4Addr::UNSPECIFIED, port).into(), false),
            result => result,
        },
    }
}

fn open(address: SocketAddr, is_virtual: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    match (is_virtual, domain) {
        (false, _) => {}
        (true, Domain::IPV6) => socket.set_freebind_v6(true)?,
        (true, _) => socket.set_freebind_v4(true)?,
    }
    // Must come before bind: every worker's socket of the port joins the group.
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it (net/ipv4/tcp_minisocks.c copies the listener), which saves a call on each.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether IPv6 is not compiled in, or is switched off by sysctl.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

/// Makes the kernel drop SYNs to this socket from now on, while connections that are in its queue, or in the middle of
/// their handshake, still come through.
///
/// A listening socket that is closed takes the connections in its queue with it: their clients, who may have sent a
/// request already, get a reset. With no new ones coming in, the queue can be emptied before the close. A client
/// whose SYN was dropped sends it again a second later and then meets another socket, or a plain refusal.
pub(crate) fn refuse_new(listener: &impl std::os::fd::AsFd) -> io::Result<()> {
    /// Offset of the flags in the TCP header, where a socket filter on TCP begins to read (`tcp_filter`).
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const KEEP_ALL: u32 = u32::MAX;
    let code = |code: u32| u16::try_from(code).unwrap_or(0);
    let filter = [
        SockFilter::new(code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS), 0, 0, FLAGS_AT),
        SockFilter::new(code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K), 0, 1, SYN),
        SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, 0),
        SockFilter::new(code(libc::BPF_RET | libc::BPF_K), 0, 0, KEEP_ALL),
    ];
    SockRef::from(listener).attach_filter(&filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::time::Duration;

    #[test]
    fn both_families_are_accepted_on_one_port_and_see_no_delay() {
        let listener = listen(0.into(), false).unwrap();
        listener.set_nonblocking(false).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            let _client = TcpStream::connect((address, port)).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_canonical().to_string(), address);
            assert!(accepted.nodelay().unwrap());
        }
    }

    #[test]
    fn a_port_is_shared_within_the_group_and_with_nobody_else() {
        let first = listen(0.into(), false).unwrap();
        let port = first.local_addr().unwrap().port();
        listen(port.into(), false).unwrap();
        let foreign = TcpListener::bind(("0.0.0.0", port));
        assert_eq!(foreign.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn one_address_of_a_port_is_listened_on_beside_all_others() {
        let all = listen(0.into(), false).unwrap();
        let port = all.local_addr().unwrap().port();
        let of = |bind: &str| ListenAddress {
            bind: Some(bind.parse().unwrap()),
            port,
        };
        let own = listen(of("127.0.0.9"), false).unwrap();
        assert_eq!(own.local_addr().unwrap().to_string(), format!("127.0.0.9:{port}"));
        for (address, expected, other) in [("127.0.0.9", &own, &all), ("127.0.0.1", &all, &own)] {
            let _client = TcpStream::connect((address, port)).unwrap();
            assert_eq!(other.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            expected.set_nonblocking(false).unwrap();
            expected.accept().unwrap();
            expected.set_nonblocking(true).unwrap();
        }
        // Addresses that no machine has.
        for address in ["192.0.2.1", "2001:db8::1"] {
            let error = listen(of(address), false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{address}");
            listen(of(address), true).unwrap();
        }
    }

    #[test]
    fn after_refusing_new_ones_queued_connections_are_still_accepted() {
        let listener = listen(0.into(), false).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let _queued = TcpStream::connect(address).unwrap();
        refuse_new(&listener).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(listener.accept().is_ok());
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
