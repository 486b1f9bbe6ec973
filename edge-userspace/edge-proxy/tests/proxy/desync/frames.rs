//! HTTP/2 frame by frame: what no client library would send.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::cases::{bytes, repeated};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// The client's connection preface, without the SETTINGS that belong to it (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame (RFC 9113 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// A request's head, all of it, with END_STREAM.
    pub(crate) fn get(stream: u32) -> Self {
        Self::new(HEADERS, END_STREAM | END_HEADERS, stream, block("get"))
    }

    /// A request's head, of which the body is to follow.
    pub(crate) fn post(stream: u32) -> Self {
        Self::new(HEADERS, END_HEADERS, stream, block("post"))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], self.kind, self.flags];
        frame.extend_from_slice(&self.stream.to_be_bytes());
        frame.extend_from_slice(&self.payload);
        frame
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A connection with the preface sent.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Self {
        Self::open_with(port, &[])
    }

    /// With settings, as identifier and value.
    pub(crate) fn open_with(port: u16, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut connection = Self { stream };
        connection.stream.write_all(PREFACE).unwrap();
        connection.send(&settings_frame(settings)).unwrap();
        connection
    }

    pub(crate) fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.stream.write_all(&frame.encode())
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame::new(head[3], head[4], stream, payload))
    }

    /// The next frame of which something holds; what comes before is let pass.
    pub(crate) fn wait_for(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> io::Result<Frame> {
        loop {
            let frame = self.next()?;
            if wanted(&frame) {
                return Ok(frame);
            }
        }
    }

    /// What becomes of streams, until each of them has ended or the connection has.
    pub(crate) fn outcomes(&mut self, streams: &[u32]) -> io::Result<Outcomes> {
        let mut outcomes = Outcomes::default();
        while !streams.iter().all(|stream| outcomes.ended.contains(stream)) && outcomes.goaway.is_none() {
            let frame = match self.next() {
                Ok(frame) => frame,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(error);
                }
                Err(_) => {
                    outcomes.closed = true;
                    return Ok(outcomes);
                }
            };
            outcomes.take(&frame);
        }
        Ok(outcomes)
    }
}

/// SETTINGS with identifiers and values.
pub(crate) fn settings_frame(settings: &[(u16, u32)]) -> Frame {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    Frame::new(SETTINGS, 0, 0, payload)
}

/// What the edge has said.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Whether the status of a stream is 200.
    pub(crate) passed: BTreeMap<u32, bool>,
    pub(crate) ended: Vec<u32>,
    pub(crate) reset: Vec<u32>,
    pub(crate) goaway: Option<u32>,
    pub(crate) closed: bool,
}

impl Outcomes {
    fn take(&mut self, frame: &Frame) {
        match frame.kind {
            HEADERS if !self.passed.contains_key(&frame.stream) => {
                // Index 8 of the static table is `:status: 200`; updates of the table's size may stand before.
                let first = frame.payload.iter().find(|byte| **byte & 0xe0 != 0x20);
                self.passed.insert(frame.stream, first == Some(&0x88));
            }
            RST_STREAM => {
                self.reset.push(frame.stream);
                self.ended.push(frame.stream);
            }
            GOAWAY => self.goaway = Some(frame.code()),
            _ => {}
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            self.ended.push(frame.stream);
        }
    }
}

/// Frames in the notation of the data.
pub(crate) fn frames(text: &str) -> Vec<Frame> {
    let text = repeated(text);
    text.split(" ; ")
        .filter(|frame| !frame.is_empty())
        .map(frame)
        .collect()
}

fn frame(text: &str) -> Frame {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let stream: String = word.chars().filter(char::is_ascii_digit).collect();
    let stream = stream.parse().unwrap_or(1);
    let flag = |letter, flag| if word.contains(letter) { flag } else { 0 };
    let ended = flag('E', END_STREAM);
    let whole = if word.contains('-') { 0 } else { END_HEADERS };
    match &word[..1] {
        "H" => Frame::new(HEADERS, ended | whole, stream, block(rest)),
        "C" => Frame::new(CONTINUATION, whole, stream, block(rest)),
        "D" => Frame::new(DATA, ended, stream, bytes(rest)),
        "R" => Frame::new(RST_STREAM, 0, stream, rest.parse::<u32>().unwrap().to_be_bytes()),
        "X" => {
            let mut parts = rest.splitn(4, ' ');
            let mut number = || u32::from_str_radix(parts.next().unwrap(), 16).unwrap();
            let (kind, flags, stream) = (number(), number(), number());
            let payload = bytes(parts.next().unwrap_or(""));
            Frame::new(
                kind.try_into().unwrap(),
                flags.try_into().unwrap(),
                stream,
                payload,
            )
        }
        _ => panic!("no frame: {text:?}"),
    }
}

/// A header block: literals without indexing, in the order given (RFC 7541 section 6.2.2).
pub(crate) fn block(text: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let method = match word {
            "get" => "GET",
            "post" => "POST",
            "head" => "HEAD",
            _ => {
                match word.strip_prefix("hex:") {
                    Some(digits) => block.extend(hex(digits)),
                    None => literal(&mut block, word),
                }
                continue;
            }
        };
        for (name, value) in [
            (":method", method),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "/"),
        ] {
            field(&mut block, name.as_bytes(), value.as_bytes());
        }
    }
    block
}

fn hex(digits: &str) -> impl Iterator<Item = u8> + '_ {
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
}

fn literal(block: &mut Vec<u8>, word: &str) {
    let (name, value) = word
        .split_once('=')
        .unwrap_or_else(|| panic!("no field: {word:?}"));
    field(block, &bytes(name), &bytes(value));
}

/// A field whose name and value stand as they are.
pub(crate) fn field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        integer(block, text.len());
        block.extend_from_slice(text);
    }
}

/// With a prefix of seven bits (RFC 7541 section 5.1).
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    block.push(u8::try_from(value).unwrap());
}
