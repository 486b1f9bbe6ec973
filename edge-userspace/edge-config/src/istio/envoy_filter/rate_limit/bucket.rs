//! Token buckets, shares and durations as Envoy writes them.

use std::time::Duration;

use edge_model::{Fraction, TokenBucket};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::Reader;

/// Shortest time between fills that Envoy takes.
const MIN_FILL_INTERVAL: Duration = Duration::from_millis(50);

/// `envoy.type.v3.TokenBucket`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawTokenBucket {
    max_tokens: u32,
    tokens_per_fill: Option<u32>,
    fill_interval: Option<ProtoDuration>,
}

/// `envoy.config.core.v3.RuntimeFractionalPercent`. There is no runtime to look up: the default value counts.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RawFraction {
    #[serde(rename = "runtime_key")]
    _runtime_key: String,
    default_value: FractionalPercent,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FractionalPercent {
    numerator: u32,
    denominator: Denominator,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Denominator {
    #[default]
    Hundred,
    TenThousand,
    Million,
}

impl RawFraction {
    pub(super) fn fraction(&self) -> Fraction {
        let parts = match self.default_value.denominator {
            Denominator::Hundred => 10_000,
            Denominator::TenThousand => 100,
            Denominator::Million => 1,
        };
        Fraction::per_million(self.default_value.numerator.saturating_mul(parts))
    }
}

/// `google.protobuf.Duration` in JSON: seconds with up to nine decimals and an `s`.
#[derive(Clone, Copy)]
struct ProtoDuration(Duration);

impl<'de> Deserialize<'de> for ProtoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_suffix('s').filter(|number| {
            number.starts_with(|c: char| c.is_ascii_digit())
                && number.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        });
        let seconds = number.and_then(|number| number.parse().ok());
        let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let message = || {
            D::Error::custom(format_args!(
                "{text:?} is not a protobuf duration like 60s or 0.5s"
            ))
        };
        duration.map(Self).ok_or_else(message)
    }
}

impl Reader<'_> {
    pub(super) fn bucket(&mut self, raw: &RawTokenBucket, path: &str) -> Option<TokenBucket> {
        let interval = raw.fill_interval.map(|interval| interval.0);
        let fill_interval = interval.filter(|interval| *interval >= MIN_FILL_INTERVAL);
        let bucket = TokenBucket {
            max_tokens: raw.max_tokens,
            tokens_per_fill: raw.tokens_per_fill.unwrap_or(1),
            fill_interval: fill_interval.unwrap_or(MIN_FILL_INTERVAL),
        };
        if bucket.max_tokens == 0 {
            let hint = "set how many requests may come at once";
            self.error(&format!("{path}.max_tokens"), "must be at least 1", hint);
        }
        if bucket.tokens_per_fill == 0 {
            let hint = "set how many tokens each fill adds";
            self.error(&format!("{path}.tokens_per_fill"), "must be at least 1", hint);
        }
        if fill_interval.is_none() {
            let hint = "set the time between fills, such as 1s";
            self.error(&format!("{path}.fill_interval"), "must be at least 0.05s", hint);
        }
        (fill_interval.is_some() && bucket.max_tokens > 0 && bucket.tokens_per_fill > 0).then_some(bucket)
    }
}
