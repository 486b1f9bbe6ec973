//! Durations as Istio's API writes them.

use std::fmt;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A duration in Go's notation, such as `1h30m`, `2.5s` or `10ms`; never negative.
///
/// Istio's documentation uses the whole of Go's notation, although protobuf's JSON form knows only seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(pub Duration);

/// Units of Go's `time.ParseDuration` with their length in nanoseconds; longer names first, for the prefix search.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

impl GoDuration {
    /// Parses Go's notation; `None` when the text is no duration or is negative.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self(Duration::ZERO));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        let mut nanoseconds = 0.0;
        loop {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at_checked(end)?;
            let (unit, length) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
            nanoseconds += number.parse::<f64>().ok()? * length;
            rest = tail.get(unit.len()..)?;
            if rest.is_empty() {
                // Go keeps durations in 63 bits of nanoseconds.
                let whole = nanoseconds <= i64::MAX as f64;
                return whole.then(|| Self(Duration::from_nanos(nanoseconds.round() as u64)));
            }
        }
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format_args!(
                "{text:?} is not a duration like 500ms, 10s or 1h30m"
            ))
        })
    }
}

#[cfg(test)]
impl serde::Serialize for GoDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Duration>) {
        assert_eq!(GoDuration::parse(text).map(|d| d.0), expected, "{text:?}");
    }

    #[test]
    fn gos_notation_is_read() {
        check("0", Some(Duration::ZERO));
        check("0s", Some(Duration::ZERO));
        check("10s", Some(Duration::from_secs(10)));
        check("0.5s", Some(Duration::from_millis(500)));
        check("1h30m", Some(Duration::from_secs(5400)));
        check("1m0.25s", Some(Duration::from_millis(60_250)));
        check("100ms", Some(Duration::from_millis(100)));
        check("7µs", Some(Duration::from_micros(7)));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "1 s",
            "1d",
            "1s2",
            ".s",
            "1..2s",
            "9999999999h",
            "1e3s",
        ] {
            check(text, None);
        }
    }
}
