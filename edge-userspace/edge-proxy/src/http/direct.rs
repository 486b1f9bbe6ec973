//! The usual request's head, written straight into the bytes that go to an endpoint.
//!
//! `head` builds the request that goes upstream as a map of fields, on which header operations work. Most requests meet
//! none: for those the same head is written field by field, which saves the map, a value for each field of the gateway's
//! own, and most of the time. Both ways give the same fields, which a test holds them to.

use std::net::IpAddr;

use http::request::Parts;
use hyper::body::Body;

use super::Present;
use super::head::{FORWARDED_FOR, Nominated, Peer, Plan, forwarded_for, is_hop_by_hop};
use crate::h1::{push_field, push_known, push_known_number};

/// Whether a request that does not ask for another protocol can be written without the map: nothing edits its fields, its
/// path or its authority.
pub(super) fn is_plain(plan: &Plan<'_>) -> bool {
    plan.route.headers.request.is_empty()
        && plan.destination.headers.request.is_empty()
        && plan.rewritten.path_and_query.is_none()
        && plan.rewritten.authority.is_none()
}

/// Appends the head of a [plain](is_plain) request in the form of HTTP/1.1.
#[expect(clippy::too_many_arguments, reason = "what a head is made of")]
pub(super) fn write_head(
    client: &Parts,
    present: &Present<'_>,
    peer: &Peer,
    plan: &Plan<'_>,
    body: &impl Body,
    attempt: u32,
    request_id: &[u8],
    text: &mut Vec<u8>,
) {
    text.extend_from_slice(client.method.as_str().as_bytes());
    text.extend_from_slice(b" ");
    text.extend_from_slice(plan.path.as_str().as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\n");
    push_known(text, "host: ", plan.authority.as_bytes());
    let framing = match (body.is_end_stream(), body.size_hint().exact()) {
        (true, _) => Framing::Empty,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Chunked,
    };
    let nominated = match present.connection {
        true => Nominated::of(&client.headers),
        false => Nominated::default(),
    };
    let fields = write_fields(client, &nominated, plan.trusted_address.is_some(), framing, text);
    let has_list = present.forwarded_for && !nominated.contains(&FORWARDED_FOR);
    write_edge_fields(
        client,
        peer,
        plan.trusted_address,
        (has_list, fields.proto_is_known),
        text,
    );
    push_known(text, "x-request-id: ", request_id);
    push_known_number(text, "x-envoy-attempt-count: ", u64::from(attempt));
    if let Some(expected) = plan.expected {
        let milliseconds = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
        push_known_number(text, "x-envoy-expected-rq-timeout-ms: ", milliseconds);
    }
    match framing {
        Framing::Length(length) => push_known_number(text, "content-length: ", length),
        Framing::Chunked => push_known(text, "transfer-encoding: ", b"chunked"),
        // A client that says that its body is empty is passed on as saying so: some servers ask for it on POST.
        Framing::Empty if fields.length_is_told => {
            push_known_number(text, "content-length: ", 0);
        }
        Framing::Empty => {}
    }
    text.extend_from_slice(b"\r\n");
}

/// How the end of the body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Empty,
    Length(u64),
    Chunked,
}

/// What was met among a client's fields.
#[derive(Debug, Default, Clone, Copy)]
struct Met {
    /// An `x-forwarded-proto` that is believed, and was written.
    proto_is_known: bool,
    /// A `content-length`.
    length_is_told: bool,
}

/// The client's fields that are meant for the server itself.
fn write_fields(
    client: &Parts,
    nominated: &Nominated<'_>,
    is_trusted: bool,
    framing: Framing,
    text: &mut Vec<u8>,
) -> Met {
    let mut met = Met::default();
    for (name, value) in &client.headers {
        let is_left_out = match name.as_str() {
            "host" | "x-forwarded-for" | "x-forwarded-client-cert" | "x-request-id" => true,
            "x-forwarded-proto" if is_trusted => {
                let is_nominated = nominated.contains(name);
                met.proto_is_known |= !is_nominated;
                is_nominated
            }
            "content-length" => {
                met.length_is_told = true;
                true
            }
            "x-forwarded-proto" => true,
            // Only a chunked body has trailers to tell of.
            "trailer" => framing != Framing::Chunked || nominated.contains(name),
            other => other.starts_with("x-envoy-") || is_hop_by_hop(name) || nominated.contains(name),
        };
        if !is_left_out {
            push_field(text, name.as_str(), value.as_bytes());
        }
    }
    met
}

