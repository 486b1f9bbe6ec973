//! What the kernel alone costs: bytes are read and written, or spliced, and nobody looks at them.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::event::epoll;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What is moved at once.
const BUFFER: usize = 64 * 1024;

/// The listening socket's number among the watched.
const LISTENER: u64 = u64::MAX;

/// Connections come in pairs: number 2n is a client's, 2n + 1 the backend's.
struct End {
    stream: TcpStream,
    /// What was read here and could not be written to the other end yet.
    pending: Pending,
}

enum Pending {
    Bytes(Vec<u8>),
    Pipe {
        read: OwnedFd,
        write: OwnedFd,
        held: usize,
    },
}

/// Forwards until the process is ended.
pub(crate) fn run(port: u16, to: SocketAddr, by_splice: bool) -> Result<()> {
    let listener = TcpListener::bind(("::", port)).context("cannot listen")?;
    listener.set_nonblocking(true)?;
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let readable = epoll::EventFlags::IN;
    epoll::add(&watch, &listener, epoll::EventData::new_u64(LISTENER), readable)?;
    let (mut ends, mut next) = (HashMap::new(), 0);
    let mut events = vec![empty(); 256];
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = epoll::wait(&watch, &mut *events, None)?;
        for event in &events[..count] {
            match event.data.u64() {
                LISTENER => {
                    while let Ok((client, _)) = listener.accept() {
                        let backend = TcpStream::connect(to)?;
                        for (number, stream) in [(next, client), (next + 1, backend)] {
                            stream.set_nodelay(true)?;
                            stream.set_nonblocking(true)?;
                            let both = readable | epoll::EventFlags::OUT | epoll::EventFlags::ET;
                            epoll::add(&watch, &stream, epoll::EventData::new_u64(number), both)?;
                            let pending = pending(by_splice)?;
                            ends.insert(number, End { stream, pending });
                        }
                        next += 2;
                    }
                }
                number => {
                    // Either may go on: this one has bytes, or has room for those of the other.
                    let alive =
                        pump(&mut ends, number, &mut buffer) && pump(&mut ends, number ^ 1, &mut buffer);
                    if !alive {
                        ends.remove(&number);
                        ends.remove(&(number ^ 1));
                    }
                }
            }
        }
    }
}

fn empty() -> epoll::Event {
    epoll::Event {
        flags: epoll::EventFlags::empty(),
        data: epoll::EventData::new_u64(0),
    }
}

fn pending(by_splice: bool) -> Result<Pending> {
    if !by_splice {
        return Ok(Pending::Bytes(Vec::new()));
    }
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    fcntl_setpipe_size(&write, BUFFER)?;
    Ok(Pending::Pipe { read, write, held: 0 })
}

/// Moves from one end to its other as much as goes; false when the pair has ended.
fn pump(ends: &mut HashMap<u64, End>, number: u64, buffer: &mut [u8]) -> bool {
    let Some(mut from) = ends.remove(&number) else {
        return false;
    };
    let alive = match ends.get_mut(&(number ^ 1)) {
        None => false,
        Some(to) => match &mut from.pending {
            Pending::Bytes(held) => copy(&mut from.stream, &mut to.stream, held, buffer),
            Pending::Pipe { read, write, held } => spliced(&from.stream, &to.stream, read, write, held),
        },
    };
    ends.insert(number, from);
    alive
}

fn copy(from: &mut TcpStream, to: &mut TcpStream, held: &mut Vec<u8>, buffer: &mut [u8]) -> bool {
    loop {
        while !held.is_empty() {
            match to.write(held) {
                Ok(length) => drop(held.drain(..length)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        let length = match from.read(buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        match to.write(&buffer[..length]) {
            Ok(written) => held.extend_from_slice(&buffer[written..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => held.extend_from_slice(&buffer[..length]),
            Err(_) => return false,
        }
        if length < buffer.len() {
            // Edge-triggered, and a short read means that no more is there (epoll(7)).
            return true;
        }
    }
}

fn spliced(from: &TcpStream, to: &TcpStream, read: &OwnedFd, write: &OwnedFd, held: &mut usize) -> bool {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let blocks = |error| error == rustix::io::Errno::AGAIN;
    loop {
        while *held > 0 {
            match splice(read.as_fd(), None, to, None, *held, flags) {
                Ok(length) => *held -= length,
                Err(error) => return blocks(error),
            }
        }
        match splice(from, None, write.as_fd(), None, BUFFER, flags) {
            Ok(0) => return false,
            Ok(length) => *held += length,
            Err(error) => return blocks(error),
        }
    }
}
