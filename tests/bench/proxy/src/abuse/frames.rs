//! Frames of HTTP/2, as abusers write them.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// How a client begins (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A SETTINGS parameter.
pub(super) fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A field that stands as it is, and is not kept (RFC 7541 section 6.2.2).
pub(super) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    literal(0, name, value)
}

/// The same, kept in the table (section 6.2.1).
pub(super) fn kept_field(name: &[u8], value: &[u8]) -> Vec<u8> {
    literal(0x40, name, value)
}

fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut literal = vec![first];
    for text in [name, value] {
        integer(&mut literal, text.len());
        literal.extend(text);
    }
    literal
}

/// With a prefix of seven bits (section 5.1).
fn integer(block: &mut Vec<u8>, mut value: usize) {
    // Each octet takes what fits into it.
    let octet = |value: usize| u8::try_from(value & 0xff).unwrap_or(0);
    if value < 127 {
        block.push(octet(value));
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(octet(value % 128) | 128);
        value /= 128;
    }
    block.push(octet(value));
}

/// The fields that every request has.
pub(super) fn head(method: &str, host: &str, path: &str) -> Vec<u8> {
    [
        field(b":method", method.as_bytes()),
        field(b":scheme", b"http"),
        field(b":authority", host.as_bytes()),
        field(b":path", path.as_bytes()),
    ]
    .concat()
}
