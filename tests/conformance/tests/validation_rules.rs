//! Each rule about a single resource finds what it is for, and nothing else: `data/validation/rules.yaml`.

use std::collections::HashSet;

use edge_config::{parse_documents, validate};
use serde::Deserialize;
use serde_yaml::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// What of a resource it looks at.
    part: String,
    /// The rule as a sentence.
    says: String,
    /// What the fragment is put into.
    r#in: Place,
    fragment: Value,
    /// Problems as `severity field`, in any order.
    finds: Vec<String>,
}

/// What a fragment is put into: the spec of a kind, or a place within one that is right for the rest.
#[derive(Deserialize, Clone, Copy)]
enum Place {
    Gateway,
    VirtualService,
    DestinationRule,
    ServiceEntry,
    WorkloadEntry,
    EnvoyFilter,
    AuthorizationPolicy,
    RequestAuthentication,
    PeerAuthentication,
    /// The fields beside metadata of a Secret.
    Secret,
    /// The fields beside metadata of a ConfigMap.
    ConfigMap,
    /// The one server of a Gateway.
    #[serde(rename = "server")]
    Server,
    /// The TLS settings of an HTTPS server.
    #[serde(rename = "tls")]
    Tls,
    /// The one rule for HTTP of a VirtualService at a gateway.
    #[serde(rename = "http")]
    Http,
    /// The traffic policy of a DestinationRule.
    #[serde(rename = "policy")]
    Policy,
}

impl Place {
    /// A whole resource around the fragment, as JSON, which is YAML.
    fn resource(self, fragment: &Value) -> String {
        let fragment = serde_json::to_string(fragment).expect("YAML without tags is JSON");
        let (kind, spec) = match self {
            Self::Gateway => ("Gateway", fragment),
            Self::VirtualService => ("VirtualService", fragment),
            Self::DestinationRule => ("DestinationRule", fragment),
            Self::ServiceEntry => ("ServiceEntry", fragment),
            Self::WorkloadEntry => ("WorkloadEntry", fragment),
            Self::EnvoyFilter => ("EnvoyFilter", fragment),
            Self::AuthorizationPolicy => ("AuthorizationPolicy", fragment),
            Self::RequestAuthentication => ("RequestAuthentication", fragment),
            Self::PeerAuthentication => ("PeerAuthentication", fragment),
            Self::Secret => return core("Secret", &fragment),
            Self::ConfigMap => return core("ConfigMap", &fragment),
            Self::Server => ("Gateway", format!("{{\"servers\": [{fragment}]}}")),
            Self::Tls => (
                "Gateway",
                format!(
                    "{{\"servers\": [{{\"port\": {{\"number\": 443, \"name\": \"a\", \"protocol\": \"HTTPS\"}}, \
                     \"hosts\": [\"*\"], \"tls\": {fragment}}}]}}"
                ),
            ),
            Self::Http => (
                "VirtualService",
                format!("{{\"hosts\": [\"a.com\"], \"gateways\": [\"gw\"], \"http\": [{fragment}]}}"),
            ),
            Self::Policy => (
                "DestinationRule",
                format!("{{\"host\": \"a\", \"trafficPolicy\": {fragment}}}"),
            ),
        };
        let api = match kind {
            "EnvoyFilter" => "networking.istio.io/v1alpha3",
            "AuthorizationPolicy" | "RequestAuthentication" | "PeerAuthentication" => "security.istio.io/v1",
            _ => "networking.istio.io/v1",
        };
        format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n")
    }
}

/// An object of Kubernetes' core without `spec`: `fields` is a JSON map of what stands beside the metadata.
fn core(kind: &str, fields: &str) -> String {
    fields.replacen(
        '{',
        &format!("{{\"apiVersion\": \"v1\", \"kind\": \"{kind}\", \"metadata\": {{\"name\": \"a\"}}, "),
        1,
    )
}

fn rules() -> Vec<Rule> {
    serde_yaml::from_str(include_str!("../data/validation/rules.yaml")).expect("the rules can be read")
}

#[test]
fn each_rule_finds_what_it_is_for_and_nothing_else() {
    let mut wrong = Vec::new();
    for mut rule in rules() {
        let parsed = parse_documents("rule.yaml", &rule.r#in.resource(&rule.fragment));
        let problems = parsed.resources.iter().flat_map(validate).chain(parsed.problems);
        // What a patch of an EnvoyFilter has as its effect is another matter.
        let problems = problems.filter(|problem| !problem.message.starts_with("has no effect: the edge"));
        let mut found: Vec<_> = problems
            .map(|problem| format!("{} {}", problem.severity.name(), problem.field))
            .collect();
        found.sort();
        rule.finds.sort();
        if found != rule.finds {
            wrong.push(format!(
                "{}: {}\n  found {found:?}\n  not   {:?}",
                rule.part, rule.says, rule.finds
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_rule_is_said_twice() {
    let rules = rules();
    assert!(rules.len() > 100, "{} rules", rules.len());
    let mut said = HashSet::new();
    for rule in &rules {
        assert!(
            said.insert((&rule.part, &rule.says)),
            "{}: {}",
            rule.part,
            rule.says
        );
    }
}
