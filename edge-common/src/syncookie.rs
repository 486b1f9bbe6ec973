//! SYN cookies: answering a SYN without remembering it.
//!
//! The kernel's helpers make and check the cookie itself; what is here are the options of the client's SYN, the
//! SYN-ACK that answers it, and its encoding in the time stamp, as the kernel's own cookies have them
//! (`net/ipv4/syncookies.c`), because the kernel takes the connection over at the client's ACK.

use crate::flood::Rate;
use crate::{assert_size, checksum};

/// What the SYN-ACKs offer: what the kernel will compute for itself when it accepts the cookie. A value of the
/// settings.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// New connections that a VIP takes.
    pub vip_limit: Rate,
    /// SYNs of a VIP that nobody completes, above which cookies are used; below half of it they end.
    pub unanswered: Rate,
    /// Largest segment that the node takes over IPv4, and over IPv6: the least of the interfaces that SYNs come by.
    pub mss4: u16,
    /// See `mss4`.
    pub mss6: u16,
    /// Window of the SYN-ACK over IPv4, in bytes, and over IPv6, if it has no time stamp.
    pub window4: u16,
    /// See `window4`.
    pub window6: u16,
    /// Shift of the windows after it.
    pub window_scale: u16,
    /// Other than 0: the kernel takes time stamps without a secret offset (`tcp_timestamps=2`), so options survive in
    /// them.
    pub has_timestamps: u16,
    /// Window over IPv4 if it has one: segments are shorter by then, and it is made of whole ones.
    pub stamped_window4: u16,
    /// Likewise over IPv6.
    pub stamped_window6: u16,
}

/// Whether a VIP is under attack, and how much of its limit is used (map `VIP_GUARDS`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guard {
    /// Bucket of [`Settings::vip_limit`].
    pub connections_full_at: u64,
    /// Bucket of [`Settings::unanswered`]: a SYN takes a token, the end of its handshake gives one back.
    pub unanswered_full_at: u64,
    /// Cookies are used until then; CLOCK_MONOTONIC, nanoseconds.
    pub cookies_until: u64,
    /// When a SYN was last left to the kernel, whose own cookie makes the listener accept cookies for two minutes.
    pub marked_at: u64,
}

assert_size!(Settings = 48, Guard = 32);

/// How long cookies stay in use after the last SYN that came beyond the rate: longer than the pauses of a flood, and
/// well within the two minutes for which the kernel accepts a cookie.
pub const HOLD_NS: u64 = 10_000_000_000;

impl Guard {
    /// Whether cookies are in use at the time `now`, in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn uses_cookies(&self, now: u64) -> bool {
        now < self.cookies_until
    }

    /// Counts a SYN as unanswered, for now; returns whether cookies are in use after it. `unanswered` is the rate of the
    /// settings. CPUs that count at the same moment may lose a token of each other.
    #[inline(always)]
    pub const fn count_syn(&mut self, unanswered: &Rate, now: u64) -> bool {
        let rate = self.rate_now(unanswered, now);
        match rate.take(self.unanswered_full_at, now) {
            Some(full_at) => self.unanswered_full_at = full_at,
            // Written seldom, because all CPUs read it.
            None if now + HOLD_NS - HOLD_NS / 8 > self.cookies_until => self.cookies_until = now + HOLD_NS,
            None => {}
        }
        self.uses_cookies(now)
    }

    /// Takes a SYN back that was counted: its handshake has ended.
    #[inline(always)]
    pub const fn count_answer(&mut self, unanswered: &Rate, now: u64) {
        let rate = self.rate_now(unanswered, now);
        self.unanswered_full_at = self.unanswered_full_at.saturating_sub(rate.token_ns);
    }

    /// The rate that counts: half of it while cookies are in use, so that a flood at about the rate does not switch them
    /// on and off.
    #[inline(always)]
    const fn rate_now(&self, unanswered: &Rate, now: u64) -> Rate {
        if self.uses_cookies(now) {
            unanswered.halved()
        } else {
            *unanswered
        }
    }
}

/// Handshakes that were begun and not ended (map `HANDSHAKES`), as a power of two: 512 kB. A later one takes the place of
/// an earlier one with the same hash, which then counts as unanswered: under a flood that is right, and without one there
/// are not so many.
pub const HANDSHAKE_BITS: u32 = 16;

/// What is kept of a handshake: where, and the number that its next segment must have with the hash of its flow. An ACK
/// that matches may still be made up by who sent the SYN; whether it brings the cookie says the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// Element of the map.
    pub place: u32,
    /// Its value.
    pub value: u64,
}

