//! How Istio's references become full names.

/// Full name of a service that an object of `namespace` refers to: a name without a dot is a Kubernetes Service of that
/// namespace (istio `pilot/pkg/model/virtualservice.go`, `ResolveShortnameToFQDN`).
pub(crate) fn service_host(host: &str, namespace: &str, cluster_domain: &str) -> String {
    let host = host.to_ascii_lowercase();
    if host.contains('.') || host.starts_with('*') {
        host
    } else if cluster_domain.is_empty() {
        format!("{host}.{namespace}")
    } else {
        format!("{host}.{namespace}.svc.{cluster_domain}")
    }
}

/// `namespace/name` of a Gateway that a VirtualService of `namespace` refers to. Besides `[namespace/]name` Istio still
/// takes the older `name.namespace.svc.cluster.local` (istio `resolveGatewayName`).
pub(crate) fn gateway_key(reference: &str, namespace: &str) -> String {
    if let Some((written, name)) = reference.split_once('/') {
        let namespace = if written == "." { namespace } else { written };
        return format!("{namespace}/{name}");
    }
    match reference.split_once('.') {
        Some((name, rest)) => format!("{}/{name}", rest.split('.').next().unwrap_or(rest)),
        None => format!("{namespace}/{reference}"),
    }
}

/// Whether an object of `own` with this `exportTo` is visible in `namespace`; an empty list exports everywhere.
pub(crate) fn is_visible(export_to: &[String], own: &str, namespace: &str) -> bool {
    export_to.is_empty()
        || export_to.iter().any(|target| match target.as_str() {
            "*" => true,
            "." => own == namespace,
            other => other == namespace,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_services_of_the_objects_namespace() {
        for (host, domain, expected) in [
            ("web", "cluster.local", "web.shop.svc.cluster.local"),
            ("Web", "", "web.shop"),
            ("api.example.com", "cluster.local", "api.example.com"),
            ("*", "cluster.local", "*"),
        ] {
            assert_eq!(service_host(host, "shop", domain), expected);
        }
    }

    #[test]
    fn gateways_are_named_with_or_without_a_namespace() {
        for (reference, expected) in [
            ("web", "shop/web"),
            ("edge/web", "edge/web"),
            ("./web", "shop/web"),
            ("web.edge.svc.cluster.local", "edge/web"),
            ("web.edge", "edge/web"),
        ] {
            assert_eq!(gateway_key(reference, "shop"), expected);
        }
    }

    #[test]
    fn a_dot_in_export_to_hides_an_object_from_other_namespaces() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        for (export_to, namespace, expected) in [
            (list(&[]), "b", true),
            (list(&["*"]), "b", true),
            (list(&["."]), "b", false),
            (list(&["."]), "a", true),
            (list(&["c", "b"]), "b", true),
        ] {
            assert_eq!(is_visible(&export_to, "a", namespace), expected, "{export_to:?}");
        }
    }
}
