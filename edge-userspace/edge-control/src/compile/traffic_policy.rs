//! What a DestinationRule's policies come to for one cluster (istio `pilot/pkg/networking/core/cluster_traffic_policy.go`).

use std::time::Duration;

use edge_config::GoDuration;
use edge_config::istio::destination_rule::policy::{
    ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, H2UpgradePolicy, HttpCookie,
    LoadBalancerSettings, LocalityLbSetting, OutlierDetection as WrittenOutlier, PortTrafficPolicy,
    ProxyProtocol, ProxyProtocolVersion as WrittenVersion, RetryBudget as WrittenBudget, SimpleLb,
    TrafficPolicy,
};
use edge_model::{
    CircuitBreakers, Cluster, ConnectionPool, ConsistentHash, HashAlgorithm, HashCookie, HashKey,
    Http2Keepalive, LoadBalancer, OutlierDetection, ProxyProtocolVersion, RetryBudget, SlowStart,
    TcpKeepalive, UpstreamProtocol,
};
use http::{HeaderName, StatusCode};

/// The blocks of the policy for one port and subset.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Blocks<'r> {
    pub(crate) load_balancer: Option<&'r LoadBalancerSettings>,
    pub(crate) connection_pool: Option<&'r ConnectionPoolSettings>,
    pub(crate) outlier_detection: Option<&'r WrittenOutlier>,
    pub(crate) tls: Option<&'r ClientTlsSettings>,
    proxy_protocol: Option<&'r ProxyProtocol>,
    retry_budget: Option<&'r WrittenBudget>,
}

impl<'r> Blocks<'r> {
    /// Each block that the policy has replaces the inherited one as a whole. Settings for the port replace the four
    /// blocks that they can have: one that they lack takes its default and not the destination's (istio
    /// `MergeTrafficPolicy`).
    pub(crate) fn overridden_by(self, policy: Option<&'r TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = policy else {
            return self;
        };
        let is_for_port = |settings: &&PortTrafficPolicy| {
            settings
                .port
                .is_some_and(|selector| selector.number == u32::from(port))
        };
        let merged = Self {
            load_balancer: policy.load_balancer.as_ref().or(self.load_balancer),
            connection_pool: policy.connection_pool.as_ref().or(self.connection_pool),
            outlier_detection: policy.outlier_detection.as_ref().or(self.outlier_detection),
            tls: policy.tls.as_ref().or(self.tls),
            proxy_protocol: policy.proxy_protocol.as_ref().or(self.proxy_protocol),
            retry_budget: policy.retry_budget.as_ref().or(self.retry_budget),
        };
        match policy.port_level_settings.iter().find(is_for_port) {
            Some(settings) => Self {
                load_balancer: settings.load_balancer.as_ref(),
                connection_pool: settings.connection_pool.as_ref(),
                outlier_detection: settings.outlier_detection.as_ref(),
                tls: settings.tls.as_ref(),
                ..merged
            },
            None => merged,
        }
    }

    /// Whether requests are spread by a hash.
    pub(crate) fn is_hashed(&self) -> bool {
        self.load_balancer
            .and_then(|settings| settings.consistent_hash.as_ref())
            .is_some_and(|hash| hash_key(hash).is_some())
    }

    /// Whether requests go to the address that they were sent to.
    pub(crate) fn is_original_dst(&self) -> bool {
        self.load_balancer.and_then(|settings| settings.simple) == Some(SimpleLb::Passthrough)
    }

    /// Preference of near endpoints: `localityLbSetting`, else what `zoneAwareLbSetting` has in common with it.
    pub(crate) fn locality(&self) -> Option<LocalityLbSetting> {
        let settings = self.load_balancer?;
        let zone_aware = || {
            let zone = settings.zone_aware_lb_setting.as_ref()?;
            Some(LocalityLbSetting {
                distribute: vec![],
                failover: zone.failover.clone(),
                failover_priority: zone.failover_priority.clone(),
                enabled: zone.enabled,
            })
        };
        settings.locality_lb_setting.clone().or_else(zone_aware)
    }

    /// Writes into a cluster all that does not depend on files or endpoints.
    pub(crate) fn apply(&self, cluster: &mut Cluster) {
        cluster.load_balancer = self.load_balancer.map(load_balancer).unwrap_or_default();
        cluster.slow_start = self.slow_start(&cluster.load_balancer);
        cluster.connect_timeout = self.connect_timeout();
        cluster.pool = self.connection_pool.map(pool).unwrap_or_default();
        cluster.circuit_breakers = CircuitBreakers {
            retry_budget: self.retry_budget.map(retry_budget),
            ..self.connection_pool.map(circuit_breakers).unwrap_or_default()
        };
        cluster.outlier_detection = self.outlier_detection.map(outlier_detection);
        cluster.proxy_protocol = self.proxy_protocol.map(|settings| match settings.version {
            WrittenVersion::V1 => ProxyProtocolVersion::V1,
            WrittenVersion::V2 => ProxyProtocolVersion::V2,
        });
        let http = self.connection_pool.and_then(|pool| pool.http.as_ref());
        if let Some(http) = http {
            if http.use_client_protocol {
                cluster.protocol = UpstreamProtocol::ClientProtocol;
            } else if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade {
                cluster.protocol = UpstreamProtocol::Http2;
            }
        }
    }

    fn connect_timeout(&self) -> Duration {
        let tcp = self.connection_pool.and_then(|pool| pool.tcp.as_ref());
        let written = tcp.and_then(|tcp| tcp.connect_timeout);
        written.map_or(Cluster::CONNECT_TIMEOUT, |timeout| timeout.0)
    }

    fn slow_start(&self, load_balancer: &LoadBalancer) -> Option<SlowStart> {
        let settings = self.load_balancer?;
        let warms_up = match load_balancer {
            LoadBalancer::LeastRequest | LoadBalancer::RoundRobin => true,
            LoadBalancer::Random | LoadBalancer::ConsistentHash(_) => false,
        };
        let written = settings.warmup.clone().unwrap_or_default();
        let duration = written.duration.or(settings.warmup_duration_secs)?;
        (warms_up && !duration.0.is_zero()).then(|| SlowStart {
            duration: duration.0,
            minimum_percent: written.minimum_percent.unwrap_or(10.0),
            aggression: written.aggression.unwrap_or(1.0),
        })
    }
}

