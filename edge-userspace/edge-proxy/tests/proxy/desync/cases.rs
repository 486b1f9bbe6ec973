//! Reading the data.

/// Cases of one line each: what is expected, the case's name, and its message.
pub(crate) fn cases(text: &str) -> Vec<(&str, &str, &str)> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let case = |line| {
        let mut parts = str::splitn(line, 3, " | ");
        let mut part = || parts.next().unwrap_or_else(|| panic!("no case: {line:?}"));
        (part(), part(), part())
    };
    lines.map(case).collect()
}

/// Bytes from text with escapes, repetitions and `<H>`.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let text = repeated(&text.replace("<H>", r" HTTP/1.1\r\nhost: a\r\n"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.to_string().as_bytes());
            continue;
        }
        bytes.push(match rest.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("no byte: {digits:?} in {text:?}"))
            }
            other => panic!("no escape: {other:?} in {text:?}"),
        });
    }
    bytes
}

/// `%{TEXT*N}` is TEXT N times, the innermost first.
pub(crate) fn repeated(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(begin) = text.rfind("%{") {
        let end = begin
            + text[begin..]
                .find('}')
                .unwrap_or_else(|| panic!("no end: {text:?}"));
        let (repeated, count) = text[begin + 2..end].rsplit_once('*').unwrap();
        let times = repeated.repeat(count.parse().unwrap());
        text.replace_range(begin..=end, &times);
    }
    text
}
