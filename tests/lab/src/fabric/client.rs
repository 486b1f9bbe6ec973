//! Connections and datagrams of the fabric's client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::server::{check, send};
use super::{Mode, VIP, VIP_V6};
use crate::NetNs;

/// How long a connection may take to be made, or an answer to come: several times what TCP takes to send again.
const PATIENCE: Duration = Duration::from_secs(20);

/// What connects from the client's namespace.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    netns: &'a NetNs,
}

/// An open connection to a worker.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// Who answered, and whom it saw.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reply {
    /// Name of the worker.
    pub worker: String,
    /// Address of the client as the worker saw it.
    pub client: IpAddr,
}

fn vip(is_v6: bool, mode: Mode) -> Result<SocketAddr> {
    let address: IpAddr = if is_v6 { VIP_V6 } else { VIP }.parse()?;
    Ok(SocketAddr::new(address, mode.port()))
}

impl<'a> Client<'a> {
    pub(super) const fn new(netns: &'a NetNs) -> Self {
        Self { netns }
    }

    /// The namespace.
    #[must_use]
    pub const fn netns(&self) -> &'a NetNs {
        self.netns
    }

    /// Opens connections to a virtual address.
    ///
    /// # Errors
    /// If one is refused or not answered.
    pub fn connect(&self, mode: Mode, is_v6: bool, count: usize) -> Result<Vec<Connection>> {
        let to = vip(is_v6, mode)?;
        self.netns.enter(|| {
            let connect = |number| {
                let stream = TcpStream::connect_timeout(&to, PATIENCE)
                    .with_context(|| format!("connection {number} to {to}"))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                let stream = BufReader::new(stream);
                Ok(Connection { stream })
            };
            (0..count).map(connect).collect()
        })
    }

    /// Where a mode's servers are asked by HTTP.
    ///
    /// # Errors
    /// None but those of reading the virtual address.
    pub fn url(&self, mode: Mode, is_v6: bool) -> Result<String> {
        Ok(format!("http://{}/", vip(is_v6, mode)?))
    }

    /// A source of datagrams to a virtual address.
    ///
    /// # Errors
    /// If there is no port left.
    pub fn datagrams(&self, mode: Mode, is_v6: bool) -> Result<Datagrams> {
        let to = vip(is_v6, mode)?;
        self.netns.enter(|| {
            let any: IpAddr = if is_v6 { "::" } else { "0.0.0.0" }.parse()?;
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            Ok(Datagrams {
                socket,
                sent: 0,
                answered: 0,
                workers: Vec::new(),
            })
        })
    }
}

impl Connection {
    /// Asks who is at the other end.
    ///
    /// # Errors
    /// If the connection is broken, or not answered.
    pub fn ask(&mut self) -> Result<Reply> {
        self.stream.get_mut().write_all(b"who\n")?;
        reply(&self.line()?)
    }

    /// Has so many bytes sent each way, one after the other.
    ///
    /// # Errors
    /// As [`Connection::download`] and [`Connection::upload`].
    pub fn transfer(&mut self, bytes: u64) -> Result<()> {
        self.download(bytes)?;
        self.upload(bytes)
    }

    /// Has the worker send so many bytes.
    ///
    /// # Errors
    /// If the connection breaks, or other bytes come.
    pub fn download(&mut self, bytes: u64) -> Result<()> {
        writeln!(self.stream.get_mut(), "down {bytes}")?;
        let right = check(&mut self.stream, bytes)?;
        ensure!(right == bytes, "{right} of {bytes} bytes were right");
        Ok(())
    }

    /// Sends the worker so many bytes.
    ///
    /// # Errors
    /// If the connection breaks, or the worker gets other bytes.
    pub fn upload(&mut self, bytes: u64) -> Result<()> {
        writeln!(self.stream.get_mut(), "up {bytes}")?;
        send(self.stream.get_ref(), bytes)?;
        let right: u64 = self.line()?.trim().parse()?;
        ensure!(right == bytes, "{right} of {bytes} bytes were right");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the worker hung up");
        Ok(line)
    }
}

fn reply(text: &str) -> Result<Reply> {
    let mut words = text.split_whitespace();
    let worker = words.next().context("a worker's name")?.to_owned();
    let client = words.next().context("the client's address")?.parse()?;
    Ok(Reply { worker, client })
}

/// Numbered datagrams of one flow, and their answers.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    sent: u64,
    answered: u64,
    workers: Vec<Reply>,
}

impl Datagrams {
    /// Sends the next one, and waits for its answer. A loss is the end: nothing is sent twice.
    ///
    /// # Errors
    /// If no answer comes, or another's.
    pub fn ask(&mut self) -> Result<Reply> {
        let number = self.sent;
        self.sent += 1;
        self.socket.send(number.to_string().as_bytes())?;
        self.socket.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = [0; 2048];
        let len = self
            .socket
            .recv(&mut bytes)
            .with_context(|| format!("datagram {number} is lost"))?;
        let text = String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned();
        let answered = text.split_whitespace().nth(2).and_then(|word| word.parse().ok());
        ensure!(
            answered == Some(number),
            "datagram {number} is answered by {text:?}"
        );
        self.answered += 1;
        let reply = reply(&text)?;
        if self.workers.last() != Some(&reply) {
            self.workers.push(reply.clone());
        }
        Ok(reply)
    }

    /// Datagrams that were sent, and answered.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.sent, self.answered)
    }

    /// Who answered, in order: one alone, if the flow stayed where it was.
    #[must_use]
    pub fn workers(&self) -> &[Reply] {
        &self.workers
    }
}
