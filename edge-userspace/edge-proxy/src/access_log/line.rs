//! Lines of the log: a format, prepared for being filled in.

use edge_model::{Field, FieldRef, FormatCommand, FormatPart, FormatString, FormatValue};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{AccessLogFormat, Scene};

/// A format, cut into what always stands and what each request fills in.
#[derive(Debug)]
pub(crate) struct Line {
    pieces: Vec<Piece>,
    /// What stands for a value that is not there.
    missing: &'static [u8],
    /// Fields of responses that it tells of.
    response: Vec<HeaderName>,
    /// Fields of trailers that it tells of.
    trailers: Vec<HeaderName>,
}

#[derive(Debug)]
enum Piece {
    Text(Box<[u8]>),
    /// A value of the gateway's own, which stands as it is.
    Own(FormatCommand),
    /// A value that others say: the client, the endpoint, or the configuration.
    Free(FormatCommand),
    /// A value as a JSON string.
    Quoted(FormatCommand),
    /// Text and values, together a JSON string.
    Joined(Box<[FormatPart]>),
}

/// Values of some fields of a head.
#[derive(Debug, Default)]
pub(crate) struct Kept(Vec<(HeaderName, HeaderValue)>);

impl Kept {
    /// Of the fields with these names. A line tells of one or two; a clone of the map would have them all.
    pub(crate) fn of(names: &[HeaderName], headers: &HeaderMap) -> Self {
        let values = names.iter().filter_map(|name| {
            let value = headers.get(name)?;
            Some((name.clone(), value.clone()))
        });
        Self(values.collect())
    }

    pub(super) fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value)
    }
}

impl Line {
    pub(crate) fn new(format: &AccessLogFormat) -> Self {
        let mut line = Self {
            pieces: Vec::new(),
            missing: b"-",
            response: Vec::new(),
            trailers: Vec::new(),
        };
        match format {
            AccessLogFormat::Text(format) => line.add_text(format),
            AccessLogFormat::Json(members) => {
                line.missing = b"null";
                line.add_json(members);
            }
        }
        line
    }

    fn add_text(&mut self, format: &FormatString) {
        for part in &format.parts {
            match part {
                FormatPart::Text(text) => self.add_plain(text.as_bytes()),
                FormatPart::Command(command) => {
                    let piece = if is_free(command) { Piece::Free } else { Piece::Own };
                    self.add_value(command, piece);
                }
            }
        }
    }

    fn add_json(&mut self, members: &[(String, FormatString)]) {
        for (number, (name, format)) in members.iter().enumerate() {
            let mut begin = if number == 0 { "{" } else { "," }.as_bytes().to_vec();
            quote(name, &mut begin);
            begin.push(b':');
            self.add_plain(&begin);
            match format.parts.as_slice() {
                [FormatPart::Command(command)] => {
                    let piece = if is_number(command) {
                        Piece::Own
                    } else {
                        Piece::Quoted
                    };
                    self.add_value(command, piece);
                }
                parts => {
                    parts.iter().for_each(|part| self.note_fields(part));
                    self.pieces.push(Piece::Joined(parts.into()));
                }
            }
        }
        self.add_plain(if members.is_empty() { b"{}\n" } else { b"}\n" });
    }

    /// Text stands together with the text before it.
    fn add_plain(&mut self, text: &[u8]) {
        if let Some(Piece::Text(before)) = self.pieces.last_mut() {
            *before = [before, text].concat().into();
        } else {
            self.pieces.push(Piece::Text(text.into()));
        }
    }

    fn add_value(&mut self, command: &FormatCommand, piece: fn(FormatCommand) -> Piece) {
        self.note_fields(&FormatPart::Command(command.clone()));
        if never_has_value(command) {
            self.add_plain(self.missing);
        } else {
            self.pieces.push(piece(command.clone()));
        }
    }

