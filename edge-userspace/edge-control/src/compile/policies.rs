//! Security policies that select this gateway and that nothing enforces: they close it.

use edge_config::istio::security::{GatewayIdentity, Scope};
use edge_model::ObjectRef;

use super::input::{Input, Item};
use crate::CompileOptions;

/// The policies because of which every request is refused, by kind and age.
pub(crate) fn unenforced(input: &Input<'_>, options: &CompileOptions) -> Vec<ObjectRef> {
    let gateway = GatewayIdentity {
        labels: &options.gateway_labels,
        namespace: &options.gateway_namespace,
        root_namespace: &options.root_namespace,
    };
    let authorization = input
        .authorization_policies
        .iter()
        .filter(|item| item.spec.keeps_out(item.meta))
        .filter_map(|item| selecting(item, &item.spec.scope(), &gateway));
    let request = input
        .request_authentications
        .iter()
        .filter(|item| item.spec.keeps_out())
        .filter_map(|item| selecting(item, &item.spec.scope(), &gateway));
    let peer = input
        .peer_authentications
        .iter()
        .filter(|item| item.spec.keeps_out())
        .filter_map(|item| selecting(item, &item.spec.scope(), &gateway));
    authorization.chain(request).chain(peer).collect()
}

fn selecting<S>(item: &Item<'_, S>, scope: &Scope<'_>, gateway: &GatewayIdentity<'_>) -> Option<ObjectRef> {
    scope
        .selects(item.namespace(), gateway)
        .then(|| ObjectRef::clone(&item.name))
}
