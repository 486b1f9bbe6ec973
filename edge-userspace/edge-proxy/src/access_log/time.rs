//! `%START_TIME%`: points in time as text, in UTC.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::h1::Digits;

thread_local! {
    /// The second that was written last, and its text: the next lines are most often of the same one.
    static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    /// What the clock said, and when that was: of what came little later it need not be asked.
    static CLOCK: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
}

/// For so long it goes by what the clock said before. A clock that is set anew is followed thereafter.
const TRUST: Duration = Duration::from_secs(1);

/// What the clock said at a moment in the past.
pub(super) fn on_the_clock(moment: Instant) -> SystemTime {
    let known = CLOCK.get();
    let (then, time) = known
        .filter(|(then, _)| {
            moment
                .checked_duration_since(*then)
                .is_some_and(|since| since < TRUST)
        })
        .unwrap_or_else(|| {
            let now = (Instant::now(), SystemTime::now());
            CLOCK.set(Some(now));
            now
        });
    let earlier = time.checked_sub(then.saturating_duration_since(moment));
    earlier.unwrap_or(UNIX_EPOCH) + moment.saturating_duration_since(then)
}

/// Appends a time by the common specifiers of strftime; without a format as `2016-12-15T16:07:39.123Z`.
pub(super) fn append(time: SystemTime, format: &str, out: &mut Vec<u8>) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    if !format.is_empty() {
        let mut text = String::new();
        append_formatted(since, format, &mut text);
        return out.extend_from_slice(text.as_bytes());
    }
    LAST.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            *second = since.as_secs();
            text.clear();
            append_formatted(since, "%Y-%m-%dT%H:%M:%S.", text);
        }
        out.extend_from_slice(text.as_bytes());
    });
    // Three digits of a thousand and those.
    let milliseconds = Digits::new(1000 + u64::from(since.subsec_millis()));
    out.extend_from_slice(milliseconds.as_bytes().get(1..).unwrap_or_default());
    out.push(b'Z');
}

fn append_formatted(since: Duration, format: &str, out: &mut String) {
    let (seconds, milliseconds) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        *out += before;
        let digits = |count: u32| {
            let all = format!("{:09}", since.subsec_nanos());
            all.get(..count as usize).unwrap_or(&all).to_owned()
        };
        let (piece, length) = match after.as_bytes() {
            [b'Y', ..] => (format!("{year:04}"), 1),
            [b'm', ..] => (format!("{month:02}"), 1),
            [b'd', ..] => (format!("{day:02}"), 1),
            [b'H', ..] => (format!("{hour:02}"), 1),
            [b'M', ..] => (format!("{minute:02}"), 1),
            [b'S', ..] => (format!("{second:02}"), 1),
            [b'F', ..] => (format!("{year:04}-{month:02}-{day:02}"), 1),
            [b'T', ..] => (format!("{hour:02}:{minute:02}:{second:02}"), 1),
            [b's', ..] => (seconds.to_string(), 1),
            [b'z', ..] => ("+0000".to_owned(), 1),
            [b'Z', ..] => ("UTC".to_owned(), 1),
            [b'f', ..] => (digits(9), 1),
            [b'3', b'f', ..] => (format!("{milliseconds:03}"), 2),
            [count @ b'1'..=b'9', b'f', ..] => (digits(u32::from(count - b'0')), 2),
            _ => ("%".to_owned(), 0),
        };
        *out += &piece;
        rest = after.get(length..).unwrap_or_default();
    }
    *out += rest;
}

/// Year, month and day of a day since 1970-01-01 (proleptic Gregorian calendar, by eras of 400 years that begin in
/// March).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (milliseconds, format, expected) in [
            (0, "", "1970-01-01T00:00:00.000Z"),
            (1_481_818_059_123, "", "2016-12-15T16:07:39.123Z"),
            (1_481_818_059_004, "", "2016-12-15T16:07:39.004Z"),
            (1_481_818_060_000, "", "2016-12-15T16:07:40.000Z"),
            (951_782_400_000, "%F %T", "2000-02-29 00:00:00"),
            (4_107_542_400_000, "%Y/%m/%d", "2100/03/01"),
            (1_481_818_059_123, "%s.%3f|%6f%z", "1481818059.123|123000+0000"),
            (0, "a%q%", "a%q%"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(milliseconds);
            let mut text = Vec::new();
            append(time, format, &mut text);
            assert_eq!(String::from_utf8(text).unwrap(), expected, "{format}");
        }
    }

    #[test]
    fn a_moment_is_on_the_clock_where_it_was_then() {
        let (now, time) = (Instant::now(), SystemTime::now());
        let ago = |milliseconds| Duration::from_millis(milliseconds);
        // The first asks the clock; what follows goes by it, or asks again.
        for ago in [ago(0), ago(500), ago(5000), ago(0)] {
            let told = on_the_clock(now.checked_sub(ago).unwrap());
            let expected = time - ago;
            let apart = told.max(expected).duration_since(told.min(expected)).unwrap();
            assert!(
                apart < Duration::from_millis(100),
                "{apart:?} apart after {ago:?}"
            );
        }
    }
}
