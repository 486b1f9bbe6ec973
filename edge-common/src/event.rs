//! Samples of dropped packets on their way to userspace.

use crate::assert_size;

/// Bytes of a frame's head that an event carries: all headers of any packet that tier 1 parses, and some payload.
pub const HEAD_LEN: usize = 128;

/// A dropped packet, as the ring buffer `EVENTS` carries it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When: CLOCK_MONOTONIC, nanoseconds, as of the last timer tick.
    pub time_ns: u64,
    /// Index of the [`DropReason`](crate::DropReason).
    pub reason: u32,
    /// Index of the VIP, or [`Event::NO_VIP`].
    pub vip: u32,
    /// Index of the interface that received it.
    pub interface: u32,
    /// Length of the frame.
    pub frame_len: u32,
    /// Bytes of `head` that are the frame's.
    pub head_len: u32,
    /// To a multiple of eight bytes.
    pub padding: u32,
    /// The frame from its Ethernet header on.
    pub head: [u8; HEAD_LEN],
}

assert_size!(Event = 160);

impl Event {
    /// Stands for "no VIP".
    pub const NO_VIP: u32 = u32::MAX;

    /// Reads an event from the bytes of the ring buffer; `None` if they are too few.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Self {
            time_ns: u64::from_ne_bytes(*bytes.first_chunk()?),
            reason: word(8)?,
            vip: word(12)?,
            interface: word(16)?,
            frame_len: word(20)?,
            head_len: word(24)?,
            padding: word(28)?,
            head: *bytes.get(32..)?.first_chunk()?,
        })
    }

    /// The bytes of the frame that were kept.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        self.head.get(..self.head_len as usize).unwrap_or(&self.head)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn an_event_is_read_from_its_bytes_and_a_short_one_is_not() {
        let mut bytes: Vec<u8> = Vec::new();
        bytes.extend(7_u64.to_ne_bytes());
        for word in [1_u32, 2, 3, 60, 2, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend([9; HEAD_LEN]);
        let event = Event::from_bytes(&bytes).expect("whole");
        assert_eq!(
            (
                event.time_ns,
                event.reason,
                event.vip,
                event.interface,
                event.frame_len
            ),
            (7, 1, 2, 3, 60)
        );
        assert_eq!(event.frame(), [9, 9]);
        assert_eq!(Event::from_bytes(&bytes[..bytes.len() - 1]), None);
    }
}
