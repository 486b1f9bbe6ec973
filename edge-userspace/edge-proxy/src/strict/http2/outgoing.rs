//! What the gateway sends, cut into frames: the guard has to know which streams have ended.

use super::frame::{HEAD, Head, kind, number};

/// A walk over the frames that are sent.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    head: [u8; HEAD],
    /// Octets of the next head that are there.
    have: usize,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    head: Head,
    missing: u32,
    /// The beginning of the payload, where it holds a code.
    begin: [u8; 8],
    have: usize,
}

/// A frame that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) head: Head,
    /// The code of RST_STREAM and GOAWAY.
    pub(super) code: u32,
}

impl Outgoing {
    /// Whether the next octet begins a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.have == 0 && self.current.is_none()
    }

    /// Takes octets up to the end of a frame, if one ends among them.
    pub(super) fn take(&mut self, rest: &mut &[u8]) -> Option<Sent> {
        if self.current.is_none() {
            let taken = rest.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&rest[..taken]);
            self.have += taken;
            *rest = &rest[taken..];
            if self.have < HEAD {
                return None;
            }
            self.have = 0;
            let head = Head::parse(&self.head);
            self.current = Some(Current {
                head,
                missing: head.length,
                begin: [0; 8],
                have: 0,
            });
        }
        let current = self.current.as_mut()?;
        let taken = usize::try_from(current.missing)
            .unwrap_or(usize::MAX)
            .min(rest.len());
        if matches!(current.head.kind, kind::RST_STREAM | kind::GOAWAY) {
            let room = current.begin.len() - current.have;
            for byte in rest[..taken].iter().take(room) {
                current.begin[current.have] = *byte;
                current.have += 1;
            }
        }
        current.missing -= u32::try_from(taken).unwrap_or(current.missing);
        *rest = &rest[taken..];
        if current.missing > 0 {
            return None;
        }
        let current = self.current.take()?;
        Some(Sent {
            head: current.head,
            code: match current.head.kind {
                // Behind the last stream.
                kind::GOAWAY => number(&current.begin[4..]).unwrap_or(0),
                _ => number(&current.begin).unwrap_or(0),
            },
        })
    }
}
