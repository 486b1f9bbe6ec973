//! When the data path is to look at what the kernel tells of routes and neighbours.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use edge_datapath::DataPath;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Shortest time between two looks: what changes at one time, such as the routes of a link that goes down, is looked at at one
/// time.
const REST: Duration = Duration::from_millis(20);
/// After a look that took long the rest is so many times as long: news that never end take a tenth of a core.
const REST_FOR_EACH: u32 = 9;

/// Waits for what the kernel tells of routes and neighbours.
pub(super) struct RouteNews {
    socket: Option<AsyncFd<OwnedFd>>,
    rests_until: Instant,
}

impl RouteNews {
    /// Without a data path, or where the runtime has no room for the socket, there is nothing to wait for: routes are looked
    /// at once a second anyway.
    pub(super) fn open(datapath: Option<&DataPath>) -> Self {
        let socket = datapath.map(DataPath::route_news).transpose();
        let socket = socket.and_then(|socket| socket.flatten().map(watch).transpose());
        Self::of(socket.unwrap_or_else(|error| {
            tracing::warn!(%error, "changes of routes are seen once a second, and no sooner");
            None
        }))
    }

    fn of(socket: Option<AsyncFd<OwnedFd>>) -> Self {
        let rests_until = Instant::now();
        Self { socket, rests_until }
    }

    /// Has the next look wait, after one that took so long.
    pub(super) fn rest(&mut self, took: Duration) {
        self.rests_until = Instant::now() + REST.max(took * REST_FOR_EACH);
    }

    /// Until there is something to read, which is to be read to its end then. Who stops waiting loses nothing: the news count
    /// as seen only when this returns.
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep_until(self.rests_until).await;
        let readable = match &self.socket {
            Some(socket) => socket.readable().await.map(|mut guard| guard.clear_ready()),
            None => std::future::pending().await,
        };
        if readable.is_err() {
            self.socket = None;
        }
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for those who do not own the descriptor; here it is owned"
)]
fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[tokio::test]
    async fn news_wait_for_the_rest_after_a_look_and_none_are_lost() {
        let (kernel, socket) = UnixDatagram::pair().expect("sockets");
        socket.set_nonblocking(true).expect("a socket");
        let watched = watch(socket.try_clone().expect("a socket").into()).expect("a runtime");
        let mut news = RouteNews::of(Some(watched));
        let read = || socket.recv(&mut [0; 8]).expect("there is something to read");
        // News that were lost must fail the test, and not hang it.
        let limit = Duration::from_secs(10);
        kernel.send(b"first").expect("sent");
        tokio::time::timeout(limit, news.wait()).await.expect("not lost");
        read();
        for (took, rest) in [(0, 20), (1, 20), (5, 45)] {
            let looked = Instant::now();
            news.rest(Duration::from_millis(took));
            kernel.send(b"next").expect("sent");
            // Something else happens first.
            let stopped = tokio::time::timeout(Duration::from_millis(1), news.wait()).await;
            assert!(
                stopped.is_err() || looked.elapsed() >= Duration::from_millis(rest),
                "{took}"
            );
            if stopped.is_err() {
                tokio::time::timeout(limit, news.wait()).await.expect("not lost");
            }
            assert!(looked.elapsed() >= Duration::from_millis(rest), "{took}");
            read();
        }
    }
}
