//! The lines of the chunked coding.

use super::field::{is_text, is_token};

/// Longest chunk-size line, extensions included: nobody sends more than a signature.
const MAX_LINE: usize = 1024;

/// What all extensions of one body may take, in bytes: they are read and thrown away, so that whoever sends little else makes
/// work for nothing.
pub(crate) const MAX_EXTENSIONS: u64 = 16 * 1024;

/// Size of the chunk that a line announces (RFC 9112 section 7.1).
pub(crate) fn size(line: &[u8]) -> Result<u64, &'static str> {
    if line.len() > MAX_LINE {
        return Err("a chunk extension is too long");
    }
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit());
    let (digits, extensions) = line.split_at(digits.unwrap_or(line.len()));
    if !extensions.is_empty() {
        check_extensions(extensions)?;
    }
    if digits.is_empty() {
        return Err("an invalid chunk size");
    }
    digits
        .iter()
        .try_fold(0u64, |size, byte| {
            let digit = char::from(*byte).to_digit(16)?;
            // Far below the end of the number's range, so that no sum of sizes gets there either.
            size.checked_mul(16)?
                .checked_add(u64::from(digit))
                .filter(|size| *size < 1 << 60)
        })
        .ok_or("a chunk size is too large")
}

/// `;name`, `;name=token`, `;name="text"`, any number of them. White space around is for the lenient (`BWS`).
fn check_extensions(mut rest: &[u8]) -> Result<(), &'static str> {
    const INVALID: &str = "an invalid chunk extension";
    if !is_text(rest) {
        return Err(INVALID);
    }
    while !rest.is_empty() {
        rest = rest.strip_prefix(b";").ok_or(INVALID)?;
        let name = rest.iter().position(|byte| matches!(byte, b'=' | b';'));
        let (name, after) = rest.split_at(name.unwrap_or(rest.len()));
        if !is_token(name) {
            return Err(INVALID);
        }
        rest = match after.strip_prefix(b"=") {
            Some([b'"', value @ ..]) => quoted_end(value).ok_or(INVALID)?,
            Some(value) => {
                let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
                let (value, after) = value.split_at(end);
                if !is_token(value) {
                    return Err(INVALID);
                }
                after
            }
            None => after,
        };
    }
    Ok(())
}

/// What follows the closing quote.
fn quoted_end(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (line, expected) in [
            ("0", Some(0)),
            ("000", Some(0)),
            ("1aF", Some(0x1af)),
            ("5;a", Some(5)),
            ("5;a=b;c=\"d;\\\"e\"", Some(5)),
            ("1000000000000000", None),
            ("10000000000000005", None),
            ("", None),
            (";a", None),
            ("5 ", None),
            (" 5", None),
            ("5 ;a", None),
            ("0x5", None),
            ("+5", None),
            ("-5", None),
            ("5_0", None),
            ("5;", None),
            ("5;a=", None),
            ("5;a=\"b", None),
            ("5;a=\"b\"c", None),
            ("5;a\u{0}", None),
            ("5,5", None),
        ] {
            assert_eq!(size(line.as_bytes()).ok(), expected, "{line:?}");
        }
    }
}
