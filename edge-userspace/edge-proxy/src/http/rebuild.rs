//! The head that goes upstream, by itself: what the fuzz targets hold to the rules.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use super::head::{copy_end_to_end, frame_request};
use super::{Present, check, normalized};
use crate::options::{Limits, PathPolicy};
use crate::pool::write_head;

/// A body of so many bytes, or of nobody knows how many.
struct Told(Option<u64>);

impl Body for Told {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.0 == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The head that goes upstream for a client's, in HTTP/1.1, without what the gateway adds; `None` where the request is
/// refused. `body` is the length of its body, if it is known.
pub(crate) fn rebuilt(client: &Parts, body: Option<u64>) -> Option<Vec<u8>> {
    let authority = check::check(client, &Present::of(&client.headers), &Limits::default()).ok()?;
    let path = normalized(client, PathPolicy::default()).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_str(authority).ok()?);
    copy_end_to_end(&client.headers, &mut headers);
    frame_request(client, &mut headers, &Told(body));
    let mut request = http::Request::new(());
    *request.method_mut() = client.method.clone();
    *request.uri_mut() = path.into();
    *request.headers_mut() = headers;
    let mut text = Vec::new();
    write_head(&request.into_parts().0, &mut text);
    Some(text)
}
