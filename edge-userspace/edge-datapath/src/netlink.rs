//! Requests to the kernel's routing subsystem, and the news that it gives of itself (rtnetlink(7)).

use std::io;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// A connection to the kernel, in the network namespace of the thread that opened it.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request, and reads the answer to its end: to that of a dump, else to the kernel's acknowledgement.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags | if is_dump { 0 } else { NLM_F_ACK };
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answer = Vec::new();
        loop {
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for message in messages(&datagram)? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answer),
                    NetlinkPayload::InnerMessage(message) => answer.push(message),
                    NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                    NetlinkPayload::Noop | _ => {}
                }
            }
        }
    }
}

/// What the kernel tells of changes, without being asked each time.
pub(crate) struct News {
    socket: Socket,
}

impl News {
    /// Asks to be told of these groups (`RTNLGRP_*`).
    pub(crate) fn of(groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for &group in groups {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// The socket, for those who wait until it can be read.
    pub(crate) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What was told since the last call; `None`: more than there was room for, or something that is not understood.
    pub(crate) fn fetch(&self) -> Option<Vec<RouteNetlinkMessage>> {
        let mut news = Vec::new();
        let mut is_whole = true;
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => match messages(&datagram) {
                    Ok(messages) => news.extend(messages.into_iter().filter_map(inner)),
                    Err(_) => is_whole = false,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ENOBUFS: the kernel threw some away, and tells it once.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_whole = false,
                Err(_) => return None,
            }
        }
        is_whole.then_some(news)
    }
}

fn inner(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<RouteNetlinkMessage> {
    match message.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        NetlinkPayload::Error(_) | NetlinkPayload::Done(_) | NetlinkPayload::Overrun(_) => None,
        NetlinkPayload::Noop | _ => None,
    }
}

/// The messages of a datagram.
fn messages(mut datagram: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let malformed = |error: rtnetlink::packet_core::DecodeError| io::Error::other(error.to_string());
    let mut messages = Vec::new();
    while !datagram.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).map_err(malformed)?;
        // Messages are padded to four bytes (netlink(7), NLMSG_ALIGN).
        let len = (message.header.length as usize).next_multiple_of(4).max(4);
        datagram = datagram.get(len..).unwrap_or_default();
        messages.push(message);
    }
    Ok(messages)
}
