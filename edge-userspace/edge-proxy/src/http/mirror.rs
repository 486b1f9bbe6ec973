//! Copies of requests for other clusters: sent and forgotten (Istio `mirrors`, Envoy's shadowing).

use std::rc::Rc;
use std::time::Duration;

use edge_model::Mirror;
use edge_upstream::{ActiveRequest, Pick};
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body::Body;

use super::RequestBody;
use crate::connection::Conn;
use crate::pool::Want;
use crate::worker::{Asker, ClusterView, View};

/// A mirror that is slower than this, where the route has no timeout of its own, is given up.
const LONGEST: Duration = Duration::from_secs(300);

/// Draws the mirrors that get a copy of a request.
pub(super) fn drawn<'m>(
    mirrors: &'m [Mirror],
    conn: &Conn,
    view: &View,
) -> Vec<(&'m Mirror, Rc<ClusterView>)> {
    let drawn = mirrors
        .iter()
        .filter(|mirror| mirror.share.takes(conn.worker().rng().u32(..1_000_000)));
    drawn
        .filter_map(|mirror| Some((mirror, Rc::clone(view.cluster(&mirror.cluster)?))))
        .collect()
}

/// Sends a copy; nobody waits for it.
pub(super) fn send(
    conn: &Rc<Conn>,
    cluster: Rc<ClusterView>,
    mut request: Request<RequestBody>,
    timeout: Option<Duration>,
) {
    shadow_host(&mut request);
    let timer = conn.worker().timers().after(timeout.unwrap_or(LONGEST));
    let conn = Rc::clone(conn);
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = deliver(&conn, &cluster, request) => {}
            () = timer => {}
        }
    });
}

async fn deliver(conn: &Conn, cluster: &ClusterView, request: Request<RequestBody>) {
    let now = cluster.clock(std::time::Instant::now());
    let pick = Pick {
        now,
        ..Pick::default()
    };
    let picked = cluster.pick(pick, &mut conn.worker().rng());
    let Some(endpoint) = picked.and_then(|index| cluster.endpoint(index)) else {
        return;
    };
    let _active = ActiveRequest::begin(endpoint.load());
    let authority = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("");
    let checkout = cluster.checkout(endpoint, Asker::Gateway(conn.protocol()), authority, Want::Any);
    let Ok(mut lease) = checkout.await else {
        return;
    };
    let Some(sender) = lease.sender() else { return };
    let Ok(mut response) = sender.send(request).await else {
        return;
    };
    // Read to its end, so that the connection can be used again.
    let body = response.body_mut();
    while let Some(Ok(_)) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await {}
    lease.release();
}

/// `-shadow` behind the host, in front of its port, by which the mirror can tell copies.
fn shadow_host(request: &mut Request<RequestBody>) {
    let Some(host) = request.headers().get(HOST).and_then(|host| host.to_str().ok()) else {
        return;
    };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        Some(_) | None => (host, None),
    };
    let shadow = match port {
        Some(port) => format!("{name}-shadow:{port}"),
        None => format!("{name}-shadow"),
    };
    if let Ok(shadow) = HeaderValue::try_from(shadow) {
        request.headers_mut().insert(HOST, shadow);
    }
}
