//! What only shows between objects is said with the object, the field, what is wrong, and what to do.
#![forbid(unsafe_code)]

use edge_config::{check, parse_documents};
use edge_control::{CompileOptions, compile, fates};

const GATEWAY: &str = "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}]
";

const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {ports: [{name: http, port: 80}]}
";

/// A VirtualService at the Gateway.
fn route(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// Everything that is said of the objects, each by itself and all together.
fn problems(text: &str) -> Vec<String> {
    let parsed = parse_documents("test.yaml", text);
    let checked = parsed.resources.iter().flat_map(check);
    let read = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let compiled = compile(&parsed.resources, &CompileOptions::default(), &read);
    let all = parsed
        .problems
        .iter()
        .cloned()
        .chain(checked)
        .chain(compiled.problems);
    let mut lines: Vec<_> = all.map(|problem| problem.to_string()).collect();
    lines.sort();
    lines
}

/// Objects, and lines that must be among what is said of them; nothing may be said where there are none.
struct Finding<'t> {
    what: &'t str,
    objects: &'t [&'t str],
    expected: &'t [&'t str],
}

#[track_caller]
fn check_all(findings: &[Finding<'_>]) {
    let mut failures = vec![];
    for Finding {
        what,
        objects,
        expected,
    } in findings
    {
        let found = problems(&objects.concat());
        let has_all = expected.iter().all(|line| found.iter().any(|own| own == line));
        if !has_all || expected.is_empty() != found.is_empty() {
            failures.push(format!("{what}:\n  expected {expected:#?}\n  found {found:#?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn references_that_lead_nowhere() {
    check_all(&[
    Finding { what: "an unknown Gateway", objects: &[
            SERVICE,
            &route(
                "a",
                "hosts: [a.example.com], gateways: [other/web], http: [{route: [{destination: {host: shop}}]}]",
            ),
        ], expected: &[
            "warning VirtualService/default/a spec.gateways[0]: there is no Gateway other/web (write [namespace/]name of \
           a Gateway)",
        ] },
    Finding { what: "an unknown host", objects: &[
            GATEWAY,
            &route(
                "a",
                "hosts: [a.example.com], gateways: [web], http: [{route: [{destination: {host: gone}}]}]",
            ),
        ], expected: &[
            "warning VirtualService/default/a spec.http[0].route[0].destination.host: there is no service \
           gone.default.svc.cluster.local: requests get 503 (NC) (add the Service or ServiceEntry)",
        ] },
    Finding { what: "an unknown subset", objects: &[
            GATEWAY,
            SERVICE,
            &route(
                "a",
                "hosts: [a.example.com], gateways: [web], http: [{route: [{destination: {host: shop, subset: v9}}]}]",
            ),
        ], expected: &[
            "warning VirtualService/default/a spec.http[0].route[0].destination.subset: \
             shop.default.svc.cluster.local has no subset \"v9\": requests get 503 (NC) (add it to the DestinationRule)",
        ] },
    Finding { what: "a credential that is not found", objects: &["apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: lost}}
"], expected: &[
            "warning Gateway/default/web spec.servers[0].tls.credentialName: there is no Secret istio-system/lost \
           (handshakes for the server's hosts fail until it is right)",
        ] },
    Finding { what: "hosts that no server takes", objects: &[
            GATEWAY,
            SERVICE,
            &route(
                "a",
                "hosts: [a.com], gateways: [web], http: [{route: [{destination: {host: shop}}]}]",
            ),
        ], expected: &[
            "warning VirtualService/default/a spec.hosts[0]: no server of its Gateways takes a.com from namespace \
           default (compare it with spec.servers[].hosts of the Gateways)",
        ] },
    ]);
}

#[test]
fn rules_without_effect() {
    let filter = "---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit, namespace: istio-system}
spec:
  configPatches:
    - applyTo: VIRTUAL_HOST
      match: {context: GATEWAY, routeConfiguration: {vhost: {name: 'b.example.com:80'}}}
      patch: {operation: MERGE, value: {rate_limits: [{actions: [{remote_address: {}}]}]}}
";
    check_all(&[
        Finding {
            what: "an unreachable rule",
            objects: &[
                GATEWAY,
                SERVICE,
                &route(
                    "a",
                    "hosts: [a.example.com], gateways: [web], http: [{route: [{destination: {host: shop}}]}, \
                 {match: [{uri: {prefix: /a}}], route: [{destination: {host: shop}}]}]",
                ),
            ],
            expected: &[
                "warning VirtualService/default/a spec.http[1]: unreachable: spec.http[0] takes every request before (put \
           the rule before it, or remove it)",
            ],
        },
        Finding {
            what: "weights that sum to 0",
            objects: &[
                GATEWAY,
                SERVICE,
                &route(
                    "a",
                    "hosts: [a.example.com], gateways: [web], http: [{route: [{destination: {host: shop}, weight: 0}, \
                 {destination: {host: shop}, weight: 0}]}]",
                ),
            ],
            expected: &[
                "error VirtualService/default/a spec.http[0].route: no destination has a weight, nothing can be forwarded \
             (name a destination with a weight)",
                "error VirtualService/default/a spec.http[0].route: the weights of the destinations sum to 0 (give at least one \
             destination a weight above 0)",
            ],
        },
        Finding {
            what: "a virtual host that is called otherwise",
            objects: &[
                GATEWAY,
                SERVICE,
                filter,
                &route(
                    "a",
                    "hosts: [a.example.com], gateways: [web], http: [{route: [{destination: {host: shop}}]}]",
                ),
            ],
            expected: &[
                "warning EnvoyFilter/istio-system/limit spec.configPatches[0].match: the match fits nothing that there is, \
           the patch has no effect (virtual hosts are called <host>:<port>, here for instance a.example.com:80)",
            ],
        },
        Finding {
            what: "Gateways that conflict on a port",
            objects: &[
                GATEWAY,
                &GATEWAY
                    .replace("name: web", "name: other")
                    .replace("protocol: HTTP", "protocol: TCP"),
            ],
            expected: &[
                "warning Gateway/default/web spec.servers[0]: port 80 serves a protocol that is not HTTP for another server, \
           this one is left out (the older Gateway wins; change the port or the hosts of one of them)",
                "warning Gateway/default/other spec.servers[0]: no tcp rule of any VirtualService is for the server, its \
           connections are closed (bind a VirtualService with tcp to the Gateway, with a host of the server)",
            ],
        },
    ]);
}

#[test]
fn delegates_are_named_and_do_not_delegate() {
    let root = route(
        "root",
        "hosts: [a.example.com], gateways: [web], http: [{match: [{uri: {prefix: /a}}], delegate: {name: own}}]",
    );
    let own = route(
        "own",
        "http: [{match: [{uri: {prefix: /a/b}}], route: [{destination: {host: shop}}]}]",
    );
    check_all(&[
        Finding {
            what: "a delegate that is named",
            objects: &[GATEWAY, SERVICE, &root, &own],
            expected: &[],
        },
        Finding {
            what: "a delegate that nobody names",
            objects: &[GATEWAY, SERVICE, &own],
            expected: &[
                "warning VirtualService/default/own spec.hosts: a VirtualService without hosts is for others to delegate \
           to, and none does (name it in spec.http[].delegate of another one, or give it hosts and gateways)",
            ],
        },
        Finding {
            what: "a delegate that is not there",
            objects: &[GATEWAY, &root],
            expected: &[
                "warning VirtualService/default/root spec.http[0].delegate: there is no VirtualService default/own without \
           hosts, the rule is left out (a delegate has neither hosts nor gateways)",
            ],
        },
        Finding {
            what: "a chain of delegates",
            objects: &[
                GATEWAY,
                SERVICE,
                &root,
                &route(
                    "own",
                    "http: [{match: [{uri: {prefix: /a}}], delegate: {name: next}}]",
                ),
                &route(
                    "next",
                    "http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: shop}}]}]",
                ),
            ],
            expected: &[
                "warning VirtualService/default/own spec.http[0].delegate: a delegate cannot delegate, the rule is left out \
           (name it in the root VirtualService)",
            ],
        },
        Finding {
            what: "conditions that contradict each other",
            objects: &[
                GATEWAY,
                SERVICE,
                &root,
                &route(
                    "own",
                    "http: [{match: [{uri: {prefix: /other}}], route: [{destination: {host: shop}}]}]",
                ),
            ],
            expected: &[
                "warning VirtualService/default/own spec.http[0].match: no match block fits http[0] of \
           VirtualService/default/root, the rule is left out (each condition must be as narrow as one of the root's)",
            ],
        },
    ]);
}

#[test]
fn what_is_behind_a_service_that_is_used_is_used_too() {
    let workloads = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-a, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
  - {addresses: [10.0.0.1], targetRef: {kind: Pod, name: one}}
  - {addresses: [10.0.0.2], targetRef: {kind: Pod, name: two}}
---
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {version: v1}}
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {version: v2}}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {version: v1}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop}
spec: {host: shop, subsets: [{name: v1, labels: {version: v1}}]}
";
    let rule =
        "hosts: [a.example.com], gateways: [web], http: [{route: [{destination: {host: shop, subset: v1}}]}]";
    let text = [GATEWAY, SERVICE, workloads, &route("a", rule)].concat();
    let parsed = parse_documents("test.yaml", &text);
    let options = CompileOptions::default();
    let compiled = compile(&parsed.resources, &options, &|_| {
        Err(std::io::ErrorKind::NotFound.into())
    });
    let fates = fates(
        &parsed.resources,
        &options,
        &compiled.snapshot,
        &compiled.problems,
    );
    let lines: Vec<_> = fates
        .iter()
        .filter(|fate| matches!(fate.object.kind.name(), "Service" | "EndpointSlice" | "Pod"))
        .map(|fate| format!("{} {} {}", fate.object, fate.state.name(), fate.places.join("; ")))
        .collect();
    assert_eq!(
        lines,
        [
            "Service/default/shop bound cluster outbound|80|v1|shop.default.svc.cluster.local, 1 ready endpoint",
            "EndpointSlice/default/shop-a bound endpoints of Service/default/shop",
            "Pod/default/alone unused ",
            "Pod/default/one bound endpoint of Service/default/shop",
            "Pod/default/two bound endpoint of Service/default/shop",
        ]
    );
}
