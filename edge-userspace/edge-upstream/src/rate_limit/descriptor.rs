//! Descriptors: what of a request its limit is keyed by (Envoy `config.route.v3.RateLimit`).

use std::borrow::Cow;
use std::net::IpAddr;

use edge_model::{DescriptorBucket, RateLimitAction, RateLimitDescriptor};
use http::HeaderMap;

/// Entries of one descriptor of a request, in the order of its actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor<'a>(Vec<(&'a str, Cow<'a, str>)>);

/// The descriptors that a route asks about for a request from `source`; one whose action has nothing to add is
/// left out.
#[must_use]
pub fn descriptors<'a>(
    wanted: &'a [RateLimitDescriptor],
    source: IpAddr,
    headers: &'a HeaderMap,
) -> Vec<Descriptor<'a>> {
    wanted
        .iter()
        .filter_map(|descriptor| build(descriptor, source, headers))
        .collect()
}

fn build<'a>(
    descriptor: &'a RateLimitDescriptor,
    source: IpAddr,
    headers: &'a HeaderMap,
) -> Option<Descriptor<'a>> {
    let mut entries: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(descriptor.actions.len());
    for action in &descriptor.actions {
        match action {
            RateLimitAction::RemoteAddress => {
                entries.push(("remote_address", Cow::Owned(source.to_string())));
            }
            RateLimitAction::GenericKey { key, value } => entries.push((key, Cow::Borrowed(value))),
            RateLimitAction::RequestHeader {
                header,
                key,
                skip_if_absent,
            } => match headers.get(header) {
                Some(value) => entries.push((key, String::from_utf8_lossy(value.as_bytes()))),
                None if *skip_if_absent => {}
                None => return None,
            },
        }
    }
    (!entries.is_empty()).then_some(Descriptor(entries))
}

impl Descriptor<'_> {
    /// Whether the entries are those of a limit's bucket; entries there without value take any.
    pub(super) fn matches(&self, bucket: &DescriptorBucket) -> bool {
        self.0.len() == bucket.entries.len()
            && self.0.iter().zip(&bucket.entries).all(|((key, value), entry)| {
                *key == entry.key && entry.value.as_ref().is_none_or(|fixed| fixed == value)
            })
    }

    /// The values that the bucket's entries leave open, as one text that is different for different values.
    pub(super) fn open_values(&self, bucket: &DescriptorBucket) -> Cow<'_, str> {
        let mut open = self
            .0
            .iter()
            .zip(&bucket.entries)
            .filter(|(_, entry)| entry.value.is_none());
        let first = open.next().map_or("", |((_, value), _)| &**value);
        let rest: Vec<_> = open.map(|((_, value), _)| &**value).collect();
        match rest.is_empty() {
            true => Cow::Borrowed(first),
            // No header value holds a NUL (RFC 9110 section 5.5), so the parts cannot run into each other.
            false => Cow::Owned(format!("{first}\0{}", rest.join("\0"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::{RateLimitEntry, TokenBucket};
    use http::{HeaderName, HeaderValue};
    use std::time::Duration;

    fn header(skip_if_absent: bool) -> RateLimitAction {
        RateLimitAction::RequestHeader {
            header: HeaderName::from_static("x-user"),
            key: "user".into(),
            skip_if_absent,
        }
    }

    fn generic() -> RateLimitAction {
        RateLimitAction::GenericKey {
            key: "generic_key".into(),
            value: "slow".into(),
        }
    }

    #[track_caller]
    fn check(actions: Vec<RateLimitAction>, user: Option<&'static str>, expected: &[&[(&str, &str)]]) {
        let mut headers = HeaderMap::new();
        if let Some(user) = user {
            headers.insert("x-user", HeaderValue::from_static(user));
        }
        let wanted = [RateLimitDescriptor { actions }];
        let built = descriptors(&wanted, "2001:db8::1".parse().unwrap(), &headers);
        let entries: Vec<Vec<_>> = built
            .iter()
            .map(|descriptor| descriptor.0.iter().map(|(key, value)| (*key, &**value)).collect())
            .collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn each_action_adds_an_entry_in_order() {
        let actions = vec![generic(), RateLimitAction::RemoteAddress, header(false)];
        let entries: &[_] = &[
            ("generic_key", "slow"),
            ("remote_address", "2001:db8::1"),
            ("user", "ann"),
        ];
        check(actions, Some("ann"), &[entries]);
    }

    #[test]
    fn a_missing_header_leaves_the_descriptor_out_or_only_its_entry() {
        check(vec![generic(), header(false)], None, &[]);
        check(vec![generic(), header(true)], None, &[&[("generic_key", "slow")]]);
        check(vec![header(true)], None, &[]);
    }

    #[test]
    fn a_bucket_takes_descriptors_of_the_same_entries_only() {
        let bucket = |entries: &[(&str, Option<&str>)]| DescriptorBucket {
            entries: entries
                .iter()
                .map(|(key, value)| RateLimitEntry {
                    key: (*key).to_owned(),
                    value: value.map(str::to_owned),
                })
                .collect(),
            bucket: TokenBucket {
                max_tokens: 1,
                tokens_per_fill: 1,
                fill_interval: Duration::from_secs(1),
            },
        };
        let descriptor = Descriptor(vec![("a", "1".into()), ("b", "2".into())]);
        for (entries, expected) in [
            (&[("a", Some("1")), ("b", Some("2"))][..], true),
            (&[("a", Some("1")), ("b", None)], true),
            (&[("a", Some("1")), ("b", Some("3"))], false),
            (&[("b", Some("2")), ("a", Some("1"))], false),
            (&[("a", Some("1"))], false),
        ] {
            assert_eq!(descriptor.matches(&bucket(entries)), expected, "{entries:?}");
        }
        assert_eq!(
            descriptor.open_values(&bucket(&[("a", Some("1")), ("b", None)])),
            "2"
        );
        assert_eq!(
            descriptor.open_values(&bucket(&[("a", None), ("b", None)])),
            "1\x002"
        );
    }
}