    fn note_fields(&mut self, part: &FormatPart) {
        let (names, wanted) = match part {
            FormatPart::Command(FormatCommand::Resp(wanted)) => (&mut self.response, wanted),
            FormatPart::Command(FormatCommand::Trailer(wanted)) => (&mut self.trailers, wanted),
            FormatPart::Command(_) | FormatPart::Text(_) => return,
        };
        for field in [Some(&wanted.field), wanted.alternative.as_ref()] {
            if let Some(Field::Header(name)) = field
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
    }

    /// The fields of responses that it tells of.
    pub(crate) fn response_fields(&self) -> &[HeaderName] {
        &self.response
    }

    /// The fields of trailers that it tells of.
    pub(crate) fn trailer_fields(&self) -> &[HeaderName] {
        &self.trailers
    }

    /// Appends the line of a request.
    pub(crate) fn append(&self, scene: &Scene<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            let begin = out.len();
            let is_there = match piece {
                Piece::Text(text) => {
                    match **text {
                        // Most often it is a space: no call for that.
                        [byte] => out.push(byte),
                        _ => out.extend_from_slice(text),
                    }
                    continue;
                }
                Piece::Own(command) => scene.append(command, out),
                Piece::Free(command) => {
                    let is_there = scene.append(command, out);
                    escape_behind(begin, out);
                    is_there
                }
                Piece::Quoted(command) => {
                    out.push(b'"');
                    let is_there = scene.append(command, out);
                    match is_there {
                        true => quote_behind(begin, out),
                        false => out.truncate(begin),
                    }
                    is_there
                }
                Piece::Joined(parts) => {
                    out.push(b'"');
                    join(parts, scene, out);
                    quote_behind(begin, out);
                    true
                }
            };
            if !is_there {
                out.extend_from_slice(self.missing);
            }
        }
    }
}

fn join(parts: &[FormatPart], scene: &Scene<'_>, out: &mut Vec<u8>) {
    for part in parts {
        match part {
            FormatPart::Text(text) => out.extend_from_slice(text.as_bytes()),
            FormatPart::Command(command) => {
                if !scene.append(command, out) {
                    out.push(b'-');
                }
            }
        }
    }
}

/// Whether others than the gateway say what a command stands for.
fn is_free(command: &FormatCommand) -> bool {
    use FormatValue as V;
    match command {
        FormatCommand::Req(FieldRef {
            field: Field::Scheme | Field::Status,
            alternative: None,
            ..
        })
        | FormatCommand::Resp(FieldRef {
            field: Field::Status,
            alternative: None,
            ..
        }) => false,
        FormatCommand::Req(_) | FormatCommand::Resp(_) | FormatCommand::Trailer(_) => true,
        FormatCommand::StartTime(format) => !format.is_empty(),
        FormatCommand::Value(value) => !matches!(
            value,
            V::Protocol
                | V::ResponseCode
                | V::ResponseCodeDetails
                | V::ResponseFlags
                | V::ResponseFlagsLong
                | V::BytesReceived
                | V::BytesSent
                | V::Duration
                | V::RequestDuration
                | V::ResponseDuration
                | V::ResponseTxDuration
                | V::UpstreamHost
                | V::UpstreamRemoteAddress
                | V::UpstreamLocalAddress
                | V::UpstreamRequestAttemptCount
                | V::DownstreamLocalAddress
                | V::DownstreamRemoteAddress
                | V::DownstreamDirectRemoteAddress
                | V::DownstreamTlsVersion
                | V::DownstreamTlsCipher
                | V::ConnectionId
                | V::StreamId
        ),
    }
}

/// Whether a command stands for nothing in any line: what it tells of does not come to pass at this gateway, or only where
/// there is no request to tell it of.
fn never_has_value(command: &FormatCommand) -> bool {
    matches!(
        command,
        FormatCommand::Value(
            FormatValue::ConnectionTerminationDetails
                | FormatValue::DownstreamTransportFailureReason
                | FormatValue::VirtualClusterName
        )
    )
}

fn is_number(command: &FormatCommand) -> bool {
    matches!(
        command,
        FormatCommand::Value(
            FormatValue::ResponseCode
                | FormatValue::BytesReceived
                | FormatValue::BytesSent
                | FormatValue::Duration
                | FormatValue::RequestDuration
                | FormatValue::ResponseDuration
                | FormatValue::ResponseTxDuration
                | FormatValue::UpstreamRequestAttemptCount
                | FormatValue::DownstreamLocalPort
                | FormatValue::DownstreamRemotePort
                | FormatValue::GrpcStatusNumber
                | FormatValue::ConnectionId
        )
    )
}

/// Makes a part of one line of what stands behind `begin`, whatever a client has sent, and text of it in UTF-8.
fn escape_behind(begin: usize, out: &mut Vec<u8>) {
    if out.get(begin..).is_none_or(is_plain) {
        return;
    }
    let value = out.split_off(begin);
    let text = String::from_utf8_lossy(&value);
    let text = text.replace(['\n', '\r'], " ").replace('"', "\\\"");
    out.extend_from_slice(text.as_bytes());
}

/// Ends the JSON string that begins at `begin` with its quotation mark.
fn quote_behind(begin: usize, out: &mut Vec<u8>) {
    if out.get(begin + 1..).is_some_and(is_plain) {
        return out.push(b'"');
    }
    let value = out.split_off(begin);
    let text = String::from_utf8_lossy(value.get(1..).unwrap_or_default());
    quote(&text, out);
}

