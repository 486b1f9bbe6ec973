//! The key of a request for consistent hashing.

use edge_model::{HashCookie, HashKey};
use edge_upstream::balance::hash_key;
use fastrand::Rng;
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use std::net::IpAddr;

/// A request's hash, and the cookie that is made for clients without one.
#[derive(Debug, Default)]
pub(super) struct Hashed {
    pub(super) hash: Option<u64>,
    /// `Set-Cookie` of the response.
    pub(super) cookie: Option<HeaderValue>,
}

/// Hashes what `key` names of a request.
pub(super) fn hashed(
    key: &HashKey,
    headers: &HeaderMap,
    query: Option<&str>,
    client: IpAddr,
    rng: &mut Rng,
) -> Hashed {
    let of = |value: Option<&[u8]>| Hashed {
        hash: value.map(hash_key),
        cookie: None,
    };
    match key {
        HashKey::Header(name) => of(headers.get(name).map(HeaderValue::as_bytes)),
        HashKey::QueryParameter(name) => of(parameter(query, name).map(str::as_bytes)),
        HashKey::SourceIp => match client {
            IpAddr::V4(address) => of(Some(&address.octets())),
            IpAddr::V6(address) => of(Some(&address.octets())),
        },
        HashKey::Cookie(cookie) => match of(sent(headers, &cookie.name)) {
            Hashed { hash: None, .. } if cookie.ttl.is_some() => made(cookie, rng),
            hashed => hashed,
        },
    }
}

/// The value of a cookie, without the quotes that it may stand in (RFC 6265 section 4.1.1).
fn sent<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    });
    let value = values.next()?;
    Some(
        value
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""))
            .unwrap_or(value),
    )
}

/// The first value of a query parameter, as it was sent.
fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let mut pairs = query?
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find_map(|(own, value)| (own == name).then_some(value))
}

/// A new cookie, with which the client comes back to the same endpoint.
fn made(cookie: &HashCookie, rng: &mut Rng) -> Hashed {
    let value = format!("{:016x}", rng.u64(..));
    let mut text = format!("{}=\"{value}\"", cookie.name);
    let age = cookie.ttl.map_or(0, |ttl| ttl.as_secs());
    if age > 0 {
        text += &format!("; Max-Age={age}");
    }
    if !cookie.path.is_empty() {
        text += &format!("; Path={}", cookie.path);
    }
    for (name, value) in &cookie.attributes {
        text += &match value.as_str() {
            "" => format!("; {name}"),
            value => format!("; {name}={value}"),
        };
    }
    text += "; HttpOnly";
    Hashed {
        hash: Some(hash_key(value.as_bytes())),
        cookie: HeaderValue::try_from(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use std::time::Duration;

    fn hash_of(key: &HashKey, cookie: &'static str, query: Option<&str>) -> Option<u64> {
        let headers = HeaderMap::from_iter([
            (COOKIE, HeaderValue::from_static(cookie)),
            (HeaderName::from_static("x-user"), HeaderValue::from_static("ann")),
        ]);
        let client = IpAddr::from([192, 0, 2, 1]);
        hashed(key, &headers, query, client, &mut Rng::with_seed(1)).hash
    }

    fn cookie(ttl: Option<u64>) -> HashKey {
        HashKey::Cookie(HashCookie {
            name: "sess".into(),
            path: "/p".into(),
            ttl: ttl.map(Duration::from_secs),
            attributes: vec![
                ("SameSite".into(), "Strict".into()),
                ("Secure".into(), String::new()),
            ],
        })
    }

    #[test]
    fn the_key_is_the_value_that_the_policy_names() {
        let ann = Some(hash_key(b"ann"));
        let header = |name| HashKey::Header(HeaderName::from_static(name));
        let query = HashKey::QueryParameter("u".into());
        for (key, sent, query, expected) in [
            (header("x-user"), "", None, ann),
            (header("x-other"), "", None, None),
            (cookie(None), "a=b; sess=ann; c=d", None, ann),
            (cookie(None), "sess=\"ann\"", None, ann),
            (cookie(None), "xsess=ann", None, None),
            (query.clone(), "", Some("a=b&u=ann&u=bob"), ann),
            (query.clone(), "", Some("uu=ann"), None),
            (query, "", None, None),
            (HashKey::SourceIp, "", None, Some(hash_key(&[192, 0, 2, 1]))),
        ] {
            assert_eq!(hash_of(&key, sent, query), expected, "{key:?}");
        }
    }

    #[test]
    fn a_missing_cookie_is_made_and_hashed_as_it_will_come_back() {
        for (ttl, age) in [(0, ""), (60, "; Max-Age=60")] {
            let client = IpAddr::from([192, 0, 2, 1]);
            let made = hashed(
                &cookie(Some(ttl)),
                &HeaderMap::new(),
                None,
                client,
                &mut Rng::with_seed(1),
            );
            let text = made.cookie.unwrap().to_str().unwrap().to_owned();
            let value = text.split('"').nth(1).unwrap().to_owned();
            assert_eq!(
                text,
                format!("sess=\"{value}\"{age}; Path=/p; SameSite=Strict; Secure; HttpOnly")
            );
            assert_eq!((value.len(), made.hash), (16, Some(hash_key(value.as_bytes()))));
        }
    }
}
