//! A request's body on its way to an endpoint.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::h1::Outbox;
use crate::http::{RequestBody, RequestBodyError};

/// A body, sent with the framing that its size gives it.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    framing: Framing,
    is_broken: bool,
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    /// All of it is in the outbox.
    Done,
    /// So many bytes are left.
    Length(u64),
    Chunks,
}

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("writing failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Body(RequestBodyError),
}

impl Upload {
    pub(super) fn new(body: RequestBody) -> Self {
        let framing = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) | (false, Some(0)) => Framing::Done,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Chunks,
        };
        Self {
            body,
            framing,
            is_broken: false,
        }
    }

    /// Whether it has failed.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Writes what is in the outbox and all of the body behind it.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
        stream: &mut S,
    ) -> Poll<Result<(), UploadError>> {
        let result = ready!(self.poll_all(cx, outbox, stream));
        self.is_broken |= result.is_err();
        Poll::Ready(result)
    }

    fn poll_all<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
        stream: &mut S,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            // The first piece goes with the head.
            let piece = match outbox.has_room() && !matches!(self.framing, Framing::Done) {
                true => self.poll_piece(cx, outbox)?,
                false => Poll::Ready(()),
            };
            ready!(outbox.poll_write(stream, cx))?;
            ready!(Pin::new(&mut *stream).poll_flush(cx))?;
            if matches!(self.framing, Framing::Done) && outbox.is_empty() {
                return Poll::Ready(Ok(()));
            }
            ready!(piece);
        }
    }

    /// Puts the next piece of the body into the outbox.
    fn poll_piece(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Result<Poll<()>, UploadError> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Ok(Poll::Pending);
        };
        match frame.transpose().map_err(UploadError::Body)? {
            None => self.end(None, outbox)?,
            Some(frame) => match frame.into_data() {
                Ok(data) => match self.framing {
                    Framing::Chunks => outbox.push_chunk(data),
                    Framing::Length(left) => {
                        let left = left.checked_sub(data.len() as u64).ok_or_else(wrong_length)?;
                        outbox.push(data);
                        self.framing = match left {
                            0 => Framing::Done,
                            left => Framing::Length(left),
                        };
                    }
                    Framing::Done => {}
                },
                Err(frame) => self.end(frame.into_trailers().ok().as_ref(), outbox)?,
            },
        }
        Ok(Poll::Ready(()))
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, outbox: &mut Outbox) -> Result<(), UploadError> {
        match self.framing {
            Framing::Chunks => outbox.push_last_chunk(trailers),
            Framing::Length(_) => return Err(wrong_length()),
            Framing::Done => {}
        }
        self.framing = Framing::Done;
        Ok(())
    }
}

/// Clients are held to the length they told, so that this is not met; an endpoint must never see another one.
fn wrong_length() -> UploadError {
    UploadError::Io(io::Error::new(
        io::ErrorKind::InvalidData,
        "the body is not of the length that was told",
    ))
}
