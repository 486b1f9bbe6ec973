//! Traffic policies of a DestinationRule.

use super::{load_balancer, names, values};
use crate::checker::Checker;
use crate::istio::destination_rule::policy::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, H2UpgradePolicy, HttpSettings,
    LoadBalancerSettings, OutlierDetection, PortTrafficPolicy, TcpSettings, TrafficPolicy, TunnelSettings,
};

pub(super) fn check(check: &mut Checker<'_>, path: &str, policy: &TrafficPolicy) {
    if *policy == TrafficPolicy::default() {
        let hint = "add loadBalancer or another field, or remove it";
        check.error(path, "a traffic policy needs at least one field", hint);
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        check.error(
            path,
            "tunnel and proxyProtocol exclude each other",
            "keep one of them",
        );
    }
    let blocks = Blocks {
        load_balancer: policy.load_balancer.as_ref(),
        connection_pool: policy.connection_pool.as_ref(),
        outlier_detection: policy.outlier_detection.as_ref(),
        tls: policy.tls.as_ref(),
    };
    blocks.check(check, path);
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        port_policy(check, &format!("{path}.portLevelSettings[{index}]"), port);
    }
    if let Some(tunnel) = &policy.tunnel {
        self::tunnel(check, &format!("{path}.tunnel"), tunnel);
    }
    if let Some(percent) = policy.retry_budget.as_ref().and_then(|budget| budget.percent) {
        values::percent_value(check, &format!("{path}.retryBudget.percent"), percent);
    }
}

fn port_policy(check: &mut Checker<'_>, path: &str, policy: &PortTrafficPolicy) {
    match policy.port {
        None => check.error(
            &format!("{path}.port"),
            "is missing",
            "name the port, as port: {number: 80}",
        ),
        port => values::port_selector(check, &format!("{path}.port"), port),
    }
    let empty = PortTrafficPolicy {
        port: policy.port,
        ..PortTrafficPolicy::default()
    };
    if *policy == empty {
        let hint = "add loadBalancer or another field, or remove it";
        check.error(path, "a port's policy needs at least one field", hint);
    }
    let blocks = Blocks {
        load_balancer: policy.load_balancer.as_ref(),
        connection_pool: policy.connection_pool.as_ref(),
        outlier_detection: policy.outlier_detection.as_ref(),
        tls: policy.tls.as_ref(),
    };
    blocks.check(check, path);
}

/// What a policy has both for all ports and for one.
struct Blocks<'a> {
    load_balancer: Option<&'a LoadBalancerSettings>,
    connection_pool: Option<&'a ConnectionPoolSettings>,
    outlier_detection: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTlsSettings>,
}

impl Blocks<'_> {
    fn check(&self, check: &mut Checker<'_>, path: &str) {
        if let Some(settings) = self.load_balancer {
            let ejects = self.outlier_detection.is_some();
            load_balancer::check(check, &format!("{path}.loadBalancer"), settings, ejects);
        }
        if let Some(pool) = self.connection_pool {
            connection_pool(check, &format!("{path}.connectionPool"), pool);
        }
        if let Some(outlier) = self.outlier_detection {
            outlier_detection(check, &format!("{path}.outlierDetection"), outlier);
        }
        if let Some(tls) = self.tls {
            client_tls(check, &format!("{path}.tls"), tls);
        }
    }
}

fn connection_pool(check: &mut Checker<'_>, path: &str, pool: &ConnectionPoolSettings) {
    if pool.tcp.is_none() && pool.http.is_none() {
        check.error(
            path,
            "a connection pool needs at least one field",
            "add tcp or http",
        );
    }
    if let Some(tcp) = &pool.tcp {
        self::tcp(check, &format!("{path}.tcp"), tcp);
    }
    if let Some(http) = &pool.http {
        self::http(check, &format!("{path}.http"), http);
    }
}

fn tcp(check: &mut Checker<'_>, path: &str, tcp: &TcpSettings) {
    values::not_negative(check, &format!("{path}.maxConnections"), tcp.max_connections);
    values::duration(check, &format!("{path}.connectTimeout"), tcp.connect_timeout);
    values::duration(
        check,
        &format!("{path}.maxConnectionDuration"),
        tcp.max_connection_duration,
    );
    values::duration_or_zero(check, &format!("{path}.idleTimeout"), tcp.idle_timeout);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        values::duration(check, &format!("{path}.tcpKeepalive.time"), keepalive.time);
        values::duration(
            check,
            &format!("{path}.tcpKeepalive.interval"),
            keepalive.interval,
        );
    }
}

