//! edge, configured by Istio's API.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Ports, Prepared, ROUTES, check, write};
use crate::case::Variant;
use crate::site::Site;

pub(super) fn prepare(site: &Site, folder: &Path, program: &Path, variant: Variant) -> Result<Prepared> {
    let mut ports = Ports::new(site)?;
    // One port speaks both versions.
    ports.http2 = ports.http1;
    // A folder of its own, as edge looks after it: logs beside would make it read its configuration again and again.
    let config = folder.join("config");
    std::fs::create_dir(&config).context("cannot make a folder")?;
    write(&config, "edge.yaml", &bootstrap(&ports, variant, folder))?;
    write(&config, "gateway.yaml", &gateway(site, &ports))?;
    write(&config, "services.yaml", &services(site))?;
    write(&config, "routes.yaml", &routes(variant))?;
    write(&config, "bytes.yaml", &bytes(&ports))?;
    let mut validate = std::process::Command::new(program);
    check(validate.arg("validate").arg(&config))?;
    let command = vec![program.into(), "run".into(), "--config".into(), config];
    Ok(Prepared { command, ports })
}

fn bootstrap(ports: &Ports, variant: Variant, folder: &Path) -> String {
    let log = match variant {
        Variant::AccessLog => format!("accessLog: {{path: {}/access.log}}\n", folder.display()),
        Variant::Plain | Variant::Hosts(_) | Variant::Routes(_) => String::new(),
    };
    format!(
        "workers: 1\nadmin: 127.0.0.1:{}\ndrain: {{deadline: 2s}}\n{log}",
        ports.admin
    )
}

fn gateway(site: &Site, ports: &Ports) -> String {
    let mut text =
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: bench}\n\
                    spec:\n  selector: {istio: ingressgateway}\n  servers:\n"
            .to_owned();
    let mut server = |number: u16, name: &str, protocol: &str, tls: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "  - port: {{number: {number}, name: {name}, protocol: {protocol}}}\n    hosts: [\"*\"]\n{tls}"
        );
    };
    server(ports.http1, "http", "HTTP", "");
    for (number, name, files) in [(ports.ecdsa, "ecdsa", &site.ecdsa), (ports.rsa, "rsa", &site.rsa)] {
        let tls = format!(
            "    tls: {{mode: SIMPLE, serverCertificate: {}, privateKey: {}}}\n",
            files.cert.display(),
            files.key.display()
        );
        server(number, name, "HTTPS", &tls);
    }
    server(ports.tcp, "tcp", "TCP", "");
    server(ports.passthrough, "pass", "TLS", "    tls: {mode: PASSTHROUGH}\n");
    text
}

fn services(site: &Site) -> String {
    let entry = |name: &str, number: u16, protocol: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: bench}}\nspec:\n  \
             hosts: [{name}.example.com]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  ports:\n  - {{number: \
             {number}, name: {name}, protocol: {protocol}}}\n  endpoints:\n  - address: 127.0.0.1\n---\n"
        )
    };
    entry("web", site.backend.port(), "HTTP")
        + &entry("bytes", site.backend.port(), "TCP")
        + &entry("tls", site.backend_tls.port(), "TLS").replace("---\n", "")
        + &format!("---\n{}", destination_port(site))
}

/// A DestinationRule with the limits that a careful operator sets.
fn destination_port(_: &Site) -> String {
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: bench}\nspec:\n  host: \
     web.example.com\n  trafficPolicy:\n    connectionPool: {tcp: {maxConnections: 10000, connectTimeout: 5s}}\n"
        .to_owned()
}

fn routes(variant: Variant) -> String {
    let (hosts, routes) = match variant {
        Variant::Plain | Variant::AccessLog => (1, ROUTES),
        Variant::Hosts(hosts) => (hosts, 1),
        Variant::Routes(routes) => (1, routes),
    };
    // The host that is asked for stands in the middle of the others.
    let others = (1..hosts)
        .map(|number| virtual_service(&format!("host{number}"), &format!("host{number}.example.com"), 1));
    let asked = virtual_service("asked", "localhost", routes);
    others.chain([asked]).collect::<Vec<_>>().join("---\n")
}

fn virtual_service(name: &str, host: &str, routes: u32) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: bench}}\nspec:\n  \
         hosts: [{host}]\n  gateways: [edge]\n  http:\n"
    );
    let prefixes = (1..routes).map(|number| format!("/service{number}/"));
    for prefix in prefixes.chain(["/".to_owned()]) {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "  - match: [{{uri: {{prefix: {prefix}}}}}]\n    timeout: 15s\n    retries: {{attempts: 2, perTryTimeout: 5s, \
             retryOn: \"connect-failure,refused-stream,503\"}}\n    route: [{{destination: {{host: web.example.com}}}}]"
        );
    }
    text
}

fn bytes(ports: &Ports) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: bytes, namespace: bench}}\nspec:\n  \
         hosts: [\"*\"]\n  gateways: [edge]\n  tcp:\n  - match: [{{port: {}}}]\n    route: [{{destination: {{host: \
         bytes.example.com}}}}]\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: tls, \
         namespace: bench}}\nspec:\n  hosts: [localhost]\n  gateways: [edge]\n  tls:\n  - match: [{{port: {}, sniHosts: \
         [localhost]}}]\n    route: [{{destination: {{host: tls.example.com}}}}]\n",
        ports.tcp, ports.passthrough
    )
}
