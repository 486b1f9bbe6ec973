//! `edge routes`: the compiled tables, by port and host.

use std::fmt::Write as _;

use edge_model::{
    Listener, ListenerProtocol, Route, RouteAction, RouteTable, Snapshot, TcpRoute, TlsServer, TlsService,
};

use crate::cli::RoutesArgs;
use crate::failure::Failure;
use crate::{config, dump};

/// Lists a folder's routes.
pub(crate) fn run(args: &RoutesArgs) -> Result<(), Failure> {
    let loaded = config::load(&args.config)?;
    if args.json {
        for listener in &loaded.snapshot.listeners {
            println!("{}", dump::listener(listener));
        }
    } else {
        print!("{}", tree(&loaded.snapshot));
    }
    Ok(())
}

fn tree(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for listener in &snapshot.listeners {
        write_listener(&mut out, listener);
    }
    out
}

fn write_listener(out: &mut String, listener: &Listener) {
    let _ = writeln!(out, "port {}  listener {}", listener.port, listener.name);
    match &listener.protocol {
        ListenerProtocol::Http(table) => write_table(out, table, ""),
        ListenerProtocol::Tls(servers) => servers.iter().for_each(|server| write_server(out, server)),
        ListenerProtocol::Tcp(route) => {
            let _ = writeln!(out, "└─ every connection -> {}", tcp(route));
        }
    }
}

fn write_server(out: &mut String, server: &TlsServer) {
    let hosts: Vec<_> = server.hosts.iter().map(ToString::to_string).collect();
    let names = format!("server names {}  {}", hosts.join(", "), server.gateway);
    match &server.service {
        TlsService::Http { tls, routes } => {
            let broken = if tls.certificates.is_empty() {
                "  (no certificate: handshakes fail)"
            } else {
                ""
            };
            let _ = writeln!(out, "├─ {names}{broken}");
            write_table(out, routes, "│  ");
        }
        TlsService::Tcp { route, .. } => {
            let _ = writeln!(out, "├─ {names}\n│  └─ TLS ends, bytes -> {}", tcp(route));
        }
        TlsService::Passthrough { route } => {
            let _ = writeln!(out, "├─ {names}\n│  └─ passes through -> {}", tcp(route));
        }
    }
}

fn write_table(out: &mut String, table: &RouteTable, indent: &str) {
    for host in table.virtual_hosts.sorted() {
        let redirects = if host.require_tls {
            "  (redirects to https)"
        } else {
            ""
        };
        let _ = writeln!(out, "{indent}├─ {}{redirects}", host.domain);
        if host.routes.is_empty() && !host.require_tls {
            let _ = writeln!(out, "{indent}│  └─ no route: 404");
        }
        for route in &host.routes {
            let _ = writeln!(out, "{indent}│  └─ {}", self::route(route));
        }
    }
}

fn route(route: &Route) -> String {
    let conditions = dump::conditions(&route.matcher);
    let conditions = if conditions.is_empty() {
        "any request".to_owned()
    } else {
        conditions.join(", ")
    };
    let place = match route.match_index {
        Some(index) => format!("http[{}].match[{index}]", route.rule),
        None => format!("http[{}]", route.rule),
    };
    let name = if route.name.is_empty() {
        String::new()
    } else {
        format!("  {:?}", route.name)
    };
    format!(
        "{conditions} -> {}  {} {place}{name}",
        action(&route.action),
        route.object
    )
}

fn action(action: &RouteAction) -> String {
    match action {
        RouteAction::Forward(forward) => {
            let shares = forward.destinations.iter();
            let single = forward.destinations.len() == 1;
            let shares = shares.map(|to| share(to.cluster.as_str(), to.weight, single));
            shares.collect::<Vec<_>>().join(", ")
        }
        RouteAction::Redirect(redirect) => format!("redirect {}", redirect.code.as_u16()),
        RouteAction::DirectResponse(response) => format!("answer {}", response.status.as_u16()),
    }
}

fn tcp(route: &TcpRoute) -> String {
    let single = route.destinations.len() == 1;
    let shares = route.destinations.iter();
    let shares = shares.map(|to| share(to.cluster.as_str(), to.weight, single));
    format!("{}  {}", shares.collect::<Vec<_>>().join(", "), route.object)
}

fn share(cluster: &str, weight: u32, single: bool) -> String {
    if single {
        cluster.to_owned()
    } else {
        format!("{cluster} ({weight})")
    }
}
