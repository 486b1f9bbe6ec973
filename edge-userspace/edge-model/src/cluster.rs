//! Clusters: the endpoints of one service port and subset, and how requests are spread over them.

use std::borrow::Borrow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::UpstreamTls;

/// `outbound|<port>|<subset>|<host>`, Istio's name of a cluster; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// Composes the name; `subset` is empty for all endpoints of the service.
    #[must_use]
    pub fn outbound(port: u16, subset: &str, host: &str) -> Self {
        Self(format!("outbound|{port}|{subset}|{host}").into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ClusterName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One service port and subset.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Name of the cluster.
    pub name: ClusterName,
    /// Host of the service in the registry, such as `web.shop.svc.cluster.local`.
    pub host: String,
    /// Namespace of the Service or ServiceEntry.
    pub namespace: String,
    /// Port of the service.
    pub port: u16,
    /// Name of the DestinationRule subset; `None` for all endpoints.
    pub subset: Option<String>,
    /// What endpoints are spoken to.
    pub protocol: UpstreamProtocol,
    /// Where the endpoints come from.
    pub discovery: Discovery,
    /// How an endpoint is picked.
    pub load_balancer: LoadBalancer,
    /// `warmup`: a new endpoint's share rises gradually. Only with `LEAST_REQUEST` and `ROUND_ROBIN`.
    pub slow_start: Option<SlowStart>,
    /// How localities are preferred; endpoints carry what it needs.
    pub locality: LocalityPolicy,
    /// Time to establish a connection (Istio `connectTimeout`, 10 s unless set).
    pub connect_timeout: Duration,
    /// How connections are kept.
    pub pool: ConnectionPool,
    /// Limits beyond which requests get 503 (UO).
    pub circuit_breakers: CircuitBreakers,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the endpoints; `None` is plain text.
    pub tls: Option<Arc<UpstreamTls>>,
    /// PROXY protocol header that connections to the endpoints begin with.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// Endpoints with an address that are ready, in a stable order; no address twice.
    pub endpoints: Vec<Endpoint>,
}

impl Cluster {
    /// Istio's mesh-wide `connectTimeout`.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    /// A cluster without endpoints, everything else at Istio's defaults.
    #[must_use]
    pub fn new(host: &str, namespace: &str, port: u16, subset: Option<&str>) -> Self {
        Self {
            name: ClusterName::outbound(port, subset.unwrap_or(""), host),
            host: host.to_owned(),
            namespace: namespace.to_owned(),
            port,
            subset: subset.map(str::to_owned),
            protocol: UpstreamProtocol::default(),
            discovery: Discovery::default(),
            load_balancer: LoadBalancer::default(),
            slow_start: None,
            locality: LocalityPolicy::default(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            pool: ConnectionPool::default(),
            circuit_breakers: CircuitBreakers::default(),
            outlier_detection: None,
            tls: None,
            proxy_protocol: None,
            endpoints: vec![],
        }
    }
}

/// What endpoints are spoken to, by the name or `appProtocol` of the service's port and the DestinationRule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 (`http2`, `grpc`, `h2UpgradePolicy: UPGRADE`).
    Http2,
    /// `useClientProtocol`: whatever the client speaks.
    ClientProtocol,
}

/// Where a cluster's endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Discovery {
    /// [`Cluster::endpoints`] are all there are.
    #[default]
    Static,
    /// Besides them every address that the names resolve to (`resolution: DNS`).
    StrictDns(Vec<DnsEndpoint>),
    /// Besides them one address of the names, taken anew for each connection (`resolution: DNS_ROUND_ROBIN`).
    LogicalDns(Vec<DnsEndpoint>),
    /// The address that the request was sent to (`PASSTHROUGH`, `resolution: NONE`). Behind a virtual address there is
    /// none but the edge itself, so that such requests get 503 (UH).
    OriginalDst,
}

