//! `networking.istio.io` EnvoyFilter: the patches as they stand in the file.
//!
//! What of them the edge understands is read by [`rate_limit`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_yaml::Value;

use super::service_entry::LabelSelector;

pub mod rate_limit;

/// `spec` of an EnvoyFilter.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvoyFilter {
    /// Workloads that it is for; none means all of its namespace.
    pub workload_selector: Option<LabelSelector>,
    /// Gateways or services that it is for.
    pub target_refs: Vec<TargetRef>,
    /// Patches in order.
    pub config_patches: Vec<ConfigPatch>,
    /// Order among EnvoyFilters, ascending.
    pub priority: i32,
}

/// Names a resource of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; must be the own one.
    pub namespace: String,
}

/// One patch.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigPatch {
    /// What kind of Envoy's configuration is patched.
    pub apply_to: ApplyTo,
    /// Which objects of the kind.
    pub r#match: Option<ObjectMatch>,
    /// What is done.
    pub patch: Option<Patch>,
}

/// What kind of Envoy's configuration is patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    missing_docs,
    reason = "the names are Envoy's own and say all there is to say"
)]
pub enum ApplyTo {
    #[default]
    Invalid,
    Listener,
    FilterChain,
    NetworkFilter,
    HttpFilter,
    RouteConfiguration,
    VirtualHost,
    HttpRoute,
    Cluster,
    ExtensionConfig,
    Bootstrap,
    ListenerFilter,
}

/// The patch itself.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Patch {
    /// What is done.
    pub operation: Operation,
    /// Envoy's configuration, as it stands in the file.
    pub value: Option<Value>,
    /// AUTHN, AUTHZ or STATS: where among Istio's filters it goes.
    pub filter_class: String,
}

/// What a patch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    missing_docs,
    reason = "the names are Istio's own and say all there is to say"
)]
pub enum Operation {
    #[default]
    Invalid,
    Merge,
    MergeAndReplaceList,
    Add,
    Remove,
    InsertBefore,
    InsertAfter,
    InsertFirst,
    Replace,
}

/// Which objects a patch is for.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMatch {
    /// Which side of which proxy.
    pub context: PatchContext,
    /// Which proxies.
    pub proxy: Option<ProxyMatch>,
    /// Which listeners and filters.
    pub listener: Option<ListenerMatch>,
    /// Which route configurations, virtual hosts and routes.
    pub route_configuration: Option<RouteConfigurationMatch>,
    /// Which clusters.
    pub cluster: Option<Value>,
    /// Which waypoint configuration.
    pub waypoint: Option<Value>,
}

/// Which side of which proxy a patch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    missing_docs,
    reason = "the names are Istio's own and say all there is to say"
)]
pub enum PatchContext {
    #[default]
    Any,
    SidecarInbound,
    SidecarOutbound,
    Gateway,
    Waypoint,
}

/// Which proxies a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyMatch {
    /// Expression over Istio's version.
    pub proxy_version: String,
    /// Node metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Which listeners and filters a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListenerMatch {
    /// Port of the listener; 0 is any.
    pub port_number: u32,
    /// Not implemented by Istio.
    pub port_name: String,
    /// Which filter chains.
    pub filter_chain: Option<FilterChainMatch>,
    /// Which listener filter.
    pub listener_filter: String,
    /// Name of the listener.
    pub name: String,
}

/// Which filter chains a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FilterChainMatch {
    /// Name of the chain.
    pub name: String,
    /// Server name that the chain is for.
    pub sni: String,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: String,
    /// Name of the transport socket.
    pub transport_socket: String,
    /// ALPN protocols, separated by commas.
    pub application_protocols: String,
    /// Which network filter.
    pub filter: Option<FilterMatch>,
    /// Original destination port.
    pub destination_port: u32,
}

/// Which network filter a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FilterMatch {
    /// Its name.
    pub name: String,
    /// Which filter within it.
    pub sub_filter: Option<SubFilterMatch>,
}

/// Which filter within the HTTP connection manager a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct SubFilterMatch {
    /// Its name.
    pub name: String,
}

/// Which route configurations, virtual hosts and routes a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteConfigurationMatch {
    /// Port of the Gateway's server; 0 is any.
    pub port_number: u32,
    /// Name of that port.
    pub port_name: String,
    /// Gateway as `namespace/name`.
    pub gateway: String,
    /// Which virtual hosts.
    pub vhost: Option<VirtualHostMatch>,
    /// Name of the route configuration, such as `http.80`.
    pub name: String,
}

/// Which virtual hosts a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VirtualHostMatch {
    /// Name as `host:port`, compared as text.
    pub name: String,
    /// One of its domains, compared as text.
    pub domain_name: String,
    /// Which routes.
    pub route: Option<RouteMatch>,
}

/// Which routes a patch is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct RouteMatch {
    /// Name of the route.
    pub name: String,
    /// What the route does.
    pub action: RouteActionMatch,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(
    missing_docs,
    reason = "the names are Envoy's own and say all there is to say"
)]
pub enum RouteActionMatch {
    #[default]
    Any,
    Route,
    Redirect,
    DirectResponse,
}
