//! A worker's servers: threads of this process with sockets in the worker's namespace.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{Shutdown, shutdown};

use super::{Mode, VIP, VIP_V6};

/// How often a server of datagrams looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Servers of one worker, on the ports of all [`Mode`]s: TCP and UDP, IPv4 and IPv6. They end with the value.
///
/// Over TCP each line is a question: `who` is answered with the worker's name and the client's address; `down <bytes>`
/// with as many bytes of the [`pattern`]; after `up <bytes>` come as many, and the answer says how many of them were
/// right. Requests of HTTP/1.1 without bodies are answered with 200, or, while the worker is ill, with 503. A datagram is answered with
/// the worker's name, the client's address, and itself.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<TcpListener>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    stops: AtomicBool,
    illness: Mutex<Illness>,
    /// Probes that each client sent.
    probes: Mutex<BTreeMap<IpAddr, u64>>,
    accepted: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

/// The byte of a transfer at a place: two transfers that were mixed up, cut or repeated differ.
#[must_use]
pub const fn pattern(at: u64) -> u8 {
    let mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

impl Server {
    /// Starts the servers in the calling thread's namespace.
    ///
    /// # Errors
    /// If a port is taken, or the virtual addresses are not there.
    pub fn start(name: &str) -> Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            stops: AtomicBool::new(false),
            illness: Mutex::default(),
            probes: Mutex::default(),
            accepted: AtomicU64::new(0),
            streams: Mutex::default(),
        });
        let mut listeners = Vec::new();
        for port in Mode::ALL.map(Mode::port) {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
                .with_context(|| format!("{name}: TCP port {port}"))?;
            let (accepting, of) = (listener.try_clone()?, Arc::clone(&shared));
            thread::spawn(move || of.accept(&accepting));
            listeners.push(listener);
            // A socket of the virtual address alone answers from it.
            for vip in [VIP, VIP_V6] {
                let socket =
                    UdpSocket::bind((vip, port)).with_context(|| format!("{name}: UDP port {port}"))?;
                socket.set_read_timeout(Some(LOOK))?;
                let of = Arc::clone(&shared);
                thread::spawn(move || of.echo(&socket));
            }
        }
        Ok(Self { shared, listeners })
    }

    /// Connections that were accepted, probes among them.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Says how requests of HTTP are answered from now on.
    pub fn set_ill(&self, illness: Illness) {
        *lock(&self.shared.illness) = illness;
    }
}

/// How a worker answers requests of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Illness {
    /// With 200.
    #[default]
    Well,
    /// Of each client's two with 503, the next with 200.
    OnAndOff,
    /// With 503.
    Ill,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // It wakes the thread that accepts; should that have ended, there is nothing to wake.
            let _ = shutdown(listener, Shutdown::Both);
        }
        for stream in lock(&self.shared.streams).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Shared {
    fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, from)) = listener.accept() {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            if let Ok(copy) = stream.try_clone() {
                lock(&self.streams).push(copy);
            }
            if self.stops() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            let of = Arc::clone(self);
            // Its end is the connection's end.
            thread::spawn(move || of.talk(&stream, from));
        }
    }

    fn talk(&self, stream: &TcpStream, from: SocketAddr) -> Result<()> {
        stream.set_nodelay(true)?;
        let (mut input, mut output) = (BufReader::new(stream), stream);
        let mut line = String::new();
        while input.read_line(&mut line)? > 0 {
            let mut words = line.split_whitespace();
            let verb = words.next().unwrap_or_default();
            let count = || words.clone().next().and_then(|word| word.parse::<u64>().ok());
            match verb {
                "who" => writeln!(output, "{} {}", self.name, from.ip().to_canonical())?,
                "down" => send(output, count().context("a number")?)?,
                "up" => {
                    let right = check(&mut input, count().context("a number")?)?;
                    writeln!(output, "{right}")?;
                }
                "GET" => {
                    let is_last = read_head(&mut input)?;
                    self.answer_http(output, from.ip(), is_last)?;
                    if is_last {
                        return Ok(());
                    }
                }
                _ => anyhow::bail!("{line:?} is no question"),
            }
            line.clear();
        }
        Ok(())
    }

    fn answer_http(&self, mut output: &TcpStream, from: IpAddr, is_last: bool) -> std::io::Result<()> {
        let number = {
            let mut probes = lock(&self.probes);
            let count = probes.entry(from).or_default();
            *count += 1;
            *count
        };
        let is_ill = match *lock(&self.illness) {
            Illness::Well => false,
            Illness::OnAndOff => !number.is_multiple_of(3),
            Illness::Ill => true,
        };
        let status = if is_ill {
            "503 Service Unavailable"
        } else {
            "200 OK"
        };
        let body = &self.name;
        let connection = if is_last { "close" } else { "keep-alive" };
        let head = format!("content-length: {}\r\nconnection: {connection}", body.len());
        // In one segment.
        output.write_all(format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n{body}").as_bytes())
    }

    fn echo(&self, socket: &UdpSocket) {
        let mut bytes = [0; 2048];
        while !self.stops() {
            let Ok((len, from)) = socket.recv_from(&mut bytes) else {
                continue;
            };
            let mut answer = format!("{} {} ", self.name, from.ip()).into_bytes();
            answer.extend(bytes.iter().take(len));
            // A client that is gone asks for nothing.
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// Locks; a holder that panicked left a value that is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the fields of a request; true if the client asks for no further one.
fn read_head(input: &mut impl std::io::BufRead) -> std::io::Result<bool> {
    let (mut line, mut is_last) = (String::new(), false);
    while input.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        is_last |= line.trim_end().eq_ignore_ascii_case("connection: close");
        line.clear();
    }
    Ok(is_last)
}

/// Bytes that are written or read at once.
const CHUNK: usize = 64 * 1024;

/// Sends so many bytes of the pattern.
pub(super) fn send(mut output: &TcpStream, count: u64) -> std::io::Result<()> {
    let mut at = 0;
    while at < count {
        let end = (at + CHUNK as u64).min(count);
        let chunk: Vec<u8> = (at..end).map(pattern).collect();
        output.write_all(&chunk)?;
        at = end;
    }
    Ok(())
}

/// Reads so many bytes, and counts those that are the pattern's until the first that is not.
pub(super) fn check(input: &mut impl std::io::Read, count: u64) -> std::io::Result<u64> {
    let mut input = input.take(count);
    let mut chunk = vec![0; CHUNK];
    let (mut at, mut right) = (0, 0);
    while at < count {
        let len = input.read(&mut chunk)?;
        if len == 0 {
            break;
        }
        for &byte in chunk.iter().take(len) {
            if right == at && byte == pattern(at) {
                right += 1;
            }
            at += 1;
        }
    }
    Ok(right)
}