/// A name that is resolved to endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsEndpoint {
    /// The name.
    pub name: String,
    /// Port of all its addresses.
    pub port: u16,
    /// Share of each of its addresses relative to other endpoints; at least 1.
    pub weight: u32,
    /// As [`Endpoint::locality`].
    pub locality: Arc<str>,
    /// As [`Endpoint::priority`].
    pub priority: u32,
    /// What metrics say about the workload behind it.
    pub workload: Arc<WorkloadMeta>,
}

/// How an endpoint is picked (Istio `LoadBalancerSettings`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LoadBalancer {
    /// The less loaded of two endpoints drawn at random; Istio's default.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// By a hash of the request; without anything to hash, any.
    ConsistentHash(ConsistentHash),
}

/// Istio `ConsistentHashLB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// How the hash picks.
    pub algorithm: HashAlgorithm,
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// Value of a header.
    Header(HeaderName),
    /// Value of a cookie.
    Cookie(HashCookie),
    /// The client's address.
    SourceIp,
    /// Value of a query parameter.
    QueryParameter(String),
}

/// A cookie that is hashed, and how it is made when a request lacks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCookie {
    /// Name.
    pub name: String,
    /// `Path`; empty leaves it out.
    pub path: String,
    /// When set, a missing cookie is made: 0 for the client's session, else with `Max-Age`.
    pub ttl: Option<Duration>,
    /// Further attributes; an empty value stands for an attribute without one.
    pub attributes: Vec<(String, String)>,
}

/// How a hash picks an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// Ring hash (ketama).
    RingHash {
        /// Least number of points, 1024 unless set.
        minimum_ring_size: u64,
    },
    /// Maglev.
    Maglev {
        /// Slots, a prime, 65537 unless set.
        table_size: u64,
    },
}

impl HashAlgorithm {
    /// Istio's default of `minimumRingSize`.
    pub const MINIMUM_RING_SIZE: u64 = 1024;
    /// Envoy's default of `table_size`.
    pub const TABLE_SIZE: u64 = 65_537;
}

/// Gradual rise of a new endpoint's share (Envoy `SlowStartConfig`): after the time t of `duration` the share is
/// max(`minimum_percent`, (t / duration) ^ (1 / `aggression`)).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long it takes.
    pub duration: Duration,
    /// Share at the start in percent, 10 unless set.
    pub minimum_percent: f64,
    /// Shape of the rise, 1 (linear) unless set.
    pub aggression: f64,
}

/// How localities are preferred. Compiled from `localityLbSetting`, the edge's own locality and labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LocalityPolicy {
    /// All endpoints are alike.
    #[default]
    Off,
    /// Endpoints of the lowest [`Endpoint::priority`] are used while they are healthy (Envoy priority levels, with the
    /// over-provisioning factor 1.4).
    Priority,
    /// `distribute`: shares of localities by their names; among the endpoints of a locality their own weights count.
    /// Endpoints of other localities are not in the cluster.
    Distribute(Vec<(Arc<str>, u32)>),
}

/// How connections to endpoints are kept (Istio `ConnectionPoolSettings`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionPool {
    /// `http.idleTimeout`: longest time without a request; `None` is no limit.
    pub idle_timeout: Option<Duration>,
    /// `tcp.idleTimeout`: longest silence on a forwarded TCP connection; `None` is no limit.
    pub tcp_idle_timeout: Option<Duration>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Most requests on one connection; 1 disables keep-alive, `None` is no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Most HTTP/2 streams on one connection.
    pub max_concurrent_streams: u32,
    /// TCP keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// HTTP/2 PING keepalive.
    pub http2_keepalive: Option<Http2Keepalive>,
}

impl ConnectionPool {
    /// Envoy's and Istio's idle timeout.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
    /// Envoy's `max_concurrent_streams`.
    pub const MAX_CONCURRENT_STREAMS: u32 = (1 << 31) - 1;
}

impl Default for ConnectionPool {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Self::IDLE_TIMEOUT),
            tcp_idle_timeout: Some(Self::IDLE_TIMEOUT),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_concurrent_streams: Self::MAX_CONCURRENT_STREAMS,
            tcp_keepalive: None,
            http2_keepalive: None,
        }
    }
}

