//! The account of one request: it is written when the request is over, however it ended.

use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;

use super::{Flag, Flags};
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
    flags: Flags,
    attempts: u32,
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
            flags: Flags::NONE,
            attempts: 0,
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

    /// One more try begins.
    pub(crate) fn tried(&mut self) {
        self.attempts += 1;
    }

    /// The endpoint that the request was last given to.
    pub(crate) fn endpoint(&self) -> Option<&Rc<EndpointView>> {
        match &self.reached {
            Reached::Endpoint(endpoint) => Some(endpoint),
            Reached::Nothing | Reached::Cluster(_) => None,
        }
    }

    /// Something out of the ordinary happened on the way.
    pub(crate) fn flag(&mut self, flag: Flag) {
        self.flags = self.flags.with(flag);
    }

    /// The response's head goes to the client, with further flags.
    pub(crate) fn answered(&mut self, status: StatusCode, flags: Flags) {
        self.code = status.as_u16();
        self.flags = self.flags.and(flags);
    }

    /// All of the response was handed to the client's connection.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The response could not be finished, for a reason other than the client.
    pub(crate) fn broke_off(&mut self, flag: Flag) {
        self.flag(flag);
        self.complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.complete {
            self.flag(Flag::DownstreamConnectionTermination);
        }
        let worker = self.conn.worker();
        let series = match &self.reached {
            Reached::Nothing => worker.unrouted(),
            Reached::Cluster(cluster) => cluster.series(),
            Reached::Endpoint(endpoint) => endpoint.series(),
        };
        series.observe(worker.metrics(), self.code, self.flags, self.started.elapsed());
        self.conn.request_ended();
    }
}
