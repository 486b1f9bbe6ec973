//! The record of one request: it is counted and logged when the request is over, however it ended.

use std::rc::Rc;
use std::time::{Duration, Instant};

use edge_model::{Route, VirtualHost};
use http::header::DATE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::account::{Account, Received, Via};
use super::messages::MessageMeter;
use super::request_body::ClientBody;
use super::{Flag, Flags, RequestId, grpc};
use crate::access_log::{Kept, Response, Scene};
use crate::connection::Conn;
use crate::h1::{date, spare};
use crate::metrics::{Counted, Kind, Observed, Ongoing, Routes};
use crate::protocol::Protocol;
use crate::worker::{ClusterView, EndpointView};

/// What the access log says besides the account.
struct Logged {
    client: Box<Parts>,
    /// What of the response's fields it names.
    response: Kept,
    /// What of the response's trailers it names.
    trailers: Kept,
}

/// Counts and logs the request when it is dropped: with its response's status and flags, or as DC with status 0 when the
/// client went away before there was one. Boxed from its beginning, as it goes with the response through many hands.
pub(crate) struct Record {
    conn: Rc<Conn>,
    account: Account,
    /// When the time of the route's timeouts began.
    routed: Instant,
    complete: bool,
    /// Where requests of its route are counted, if the route has a name for that.
    route: Option<Rc<Counted<Routes>>>,
    /// Counts messages of gRPC, once the upstream has answered.
    messages: Option<Rc<MessageMeter>>,
    logged: Option<Logged>,
}

impl Record {
    /// Begins the account of a request on `conn`.
    pub(crate) fn begin(conn: &Rc<Conn>) -> Box<Self> {
        conn.request_began();
        let now = Instant::now();
        Box::new(Self {
            conn: Rc::clone(conn),
            account: Account::new(conn.worker().next_number(), now, None),
            routed: now,
            complete: false,
            route: None,
            messages: None,
            logged: None,
        })
    }

    /// What is known so far.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// When the request's head was there.
    pub(crate) fn started(&self) -> Instant {
        self.account.started
    }

    /// When the time of the route's timeouts began.
    pub(crate) fn routed(&self) -> Instant {
        self.routed
    }

    /// A delay has passed that is not the route's: its time begins now.
    pub(crate) fn was_delayed(&mut self) {
        self.routed = Instant::now();
    }

    /// Time from the start to the upstream's response head.
    pub(crate) fn until_first_byte(&self) -> Duration {
        let first_byte = self.account.first_byte.unwrap_or(self.account.started);
        first_byte.saturating_duration_since(self.account.started)
    }

    /// The request is one of gRPC.
    pub(crate) fn is_grpc(&mut self) {
        self.account.is_grpc = true;
    }

    /// The request takes this route of a virtual host.
    pub(crate) fn took_route(&mut self, host: &VirtualHost, route: &Route) {
        let worker = self.conn.worker();
        if worker.log_line().is_some() {
            self.account.route = Some(route.name.clone());
        }
        if !route.stat_prefix.is_empty() {
            self.route = Some(worker.route_series(&host.name, &route.stat_prefix));
        }
    }

    /// The id that the request goes by.
    pub(crate) fn has_id(&mut self, id: RequestId) {
        self.account.request_id = Some(id);
    }

    /// The request is meant for `cluster`.
    pub(crate) fn reached_cluster(&mut self, cluster: &Rc<ClusterView>) {
        self.account.reached_cluster(cluster);
    }

    /// The request was given to `endpoint`.
    pub(crate) fn reached_endpoint(&mut self, endpoint: &Rc<EndpointView>) {
        self.account.reached_endpoint(endpoint);
    }

    /// The last try took this connection.
    pub(crate) fn went_via(&mut self, via: Via) {
        self.account.went_via(via);
    }

    /// The endpoint that the request was last given to.
    pub(crate) fn endpoint(&self) -> Option<&Rc<EndpointView>> {
        self.account.endpoint.as_ref()
    }

    /// The request has this body.
    pub(crate) fn has_body(&mut self, body: &ClientBody) {
        self.account.received = Received::Body(body.clone());
    }

    /// Something out of the ordinary happened on the way.
    pub(crate) fn flag(&mut self, flag: Flag) {
        self.account.flag(flag);
    }

    /// The upstream's response head is there.
    pub(crate) fn responded(&mut self, headers: &HeaderMap) {
        self.account.first_byte = Some(Instant::now());
        self.account.details = "via_upstream";
        self.grpc_status(headers);
        if self.account.is_grpc {
            // It may last: from here on it is known whom its messages are for.
            let meter = Rc::new(self.message_meter());
            let ongoing = self.conn.worker().ongoing();
            ongoing.add(Rc::clone(&meter) as Rc<dyn Ongoing>);
            self.messages = Some(meter);
        }
    }

