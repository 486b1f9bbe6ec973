//! Values: ports, durations, percentages, expressions, header values.

use edge_model::Pattern;

use crate::GoDuration;
use crate::checker::Checker;
use crate::istio::{Percent, PortSelector};

/// Protocols of a port (Istio `Port.protocol`), in upper case.
pub(super) const PROTOCOLS: [&str; 12] = [
    "HTTP",
    "HTTPS",
    "HTTP2",
    "GRPC",
    "GRPC-WEB",
    "TCP",
    "TLS",
    "UDP",
    "MONGO",
    "REDIS",
    "MYSQL",
    "HTTP_PROXY",
];

/// A port number, 1 to 65535.
pub(super) fn port(check: &mut Checker<'_>, field: &str, number: u32) {
    if !(1..=65_535).contains(&number) {
        check.error(
            field,
            format!("port {number} is not from 1 to 65535"),
            "correct the number",
        );
    }
}

/// A port selector, when it is there.
pub(super) fn port_selector(check: &mut Checker<'_>, path: &str, selector: Option<PortSelector>) {
    if let Some(selector) = selector {
        port(check, &format!("{path}.number"), selector.number);
    }
}

/// Path of a unix domain socket, or an abstract one's name with `@` before it.
pub(super) fn socket_path(check: &mut Checker<'_>, field: &str, path: &str) {
    let is_file = path.starts_with('/') && !path.ends_with('/');
    if !is_file && !path.starts_with('@') {
        let hint = "write it as unix:///path/of/socket";
        check.error(field, format!("{path:?} is not an absolute path to a file"), hint);
    }
}

/// A duration of at least a millisecond, in whole milliseconds.
pub(super) fn duration(check: &mut Checker<'_>, field: &str, duration: Option<GoDuration>) {
    let Some(GoDuration(duration)) = duration else {
        return;
    };
    if duration.as_millis() == 0 {
        check.error(
            field,
            "must be at least 1ms",
            "leave the field out for its default",
        );
    } else if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        check.error(field, "is finer than a millisecond", "round it to milliseconds");
    }
}

/// As [`duration`], where 0 turns something off; less than a millisecond is 0, too.
pub(super) fn duration_or_zero(check: &mut Checker<'_>, field: &str, value: Option<GoDuration>) {
    duration(check, field, value.filter(|value| value.0.as_millis() != 0));
}

/// A percentage that may have a fraction.
pub(super) fn percent(check: &mut Checker<'_>, path: &str, percent: Option<Percent>) {
    if let Some(Percent { value }) = percent {
        percent_value(check, &format!("{path}.value"), value);
    }
}

/// A percentage of requests that a fault is injected into: Envoy counts in millionths, so that smaller ones would be 0.
pub(super) fn fault_percent(check: &mut Checker<'_>, path: &str, share: Option<Percent>) {
    percent(check, path, share);
    if let Some(Percent { value }) = share.filter(|share| share.value > 0.0 && share.value < 0.0001) {
        let message = format!("{value} % is neither 0 nor at least 0.0001");
        check.error(&format!("{path}.value"), message, "write 0 or 0.0001");
    }
}

/// 0 to 100.
pub(super) fn percent_value(check: &mut Checker<'_>, field: &str, value: f64) {
    if !(0.0..=100.0).contains(&value) {
        check.error(
            field,
            format!("{value} % is not from 0 to 100"),
            "correct the percentage",
        );
    }
}

/// A count that has no meaning below zero.
pub(super) fn not_negative(check: &mut Checker<'_>, field: &str, number: i32) {
    if number < 0 {
        let hint = "correct the number, or leave the field out for its default";
        check.error(field, format!("{number} is negative"), hint);
    }
}

/// An RE2 expression.
pub(super) fn regex(check: &mut Checker<'_>, field: &str, source: &str) {
    if source.is_empty() {
        check.error(
            field,
            "the regular expression is empty",
            "write an expression, such as .*",
        );
    } else if repeats_a_repetition(source) {
        let hint = "expressions are RE2's: write (?:x+)+ for a repetition of a repetition";
        check.error(
            field,
            "the regular expression repeats a repetition, as in x++",
            hint,
        );
    } else if let Err(error) = Pattern::new(source) {
        let reason = error.to_string();
        // The reason may go over several lines, with a drawing; its last line says what it is.
        let last = reason
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        let message = format!("the regular expression cannot be used: {last}");
        check.error(
            field,
            message,
            "expressions are RE2's: https://github.com/google/re2/wiki/Syntax",
        );
    }
}

/// Whether a repetition operator follows another (`x++`), which RE2 refuses and our engine would take. A `?` behind an
/// operator only makes it lazy.
fn repeats_a_repetition(source: &str) -> bool {
    let (mut escaped, mut in_class, mut after_operator) = (false, false, false);
    let mut lazy = false;
    for c in source.chars() {
        if escaped || in_class || !matches!(c, '*' | '+' | '?') {
            let plain = !escaped;
            in_class = if in_class {
                !(plain && c == ']')
            } else {
                plain && c == '['
            };
            escaped = plain && c == '\\';
            (after_operator, lazy) = (false, false);
        } else if after_operator && (c != '?' || lazy) {
            return true;
        } else {
            lazy = after_operator;
            after_operator = true;
        }
    }
    false
}

/// Whether a header value has one of Envoy's format commands, or why it cannot be one: `%%` is a literal percent sign.
///
/// # Errors
/// Says what is wrong with the percent signs.
pub fn has_format_command(value: &str) -> Result<bool, &'static str> {
    let mut rest = value;
    let mut found = false;
    while let Some((_, after)) = rest.split_once('%') {
        let (command, tail) = after.split_once('%').ok_or("has a single %")?;
        found |= !command.is_empty();
        if !command.is_empty() && !is_command(command) {
            return Err("has text between % signs that is no format command");
        }
        rest = tail;
    }
    Ok(found)
}

/// `NAME`, `NAME(argument)` or `NAME(argument):length`.
fn is_command(text: &str) -> bool {
    let end = text.find(['(', ':']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let named = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit());
    named && (rest.is_empty() || rest.starts_with(':') || rest.contains(')'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_repetitions_are_found() {
        for (source, expected) in [
            ("a+b*c?", false),
            ("a+?b*?", false),
            (r"\*+", false),
            ("[+*]+", false),
            (r"[\]*+]+", false),
            ("(a+)+", false),
            ("a++", true),
            ("a**", true),
            ("a+??", true),
            ("a?*", true),
        ] {
            assert_eq!(repeats_a_repetition(source), expected, "{source}");
        }
    }

    #[test]
    fn envoys_format_commands_are_told_from_percent_signs() {
        for (value, expected) in [
            ("plain", Some(false)),
            ("100%% sure", Some(false)),
            ("%REQ(:path)%", Some(true)),
            ("a %START_TIME(%s)% b", None),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", Some(true)),
            ("%REQ(x):10%", Some(true)),
            ("abcd%oijasodifj", None),
            ("50% of 30%", None),
        ] {
            assert_eq!(has_format_command(value).ok(), expected, "{value}");
        }
    }
}
