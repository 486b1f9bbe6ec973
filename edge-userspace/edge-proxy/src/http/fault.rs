//! Faults that a rule injects: the delay, then the abort (Envoy's fault filter).
//!
//! They come before the router, so neither the route's timeout nor its retries see them.

use bytes::Bytes;
use edge_model::{AbortStatus, Fault, Fraction};
use http::StatusCode;

use super::grpc;
use super::{Flag, Record, Reply};
use crate::connection::Conn;

/// Injects what falls to this request.
pub(super) async fn inject(fault: &Fault, conn: &Conn, record: &mut Record) -> Result<(), Reply> {
    let falls = |share: Fraction| share.takes(conn.worker().rng().u32(..1_000_000));
    if let Some(delay) = fault.delay.filter(|delay| falls(delay.share)) {
        record.flag(Flag::DelayInjected);
        conn.worker().timers().after(delay.duration).await;
        record.was_delayed();
    }
    match fault.abort.filter(|abort| falls(abort.share)) {
        Some(abort) => Err(aborted(abort.status)),
        None => Ok(()),
    }
}

fn aborted(status: AbortStatus) -> Reply {
    let (status, grpc_status) = match status {
        AbortStatus::Http(status) => (status, None),
        AbortStatus::Grpc(code) => (grpc::to_http(code), Some(code)),
    };
    let reply = Reply::new(status, Flag::FaultInjected).details("fault_filter_abort");
    let body = Bytes::from_static(b"fault filter abort");
    match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => reply,
        _ => reply.with_body(body).with_grpc_status(grpc_status),
    }
}