/// A JSON string (RFC 8259 section 7).
fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            control if u32::from(control) < 0x20 => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(control)).as_bytes());
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Whether a text may stand between quotation marks as it is: ASCII, without control characters, quotation marks and
/// backslashes. Values are short, so they are looked through by words of eight bytes, of which the last one may overlap.
fn is_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        let one = |bad, byte: &u8| (bad << 8) | u64::from(*byte);
        // Spaces are plain.
        let word = text.iter().fold(u64::from_le_bytes(*b"        "), one);
        return not_plain(word) == 0;
    };
    let (words, _) = text.as_chunks::<8>();
    let bad = words
        .iter()
        .fold(0, |bad, word| bad | not_plain(u64::from_le_bytes(*word)));
    bad | not_plain(u64::from_le_bytes(*last)) == 0
}

/// Not zero if one of eight bytes is not plain. Each term sets the highest bit of a byte that is below 0x20, or the character;
/// of bytes beyond ASCII the bit is set as it is (Hacker's Delight, "Find first 0-byte").
fn not_plain(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = 0x80 * ONES;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let is = |character: u8| is_zero(word ^ (u64::from(character) * ONES));
    (word.wrapping_sub(0x20 * ONES) | is(b'"') | is(b'\\') | word) & HIGHEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_that_a_format_names() {
        let format = "%RESP(b?a)% %REQ(c)% %RESP(:STATUS?b)% %RESP(a):3% %TRAILER(d)%";
        let line = Line::new(&AccessLogFormat::Text(FormatString::parse(format).unwrap()));
        assert_eq!(line.response_fields(), ["b", "a"]);
        assert_eq!(line.trailer_fields(), ["d"]);
        let line = Line::new(&AccessLogFormat::istio_json());
        assert_eq!(line.response_fields(), ["x-envoy-upstream-service-time"]);
    }

    #[test]
    fn what_always_stands_is_one_piece() {
        let of = |format: AccessLogFormat| Line::new(&format).pieces.len();
        let text = |format| AccessLogFormat::Text(FormatString::parse(format).unwrap());
        assert_eq!(of(text("a %CONNECTION_TERMINATION_DETAILS% b%PROTOCOL%")), 2);
        let json =
            |format| AccessLogFormat::Json(vec![("a".to_owned(), FormatString::parse(format).unwrap())]);
        assert_eq!(of(json("%VIRTUAL_CLUSTER_NAME%")), 1);
        assert_eq!(of(json("%PROTOCOL%")), 3);
        assert_eq!(of(AccessLogFormat::Json(vec![])), 1);
    }

    #[test]
    fn every_byte_that_needs_care_is_seen_at_every_place() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii() && byte >= 0x20 && byte != b'"' && byte != b'\\';
            for place in 0..20 {
                // Neighbours at both ends of what is plain.
                for neighbour in [b' ', b'!', 0x7f] {
                    let mut text = [neighbour; 20];
                    text[place] = byte;
                    assert_eq!(is_plain(&text), expected, "{byte:#x} at {place}");
                    assert_eq!(
                        is_plain(&text[..=place]),
                        expected,
                        "{byte:#x} at {place}, the last"
                    );
                }
            }
        }
        assert!(is_plain(b""));
    }

    #[test]
    fn text_from_outside_cannot_leave_its_quotes() {
        for (text, json, plain) in [
            (
                &b"a\"b\\c\nd\x01\xc3\xa9"[..],
                "\"a\\\"b\\\\c\\nd\\u0001é\"",
                "a\\\"b\\c d\u{1}é",
            ),
            (b"", "\"\"", ""),
            (b"a\\", "\"a\\\\\"", "a\\"),
            (b"\x1f", "\"\\u001f\"", "\u{1f}"),
            (b"a\xff", "\"a\u{fffd}\"", "a\u{fffd}"),
            (b"\r\n", "\"\\u000d\\n\"", "  "),
        ] {
            let (mut quoted, mut escaped) = (b":\"".to_vec(), b":".to_vec());
            quoted.extend_from_slice(text);
            quote_behind(1, &mut quoted);
            assert_eq!(String::from_utf8(quoted).unwrap(), format!(":{json}"));
            escaped.extend_from_slice(text);
            escape_behind(1, &mut escaped);
            assert_eq!(String::from_utf8(escaped).unwrap(), format!(":{plain}"));
        }
    }
}
