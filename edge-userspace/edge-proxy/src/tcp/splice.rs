//! Bytes between two sockets that never enter the process: splice(2), through a pipe.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::meter::Way;

/// What a pipe holds unless told otherwise (pipe(7)). Measured: larger ones gain nothing.
const PIPE: usize = 64 * 1024;

/// Empty pipes that a worker keeps.
const KEPT: usize = 64;

thread_local! {
    /// Empty pipes of this worker: a direction has one only while it has bytes in it, so that idle connections hold no
    /// descriptors but their sockets.
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(pipe) = PIPES.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { read, write })
    }

    /// To be called with an empty pipe only: what is in it would go to a stranger.
    fn give_back(self) {
        PIPES.with_borrow_mut(|pipes| {
            if pipes.len() < KEPT {
                pipes.push(self);
            }
        });
    }
}

/// Moves bytes from one socket to the other until the first one's end, which is passed on.
///
/// # Errors
/// When a socket fails, or no pipe can be had.
pub(super) async fn one_way(from: &TcpStream, to: &TcpStream, way: &Way) -> io::Result<()> {
    loop {
        from.readable().await?;
        let pipe = Pipe::take()?;
        let taken = from.try_io(Interest::READABLE, || push(from, &pipe.write, PIPE));
        let mut held = match taken {
            Ok(0) => {
                pipe.give_back();
                return SockRef::from(to).shutdown(Shutdown::Write);
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pipe.give_back();
                continue;
            }
            Err(error) => return Err(error),
        };
        way.took(held);
        while held > 0 {
            let given = to
                .async_io(Interest::WRITABLE, || push(&pipe.read, to, held))
                .await?;
            way.gave(given);
            held -= given;
        }
        pipe.give_back();
    }
}

fn push(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    splice(from, None, to, None, length, flags).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn all_bytes_arrive_in_order_with_the_end_behind_them_and_pipes_are_used_again() {
        let ((mut source, from), (to, mut sink)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let way = Way::default();
        let write = async move {
            source.write_all(&sent).await.unwrap();
            source.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, moving, read) =
            tokio::join!(write, one_way(&from, &to, &way), sink.read_to_end(&mut received));
        moving.unwrap();
        assert_eq!(read.unwrap(), expected.len());
        assert!(received == expected);
        let count = expected.len() as u64;
        assert_eq!(way.counts(), (count, count));
        assert_eq!(PIPES.with_borrow(Vec::len), 1);
    }
}
