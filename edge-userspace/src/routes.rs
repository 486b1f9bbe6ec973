//! `edge routes`: the compiled tables, by port and host.

use std::sync::Arc;

use edge_model::{
    Listener, ListenerProtocol, Route, RouteAction, RouteTable, Snapshot, TcpRoute, TlsServer, TlsService,
    VirtualHost,
};

use crate::cli::RoutesArgs;
use crate::failure::Failure;
use crate::tree::{self, Branch};
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
    let listeners = snapshot.listeners.iter();
    let branches: Vec<_> = listeners.map(|listener| of_listener(listener)).collect();
    tree::render(&branches)
}

fn of_listener(listener: &Listener) -> Branch {
    let below = match &listener.protocol {
        ListenerProtocol::Http(table) => of_table(table),
        ListenerProtocol::Tls(servers) => servers.iter().map(|server| of_server(server)).collect(),
        ListenerProtocol::Tcp(route) => vec![Branch::leaf(format!("every connection -> {}", tcp(route)))],
    };
    let line = format!("port {}  listener {}", listener.port, listener.name);
    Branch::new(line, below)
}

fn of_server(server: &TlsServer) -> Branch {
    let hosts: Vec<_> = server.hosts.iter().map(ToString::to_string).collect();
    let names = format!("server names {}  {}", hosts.join(", "), server.gateway);
    match &server.service {
        TlsService::Http { tls, routes } => {
            let broken = if tls.certificates.is_empty() {
                "  (no certificate: handshakes fail)"
            } else {
                ""
            };
            Branch::new(format!("{names}{broken}"), of_table(routes))
        }
        TlsService::Tcp { route, .. } => {
            let below = format!("TLS ends, bytes -> {}", tcp(route));
            Branch::new(names, vec![Branch::leaf(below)])
        }
        TlsService::Passthrough { route } => {
            let below = format!("passes through -> {}", tcp(route));
            Branch::new(names, vec![Branch::leaf(below)])
        }
    }
}

fn of_table(table: &RouteTable) -> Vec<Branch> {
    let hosts = table.virtual_hosts.sorted().into_iter();
    let of_host = |host: &Arc<VirtualHost>| {
        let redirects = if host.require_tls {
            "  (redirects to https)"
        } else {
            ""
        };
        let mut below: Vec<_> = host.routes.iter().map(|own| Branch::leaf(route(own))).collect();
        if below.is_empty() && !host.require_tls {
            below.push(Branch::leaf("no route: 404"));
        }
        Branch::new(format!("{}{redirects}", host.domain), below)
    };
    hosts.map(of_host).collect()
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