fn http(check: &mut Checker<'_>, path: &str, http: &HttpSettings) {
    let counts = [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ];
    for (field, count) in counts {
        values::not_negative(check, &format!("{path}.{field}"), count);
    }
    values::duration(check, &format!("{path}.idleTimeout"), http.idle_timeout);
    if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
        let message = "cannot be true when h2UpgradePolicy is UPGRADE";
        check.error(&format!("{path}.useClientProtocol"), message, "keep one of them");
    }
    let Some(keepalive) = &http.http2_keep_alive else {
        return;
    };
    for (field, duration) in [("interval", keepalive.interval), ("timeout", keepalive.timeout)] {
        let field = format!("{path}.http2KeepAlive.{field}");
        if duration.is_none() {
            check.error(&field, "is missing", "set both interval and timeout");
        }
        values::duration(check, &field, duration);
    }
}

fn outlier_detection(check: &mut Checker<'_>, path: &str, outlier: &OutlierDetection) {
    let percents = [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ];
    for (field, percent) in percents {
        values::percent_value(check, &format!("{path}.{field}"), f64::from(percent));
    }
    values::duration(check, &format!("{path}.interval"), outlier.interval);
    values::duration(
        check,
        &format!("{path}.baseEjectionTime"),
        outlier.base_ejection_time,
    );
    if outlier.consecutive_errors != 0 {
        let hint = "write consecutive5xxErrors or consecutiveGatewayErrors";
        check.warn(&format!("{path}.consecutiveErrors"), "is deprecated", hint);
    }
    let local = outlier.consecutive_local_origin_failures.unwrap_or(0) > 0;
    if local && !outlier.split_external_local_origin_errors {
        let hint = "set splitExternalLocalOriginErrors: true";
        let message = "has no meaning unless splitExternalLocalOriginErrors is set";
        check.error(&format!("{path}.consecutiveLocalOriginFailures"), message, hint);
    }
    for (index, code) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        let field = format!("{path}.outlierDetectionHttpErrorCodes[{index}]");
        super::http_action::http_status(check, &field, i64::from(*code));
    }
}

fn client_tls(check: &mut Checker<'_>, path: &str, tls: &ClientTlsSettings) {
    let has_ca = !tls.ca_certificates.is_empty();
    let (simple, mutual) = (
        tls.mode == ClientTlsMode::Simple,
        tls.mode == ClientTlsMode::Mutual,
    );
    if let Some(reference) = tls.credential_name.strip_prefix("configmap://") {
        config_map(check, &format!("{path}.credentialName"), reference);
    }
    let verifies = has_ca || !tls.subject_alt_names.is_empty() || (simple && !tls.credential_name.is_empty());
    if tls.insecure_skip_verify == Some(true) && (simple || mutual) && verifies {
        let hint = "remove insecureSkipVerify: with it, they are not looked at";
        let message = "cannot be true together with caCertificates, credentialName or subjectAltNames";
        check.error(&format!("{path}.insecureSkipVerify"), message, hint);
    }
    let has_files = !tls.client_certificate.is_empty() || !tls.private_key.is_empty() || has_ca;
    if !tls.credential_name.is_empty() && (simple || mutual) {
        if has_files || !tls.ca_crl.is_empty() {
            let hint = "keep credentialName or the files";
            check.error(
                &format!("{path}.credentialName"),
                "excludes certificates in files",
                hint,
            );
        }
        return;
    }
    if mutual && tls.client_certificate.is_empty() {
        let hint = "name the file with the certificate chain";
        check.error(
            &format!("{path}.clientCertificate"),
            "MUTUAL needs a client certificate",
            hint,
        );
    }
    if mutual && tls.private_key.is_empty() {
        let hint = "name the file with the private key";
        check.error(&format!("{path}.privateKey"), "MUTUAL needs a private key", hint);
    }
}

/// `configmap://namespace/name`, in the rule's own namespace.
fn config_map(check: &mut Checker<'_>, field: &str, reference: &str) {
    let own = check.namespace();
    if reference
        .split_once('/')
        .is_none_or(|(namespace, name)| namespace != own || name.is_empty())
    {
        let message = format!("configmap://{reference} names no ConfigMap of the rule's own namespace");
        check.error(field, message, format!("write configmap://{own}/name"));
    }
}

fn tunnel(check: &mut Checker<'_>, path: &str, tunnel: &TunnelSettings) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        let message = format!("{:?} is not a tunnel protocol", tunnel.protocol);
        check.error(&format!("{path}.protocol"), message, "write CONNECT or POST");
    }
    names::host(check, &format!("{path}.targetHost"), &tunnel.target_host);
    if tunnel.target_host.starts_with('*') {
        let hint = "name one host";
        check.error(&format!("{path}.targetHost"), "a tunnel leads to one host", hint);
    }
    values::port(check, &format!("{path}.targetPort"), tunnel.target_port);
}
