//! Heads of responses to clients.

use std::cell::RefCell;
use std::time::SystemTime;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{push_field, push_known, push_known_number};

/// How the end of a response's body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Not at all: there is none (RFC 9110 section 6.4.1), whatever the fields may say of another request's.
    NoBody,
    Known(u64),
    /// By the chunked coding.
    Chunked,
}

/// Appends a response's head. Its framing is written from `length` alone; `closes` says that the connection ends with it.
/// Answers whether its fields say so themselves.
pub(crate) fn write_response_head(
    status: StatusCode,
    headers: &HeaderMap,
    length: Length,
    closes: bool,
    text: &mut Vec<u8>,
) -> bool {
    match status {
        StatusCode::OK => text.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        status => {
            text.extend_from_slice(b"HTTP/1.1 ");
            text.extend_from_slice(status.as_str().as_bytes());
            text.extend_from_slice(b" ");
            text.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
            text.extend_from_slice(b"\r\n");
        }
    }
    let (mut has_date, mut has_connection, mut says_close) = (false, false, false);
    for (name, value) in headers {
        let is_framing = *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH;
        if is_framing && length != Length::NoBody {
            continue;
        }
        has_date |= *name == DATE;
        if *name == CONNECTION {
            has_connection = true;
            says_close |= lists_close(value.as_bytes());
        }
        push_field(text, name.as_str(), value.as_bytes());
    }
    match length {
        Length::NoBody => {}
        Length::Known(length) => push_known_number(text, "content-length: ", length),
        Length::Chunked => push_known(text, "transfer-encoding: ", b"chunked"),
    }
    if closes && !has_connection {
        push_known(text, "connection: ", b"close");
    }
    if !has_date {
        push_date(text);
    }
    text.extend_from_slice(b"\r\n");
    says_close
}

/// Whether `close` is among the options of a Connection field.
fn lists_close(value: &[u8]) -> bool {
    let mut options = value.split(|byte| *byte == b',');
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// A second, and its text as a Date field has it (RFC 9110 section 5.6.7).
type Second = (u64, String);

thread_local! {
    /// The second that was written last.
    static NOW: RefCell<Second> = const { RefCell::new((0, String::new())) };
}

/// What a gateway owes a response that has none (RFC 9110 section 6.6.1).
fn push_date(text: &mut Vec<u8>) {
    with_date(|date| push_known(text, "date: ", date.as_bytes()));
}

/// The present as a Date field has it.
pub(crate) fn date() -> HeaderValue {
    with_date(|date| HeaderValue::from_str(date).unwrap_or(HeaderValue::from_static("")))
}

fn with_date<R>(then: impl FnOnce(&str) -> R) -> R {
    let now = SystemTime::now();
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    NOW.with_borrow_mut(|(of, date)| {
        if *of != second || date.is_empty() {
            *of = second;
            *date = httpdate::fmt_http_date(now);
        }
        then(date)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            map.append(name, value);
        }
        map
    }

    #[track_caller]
    fn check(
        status: u16,
        fields: &[(&'static str, &'static str)],
        (length, closes): (Length, bool),
        expected: &str,
    ) {
        let mut fields = fields.to_vec();
        fields.push(("date", "x"));
        let mut text = Vec::new();
        let status = StatusCode::from_u16(status).unwrap();
        write_response_head(status, &map(&fields), length, closes, &mut text);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.replace("date: x\r\n", ""), expected);
    }

    #[test]
    fn framing_is_that_of_the_body_whatever_the_fields_say() {
        let fields = [
            ("a", "b"),
            ("content-length", "7"),
            ("a", "c"),
            ("transfer-encoding", "x"),
        ];
        check(
            200,
            &fields,
            (Length::Known(3), false),
            "HTTP/1.1 200 OK\r\na: b\r\na: c\r\ncontent-length: 3\r\n\r\n",
        );
        check(
            404,
            &fields,
            (Length::Chunked, true),
            "HTTP/1.1 404 Not Found\r\na: b\r\na: c\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        );
        check(
            304,
            &[("content-length", "7")],
            (Length::NoBody, false),
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
        );
        check(
            599,
            &[("connection", "x, Close")],
            (Length::Known(0), true),
            "HTTP/1.1 599 \r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n",
        );
    }

    #[test]
    fn a_response_without_a_date_gets_one() {
        let mut text = Vec::new();
        write_response_head(
            StatusCode::OK,
            &HeaderMap::new(),
            Length::Known(0),
            false,
            &mut text,
        );
        let text = String::from_utf8(text).unwrap();
        let date = text.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        let age = SystemTime::now()
            .duration_since(httpdate::parse_http_date(date).unwrap())
            .unwrap();
        assert!(age.as_secs() < 60, "{date}");
    }

    #[test]
    fn close_is_one_option_among_others() {
        for (value, expected) in [("close", true), ("upgrade, Close", true), ("keep-alive", false)] {
            let fields = map(&[("x", "close"), ("connection", value)]);
            let (length, mut text) = (Length::Known(0), Vec::new());
            let says_close = write_response_head(StatusCode::OK, &fields, length, false, &mut text);
            assert_eq!(says_close, expected, "{value}");
        }
    }
}
