//! The account of one forwarded connection: it is written when the connection is over, however it ended.

use std::rc::Rc;
use std::time::Instant;

use super::meter::Meter;
use crate::access_log::{Response, Scene};
use crate::connection::Conn;
use crate::http::{Account, Flags, Via};
use crate::metrics::{Ongoing, TcpSeries};
use crate::worker::{ClusterView, EndpointView};

/// What is known of a forwarded connection, which is counted and logged when this is dropped at the latest.
pub(crate) struct TcpRecord {
    conn: Rc<Conn>,
    /// Begins when it was known which route it takes.
    account: Account,
    /// Counts its bytes once both sides are connected.
    meter: Option<Rc<Meter>>,
}

impl TcpRecord {
    /// Begins the account of what is forwarded for `conn`.
    pub(super) fn begin(conn: &Rc<Conn>) -> Self {
        // It counts as in use until its end.
        conn.request_began();
        Self {
            account: Account::new(conn.worker().next_number(), Instant::now(), None),
            conn: Rc::clone(conn),
            meter: None,
        }
    }

    /// It is meant for `cluster`.
    pub(super) fn reached_cluster(&mut self, cluster: &Rc<ClusterView>) {
        self.account.reached_cluster(cluster);
    }

    /// It is to be connected to `endpoint`.
    pub(super) fn reached_endpoint(&mut self, endpoint: &Rc<EndpointView>) {
        self.account.reached_endpoint(endpoint);
    }

    /// What came of that.
    pub(super) fn went_via(&mut self, via: Via) {
        self.account.went_via(via);
    }

    /// Something out of the ordinary happened.
    pub(super) fn flag(&mut self, flags: impl Into<Flags>) {
        self.account.flag(flags);
    }

    /// Both sides are connected: it counts as opened, and what is moved is to be noted in the meter.
    pub(super) fn connected(&mut self) -> Rc<Meter> {
        let meter = Rc::new(Meter::new(self.series()));
        self.conn
            .worker()
            .ongoing()
            .add(Rc::clone(&meter) as Rc<dyn Ongoing>);
        self.meter = Some(Rc::clone(&meter));
        meter
    }

    fn series(&self) -> Rc<TcpSeries> {
        let worker = self.conn.worker();
        let series = self.account.series(worker);
        series.tcp(self.account.flags)
    }

    fn write_log(&self) {
        let worker = self.conn.worker();
        let Some(line) = worker.log_line().filter(|_| worker.is_drawn_for_log()) else {
            return;
        };
        let scene = Scene {
            conn: &self.conn,
            client: None,
            response: Response::Awaited,
            account: &self.account,
        };
        worker.log(|out| line.append(&scene, out));
    }
}

impl Drop for TcpRecord {
    fn drop(&mut self) {
        match &self.meter {
            Some(meter) => {
                self.conn.worker().ongoing().remove(&**meter);
                meter.close();
            }
            None => Meter::new(self.series()).close(),
        }
        self.account.ended = Some(Instant::now());
        let moved = self.meter.as_ref().map(|meter| meter.moved());
        let (received, sent) = moved.map_or((0, 0), |moved| (moved.received(), moved.sent()));
        self.account.moved(received, sent);
        self.write_log();
    }
}
