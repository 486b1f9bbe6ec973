//! Requests to the kernel's routing subsystem, and the news that it gives of itself (rtnetlink(7)).

use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
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

    /// Sends a request, and reads the answer to its end: to that of a dump, else to the kernel's acknowledgement. A dump that a
    /// change has interrupted is asked for again.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags | if is_dump { 0 } else { NLM_F_ACK };
        whole(|| self.exchange(&mut request))
    }

    /// Sends a request once.
    fn exchange(&mut self, request: &mut NetlinkMessage<RouteNetlinkMessage>) -> io::Result<Answer> {
        self.sequence += 1;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answer = Answer::default();
        loop {
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if answer.add(&datagram, self.sequence)? {
                return Ok(answer);
            }
        }
    }
}

/// How often a dump is asked for, if changes interrupt it each time.
const DUMPS: u32 = 8;

/// Asks until an answer is whole. One that never is, because the tables change all the time, is taken as it is: what it lacks
/// is there when its reader asks next.
fn whole(mut ask: impl FnMut() -> io::Result<Answer>) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut answer = ask()?;
    for _ in 1..DUMPS {
        if !answer.is_interrupted {
            break;
        }
        answer = ask()?;
    }
    if answer.is_interrupted {
        tracing::warn!("the kernel's tables change faster than they can be read: some of it may be missed");
    }
    Ok(answer.messages)
}

/// What the kernel answered to a request.
#[derive(Debug, Default)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    /// What is dumped has changed meanwhile, so that some of it may be there twice or not at all (`NLM_F_DUMP_INTR`).
    is_interrupted: bool,
}

impl Answer {
    /// Adds a datagram's messages with this sequence number; true if the answer ends with them.
    fn add(&mut self, datagram: &[u8], sequence: u32) -> io::Result<bool> {
        for message in messages(datagram)? {
            if message.header.sequence_number != sequence {
                continue;
            }
            self.is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::InnerMessage(message) => self.messages.push(message),
                NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                NetlinkPayload::Noop | _ => {}
            }
        }
        Ok(false)
    }
}

/// How many datagrams are read at once. Beyond them somebody fills the tables, and all is to be looked at anyway.
const DATAGRAMS: usize = 1024;

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

    /// What was told since the last call, and whether that is all: there may be more than there was room for, or than is read
    /// at once, or something that is not understood.
    pub(crate) fn fetch(&self) -> (Vec<RouteNetlinkMessage>, bool) {
        let mut news = Vec::new();
        let mut is_whole = true;
        for _ in 0..DATAGRAMS {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => match messages(&datagram) {
                    Ok(messages) => news.extend(messages.into_iter().filter_map(inner)),
                    Err(_) => is_whole = false,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (news, is_whole),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ENOBUFS: the kernel threw some away, and tells it once.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_whole = false,
                Err(_) => break,
            }
        }
        (news, false)
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

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::DoneMessage;
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    /// A datagram with one message.
    fn datagram(payload: NetlinkPayload<RouteNetlinkMessage>, flags: u16, sequence: u32) -> Vec<u8> {
        let mut message = NetlinkMessage::new(Default::default(), payload);
        message.header.flags = flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn link(flags: u16, sequence: u32) -> Vec<u8> {
        let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
        datagram(NetlinkPayload::InnerMessage(link), flags, sequence)
    }

    #[test]
    fn an_answer_is_what_has_its_number_and_knows_whether_it_was_interrupted() {
        let done = |flags| datagram(NetlinkPayload::Done(DoneMessage::default()), flags, 7);
        for (flags, done_flags, is_interrupted) in [
            (0, 0, false),
            (NLM_F_DUMP_INTR, 0, true),
            (0, NLM_F_DUMP_INTR, true),
        ] {
            let mut answer = Answer::default();
            assert!(!answer.add(&link(NLM_F_DUMP_INTR, 6), 7).expect("a stranger's"));
            assert!(!answer.add(&link(flags, 7), 7).expect("a link"));
            assert!(answer.add(&done(done_flags), 7).expect("the end"));
            assert_eq!(
                (answer.messages.len(), answer.is_interrupted),
                (1, is_interrupted)
            );
        }
    }

    #[test]
    fn an_interrupted_dump_is_made_again_and_not_for_ever() {
        for (interrupted, expected) in [(0, 1), (1, 2), (3, 4), (u32::MAX, DUMPS)] {
            let mut asked = 0;
            let answer = whole(|| {
                asked += 1;
                Ok(Answer {
                    messages: vec![RouteNetlinkMessage::NewLink(LinkMessage::default()); asked as usize],
                    is_interrupted: asked <= interrupted,
                })
            });
            let messages = answer.expect("it is answered").len();
            assert_eq!((asked, messages), (expected, expected as usize), "{interrupted}");
        }
    }
}
