//! What a traffic policy holds.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::GoDuration;
use crate::istio::PortSelector;

/// Policy for a service, or for a subset of it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// How an endpoint is picked.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits of connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTlsSettings>,
    /// Policies that replace this one for single ports.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnel for egress traffic.
    pub tunnel: Option<TunnelSettings>,
    /// PROXY protocol to the endpoints.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limit of concurrent retries.
    pub retry_budget: Option<RetryBudget>,
}

/// Policy for one port; what is absent takes its default and not the destination's.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortTrafficPolicy {
    /// Port of the service.
    pub port: Option<PortSelector>,
    /// How an endpoint is picked.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits of connections and requests.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTlsSettings>,
}

/// How an endpoint is picked: one of `simple` and `consistentHash`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerSettings {
    /// Without memory of the client.
    pub simple: Option<SimpleLb>,
    /// By a hash of the request.
    pub consistent_hash: Option<ConsistentHashLb>,
    /// Preference of near endpoints.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Deprecated in favour of `warmup`.
    pub warmup_duration_secs: Option<GoDuration>,
    /// Gradual rise of a new endpoint's share.
    pub warmup: Option<WarmupConfiguration>,
    /// Preference of endpoints in the same zone.
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    /// Weights by the load that endpoints report.
    pub backend_utilization: Option<BackendUtilization>,
}

/// Weights by the load that endpoints report (ORCA).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendUtilization {
    /// Share of errors that counts against an endpoint, in percent.
    pub error_utilization_penalty_percent: Option<u32>,
    /// Metrics that the load is taken from.
    pub metric_names_for_computing_utilization: Vec<String>,
    /// How long a report counts.
    pub weight_expiration_period: Option<GoDuration>,
    /// How long reports must come before they count.
    pub weight_stabilization_period: Option<GoDuration>,
    /// How often weights are computed.
    pub weight_update_period: Option<GoDuration>,
}

/// `LoadBalancerSettings.SimpleLB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// As `LeastRequest`.
    #[default]
    Unspecified,
    /// Deprecated name of `LeastRequest`.
    LeastConn,
    /// Any endpoint.
    Random,
    /// The address that the client connected to.
    Passthrough,
    /// One after the other.
    RoundRobin,
    /// The less loaded of two endpoints drawn at random.
    LeastRequest,
}

/// Consistent hashing: one key, one algorithm.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsistentHashLb {
    /// Key: value of a header.
    pub http_header_name: Option<String>,
    /// Key: value of a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// Key: the client's address.
    pub use_source_ip: Option<bool>,
    /// Key: value of a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Algorithm: ring hash.
    pub ring_hash: Option<RingHash>,
    /// Algorithm: Maglev.
    pub maglev: Option<Maglev>,
    /// Deprecated in favour of `ringHash`.
    pub minimum_ring_size: u64,
}

/// Cookie as a hash key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct HttpCookie {
    /// Name.
    pub name: String,
    /// Path.
    pub path: String,
    /// Lifetime; when set (0 s too), a missing cookie is made.
    pub ttl: Option<GoDuration>,
    /// Further attributes.
    pub attributes: Vec<CookieAttribute>,
}

/// Attribute of a cookie.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct CookieAttribute {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// Settings of ring hash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RingHash {
    /// Least number of points on the ring, 1024 unless set.
    pub minimum_ring_size: Option<u64>,
}

/// Settings of Maglev.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Maglev {
    /// Slots of the table, a prime, 65537 unless set.
    pub table_size: Option<u64>,
}

/// Gradual rise of a new endpoint's share.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WarmupConfiguration {
    /// How long it takes.
    pub duration: Option<GoDuration>,
    /// Share at the start in percent, 10 unless set.
    pub minimum_percent: Option<f64>,
    /// Shape of the rise, 1 (linear) unless set.
    pub aggression: Option<f64>,
}

/// Preference of near endpoints.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LocalityLbSetting {
    /// Shares by origin.
    pub distribute: Vec<Distribute>,
    /// Where to go when a region fails.
    pub failover: Vec<Failover>,
    /// Labels that order endpoints.
    pub failover_priority: Vec<String>,
    /// Overrides the mesh's setting.
    pub enabled: Option<bool>,
}

/// Shares of one origin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Distribute {
    /// Origin as `region/zone/subzone`.
    pub from: String,
    /// Shares by destination, in percent.
    pub to: BTreeMap<String, u32>,
}

/// Where to go when a region fails.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Failover {
    /// Region that fails.
    pub from: String,
    /// Region that takes over.
    pub to: String,
}

