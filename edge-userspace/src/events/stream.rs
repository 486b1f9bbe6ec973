//! Handing samples to those who ask for them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use edge_datapath::DropEvent;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use super::Sample;

/// Samples that a reader may be behind before it loses some: some seconds of a flood.
const BEHIND: usize = 4096;

/// Where samples go in, and readers are let in.
#[derive(Debug)]
pub(crate) struct Samples {
    readers: Sender<Arc<str>>,
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self {
            readers: channel(BEHIND).0,
        }
    }

    /// Hands events to every reader. What there is before the first reader came is gone.
    pub(crate) fn publish(&self, events: &[DropEvent]) {
        if self.readers.receiver_count() == 0 {
            return;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        for event in events {
            match serde_json::to_string(&Sample::new(event, now)) {
                // Fails only if the last reader has just left.
                Ok(line) => drop(self.readers.send((line + "\n").into())),
                Err(error) => tracing::error!(%error, "a sample cannot be written as JSON"),
            }
        }
    }

    /// A reader of all that comes from now on.
    pub(crate) fn subscribe(&self) -> Receiver<Arc<str>> {
        self.readers.subscribe()
    }
}

/// The samples as a body that ends when the samples do: one JSON object a line. An empty line comes first, so that the
/// reader knows that it is listening. A reader that is too slow is told how many it lost (`{"lost":7}`).
pub(crate) fn body(
    reader: Receiver<Arc<str>>,
) -> StreamBody<impl stream::Stream<Item = Result<Frame<Bytes>, Infallible>>> {
    StreamBody::new(stream::unfold(
        (reader, true),
        |(mut reader, is_first)| async move {
            let line = if is_first {
                "\n".into()
            } else {
                match reader.recv().await {
                    Ok(line) => line,
                    Err(RecvError::Lagged(lost)) => format!("{{\"lost\":{lost}}}\n").into(),
                    Err(RecvError::Closed) => return None,
                }
            };
            let frame = Frame::data(Bytes::copy_from_slice(line.as_bytes()));
            Some((Ok(frame), (reader, false)))
        },
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edge_datapath::DropReason;
    use http_body_util::BodyExt as _;

    use super::*;

    fn event(length: u32) -> DropEvent {
        DropEvent {
            age: Duration::ZERO,
            reason: DropReason::Denied,
            vip: None,
            interface: "eth0".into(),
            frame_len: length,
            head: vec![],
        }
    }

    async fn lines(reader: Receiver<Arc<str>>) -> Vec<String> {
        let body = body(reader).collect().await.expect("infallible").to_bytes();
        let text = String::from_utf8(body.to_vec()).expect("JSON");
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn every_reader_gets_every_sample_from_its_beginning_on() {
        let samples = Samples::new();
        samples.publish(&[event(1)]);
        let first = samples.subscribe();
        samples.publish(&[event(2)]);
        let second = samples.subscribe();
        samples.publish(&[event(3)]);
        drop(samples);
        for (reader, expected) in [(first, &[0, 2, 3][..]), (second, &[0, 3])] {
            let of =
                |line: &String| serde_json::from_str::<Sample>(line).map_or(0, |sample| sample.frame_len);
            let lengths: Vec<_> = lines(reader).await.iter().map(of).collect();
            assert_eq!(lengths, expected);
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_lost() {
        let samples = Samples::new();
        let reader = samples.subscribe();
        let many: Vec<_> = (0..BEHIND + 5).map(|_| event(9)).collect();
        samples.publish(&many);
        drop(samples);
        let lines = lines(reader).await;
        assert_eq!((lines[0].as_str(), lines[1].as_str()), ("", "{\"lost\":5}"));
        assert_eq!(lines.len(), BEHIND + 2);
    }
}