fn load_balancer(settings: &LoadBalancerSettings) -> LoadBalancer {
    let hash = settings.consistent_hash.as_ref();
    if let Some((key, hash)) = hash.and_then(|hash| Some((hash_key(hash)?, hash))) {
        let algorithm = algorithm(hash);
        return LoadBalancer::ConsistentHash(ConsistentHash { key, algorithm });
    }
    match settings.simple.unwrap_or_default() {
        SimpleLb::RoundRobin => LoadBalancer::RoundRobin,
        SimpleLb::Random => LoadBalancer::Random,
        // LEAST_CONN is the deprecated name; PASSTHROUGH is a matter of discovery.
        SimpleLb::LeastRequest | SimpleLb::LeastConn | SimpleLb::Unspecified | SimpleLb::Passthrough => {
            LoadBalancer::LeastRequest
        }
    }
}

fn hash_key(hash: &ConsistentHashLb) -> Option<HashKey> {
    if let Some(name) = &hash.http_header_name {
        HeaderName::from_bytes(name.as_bytes()).ok().map(HashKey::Header)
    } else if let Some(cookie) = &hash.http_cookie {
        Some(HashKey::Cookie(hash_cookie(cookie)))
    } else if hash.use_source_ip == Some(true) {
        Some(HashKey::SourceIp)
    } else {
        hash.http_query_parameter_name
            .clone()
            .map(HashKey::QueryParameter)
    }
}

fn hash_cookie(cookie: &HttpCookie) -> HashCookie {
    let attributes = cookie.attributes.iter();
    HashCookie {
        name: cookie.name.clone(),
        path: cookie.path.clone(),
        ttl: cookie.ttl.map(|ttl| ttl.0),
        attributes: attributes
            .map(|attribute| (attribute.name.clone(), attribute.value.clone()))
            .collect(),
    }
}

fn algorithm(hash: &ConsistentHashLb) -> HashAlgorithm {
    if let Some(maglev) = &hash.maglev {
        return HashAlgorithm::Maglev {
            table_size: maglev.table_size.unwrap_or(HashAlgorithm::TABLE_SIZE),
        };
    }
    let ring = hash.ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size);
    let deprecated = Some(hash.minimum_ring_size).filter(|size| *size != 0);
    HashAlgorithm::RingHash {
        minimum_ring_size: ring.or(deprecated).unwrap_or(HashAlgorithm::MINIMUM_RING_SIZE),
    }
}

