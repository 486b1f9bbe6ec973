//! What the bootstrap file makes of proxy and data path when `edge run` starts.

use edge_config::{AccessLogEncoding, Bootstrap};
use edge_control::StartError;
use edge_datapath::{DataPath, Flows, LoadOptions, OnStop, Pinning, XdpMode};
use edge_proxy::{AccessLog, AccessLogFormat, DnsOptions};

use crate::config;
use crate::failure::Failure;

/// Whose fault it is that control did not start.
pub(super) fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::Invalid(ref problems) => {
            config::print(problems);
            Failure::WrongInput(error.into())
        }
        StartError::Folder { .. } => Failure::WrongInput(error.into()),
        StartError::Watch(_) | StartError::Thread(_) => Failure::CannotBeDone(error.into()),
    }
}

/// The access log as the proxy takes it.
pub(super) fn access_log(log: &edge_config::AccessLog) -> AccessLog {
    let format = match (log.encoding, &log.text, log.json.as_slice()) {
        (AccessLogEncoding::Text, Some(format), _) => AccessLogFormat::Text(format.clone()),
        (AccessLogEncoding::Text, None, _) => AccessLogFormat::istio_text(),
        (AccessLogEncoding::Json, _, []) => AccessLogFormat::istio_json(),
        (AccessLogEncoding::Json, _, members) => AccessLogFormat::Json(members.to_vec()),
    };
    AccessLog {
        path: log.path.clone(),
        format,
        sample: log.sample,
    }
}

/// How the proxy resolves names.
pub(super) fn dns_options(dns: &edge_config::Dns) -> DnsOptions {
    DnsOptions {
        name_servers: dns.name_servers.clone(),
        min_ttl: dns.min_ttl,
        max_ttl: dns.max_ttl,
        timeout: dns.timeout,
    }
}

/// Loads and attaches tier 1, if an interface is configured.
pub(super) fn load_datapath(bootstrap: &Bootstrap) -> anyhow::Result<Option<DataPath>> {
    if bootstrap.interfaces.is_empty() {
        tracing::info!("tier 1 is off: no interface is configured");
        return Ok(None);
    }
    let mode = match bootstrap.xdp_mode {
        edge_config::XdpMode::Auto => XdpMode::Auto,
        edge_config::XdpMode::Native => XdpMode::Native,
        edge_config::XdpMode::Generic => XdpMode::Generic,
    };
    let interfaces = bootstrap.interfaces.clone();
    let datapath = DataPath::load(LoadOptions {
        interfaces,
        mode,
        manage_local_routes: bootstrap.local_routes,
        pinning: bootstrap.pinning.as_ref().map(pinning),
        flows: if bootstrap.pools.is_empty() {
            Flows::FEW
        } else {
            Flows {
                limit: bootstrap.flows,
            }
        },
        inherits_hash_key: bootstrap.hash_seed.is_none(),
    })?;
    for interface in datapath.interfaces() {
        match &interface.mode {
            edge_datapath::AttachedMode::Generic {
                because: Some(reason),
            } => {
                tracing::warn!(
                    interface = interface.name,
                    reason,
                    "XDP attached in generic mode: it is slower"
                );
            }
            mode @ (edge_datapath::AttachedMode::Native | edge_datapath::AttachedMode::Generic { .. }) => {
                tracing::info!(interface = interface.name, mode = mode.name(), "XDP attached");
            }
        }
    }
    Ok(Some(datapath))
}

fn pinning(pinning: &edge_config::Pinning) -> Pinning {
    Pinning {
        path: pinning.path.clone(),
        on_stop: match pinning.on_stop {
            edge_config::OnStop::Detach => OnStop::Detach,
            edge_config::OnStop::Keep => OnStop::Keep,
        },
    }
}
