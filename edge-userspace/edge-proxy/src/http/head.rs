//! Heads on their way through: the request to the upstream, and the response back, built from what was understood.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::time::Duration;

use edge_model::{Route, WeightedDestination};
use edge_routing::{FormatValues, Rewritten, apply_request_ops};
use fastrand::Rng;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, SERVER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use hyper::body::Body;
use smallvec::SmallVec;

use super::finish::edit;
use super::upgrade;
use crate::h1::Digits;

const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(crate) const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// The name that Istio's gateways answer under; clients and tests look for it.
const SERVER_NAME: HeaderValue = HeaderValue::from_static("istio-envoy");

/// The client and how it came in, as the upstream is told.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// The address as a header value, made once for the connection when it is first asked for.
    text: OnceCell<HeaderValue>,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// What the upstream is told of the client's certificate. Boxed, as few clients have one and all have room for it.
    pub(crate) certificate: OnceCell<Box<HeaderValue>>,
}

impl Peer {
    /// `address` in its canonical form: IPv4 as such, also when it came in on a dual-stack socket.
    pub(crate) fn new(address: IpAddr, scheme: &'static str) -> Self {
        Self {
            address: address.to_canonical(),
            text: OnceCell::new(),
            scheme,
            certificate: OnceCell::new(),
        }
    }

    /// The address as a header value.
    pub(super) fn text(&self) -> &HeaderValue {
        self.text.get_or_init(|| {
            // An address in text has digits, hexadecimal letters, dots and colons, all of them allowed in a value.
            HeaderValue::from_str(&self.address.to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        })
    }
}

/// What was decided about a request that is forwarded.
pub(crate) struct Plan<'a> {
    pub(crate) route: &'a Route,
    pub(crate) destination: &'a WeightedDestination,
    pub(crate) rewritten: &'a Rewritten,
    /// Authority of the client's request.
    pub(crate) authority: &'a str,
    /// Path of the client's request, normalised, with its query.
    pub(crate) path: &'a PathAndQuery,
    /// The client's address where it came by trusted proxies.
    pub(crate) trusted_address: Option<IpAddr>,
    /// Values of format commands in header operations.
    pub(crate) values: FormatValues<'a>,
    /// Time for the exchange, as the upstream is told.
    pub(crate) expected: Option<Duration>,
}

impl Plan<'_> {
    /// The authority that the upstream is asked for.
    pub(crate) fn final_authority(&self) -> &str {
        let rewritten = self.rewritten.authority.as_ref();
        rewritten
            .and_then(|own| own.to_str().ok())
            .unwrap_or(self.authority)
    }
}

/// Builds the request that goes upstream. It borrows the client's, which so remains for another try.
///
/// `None` when a rewrite made something that cannot stand in a request target.
pub(crate) fn upstream_request<B: Body>(
    client: &Parts,
    peer: &Peer,
    plan: &Plan<'_>,
    body: B,
    attempt: u32,
    request_id: &RequestId,
) -> Option<Request<B>> {
    let target = match &plan.rewritten.path_and_query {
        Some(new) => PathAndQuery::try_from(new.as_str()).ok()?,
        None => plan.path.clone(),
    };
    let mut headers = HeaderMap::with_capacity(client.headers.len() + 8);
    headers.insert(HOST, authority_value(client, plan.authority)?);
    copy_end_to_end(&client.headers, &mut headers);
    add_edge_headers(&mut headers, peer, plan.trusted_address, request_id);
    headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempt));
    if let Some(expected) = plan.expected {
        let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(milliseconds));
    }
    plan.rewritten
        .write_headers(&mut headers, plan.authority, plan.path.as_str());
    apply_request_ops(&mut headers, plan.route, plan.destination, plan.values);
    frame_request(client, &mut headers, &body);

    let mut request = Request::new(body);
    *request.method_mut() = client.method.clone();
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers;
    Some(request)
}

/// The Host field as it came when it is the authority, which costs no copy.
fn authority_value(client: &Parts, authority: &str) -> Option<HeaderValue> {
    match client.headers.get(HOST) {
        Some(host) if host.as_bytes() == authority.as_bytes() => Some(host.clone()),
        Some(_) | None => HeaderValue::from_str(authority).ok(),
    }
}

