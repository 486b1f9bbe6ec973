//! A received frame in packet memory: where it is parsed from, without a copy.

use core::marker::PhantomData;

use aya_ebpf::programs::XdpContext;
use edge_common::cursor::{Cursor, MAX_SKIP, Window};

use crate::opaque::opaque;
use crate::word::load;

/// A frame in packet memory, read from front to back.
///
/// Windows that it hands out are good while the packet is not resized, which no stage does.
pub(crate) struct Frame<'p> {
    at: usize,
    end: usize,
    packet: PhantomData<&'p XdpContext>,
}

impl<'p> Frame<'p> {
    /// At the start of the context's frame.
    #[inline(always)]
    pub(crate) fn new(ctx: &'p XdpContext) -> Self {
        Self {
            at: ctx.data(),
            end: ctx.data_end(),
            packet: PhantomData,
        }
    }

    /// Behind the first `offset` bytes of the context's frame, at most 511.
    #[inline(always)]
    pub(crate) fn behind(ctx: &'p XdpContext, offset: usize) -> Self {
        Self {
            at: opaque(ctx.data() + (opaque(offset) & 0x1ff)),
            end: ctx.data_end(),
            packet: PhantomData,
        }
    }

    /// Where the cursor stands, from the beginning of the frame. The compiler would take what is subtracted from it off the
    /// pointer first, which the verifier does not allow.
    #[inline(always)]
    pub(crate) fn offset(&self, ctx: &XdpContext) -> usize {
        opaque(self.at - ctx.data())
    }

    /// Length of the frame while nothing has been read.
    #[inline(always)]
    pub(crate) fn len(&self) -> u64 {
        (self.end - self.at) as u64
    }
}

impl<'p> Cursor for Frame<'p> {
    type Window<const N: usize> = Bytes<'p, N>;

    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<Bytes<'p, N>> {
        let at = self.at;
        if at + N > self.end {
            return None;
        }
        self.at = at + N;
        Some(Bytes {
            at,
            packet: PhantomData,
        })
    }

    #[inline(always)]
    fn skip(&mut self, len: usize) {
        // The mask must be in the program for the verifier, even where the compiler knows that it changes
        // nothing; and later reads must start from this very pointer, because the verifier remembers what was
        // checked per pointer, not per sum.
        self.at = opaque(self.at + (opaque(len) & MAX_SKIP));
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        let at = self.at;
        if at + 1 > self.end {
            return None;
        }
        let next = Bytes::<1> {
            at,
            packet: PhantomData,
        };
        Some(next.byte::<0>())
    }

    #[inline(always)]
    fn remaining(&self) -> usize {
        self.end.saturating_sub(self.at)
    }
}

/// `N` bytes before the frame's end; only [`Frame::take`] makes them, after it compared.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'p, const N: usize> {
    at: usize,
    packet: PhantomData<&'p XdpContext>,
}

impl<const N: usize> Window for Bytes<'_, N> {
    #[inline(always)]
    fn byte<const AT: usize>(self) -> u8 {
        const { assert!(AT < N) };
        load!("u8", self.at, AT) as u8
    }

    #[inline(always)]
    fn be16<const AT: usize>(self) -> u16 {
        const { assert!(AT + 2 <= N) };
        u16::from_be(load!("u16", self.at, AT) as u16)
    }

    #[inline(always)]
    fn word<const AT: usize>(self) -> u32 {
        const { assert!(AT + 4 <= N) };
        load!("u32", self.at, AT) as u32
    }
}
