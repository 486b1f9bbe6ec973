//! Messages of gRPC, counted as they pass: each begins with five bytes, which tell whether it is compressed and how long
//! it is (gRPC over HTTP/2, "Length-Prefixed-Message").

use std::cell::Cell;
use std::rc::Rc;

use super::request_body::ClientBody;
use crate::metrics::{MessageSeries, Ongoing, Reported};

/// Bytes of the length in a prefix.
const LENGTH: u8 = 4;

/// Counts the messages of one direction of a call. One counts as soon as it begins, as in Envoy (`Grpc::FrameInspector`):
/// so a length that promises more than comes is no lie about the number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Messages {
    count: u64,
    /// Bytes that the present message still has to come; its length as far as it is read, within a prefix.
    left: u32,
    /// Bytes of a length that are still to come.
    prefix: u8,
    /// What came is no prefix, so there is no telling where messages begin.
    is_garbled: bool,
}

impl Messages {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Takes account of the next piece.
    pub(super) fn pass(&mut self, mut data: &[u8]) {
        while !self.is_garbled {
            if self.prefix == 0 && self.left > 0 {
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX).min(self.left);
                self.left -= length;
                data = data.get(length as usize..).unwrap_or_default();
            }
            let Some((byte, rest)) = data.split_first() else {
                return;
            };
            data = rest;
            match (self.prefix, *byte) {
                (0, 0 | 1) => {
                    self.count += 1;
                    self.prefix = LENGTH;
                }
                (0, _) => self.is_garbled = true,
                (_, byte) => {
                    self.left = (self.left << 8) | u32::from(byte);
                    self.prefix -= 1;
                }
            }
        }
    }
}

/// Counts the messages of one call in the series of its destination.
#[derive(Debug)]
pub(super) struct MessageMeter {
    request: Option<ClientBody>,
    response: Cell<Messages>,
    reported: Reported,
    series: Rc<MessageSeries>,
    place: Cell<usize>,
}

impl MessageMeter {
    pub(super) fn new(request: Option<ClientBody>, series: &Rc<MessageSeries>) -> Self {
        Self {
            request,
            response: Cell::default(),
            reported: Reported::default(),
            series: Rc::clone(series),
            place: Cell::default(),
        }
    }

    /// A piece of the response goes to the client.
    pub(super) fn sent(&self, data: &[u8]) {
        let mut messages = self.response.get();
        messages.pass(data);
        self.response.set(messages);
    }
}

impl Ongoing for MessageMeter {
    fn report(&self) {
        let received = self.request.as_ref().map_or(0, ClientBody::messages);
        let now = [received, self.response.get().count()];
        self.reported
            .report(now, [&self.series.requests, &self.series.responses]);
    }

    fn place(&self) -> &Cell<usize> {
        &self.place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages in `data`, which comes in pieces of every length.
    fn check(data: &[u8], expected: u64) {
        for size in 1..=data.len().max(1) {
            let mut messages = Messages::default();
            data.chunks(size).for_each(|piece| messages.pass(piece));
            assert_eq!(messages.count(), expected, "{data:?} by {size}");
        }
    }

    #[test]
    fn messages_are_counted_by_their_prefixes_however_they_are_cut() {
        for (data, expected) in [
            (&b""[..], 0),
            (b"\0\0\0\0\0", 1),
            (b"\0\0\0\0\x03abc", 1),
            (b"\x01\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x01x", 3),
            // What looks like prefixes inside of a message is none.
            (b"\0\0\0\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xff", 2),
        ] {
            check(data, expected);
        }
        let mut long = vec![0, 0, 0, 1, 4];
        long.extend([7; 260]);
        check(&[long.as_slice(), &long].concat(), 2);
    }

    #[test]
    fn lengths_that_lie_and_what_is_no_prefix_end_the_count() {
        for (data, expected) in [
            // Begun, and promised for ever.
            (&b"\0"[..], 1),
            (b"\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0", 1),
            (b"\0\0\0\0\x05abc", 1),
            (b"hello", 0),
            (b"\x02\0\0\0\0\0\0\0\0\0", 0),
            (b"\0\0\0\0\x01xy\0\0\0\0\0", 1),
        ] {
            check(data, expected);
        }
    }
}
