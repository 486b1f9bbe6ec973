//! The account of one forwarded connection: it is written when the connection is over, however it ended.

use std::rc::Rc;
use std::time::Instant;

use super::meter::{Meter, Moved};
use crate::connection::Conn;
use crate::http::Flags;
use crate::metrics::TcpSeries;
use crate::worker::{ClusterView, EndpointView};

/// What is known of a forwarded connection, which is counted when this is dropped at the latest.
pub(crate) struct TcpRecord {
    conn: Rc<Conn>,
    /// When it was known which route it takes.
    started: Instant,
    flags: Flags,
    cluster: Option<Rc<ClusterView>>,
    /// The endpoint that was tried last.
    endpoint: Option<Rc<EndpointView>>,
    /// Counts its bytes once both sides are connected.
    meter: Option<Rc<Meter>>,
}

impl TcpRecord {
    /// Begins the account of what is forwarded for `conn`.
    pub(super) fn begin(conn: &Rc<Conn>) -> Self {
        // It counts as in use until its end.
        conn.request_began();
        Self {
            conn: Rc::clone(conn),
            started: Instant::now(),
            flags: Flags::NONE,
            cluster: None,
            endpoint: None,
            meter: None,
        }
    }

    /// It is meant for `cluster`.
    pub(super) fn reached_cluster(&mut self, cluster: &Rc<ClusterView>) {
        self.cluster = Some(Rc::clone(cluster));
    }

    /// It is to be connected to `endpoint`.
    pub(super) fn reached_endpoint(&mut self, endpoint: &Rc<EndpointView>) {
        self.endpoint = Some(Rc::clone(endpoint));
    }

    /// Something out of the ordinary happened.
    pub(super) fn flag(&mut self, flags: impl Into<Flags>) {
        self.flags = self.flags.and(flags.into());
    }

    /// Both sides are connected: it counts as opened, and what is moved is to be noted in the meter.
    pub(super) fn connected(&mut self) -> Rc<Meter> {
        let meter = Rc::new(Meter::new(self.series()));
        self.conn.worker().meters().add(&meter);
        self.meter = Some(Rc::clone(&meter));
        meter
    }

    /// The series of the endpoint that was tried last; of the cluster where there is none, of neither where it took no route.
    fn series(&self) -> Rc<TcpSeries> {
        let worker = self.conn.worker();
        let series = match (&self.endpoint, &self.cluster) {
            (Some(endpoint), _) => endpoint.series(),
            (None, Some(cluster)) => cluster.series(),
            (None, None) => worker.unrouted(),
        };
        series.tcp(worker.metrics(), self.flags)
    }
}

impl Drop for TcpRecord {
    fn drop(&mut self) {
        match &self.meter {
            Some(meter) => {
                self.conn.worker().meters().remove(meter);
                meter.close();
            }
            None => Meter::new(self.series()).close(),
        }
        let moved = self.meter.as_ref().map(|meter| meter.moved());
        tracing::debug!(
            client = %self.conn.peer().address,
            cluster = self.cluster.as_ref().map(|cluster| tracing::field::display(&cluster.model().name)),
            endpoint = self.endpoint.as_ref().map(|endpoint| endpoint.address()),
            flags = %self.flags,
            received = moved.map_or(0, Moved::received),
            sent = moved.map_or(0, Moved::sent),
            took = ?self.started.elapsed(),
            "a forwarded connection has ended"
        );
    }
}