fn pool(settings: &ConnectionPoolSettings) -> ConnectionPool {
    let default = ConnectionPool::default();
    let (tcp, http) = (settings.tcp.as_ref(), settings.http.as_ref());
    let or_off = |written: Option<GoDuration>, default: Option<Duration>| match written {
        Some(written) => Some(written.0).filter(|time| !time.is_zero()),
        None => default,
    };
    let tcp_idle = tcp.and_then(|tcp| tcp.idle_timeout);
    let keep_alive = http.and_then(|http| http.http2_keep_alive.as_ref());
    ConnectionPool {
        // Without one of its own, HTTP takes that of TCP (istio `applyConnectionPool`).
        idle_timeout: or_off(
            http.and_then(|http| http.idle_timeout).or(tcp_idle),
            default.idle_timeout,
        ),
        tcp_idle_timeout: or_off(tcp_idle, default.tcp_idle_timeout),
        max_connection_duration: or_off(tcp.and_then(|tcp| tcp.max_connection_duration), None),
        max_requests_per_connection: http.and_then(|http| positive(http.max_requests_per_connection)),
        max_concurrent_streams: http
            .and_then(|http| positive(http.max_concurrent_streams))
            .unwrap_or(default.max_concurrent_streams),
        tcp_keepalive: tcp
            .and_then(|tcp| tcp.tcp_keepalive.as_ref())
            .map(|written| TcpKeepalive {
                probes: Some(written.probes).filter(|probes| *probes != 0),
                time: written.time.map(|time| time.0),
                interval: written.interval.map(|interval| interval.0),
            }),
        http2_keepalive: keep_alive.and_then(|written| {
            Some(Http2Keepalive {
                interval: written.interval?.0,
                timeout: written.timeout?.0,
            })
        }),
    }
}

/// Istio's integers: what is not positive is not set.
fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number != 0)
}

fn circuit_breakers(settings: &ConnectionPoolSettings) -> CircuitBreakers {
    let default = CircuitBreakers::default();
    let (tcp, http) = (settings.tcp.as_ref(), settings.http.as_ref());
    let limit = |number: Option<i32>, default| number.and_then(positive).unwrap_or(default);
    CircuitBreakers {
        max_connections: limit(tcp.map(|tcp| tcp.max_connections), default.max_connections),
        max_pending_requests: limit(
            http.map(|http| http.http1_max_pending_requests),
            default.max_pending_requests,
        ),
        max_requests: limit(http.map(|http| http.http2_max_requests), default.max_requests),
        max_retries: limit(http.map(|http| http.max_retries), default.max_retries),
        retry_budget: None,
    }
}

fn retry_budget(written: &WrittenBudget) -> RetryBudget {
    RetryBudget {
        percent: written.percent.unwrap_or(20.0),
        min_retry_concurrency: written.min_retry_concurrency.unwrap_or(3),
        budget_interval: written
            .budget_interval
            .map(|interval| interval.0)
            .filter(|interval| !interval.is_zero()),
    }
}

fn outlier_detection(written: &WrittenOutlier) -> OutlierDetection {
    let default = OutlierDetection::default();
    let or = |written: Option<GoDuration>, default| written.map_or(default, |time| time.0);
    let switched = |written: Option<u32>, default| match written {
        Some(0) => None,
        Some(number) => Some(number),
        None => default,
    };
    let base_ejection_time = or(written.base_ejection_time, default.base_ejection_time);
    let codes = written.outlier_detection_http_error_codes.iter();
    OutlierDetection {
        consecutive_5xx: switched(written.consecutive_5xx_errors, default.consecutive_5xx),
        // The deprecated consecutiveErrors counted gateway errors.
        consecutive_gateway_errors: switched(
            written
                .consecutive_gateway_errors
                .or_else(|| positive(written.consecutive_errors)),
            None,
        ),
        consecutive_local_origin_failures: switched(
            written.consecutive_local_origin_failures,
            default.consecutive_local_origin_failures,
        ),
        split_external_local_origin_errors: written.split_external_local_origin_errors,
        error_codes: codes
            .filter_map(|code| StatusCode::from_u16(u16::try_from(*code).ok()?).ok())
            .collect(),
        interval: or(written.interval, default.interval),
        base_ejection_time,
        max_ejection_time: default.max_ejection_time.max(base_ejection_time),
        max_ejection_percent: positive(written.max_ejection_percent).unwrap_or(default.max_ejection_percent),
        min_health_percent: u32::try_from(written.min_health_percent).unwrap_or(0),
    }
}