impl Handshake {
    /// Of a client's address, both ports (in one word), and the sequence number of the SYN and one more.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: crate::Address, ports: u32, next: u32) -> Self {
        let hash = crate::prefix_table::hash(source, ports);
        Self {
            place: hash >> (32 - HANDSHAKE_BITS),
            value: (next as u64) << 32 | hash as u64,
        }
    }
}

/// Most bytes of options in a TCP header.
pub const MAX_OPTIONS: usize = 40;
/// Window scale that stands for none in a time stamp (`TS_OPT_WSCALE_MASK`).
const NO_WINDOW_SCALE: u32 = 0xf;
/// Largest shift that may be used (RFC 7323 2.3).
const MAX_WINDOW_SCALE: u32 = 14;

/// Words of options that an [`Offer`] is read from.
pub const OFFER_WORDS: usize = 6;

/// Whether a word holds a window scale behind one byte of padding.
#[inline(always)]
const fn is_scale(word: u32) -> bool {
    word >> 8 == 0x01_0303
}

/// What a client's SYN offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Largest segment that it takes; 0 if it does not say.
    pub mss: u32,
    /// Shift of its windows; 15: it does not scale them.
    pub window_scale: u32,
    /// Selective acknowledgements: 1 if it knows them.
    pub sack: u32,
    /// 1 if it sends time stamps.
    pub has_timestamp: u32,
    /// Its time stamp.
    pub timestamp: u32,
}

impl Offer {
    /// Reads options of `len` bytes; of their words, as numbers, those beyond the end are not looked at.
    ///
    /// The layouts are those of today's stacks, each at fixed offsets: all begin with the MSS; Linux goes on
    /// with SACK permitted, time stamp and window scale, FreeBSD with window scale, SACK permitted and time stamp, Apple
    /// with window scale, time stamp and SACK permitted. A SYN
    /// with another layout (Windows sends no time stamp, so nothing but its MSS can be kept) is answered with the MSS
    /// alone, which any client takes. A reader for any order is a loop over variable offsets, which costs more than the
    /// cookie, and which the verifier follows through every combination.
    #[inline(always)]
    #[must_use]
    pub const fn read(options: [u32; OFFER_WORDS], len: usize) -> Self {
        let mut offer = Self {
            mss: 0,
            window_scale: NO_WINDOW_SCALE,
            sack: 0,
            has_timestamp: 0,
            timestamp: 0,
        };
        let [mss, second, third, fourth, fifth, sixth] = options;
        if len < 4 || mss >> 16 != 0x0204 {
            return offer;
        }
        offer.mss = mss & 0xffff;
        if len >= 20 && second == 0x0402_080a && is_scale(fifth) {
            offer.set(third, fifth as u8);
        } else if is_scale(second)
            && third & 0xffff == 0x080a
            && (len >= 20 && third >> 16 == 0x0402 || len >= 24 && sixth >> 16 == 0x0402)
        {
            offer.set(fourth, second as u8);
        }
        offer
    }

    const fn set(&mut self, timestamp: u32, shift: u8) {
        self.sack = 1;
        self.has_timestamp = 1;
        self.timestamp = timestamp;
        self.window_scale = if shift as u32 > MAX_WINDOW_SCALE {
            MAX_WINDOW_SCALE
        } else {
            shift as u32
        };
    }

    /// The time stamp that carries the offer's options back (`cookie_init_timestamp`), at a time in milliseconds: the
    /// last that is not in the future, with the options in its lowest six bits.
    #[inline(always)]
    #[must_use]
    pub const fn encode(&self, now_ms: u32) -> u32 {
        let options = self.window_scale & 0xf | self.sack << 4;
        let stamp = now_ms & !63 | options;
        if stamp > now_ms {
            stamp.wrapping_sub(64)
        } else {
            stamp
        }
    }
}

/// Words of the longest TCP header of an answer.
pub const SYN_ACK_WORDS: usize = 10;

/// The answer to a SYN.
#[derive(Debug, Clone, Copy)]
pub struct SynAck {
    /// Source port (the VIP's) and destination port, in one word.
    pub ports: u32,
    /// The cookie.
    pub cookie: u32,
    /// Sequence number of the SYN.
    pub sequence: u32,
    /// Largest segment that is taken.
    pub mss: u16,
    /// Window.
    pub window: u16,
    /// Shift of later windows.
    pub window_scale: u32,
    /// Time stamp and options; 0 without, and then no option but the MSS can be used.
    pub timestamp: u32,
}

impl SynAck {
    /// Words of the header without time stamp: the MSS alone.
    pub const SHORT: usize = 6;