/// Preference of endpoints in the same zone.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ZoneAwareLbSetting {
    /// Overrides the mesh's setting.
    pub enabled: Option<bool>,
    /// Where to go when a region fails.
    pub failover: Vec<Failover>,
    /// Labels that order endpoints.
    pub failover_priority: Vec<String>,
    /// Least number of endpoints for which it applies.
    pub min_cluster_size: Option<u64>,
}

/// Limits of connections and requests.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ConnectionPoolSettings {
    /// Of connections.
    pub tcp: Option<TcpSettings>,
    /// Of requests.
    pub http: Option<HttpSettings>,
}

/// Limits of connections.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpSettings {
    /// Most connections to the service.
    pub max_connections: i32,
    /// Time to establish a connection, 10 s unless set.
    pub connect_timeout: Option<GoDuration>,
    /// TCP keepalive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<GoDuration>,
    /// Longest silence on a connection, 1 h unless set.
    pub idle_timeout: Option<GoDuration>,
}

/// TCP keepalive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: u32,
    /// Silence before the first probe.
    pub time: Option<GoDuration>,
    /// Time between probes.
    pub interval: Option<GoDuration>,
}

/// Limits of requests.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpSettings {
    /// Most requests that wait for a connection.
    pub http1_max_pending_requests: i32,
    /// Most active requests.
    pub http2_max_requests: i32,
    /// Most requests on one connection; 0 is no limit.
    pub max_requests_per_connection: i32,
    /// Most outstanding retries.
    pub max_retries: i32,
    /// Longest silence on a connection without requests, 1 h unless set.
    pub idle_timeout: Option<GoDuration>,
    /// Whether HTTP/1.1 becomes HTTP/2.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Whether the client's protocol is kept.
    pub use_client_protocol: bool,
    /// Most streams on one connection.
    pub max_concurrent_streams: i32,
    /// HTTP/2 PING keepalive.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// HTTP/2 PING keepalive.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Http2KeepAlive {
    /// Time between PINGs.
    pub interval: Option<GoDuration>,
    /// Time for the answer.
    pub timeout: Option<GoDuration>,
}

/// Whether HTTP/1.1 becomes HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says: no.
    #[default]
    Default,
    /// No.
    DoNotUpgrade,
    /// Yes.
    Upgrade,
}

/// When an endpoint is taken out.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Deprecated.
    pub consecutive_errors: i32,
    /// Whether errors of our own making are counted by themselves.
    pub split_external_local_origin_errors: bool,
    /// Own errors in a row.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row, 5 unless set; 0 is off.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between sweeps, 10 s unless set.
    pub interval: Option<GoDuration>,
    /// Length of the first ejection, 30 s unless set.
    pub base_ejection_time: Option<GoDuration>,
    /// Most endpoints that may be out, in percent, 10 unless set.
    pub max_ejection_percent: i32,
    /// Below this share of healthy endpoints all are used, in percent.
    pub min_health_percent: i32,
    /// Statuses that count instead of the 5xx.
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// TLS to the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientTlsSettings {
    /// Whether TLS is spoken.
    pub mode: ClientTlsMode,
    /// File with the own certificate.
    pub client_certificate: String,
    /// File with the own key.
    pub private_key: String,
    /// File with the CA certificates.
    pub ca_certificates: String,
    /// Secret with certificate, key and CA.
    pub credential_name: String,
    /// Names of which the server's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// Server name that is sent.
    pub sni: String,
    /// Whether the server's certificate is trusted as it is.
    pub insecure_skip_verify: Option<bool>,
    /// File with the certificate revocation list.
    pub ca_crl: String,
}

/// `ClientTLSSettings.TLSmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClientTlsMode {
    /// Plain text.
    #[default]
    Disable,
    /// TLS.
    Simple,
    /// TLS with a certificate of our own.
    Mutual,
    /// TLS with the mesh's certificates.
    IstioMutual,
}

/// Tunnel for egress traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TunnelSettings {
    /// CONNECT or POST.
    pub protocol: String,
    /// Host that the tunnel leads to.
    pub target_host: String,
    /// Port that the tunnel leads to.
    pub target_port: u32,
}

/// PROXY protocol to the endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ProxyProtocol {
    /// Version of the header.
    pub version: ProxyProtocolVersion,
}

/// Version of the PROXY protocol's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum ProxyProtocolVersion {
    /// Text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// Limit of concurrent retries.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryBudget {
    /// Share of the active requests in percent, 20 unless set.
    pub percent: Option<f64>,
    /// Retries that are always allowed, 3 unless set.
    pub min_retry_concurrency: Option<u32>,
    /// Time over which the requests are counted.
    pub budget_interval: Option<GoDuration>,
}