    fn message_meter(&self) -> MessageMeter {
        let worker = self.conn.worker();
        let series = self.account.series(worker).messages();
        let request = match &self.account.received {
            Received::Body(body) => Some(body.clone()),
            Received::Nothing | Received::Bytes(_) => None,
        };
        MessageMeter::new(request, series)
    }

    /// What has come and gone of messages since they were last counted.
    fn count_messages(&mut self) {
        match self.messages.take() {
            Some(meter) => {
                self.conn.worker().ongoing().remove(&*meter);
                meter.report();
            }
            None => self.message_meter().report(),
        }
    }

    /// Takes the gRPC status from a head or from trailers.
    pub(crate) fn grpc_status(&mut self, headers: &HeaderMap) {
        if self.account.is_grpc
            && let Some(status) = grpc::status(headers)
        {
            self.account.grpc_status = Some(status);
        }
    }

    /// The response's head goes to the client, with further flags.
    pub(crate) fn answered(&mut self, status: StatusCode, flags: Flags) {
        self.account.code = status.as_u16();
        self.account.flags = self.account.flags.and(flags);
    }

    /// The gateway answers by itself.
    pub(crate) fn answered_here(&mut self, details: &'static str) {
        self.account.details = details;
    }

    /// Keeps what the access log wants, if the request is drawn for it. `response` is what the client gets; the date that
    /// the server would put there is put there now, where it is to be told of.
    pub(crate) fn log(&mut self, client: Box<Parts>, response: &mut HeaderMap) {
        let worker = self.conn.worker();
        match worker.log_line() {
            Some(line) if worker.is_drawn_for_log() => {
                let names = line.response_fields();
                if names.contains(&DATE) && !response.contains_key(DATE) {
                    response.insert(DATE, date());
                }
                self.logged = Some(Logged {
                    client,
                    response: Kept::of(names, response),
                    trailers: Kept::default(),
                });
            }
            Some(_) | None => spare::give_back(client.headers),
        }
    }

    /// The response has ended with these trailers.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status(trailers);
        if let (Some(logged), Some(line)) = (&mut self.logged, self.conn.worker().log_line()) {
            logged.trailers = Kept::of(line.trailer_fields(), trailers);
        }
    }

    /// A piece of the response's body went to the client's connection.
    pub(crate) fn sent(&mut self, data: &[u8]) {
        self.account.sent += data.len() as u64;
        if let Some(meter) = &self.messages {
            meter.sent(data);
        }
    }

    /// How long the cluster's connections may be silent once they carry bytes of another protocol.
    pub(crate) fn tcp_idle_timeout(&self) -> Option<Duration> {
        let cluster = self.account.cluster.as_ref()?;
        cluster.model().pool.tcp_idle_timeout
    }

    /// All of the response was handed to the client's connection.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The response could not be finished, for a reason other than the client. Its head is with the client by now, so that
    /// the status stays what it was.
    pub(crate) fn broke_off(&mut self, flag: Flag, details: &'static str) {
        self.flag(flag);
        self.account.details = details;
        self.complete = true;
    }

    /// The client has taken no more than a part of the response, if any.
    fn client_left(&mut self) {
        let is_stream = self.conn.protocol() == Protocol::Http2 && !self.conn.is_gone();
        let (flag, details) = match is_stream {
            true => (Flag::DownstreamRemoteReset, "http2.remote_reset"),
            false => (
                Flag::DownstreamConnectionTermination,
                "downstream_remote_disconnect",
            ),
        };
        self.flag(flag);
        if self.account.code == 0 {
            self.account.details = details;
        }
    }

    fn write_log(&self, logged: Logged) {
        let worker = self.conn.worker();
        if let Some(line) = worker.log_line() {
            let scene = Scene {
                conn: &self.conn,
                client: Some(&logged.client),
                response: Response::Kept(&logged.response, &logged.trailers),
                account: &self.account,
            };
            worker.log(|out| line.append(&scene, out));
        }
        spare::give_back(logged.client.headers);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.complete {
            self.client_left();
        }
        self.account.ended = Some(Instant::now());
        if self.account.is_grpc {
            self.count_messages();
        }
        let account = &self.account;
        let worker = self.conn.worker();
        if let Some(route) = self.route.as_ref().filter(|_| account.attempts > 0) {
            let retries = u64::from(account.attempts.saturating_sub(1));
            let is_late = account.flags.contains(Flag::UpstreamRequestTimeout);
            let took = account.took();
            route.series.observe(account.code, took, retries, is_late);
        }
        let series = account.series(worker);
        let kind = match account.is_grpc {
            true => Kind::Grpc(account.grpc_status),
            false => Kind::Http,
        };
        series.observe(
            (account.code, account.flags, kind),
            &Observed {
                took: account.took(),
                received: account.received(),
                sent: account.sent,
            },
        );
        if let Some(logged) = self.logged.take() {
            self.write_log(logged);
        }
        self.conn.request_ended();
    }
}
