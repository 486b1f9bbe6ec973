//! The account of one request: it is written when the request is over, however it ended.

use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;

use super::Flag;
use crate::connection::Conn;
use crate::worker::{ClusterView, EndpointView};

/// How far a request got.
enum Reached {
    Nothing,
    Cluster(Rc<ClusterView>),
    Endpoint(Rc<EndpointView>),
}

/// Counts the request when it is dropped: with its response's status and flag, or as DC with status 0 when the client
/// went away before there was one.
pub(crate) struct Record {
    conn: Rc<Conn>,
    started: Instant,
    reached: Reached,
    code: u16,
    flag: Flag,
    complete: bool,
}

impl Record {
    /// Begins the account of a request on `conn`.
    pub(crate) fn begin(conn: &Rc<Conn>) -> Self {
        conn.request_began();
        Self {
            conn: Rc::clone(conn),
            started: Instant::now(),
            reached: Reached::Nothing,
            code: 0,
            flag: Flag::None,
            complete: false,
        }
    }

    /// When the request's head was there.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The request is meant for `cluster`.
    pub(crate) fn reached_cluster(&mut self, cluster: &Rc<ClusterView>) {
        self.reached = Reached::Cluster(Rc::clone(cluster));
    }

    /// The request was given to `endpoint`.
    pub(crate) fn reached_endpoint(&mut self, endpoint: &Rc<EndpointView>) {
        self.reached = Reached::Endpoint(Rc::clone(endpoint));
    }

    /// The response's head goes to the client.
    pub(crate) fn answered(&mut self, status: StatusCode, flag: Flag) {
        self.code = status.as_u16();
        self.flag = flag;
    }

    /// All of the response was handed to the client's connection.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The response could not be finished, for a reason other than the client.
    pub(crate) fn broke_off(&mut self, flag: Flag) {
        self.flag = flag;
        self.complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let flag = match self.complete {
            true => self.flag,
            false => Flag::DownstreamConnectionTermination,
        };
        let worker = self.conn.worker();
        let series = match &self.reached {
            Reached::Nothing => worker.unrouted(),
            Reached::Cluster(cluster) => cluster.series(),
            Reached::Endpoint(endpoint) => endpoint.series(),
        };
        series.observe(worker.metrics(), self.code, flag, self.started.elapsed());
        self.conn.request_ended();
    }
}
