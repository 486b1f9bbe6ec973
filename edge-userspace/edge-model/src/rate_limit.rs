//! Local rate limits (Envoy `extensions.filters.http.local_ratelimit.v3.LocalRateLimit`).

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::ObjectRef;

/// A token-bucket limit with optional buckets per descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRateLimit {
    /// EnvoyFilter that it comes from.
    pub object: ObjectRef,
    /// Envoy `stat_prefix`.
    pub stat_prefix: String,
    /// Bucket that every request takes a token from; `None` limits by descriptors alone.
    pub bucket: Option<TokenBucket>,
    /// Buckets for requests with certain descriptors.
    pub descriptors: Vec<DescriptorBucket>,
    /// Envoy `filter_enabled`: share of requests that are counted (default 0 %).
    pub enabled: Fraction,
    /// Envoy `filter_enforced`: share of the requests over the limit that are refused (default 0 %).
    pub enforced: Fraction,
    /// Status of a refusal, 429 unless set.
    pub status: StatusCode,
    /// Headers added to refusals.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// `enable_x_ratelimit_headers: DRAFT_VERSION_03`: responses carry x-ratelimit-limit, -remaining and -reset.
    pub x_ratelimit_headers: bool,
}

/// Bucket of the requests whose descriptor has the given entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorBucket {
    /// Entries in order, all of which must be equal; an entry without value takes any, each value with its own bucket.
    pub entries: Vec<RateLimitEntry>,
    /// The bucket, or for entries without value the shape of each.
    pub bucket: TokenBucket,
}

/// Key and value of a descriptor entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitEntry {
    /// Key, such as `remote_address`.
    pub key: String,
    /// Value, such as `10.0.0.1`; `None` stands for any.
    pub value: Option<String>,
}

/// Envoy `type.v3.TokenBucket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Most tokens in the bucket, and how many it starts with; at least 1.
    pub max_tokens: u32,
    /// Tokens added at each fill; at least 1.
    pub tokens_per_fill: u32,
    /// Time between fills; at least 50 ms.
    pub fill_interval: Duration,
}

/// Share of requests, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction(u32);

impl Fraction {
    /// None at all.
    pub const NEVER: Self = Self(0);
    /// All of them.
    pub const ALWAYS: Self = Self(1_000_000);

    /// `parts` of a million; more than a million counts as all.
    #[must_use]
    pub fn per_million(parts: u32) -> Self {
        Self(parts.min(1_000_000))
    }

    /// Whether a draw from 0 to 999,999 falls into the share.
    #[must_use]
    pub fn takes(self, draw: u32) -> bool {
        draw < self.0
    }

    /// The share in parts per million.
    #[must_use]
    pub fn parts_per_million(self) -> u32 {
        self.0
    }
}

/// One descriptor that a route asks about: its actions in order (Envoy `RateLimit.actions`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitDescriptor {
    /// Actions; each adds one entry. When one has nothing to add, the descriptor is left out.
    pub actions: Vec<RateLimitAction>,
}

/// What adds an entry to a descriptor (Envoy `RateLimit.Action`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimitAction {
    /// `("remote_address", <client address>)`.
    RemoteAddress,
    /// `(<key>, <value>)`.
    GenericKey {
        /// `descriptor_key`, `generic_key` unless set.
        key: String,
        /// `descriptor_value`.
        value: String,
    },
    /// `(<key>, <value of the header>)`.
    RequestHeader {
        /// `header_name`.
        header: HeaderName,
        /// `descriptor_key`.
        key: String,
        /// `skip_if_absent`: without the header, the entry alone is left out and not the descriptor.
        skip_if_absent: bool,
    },
}