/// TCP keepalive; what is `None` is the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Silence before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// HTTP/2 PING keepalive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Keepalive {
    /// Time between PINGs.
    pub interval: Duration,
    /// Time for the answer.
    pub timeout: Duration,
}

/// Limits of a cluster, over all workers; 2^32 - 1 is no limit (Envoy `CircuitBreakers.Thresholds`).
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreakers {
    /// `tcp.maxConnections`.
    pub max_connections: u32,
    /// `http.http1MaxPendingRequests`.
    pub max_pending_requests: u32,
    /// `http.http2MaxRequests`: active requests, those by HTTP/1.1 too.
    pub max_requests: u32,
    /// `http.maxRetries`: retries under way. Without meaning when there is a budget.
    pub max_retries: u32,
    /// `retryBudget`.
    pub retry_budget: Option<RetryBudget>,
}

impl Default for CircuitBreakers {
    fn default() -> Self {
        Self {
            max_connections: u32::MAX,
            max_pending_requests: u32::MAX,
            max_requests: u32::MAX,
            max_retries: u32::MAX,
            retry_budget: None,
        }
    }
}

/// Limit of concurrent retries as a share of the active and pending requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// The share in percent, 20 unless set.
    pub percent: f64,
    /// Retries that are always allowed, 3 unless set.
    pub min_retry_concurrency: u32,
    /// Time over which requests are counted; `None` counts those that are active now.
    pub budget_interval: Option<Duration>,
}

/// When an endpoint is taken out (Istio `OutlierDetection`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// 5xx in a row, 5 unless set; `None` is off.
    pub consecutive_5xx: Option<u32>,
    /// 502, 503 and 504 in a row; `None` is off.
    pub consecutive_gateway_errors: Option<u32>,
    /// Failures to connect and the like in a row, 5 unless set; counted by themselves only with
    /// `split_external_local_origin_errors`, else as 5xx.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Whether failures of local origin are counted by themselves.
    pub split_external_local_origin_errors: bool,
    /// Statuses that count in place of the 5xx; empty for the 5xx.
    pub error_codes: Vec<StatusCode>,
    /// Time between sweeps, 10 s unless set.
    pub interval: Duration,
    /// Length of the first ejection, 30 s unless set; the n-th is n times as long, up to `max_ejection_time`.
    pub base_ejection_time: Duration,
    /// Longest ejection: 300 s, or `base_ejection_time` if that is longer (Envoy).
    pub max_ejection_time: Duration,
    /// Most endpoints that may be out, in percent; one may always be.
    pub max_ejection_percent: u32,
    /// Below this share of healthy endpoints all are used, in percent; 0 never.
    pub min_health_percent: u32,
}

impl Default for OutlierDetection {
    /// What an empty `outlierDetection` means.
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(5),
            consecutive_gateway_errors: None,
            consecutive_local_origin_failures: Some(5),
            split_external_local_origin_errors: false,
            error_codes: vec![],
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }
}

/// Version of the PROXY protocol's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// A backend's address and share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address that is connected to.
    pub address: SocketAddr,
    /// Share relative to the other endpoints; at least 1.
    pub weight: u32,
    /// `region/zone/subzone`; empty when it is not known.
    pub locality: Arc<str>,
    /// Level of preference, 0 the highest and no level left out; see [`LocalityPolicy::Priority`].
    pub priority: u32,
    /// What metrics say about the workload behind it.
    pub workload: Arc<WorkloadMeta>,
}

impl Endpoint {
    /// An endpoint of weight 1 without a locality.
    #[must_use]
    pub fn new(address: SocketAddr, workload: Arc<WorkloadMeta>) -> Self {
        Self {
            address,
            weight: 1,
            locality: "".into(),
            priority: 0,
            workload,
        }
    }
}

/// Labels of a destination workload under Istio's metric names; `unknown` where nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkloadMeta {
    /// Name of the workload (Deployment, Pod or WorkloadEntry).
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// Label `service.istio.io/canonical-name`, else `app`.
    pub canonical_service: String,
    /// Label `service.istio.io/canonical-revision`, else `version`.
    pub canonical_revision: String,
}