    /// Words of the header that answers one of `syn_words`. It is as long as that, if it need not be longer and can be:
    /// then the frame's length stays as it was. What is left over is the end of the options and padding (RFC 9293 3.1).
    #[inline(always)]
    #[must_use]
    pub const fn words(syn_words: usize, with_options: bool) -> usize {
        if with_options || syn_words > SYN_ACK_WORDS {
            SYN_ACK_WORDS
        } else if syn_words < Self::SHORT {
            Self::SHORT
        } else {
            syn_words
        }
    }

    /// Writes the TCP header of `len` words ([`Self::words`]) as it stands on the wire, its checksum over a pseudo header
    /// with this sum of words.
    #[inline(always)]
    pub fn write(
        &self,
        words: &mut [u32; SYN_ACK_WORDS],
        len: usize,
        offer: &Offer,
        with_options: bool,
        pseudo_sum: u64,
    ) {
        let mut sum = pseudo_sum + len as u64 * 4 + u64::from(crate::TCP);
        let mut put = |at: usize, word: u32| {
            if let Some(to) = words.get_mut(at) {
                *to = word.to_be();
            }
            sum += u64::from(word);
        };
        put(0, self.ports);
        put(1, self.cookie);
        put(2, self.sequence.wrapping_add(1));
        put(3, (len as u32) << 28 | 0x12 << 16 | u32::from(self.window));
        put(5, 0x0204 << 16 | u32::from(self.mss));
        if with_options {
            // In place of an option that the client does not know: no operation.
            put(6, (if offer.sack != 0 { 0x0402 } else { 0x0101 }) << 16 | 0x080a);
            put(7, self.timestamp);
            put(8, offer.timestamp);
            let scales = offer.window_scale != NO_WINDOW_SCALE;
            put(
                9,
                if scales {
                    0x0103_0300 | self.window_scale
                } else {
                    0x0101_0101
                },
            );
        } else {
            (Self::SHORT..SYN_ACK_WORDS).for_each(|at| put(at, 0));
        }
        let sum = checksum::of(sum);
        if let Some(to) = words.get_mut(4) {
            *to = (u32::from(sum) << 16).to_be();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn read(options: &[u8]) -> Offer {
        let mut padded = [0xee; OFFER_WORDS * 4];
        padded[..options.len()].copy_from_slice(options);
        let mut words = [0; OFFER_WORDS];
        for (word, bytes) in words.iter_mut().zip(padded.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Offer::read(words, options.len())
    }

    const LINUX: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

    #[test]
    fn the_options_of_common_stacks_are_read() {
        let offer = |mss, window_scale, sack, timestamp: Option<u32>| Offer {
            mss,
            window_scale,
            sack,
            has_timestamp: timestamp.is_some().into(),
            timestamp: timestamp.unwrap_or_default(),
        };
        let apple = [
            2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 9, 9, 9, 9, 0, 0, 0, 0, 4, 2, 0, 0,
        ];
        let mut wide = LINUX;
        wide[19] = 200;
        let windows = [2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2];
        let freebsd = [2, 4, 5, 0xb4, 1, 3, 3, 6, 4, 2, 8, 10, 7, 7, 7, 7, 0, 0, 0, 0];
        let rows: [(&str, &[u8], Offer); 9] = [
            ("FreeBSD", &freebsd, offer(1460, 6, 1, Some(0x0707_0707))),
            ("Linux", &LINUX, offer(1460, 7, 1, Some(0x0102_0304))),
            ("Apple", &apple, offer(1460, 6, 1, Some(0x0909_0909))),
            ("Windows", &windows, offer(1460, 15, 0, None)),
            ("the MSS alone", &[2, 4, 2, 0], offer(512, 15, 0, None)),
            ("none", &[], offer(0, 15, 0, None)),
            ("another first", &[1, 1, 2, 4, 5, 0xb4], offer(0, 15, 0, None)),
            ("cut off", &LINUX[..16], offer(1460, 15, 0, None)),
            ("too large a shift", &wide, offer(1460, 14, 1, Some(0x0102_0304))),
        ];
        for (name, options, expected) in rows {
            assert_eq!(read(options), expected, "{name}");
        }
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn cookies_are_used_above_the_rate_and_left_below_half_of_it() {
        let rate = Rate::new(1000, 100);
        let mut guard = Guard::default();
        // Begins and ends of cookies, in milliseconds, for SYNs that nobody answers so many milliseconds apart.
        let mut run = |from_ms: u64, to_ms: u64, syns_per_ten_ms: u64| {
            let mut on = Vec::new();
            for ms in from_ms..to_ms {
                let now = ms * MS;
                let syns = if ms % 10 == 0 { syns_per_ten_ms } else { 0 };
                (0..syns).for_each(|_| {
                    guard.count_syn(&rate, now);
                });
                if on.last() != Some(&guard.uses_cookies(now)) {
                    on.push(guard.uses_cookies(now));
                }
            }
            on
        };
        assert_eq!(run(1000, 20_000, 9), [false], "900 a second");
        assert_eq!(run(20_000, 40_000, 20), [false, true], "2000 a second");
        assert_eq!(run(40_000, 60_000, 7), [true], "700 a second are not below half");
        assert_eq!(run(60_000, 80_000, 4), [true, false], "400 are");
    }

    #[test]
    fn a_handshake_is_known_by_its_flow_and_number() {
        let client = |last| crate::Address::v4([192, 0, 2, last]);
        let begun = Handshake::new(client(1), 0x9c40_0050, 8);
        assert_eq!(Handshake::new(client(1), 0x9c40_0050, 8), begun);
        assert_eq!(Handshake::new(client(1), 0x9c40_0050, 9).place, begun.place);
        for other in [
            Handshake::new(client(1), 0x9c40_0050, 9),
            Handshake::new(client(1), 0x9c41_0050, 8),
            Handshake::new(client(2), 0x9c40_0050, 8),
        ] {
            assert_ne!(other.value, begun.value);
        }
        assert!(begun.place < 1 << HANDSHAKE_BITS);
    }

    #[test]
    fn a_time_stamp_carries_the_options_and_is_not_in_the_future() {
        let offer = read(&LINUX);
        assert_eq!(offer.encode(1_000_000), 999_936 | 0x17);
        assert_eq!(offer.encode(1_000_040), 1_000_000 | 0x17);
        assert_eq!(read(&[]).encode(640) & 63, 0xf);
    }

    proptest! {
        /// However many SYNs come, and in whatever order their handshakes end within the burst.
        #[test]
        fn answered_handshakes_never_bring_cookies(
            burst in 1..2000_u32, per_second in 1..100_000_u32, steps in prop::collection::vec((0..50_u64, 0..100_u32), 0..200),
        ) {
            let (rate, mut guard, mut now) = (Rate::new(per_second, burst), Guard::default(), 1_000 * MS);
            for (pause_ms, syns) in steps {
                let syns = syns.min(burst);
                (0..syns).for_each(|_| { guard.count_syn(&rate, now); });
                now += pause_ms * MS;
                (0..syns).for_each(|_| guard.count_answer(&rate, now));
                prop_assert!(!guard.uses_cookies(now));
            }
        }

        /// A burst of them and one more, at once.
        #[test]
        fn unanswered_handshakes_always_bring_cookies(burst in 1..2000_u32, per_second in 1..100_000_u32, now in 1..1_u64 << 60) {
            let (rate, mut guard) = (Rate::new(per_second, burst), Guard::default());
            for _ in 0..burst {
                prop_assert!(!guard.count_syn(&rate, now));
            }
            prop_assert!(guard.count_syn(&rate, now));
            prop_assert!(guard.uses_cookies(now + HOLD_NS - 1) && !guard.uses_cookies(now + HOLD_NS));
        }

        #[test]
        fn a_time_stamp_is_less_than_64_ms_old(now in 64..=u32::MAX, sack in 0..2_u32, window_scale in 0..16_u32) {
            let stamp = Offer { sack, window_scale, ..read(&[]) }.encode(now);
            prop_assert!(stamp <= now && now - stamp < 128);
            prop_assert_eq!(stamp & 63, window_scale | sack << 4);
        }

        /// RFC 1071: the sum over everything, checksum included, is all ones.
        #[test]
        fn the_checksum_of_an_answer_is_right(
            ports: u32, cookie: u32, sequence: u32, source: u32, destination: u32, with_options: bool,
            syn_words in 5..16_usize,
        ) {
            let answer = SynAck { ports, cookie, sequence, mss: 1460, window: 64_240, window_scale: 10, timestamp: 99 };
            let pseudo = u64::from(source) + u64::from(destination);
            let mut words = [u32::MAX; SYN_ACK_WORDS];
            let len = SynAck::words(syn_words, with_options);
            answer.write(&mut words, len, &read(&LINUX), with_options, pseudo);
            let mut halves: Vec<u32> = words[..len].iter().map(|word| u32::from_be(*word)).flat_map(|word| [word >> 16, word & 0xffff]).collect();
            halves.extend([source >> 16, source & 0xffff, destination >> 16, destination & 0xffff]);
            halves.extend([6, len as u32 * 4]);
            let mut sum: u32 = halves.iter().sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(sum, 0xffff);
        }
    }
}
