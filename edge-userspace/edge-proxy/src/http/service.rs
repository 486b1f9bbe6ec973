//! What hyper calls with each request of a connection of HTTP/2.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming as Http2Incoming;

use super::{Http2Body, Incoming, Record, ResponseBody, serve};
use crate::connection::Conn;
use crate::server::SendTask;

/// What a request is answered with; hyper asks for a result.
type Answer = Result<Response<ResponseBody>, Infallible>;

/// Answers the requests of `conn`.
pub(crate) fn service(
    conn: Rc<Conn>,
) -> impl hyper::service::Service<
    Request<Http2Incoming>,
    Response = Response<ResponseBody>,
    Error = Infallible,
    Future: 'static,
> {
    let answer = move |request: Request<Http2Incoming>| {
        let conn = Rc::clone(&conn);
        let record = Record::begin(&conn);
        let (head, body) = request.into_parts();
        let (head, body) = (Box::new(head), Incoming::Http2(Http2Body::new(body, &conn)));
        async move {
            conn.open_streams().turn(&conn).await;
            Ok(pin!(serve(&conn, head, body, record)).await)
        }
    };
    Service {
        answer,
        spare: Rc::default(),
    }
}

struct Service<A, F> {
    answer: A,
    spare: Rc<Spare<F>>,
}

impl<A, F> hyper::service::Service<Request<Http2Incoming>> for Service<A, F>
where
    A: Fn(Request<Http2Incoming>) -> F,
    F: Future<Output = Answer>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = InRoom<F>;

    fn call(&self, request: Request<Http2Incoming>) -> InRoom<F> {
        InRoom::new((self.answer)(request), &self.spare)
    }
}

/// Where a future is; it is empty afterwards.
type Room<F> = Pin<Box<Option<F>>>;

/// Rooms of a connection that are free.
type Spare<F> = RefCell<Vec<Room<F>>>;

/// Most rooms that are kept: as many requests as begin at a time.
const MAX_SPARE: usize = 16;

/// A future in a room that the next one is given, too.
///
/// It is boxed, as hyper moves it about before it is polled. At some kilobytes it is larger than what the allocator has at
/// hand, and to find so much and to let it go, with what lies around it, would cost about 2,500 instructions
/// (`bench-proxy --profile --case h2c`). A connection without requests keeps no room.
struct InRoom<F> {
    /// `None` once it is dropped.
    room: Option<Room<F>>,
    spare: Rc<Spare<F>>,
}

impl<F> InRoom<F> {
    fn new(future: F, spare: &Rc<Spare<F>>) -> Self {
        let free = spare.borrow_mut().pop();
        let room = match free {
            Some(mut room) => {
                room.as_mut().set(Some(future));
                room
            }
            None => Box::pin(Some(future)),
        };
        Self {
            room: Some(room),
            spare: Rc::clone(spare),
        }
    }
}

impl<F: Future> Future for InRoom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.room.as_mut().and_then(|room| room.as_mut().as_pin_mut());
        match future {
            Some(future) => future.poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for InRoom<F> {
    fn drop(&mut self) {
        // hyper drops it right behind what it makes of the response.
        SendTask::response_is_over();
        let Some(mut room) = self.room.take() else { return };
        room.as_mut().set(None);
        // Besides the service and this one, other requests hold it.
        let is_last = Rc::strong_count(&self.spare) <= 2;
        let mut spare = self.spare.borrow_mut();
        match is_last {
            true => *spare = Vec::new(),
            false if spare.len() < MAX_SPARE => spare.push(room),
            false => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn rooms_are_used_again_while_others_are_in_use() {
        let spare = Rc::new(Spare::default());
        let spare_rooms = |expected: usize| assert_eq!(spare.borrow().len(), expected);
        let value = Rc::new(());
        let of = |number: u32| {
            let value = Rc::clone(&value);
            async move {
                drop(value);
                number
            }
        };
        let begin = |number| InRoom::new(of(number), &spare);
        let (first, second, third) = (begin(1), begin(2), begin(3));
        assert_eq!(Rc::strong_count(&value), 4);
        assert_eq!(second.now_or_never(), Some(2));
        drop(third);
        assert_eq!(Rc::strong_count(&value), 2, "what was dropped is dropped at once");
        spare_rooms(2);
        assert_eq!(begin(4).now_or_never(), Some(4));
        spare_rooms(2);
        drop(first);
        spare_rooms(0);
    }
}