/// `has_list` says whether the client sent an `x-forwarded-for` of its own that is meant for the server.
fn write_edge_fields(
    client: &Parts,
    peer: &Peer,
    trusted: Option<IpAddr>,
    (has_list, proto_is_known): (bool, bool),
    text: &mut Vec<u8>,
) {
    match has_list {
        true => push_known(
            text,
            "x-forwarded-for: ",
            forwarded_for(&client.headers, peer).as_bytes(),
        ),
        false => push_known(text, "x-forwarded-for: ", peer.text().as_bytes()),
    }
    if !proto_is_known {
        push_known(text, "x-forwarded-proto: ", peer.scheme.as_bytes());
    }
    match trusted {
        Some(address) => push_known(text, "x-envoy-external-address: ", address.to_string().as_bytes()),
        None => push_known(text, "x-envoy-external-address: ", peer.text().as_bytes()),
    }
    if let Some(certificate) = peer.certificate.get() {
        push_known(text, "x-forwarded-client-cert: ", certificate.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use edge_model::{
        ClusterName, FormatCommand, Forward, HeaderOps, Kind, ObjectRef, Route, RouteAction, RouteMatch,
        WeightedDestination,
    };
    use edge_routing::Rewritten;
    use http::uri::PathAndQuery;
    use http::{HeaderValue, Request};
    use http_body_util::{Either, Empty, Full, StreamBody};

    use super::super::head::{RequestId, upstream_request};
    use super::*;

    type TestBody = Either<Empty<Bytes>, Either<Full<Bytes>, StreamBody<futures_util::stream::Empty<Frame>>>>;
    type Frame = Result<http_body::Frame<Bytes>, std::convert::Infallible>;

    fn route() -> Route {
        let object = ObjectRef {
            kind: Kind::VirtualService,
            namespace: "n".into(),
            name: "n".into(),
        };
        let action = RouteAction::Forward(Forward::to(vec![]));
        Route::new(std::sync::Arc::new(object), RouteMatch::any(), action)
    }

    /// The lines of both ways, each sorted.
    fn both(client: &Parts, trusted: Option<IpAddr>, body: impl Fn() -> TestBody) -> [Vec<String>; 2] {
        let (route, peer) = (route(), Peer::new([10, 0, 0, 9].into(), "http"));
        let destination = WeightedDestination {
            cluster: ClusterName::outbound(80, "", "web"),
            weight: 1,
            headers: HeaderOps::default(),
        };
        let rewritten = Rewritten {
            path_and_query: None,
            authority: None,
        };
        let values = |_: &FormatCommand| None;
        let plan = Plan {
            route: &route,
            destination: &destination,
            rewritten: &rewritten,
            authority: "a.com:80",
            path: &PathAndQuery::from_static("/x?y"),
            trusted_address: trusted,
            values: &values,
            expected: Some(Duration::from_millis(1500)),
        };
        assert!(is_plain(&plan));
        let mut text = Vec::new();
        let present = Present::of(&client.headers);
        write_head(client, &present, &peer, &plan, &body(), 2, b"id", &mut text);
        let text = String::from_utf8(text).unwrap();
        let (line, fields) = text.strip_suffix("\r\n\r\n").unwrap().split_once("\r\n").unwrap();
        assert_eq!(line, format!("{} /x?y HTTP/1.1", client.method));
        let direct = fields.split("\r\n").map(str::to_owned).collect();

        let id = RequestId::Trusted(HeaderValue::from_static("id"));
        let request = upstream_request(client, &peer, &plan, body(), 2, &id).unwrap();
        let by_map = request
            .headers()
            .iter()
            .filter(|(name, _)| *name != http::header::TE);
        let by_map = by_map.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut both: [Vec<String>; 2] = [direct, by_map.collect()];
        both.iter_mut().for_each(|lines| lines.sort());
        both
    }

    #[test]
    fn both_ways_write_the_same_fields() {
        let bodies: [fn() -> TestBody; 3] = [
            || Either::Left(Empty::new()),
            || Either::Right(Either::Left(Full::from("abc"))),
            || Either::Right(Either::Right(StreamBody::new(futures_util::stream::empty()))),
        ];
        let trusted: [Option<IpAddr>; 2] = [None, Some([10, 9, 9, 9].into())];
        for fields in [
            &[][..],
            &[("accept", "*/*"), ("cookie", "a=b"), ("cookie", "c=d")],
            &[
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
            ],
            &[("x-forwarded-proto", "https"), ("x-request-id", "theirs")],
            &[
                ("x-envoy-attempt-count", "9"),
                ("x-envoy-original-path", "/admin"),
            ],
            &[
                ("x-forwarded-client-cert", "Hash=a"),
                ("te", "trailers"),
                ("trailer", "x"),
            ],
            &[("content-length", "3"), ("expect", "100-continue")],
            &[
                ("transfer-encoding", "chunked"),
                ("keep-alive", "5"),
                ("http2-settings", "x"),
            ],
            &[
                (
                    "connection",
                    "x-secret, close, X-Forwarded-For, trailer, x-forwarded-proto",
                ),
                ("x-secret", "1"),
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-proto", "https"),
                ("trailer", "x"),
            ],
        ] {
            for (method, body) in ["GET", "POST", "PUT"].into_iter().zip(bodies) {
                for trusted in trusted {
                    let mut request = Request::builder().method(method).header("host", "a.com:80");
                    for (name, value) in fields {
                        request = request.header(*name, *value);
                    }
                    let (client, ()) = request.body(()).unwrap().into_parts();
                    let [direct, by_map] = both(&client, trusted, body);
                    assert_eq!(direct, by_map, "{method} {fields:?} {trusted:?}");
                }
            }
        }
    }
}
