//! What the sample backend answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

/// The exit code of `/crash`: EX_SOFTWARE of sysexits.h.
const EXIT_CRASHED: i32 = 70;

/// Requests answered so far. A static, because the program is one backend.
static ANSWERED: AtomicU64 = AtomicU64::new(0);

/// Answers one request. An error of the body's is the connection's end.
pub(crate) async fn answer(
    request: Request<Incoming>,
    version: String,
    remote: SocketAddr,
    delay: Duration,
) -> hyper::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/crash" {
        std::process::exit(EXIT_CRASHED);
    }
    if head.uri.path() == "/count" {
        let count = json!({"version": version, "requests": ANSWERED.load(Ordering::Relaxed)});
        return Ok(respond(&version, &count));
    }
    let body_length = body.collect().await?.to_bytes().len();
    let wait = delay + slowness(head.uri.path(), head.uri.query());
    // The timer counts whole milliseconds and rounds up: even no time at all would take one.
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let description = json!({
        "version": version,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": fields(&head.headers),
        "remote": remote.to_string(),
        "body_length": body_length,
    });
    ANSWERED.fetch_add(1, Ordering::Relaxed);
    Ok(respond(&version, &description))
}

fn respond(version: &str, description: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{description}\n"))));
    match HeaderValue::from_str(version) {
        Ok(value) => drop(response.headers_mut().insert("x-version", value)),
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The header fields as pairs in their order, so that a field that was sent twice shows twice.
fn fields(headers: &HeaderMap) -> Vec<(&str, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect()
}

/// How long `/slow?ms=N` waits. Without a number it does not.
fn slowness(path: &str, query: Option<&str>) -> Duration {
    let pairs = query.filter(|_| path == "/slow").unwrap_or_default().split('&');
    let ms = pairs
        .filter_map(|pair| pair.strip_prefix("ms="))
        .find_map(|ms| ms.parse().ok());
    Duration::from_millis(ms.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slow_with_a_number_waits() {
        let rows = [
            ("/slow", Some("ms=250"), 250),
            ("/slow", Some("a=b&ms=10"), 10),
            ("/slow", Some("ms=x"), 0),
            ("/slow", None, 0),
            ("/", Some("ms=250"), 0),
        ];
        for (path, query, expected) in rows {
            assert_eq!(
                slowness(path, query),
                Duration::from_millis(expected),
                "{path}?{query:?}"
            );
        }
    }

    #[test]
    fn an_answer_tells_its_version_twice() {
        let response = respond("v2", &json!({"version": "v2"}));
        assert_eq!(
            response.headers().get("x-version"),
            Some(&HeaderValue::from_static("v2"))
        );
    }
}
