//! Field lines, and what the fields of a head say about its body.

use std::ops::Range;

use super::message::Follows;

/// Characters of a token (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = token_table();

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
}

/// Whether a text is a token.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Whether a text can stand in a field value or a reason phrase: no control characters but the tab.
pub(super) fn is_text(text: &[u8]) -> bool {
    // Without a way out in the middle the compiler compares many bytes at once.
    !text.iter().fold(false, |bad, byte| {
        bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f)
    })
}

/// Name and value of a field line, the value without the white space around it.
pub(crate) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (name, value) = places(line)?;
    Ok((&line[..name], &line[value]))
}

/// Where in a field line things are: the length of the name, which it begins with, and the value, without the white space
/// around it.
pub(crate) fn places(line: &[u8]) -> Result<(usize, Range<usize>), &'static str> {
    let name_ends = line.iter().position(|byte| !TOKEN[usize::from(*byte)]);
    match name_ends.map(|at| (at, line[at])) {
        Some((0, b' ' | b'\t')) => Err("a field is folded over lines"),
        Some((0, b':')) => Err("a field without a name"),
        Some((at, b':')) => {
            let value = &line[at + 1..];
            if !is_text(value) {
                return Err("a control character in a field value");
            }
            let blanks = value.iter().take_while(|byte| is_blank(**byte)).count();
            let length = trim(value).len();
            let begin = at + 1 + if length == 0 { 0 } else { blanks };
            Ok((at, begin..begin + length))
        }
        Some((_, b' ' | b'\t')) => Err("white space before a colon"),
        Some(_) => Err("an invalid character in a field name"),
        None => Err("a field without a colon"),
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// What the fields of a head say about its body and connection.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Framing {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    /// `Upgrade: websocket`.
    pub(super) websocket: bool,
    /// `Connection: upgrade`.
    pub(super) upgrade: bool,
    /// `Connection: close`.
    close: bool,
    /// `Expect: 100-continue`.
    expects_continue: bool,
    /// `TE: trailers`.
    takes_trailers: bool,
}

impl Framing {
    /// Takes note of a field.
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // The length of a name tells most of them apart at once.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.note_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.note_coding(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.websocket = value.eq_ignore_ascii_case(b"websocket");
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in value.split(|byte| *byte == b',').map(trim) {
                    self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    self.close |= option.eq_ignore_ascii_case(b"close");
                }
                Ok(())
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                Ok(())
            }
            2 if name.eq_ignore_ascii_case(b"te") => {
                let mut codings = value.split(|byte| *byte == b',').map(trim);
                self.takes_trailers |= codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One line with one number: a list of equal numbers may be allowed (RFC 9112 section 6.3), yet there is no honest
    /// sender of it.
    fn note_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.length.is_some() {
            return Err("more than one Content-Length");
        }
        self.length = Some(number(value).ok_or("an invalid Content-Length")?);
        Ok(())
    }

    fn note_coding(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err("a Transfer-Encoding other than chunked");
        }
        self.chunked = true;
        Ok(())
    }

    /// Whether the connection ends with the message.
    pub(crate) fn closes(&self) -> bool {
        self.close
    }

    /// Whether the client waits for an interim response before it sends its body (RFC 9110 section 10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether the client keeps trailers (RFC 9110 section 6.5.1).
    pub(crate) fn takes_trailers(&self) -> bool {
        self.takes_trailers
    }

    /// Whether anything is said about a body.
    pub(crate) fn is_told(&self) -> bool {
        self.length.is_some() || self.chunked
    }

    /// The body of a response that may have one (RFC 9112 section 6.3).
    pub(crate) fn follows(&self) -> Follows {
        match (self.chunked, self.length) {
            (true, _) => Follows::Chunks,
            (false, Some(length)) => Follows::Bytes(length),
            (false, None) => Follows::Anything,
        }
    }

    /// Whether the fields contradict each other, or the version.
    pub(crate) fn check(&self, is_http_1_0: bool) -> Result<(), &'static str> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err("both Content-Length and Transfer-Encoding"),
            (true, None) if is_http_1_0 => Err("a Transfer-Encoding in HTTP/1.0"),
            _ => Ok(()),
        }
    }
}

/// Digits only, without sign, and no more than fit.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_token_a_colon_and_a_text() {
        for (line, expected) in [
            ("a:b", Ok(("a", "b"))),
            ("a: \t b c \t", Ok(("a", "b c"))),
            ("a:", Ok(("a", ""))),
            ("x-\u{e4}: 1", Err("an invalid character in a field name")),
            ("a b: 1", Err("white space before a colon")),
            ("a : 1", Err("white space before a colon")),
            (" a: 1", Err("a field is folded over lines")),
            (": 1", Err("a field without a name")),
            ("a", Err("a field without a colon")),
            ("a: \u{0}", Err("a control character in a field value")),
            ("a: \u{b}chunked", Err("a control character in a field value")),
            ("a: \u{7f}", Err("a control character in a field value")),
            ("a: \u{e4}", Ok(("a", "\u{e4}"))),
        ] {
            let expected = expected.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            assert_eq!(field(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_length_is_digits_that_fit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("1, 1", None),
            ("0x1", None),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text:?}");
        }
    }
}