/// Copies what is meant for the server itself. `x-envoy-*` and the client certificate are statements of a gateway,
/// which a client at the edge is not in a position to make.
pub(super) fn copy_end_to_end(from: &HeaderMap, to: &mut HeaderMap) {
    let nominated = Nominated::of(from);
    for (name, value) in from {
        let dropped = *name == HOST
            || is_hop_by_hop(name)
            || name.as_str().starts_with("x-envoy-")
            || *name == FORWARDED_CLIENT_CERT
            || nominated.contains(name);
        if !dropped {
            to.append(name.clone(), value.clone());
        }
    }
}

/// Fields that belong to one connection and are never passed on (RFC 9110 section 7.6.1, RFC 9112 section 9). `expect`
/// is among them because the gateway answers 100-continue by itself.
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // A match on text is decided by its length and a comparison or two.
    matches!(
        name.as_str(),
        "connection"
            | "transfer-encoding"
            | "content-length"
            | "upgrade"
            | "te"
            | "expect"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
    )
}

fn add_edge_headers(headers: &mut HeaderMap, peer: &Peer, trusted: Option<IpAddr>, request_id: &RequestId) {
    let forwarded_for = forwarded_for(headers, peer);
    headers.insert(FORWARDED_FOR, forwarded_for);
    // A trusted proxy knows by what scheme the client came.
    if trusted.is_none() || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(peer.scheme));
    }
    let external = match trusted {
        Some(address) => HeaderValue::try_from(address.to_string()).ok(),
        None => None,
    };
    headers.insert(EXTERNAL_ADDRESS, external.unwrap_or_else(|| peer.text().clone()));
    if let Some(certificate) = peer.certificate.get() {
        headers.insert(FORWARDED_CLIENT_CERT, HeaderValue::clone(certificate));
    }
    headers.insert(REQUEST_ID, request_id.value());
}

/// The client's list, on one line, with its own address behind.
pub(crate) fn forwarded_for(headers: &HeaderMap, peer: &Peer) -> HeaderValue {
    if !headers.contains_key(FORWARDED_FOR) {
        return peer.text().clone();
    }
    let mut list = Vec::new();
    push_forwarded_for(headers, peer, &mut list);
    // Pieces of valid values, joined by a comma, make a valid value.
    HeaderValue::from_bytes(&list).unwrap_or_else(|_| peer.text().clone())
}

/// Appends the same list.
pub(crate) fn push_forwarded_for(headers: &HeaderMap, peer: &Peer, list: &mut Vec<u8>) {
    for line in headers.get_all(FORWARDED_FOR) {
        list.extend_from_slice(line.as_bytes());
        list.push(b',');
    }
    list.extend_from_slice(peer.text().as_bytes());
}

/// The client's address as `count` trusted proxies in front tell it: the address that stands so many places from the
/// right of x-forwarded-for (Envoy `xff_num_trusted_hops`). `None` when the list is shorter, or has no address there.
pub(crate) fn trusted_address(headers: &HeaderMap, count: u32) -> Option<IpAddr> {
    let lines = headers.get_all(FORWARDED_FOR).iter();
    let all: Vec<_> = lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .collect();
    let place = all.len().checked_sub(usize::try_from(count).ok()?)?;
    let text = std::str::from_utf8(all.get(place)?).ok()?;
    text.trim()
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

/// The id that a request goes by. An own one is held without memory of its own.
#[derive(Debug, Clone)]
pub(crate) enum RequestId {
    Own([u8; 36]),
    /// As a trusted proxy in front has given it.
    Trusted(HeaderValue),
}

impl RequestId {
    /// The one that a trusted proxy has given, else a new one.
    pub(crate) fn new(trusted: Option<&HeaderMap>, rng: &mut Rng) -> Self {
        let sent = trusted
            .and_then(|headers| headers.get(REQUEST_ID))
            .filter(|id| !id.is_empty());
        sent.cloned()
            .map_or_else(|| Self::Own(uuid(rng.u128(..))), Self::Trusted)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Own(text) => text,
            Self::Trusted(value) => value.as_bytes(),
        }
    }

    fn value(&self) -> HeaderValue {
        match self {
            // Hexadecimal digits and hyphens make a valid value.
            Self::Own(text) => HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("")),
            Self::Trusted(value) => value.clone(),
        }
    }
}

/// A UUID of random bits (version 4, RFC 9562 section 5.4) in its usual text form.
fn uuid(mut bits: u128) -> [u8; 36] {
    bits = (bits & !(0xf << 76)) | (4 << 76);
    bits = (bits & !(0b11 << 62)) | (0b10 << 62);
    let mut text = [b'-'; 36];
    // The places of the bytes, around the hyphens.
    let places = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    for (place, byte) in places.into_iter().zip(bits.to_be_bytes()) {
        text[place..place + 2].copy_from_slice(&HEX[usize::from(byte)]);
    }
    text
}

/// Each byte in hexadecimal.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 0xf]];
        byte += 1;
    }
    table
};

/// Writes the framing that the body really has (RFC 9112 section 6), whatever header operations may have put there.
pub(super) fn frame_request(client: &Parts, headers: &mut HeaderMap, body: &impl Body) {
    for name in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, UPGRADE, TE] {
        headers.remove(name);
    }
    if upgrade::is_asked(client) {
        upgrade::ask(headers);
    }
    if takes_trailers(client) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if body.is_end_stream() {
        headers.remove(TRAILER);
        // A client that says that its body is empty is passed on as saying so: some servers ask for it on POST.
        if client.headers.contains_key(CONTENT_LENGTH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        return;
    }
    match body.size_hint().exact() {
        Some(length) => {
            headers.remove(TRAILER);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length))
        }
        None => headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
}

/// Whether the client keeps the trailers of a response (RFC 9110 section 10.1.4); servers of gRPC ask for it.
fn takes_trailers(client: &Parts) -> bool {
    let lines = client.headers.get_all(TE).iter();
    let mut codings = lines.flat_map(|line| line.to_str().unwrap_or("").split(','));
    codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Fields that a Connection field names: they are for the next hop alone (RFC 9110 section 7.6.1).
#[derive(Default)]
pub(super) struct Nominated<'a>(Vec<&'a str>);

impl<'a> Nominated<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut names = Vec::new();
        for line in headers.get_all(CONNECTION) {
            let options = line.to_str().unwrap_or("").split(',').map(str::trim);
            let is_field = |option: &&str| {
                !option.is_empty()
                    && !option.eq_ignore_ascii_case("close")
                    && !option.eq_ignore_ascii_case("keep-alive")
            };
            names.extend(options.filter(is_field));
        }
        Self(names)
    }

    pub(super) fn contains(&self, name: &HeaderName) -> bool {
        self.0
            .iter()
            .any(|nominated| nominated.eq_ignore_ascii_case(name.as_str()))
    }
}

/// Whether a response of the upstream can be passed on at all: not a switch of protocols that nobody asked for, and
/// not in a coding that only the upstream can take apart.
pub(crate) fn is_passable<B>(response: &Response<B>) -> bool {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    !response.status().is_informational() && codings.next().is_none_or(plain) && codings.next().is_none()
}

/// Makes the upstream's response into the client's: what concerns one connection goes, the gateway's own comes, and of
/// the length stands there what is `told`.
pub(crate) fn downstream_headers(
    told: Option<u64>,
    headers: &mut HeaderMap,
    route: &Route,
    destination: &WeightedDestination,
    values: FormatValues<'_>,
) {
    let mut is_told = remove_hop_by_hop(headers, told);
    is_told &= !edit(headers, route, Some(destination), values);
    if let Some(length) = told.filter(|_| !is_told) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Removes what belongs to one connection. The names are looked over first: to look each one up would cost more. A
/// Content-Length stays where it says what is `told`; answers whether one does.
fn remove_hop_by_hop(headers: &mut HeaderMap, told: Option<u64>) -> bool {
    let length = told.map(Digits::new);
    let mut is_told = false;
    let mut found: SmallVec<[HeaderName; 4]> = SmallVec::new();
    for (name, value) in headers.iter().filter(|(name, _)| is_hop_by_hop(name)) {
        let is_length = length
            .as_ref()
            .is_some_and(|length| *name == CONTENT_LENGTH && value == length.as_str());
        if !is_length || std::mem::replace(&mut is_told, true) {
            found.push(name.clone());
        }
    }
    if found.contains(&CONNECTION) {
        let nominated = Nominated::of(headers);
        found.extend(headers.keys().filter(|name| nominated.contains(name)).cloned());
    }
    is_told &= !found.contains(&CONTENT_LENGTH);
    for name in found {
        headers.remove(name);
    }
    is_told
}

/// The Content-Length of a response, if it is the only one and a number.
pub(super) fn own_length(headers: &HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let only = lines.next().filter(|_| lines.next().is_none())?;
    let text = only.to_str().ok()?;
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// What every response carries.
pub(crate) fn add_server(headers: &mut HeaderMap) {
    headers.insert(SERVER, SERVER_NAME);
}
