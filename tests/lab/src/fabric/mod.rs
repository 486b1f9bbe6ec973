//! The fabric: a lab of load balancers and the workers that they forward to.
//!
//! ```text
//!  client ──────────── router ═══════════ segment ═══════════════════════
//!  10.80.0.2        10.80.0.1, .1.1        │      │      │  │  │  │
//!  fd80::2          ECMP over the         lb1    lb2    w1 w2 w3 w4
//!                   balancers           .1.11   .1.12   .1.21 to .1.24
//!
//!  virtual 10.88.0.1, fd88::1: on each worker's lo; nowhere else
//! ```
//!
//! Balancers run edge with pools; a packet comes to one of them by the router's choice, and leaves for a worker by the
//! interface that it came in by, unless the settings put the workers on a segment of their own, 10.80.2.0/24, behind a
//! second interface of the balancers. Workers run edge, which takes packets out of tunnels, as `role: host` or as gateways, and
//! [`Server`]s of this process. Answers go to the client by way of the router, past the balancers (direct server return).
//!
//! What virtual links ask for and wires do not: a frame that XDP sends back (XDP_TX) arrives at a veth's peer only if
//! that has a program, too, so an edge without virtual addresses runs on the router; packets of this machine carry
//! complete checksums only if transmit offload is off.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Curl, NetNs, Process, Programs, cleanup, wait_until};

mod client;
mod config;
mod server;
mod wires;

pub use client::{Client, Connection, Datagrams, Reply};
pub use config::{Health, Mode, Role, Settings, WorkerState, Xdp};
pub use server::{Illness, Server, pattern};
pub use wires::Segment;
use wires::{join, link_client};

/// Balancers of a fabric.
pub const BALANCERS: usize = 2;
/// Workers of a fabric.
pub const WORKERS: usize = 4;
/// The virtual address.
pub const VIP: &str = "10.88.0.1";
/// The virtual IPv6 address.
pub const VIP_V6: &str = "fd88::1";
/// The client's address.
pub const CLIENT: &str = "10.80.0.2";
/// The client's IPv6 address.
pub const CLIENT_V6: &str = "fd80::2";

/// Admin address of each edge inside its own namespace.
const ADMIN: &str = "127.0.0.1:15000";
/// Ample for programs that start in a second, on a machine that compiles at the same time.
const START: Duration = Duration::from_secs(120);

/// Last byte of the address of the n-th balancer, counted from 0.
fn balancer_host(number: usize) -> u8 {
    11 + number as u8
}

/// Last byte of the address of the n-th worker, counted from 0.
fn worker_host(number: usize) -> u8 {
    21 + number as u8
}

/// Client, router, balancers and workers, with edge and servers at work. Everything goes with the value: programs
/// first, then the namespaces.
#[derive(Debug)]
pub struct Fabric {
    balancers: Vec<Node>,
    workers: Vec<Node>,
    servers: Vec<Option<Server>>,
    router: Node,
    settings: Settings,
    client: NetNs,
    dir: TempDir,
}

/// A namespace with an edge in it.
#[derive(Debug)]
struct Node {
    name: String,
    /// `None`: it was killed.
    edge: Option<Process>,
    config: PathBuf,
    netns: NetNs,
}

impl Fabric {
    /// Makes the namespaces and starts everything.
    ///
    /// # Errors
    /// If this process is not root, a program is missing, or an edge does not become ready; the message holds its log.
    pub fn open(settings: Settings) -> Result<Self> {
        cleanup::remove_stale();
        allow_many_files();
        let dir = tempfile::Builder::new()
            .prefix("edge-fabric-")
            .tempdir()
            .context("no folder for logs")?;
        let client = NetNs::new("client")?;
        let router = NetNs::new("router")?;
        link_client(&client, &router)?;
        Segment::Front.make(&router)?;
        let node = |name: String, netns: NetNs| {
            let config = dir.path().join(&name);
            Node {
                edge: None,
                name,
                config,
                netns,
            }
        };
        let mut balancers = Vec::new();
        for number in 0..BALANCERS {
            let (name, host) = (format!("lb{}", number + 1), balancer_host(number));
            balancers.push(node(name.clone(), join(&router, &name, Segment::Front, host)?));
        }
        if settings.segment == Segment::Back {
            Segment::Back.make(&router)?;
            for (number, balancer) in balancers.iter().enumerate() {
                let (port, host) = (config::back_port(number), balancer_host(number));
                Segment::Back.plug(&router, &port, (&balancer.netns, "eth1"), host)?;
            }
        }
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            let (name, host) = (format!("w{}", number + 1), worker_host(number));
            workers.push(node(name.clone(), join(&router, &name, settings.segment, host)?));
        }
        let mut router = node("router".to_owned(), router);
        let servers = workers
            .iter()
            .map(|worker| serve(worker).map(Some))
            .collect::<Result<_>>()?;
        // All at once: each takes about a second to load its programs.
        router.start(dir.path(), &config::router(&settings))?;
        for (number, worker) in workers.iter_mut().enumerate() {
            if let Some(resources) = config::resources(&settings.role) {
                worker.write("lab.yaml", &resources)?;
            }
            worker.start(dir.path(), &config::worker(number, &settings))?;
        }
        for balancer in &mut balancers {
            balancer.start(dir.path(), &config::balancer(&settings))?;
        }
        for node in balancers.iter().chain(&workers).chain([&router]) {
            node.wait_until_ready()?;
        }
        let fabric = Self {
            balancers,
            workers,
            servers,
            router,
            settings,
            client,
            dir,
        };
        fabric.route_over(&(0..BALANCERS).collect::<Vec<_>>())?;
        Ok(fabric)
    }

    /// What connects from the client's namespace.
    #[must_use]
    pub fn client(&self) -> Client<'_> {
        Client::new(&self.client)
    }

    /// The namespace of a balancer, counted from 0.
    ///
    /// # Errors
    /// If there is no such balancer.
    pub fn balancer(&self, number: usize) -> Result<&NetNs> {
        Ok(&self.node(number)?.netns)
    }

    /// The namespace of a worker, counted from 0.
    ///
    /// # Errors
    /// If there is no such worker.
    pub fn worker(&self, number: usize) -> Result<&NetNs> {
        let node = self.workers.get(number).context("no such worker")?;
        Ok(&node.netns)
    }

    /// A worker's addresses on its segment, counted from 0: IPv4, then IPv6.
    #[must_use]
    pub fn worker_addresses(&self, number: usize) -> [String; 2] {
        self.settings.segment.address(worker_host(number))
    }

    /// Has the router take frames from the client that XDP redirected there, and keep answers to their made-up sources
    /// (198.18.0.0/15) to itself. A veth takes redirected frames where there is GRO or a program, and without both loses
    /// them uncounted.
    ///
    /// # Errors
    /// If ethtool(8) or ip(8) refuses.
    pub fn let_floods_through(&self) -> Result<()> {
        let router = &self.router.netns;
        router.exec(&["ethtool", "-K", "client0", "gro", "on"])?;
        router.ip("route replace blackhole 198.18.0.0/15").map(drop)
    }

    /// A worker's server, counted from 0; `None` while it is stopped.
    #[must_use]
    pub fn server(&self, worker: usize) -> Option<&Server> {
        self.servers.get(worker)?.as_ref()
    }

    /// Ends a worker's server: its listeners are closed and its connections cut.
    pub fn stop_server(&mut self, worker: usize) {
        if let Some(server) = self.servers.get_mut(worker) {
            *server = None;
        }
    }

    /// Starts a worker's server anew.
    ///
    /// # Errors
    /// If there is no such worker, or its ports are taken.
    pub fn start_server(&mut self, worker: usize) -> Result<()> {
        let node = self.workers.get(worker).context("no such worker")?;
        let server = self.servers.get_mut(worker).context("no such worker")?;
        *server = Some(serve(node)?);
        Ok(())
    }

    /// Has the router spread the virtual addresses over these balancers, as a routing daemon would that has seen the
    /// others go.
    ///
    /// # Errors
    /// If ip(8) refuses.
    pub fn route_over(&self, balancers: &[usize]) -> Result<()> {
        for (family, vip) in [("-4", VIP), ("-6", VIP_V6)] {
            let mut words = format!("{family} route replace {vip}");
            for &balancer in balancers {
                let [v4, v6] = Segment::Front.address(balancer_host(balancer));
                let via = if family == "-4" { v4 } else { v6 };
                // Writing to a String cannot fail.
                let _ = write!(words, " nexthop via {via}");
            }
            self.router.netns.ip(&words)?;
        }
        Ok(())
    }

    /// Changes the balancers' configuration, and waits until each that runs has it in force.
    ///
    /// # Errors
    /// If one does not take it.
    pub fn configure(&mut self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let old = config::balancer(&self.settings);
        change(&mut self.settings);
        let text = config::balancer(&self.settings);
        if text == old {
            return Ok(());
        }
        for balancer in &self.balancers {
            let before = balancer.snapshot().ok();
            balancer.write("edge.yaml", &text)?;
            let Some(before) = before else { continue };
            wait_until(&format!("{}'s new configuration", balancer.name), START, || {
                Ok(balancer.snapshot()? > before)
            })?;
        }
        Ok(())
    }

    /// Changes the configuration of balancers that start from now on. What runs keeps its own: some keys take effect with
    /// the next start alone.
    pub fn configure_next(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
    }

    /// Kills a balancer's edge (SIGKILL).
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_balancer(&mut self, number: usize) -> Result<()> {
        let node = self.balancers.get_mut(number).context("no such balancer")?;
        node.edge.take().context("it does not run")?.kill()
    }

    /// Starts a balancer's edge anew, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start_balancer(&mut self, number: usize) -> Result<()> {
        let text = config::balancer(&self.settings);
        let node = self.balancers.get_mut(number).context("no such balancer")?;
        node.start(self.dir.path(), &text)?;
        node.wait_until_ready()
    }

    /// What a balancer's edge has logged.
    ///
    /// # Errors
    /// If it does not run.
    pub fn log(&self, number: usize) -> Result<String> {
        self.node(number)?.edge.as_ref().context("it does not run")?.log()
    }

    /// What `edge status --json` says on a balancer.
    ///
    /// # Errors
    /// If edge does not answer.
    pub fn status(&self, number: usize) -> Result<Value> {
        self.node(number)?.status()
    }

    /// What a balancer's edge tells Prometheus.
    ///
    /// # Errors
    /// If edge does not answer.
    pub fn metrics(&self, number: usize) -> Result<String> {
        Ok(self.node(number)?.admin("/stats/prometheus")?.1)
    }

    /// The same as [`Fabric::status`] on a worker.
    ///
    /// # Errors
    /// If there is no such worker, or edge does not answer.
    pub fn worker_status(&self, number: usize) -> Result<Value> {
        self.workers.get(number).context("no such worker")?.status()
    }

    /// The sum of a number of the status of all balancers that run, by its JSON pointer.
    ///
    /// # Errors
    /// If one does not answer, or its status has no such number.
    pub fn total(&self, pointer: &str) -> Result<u64> {
        let running = self.balancers.iter().filter(|node| node.edge.is_some());
        running.map(|node| node.count(pointer)).sum()
    }

    /// The same of all workers.
    ///
    /// # Errors
    /// As [`Fabric::total`].
    pub fn total_of_workers(&self, pointer: &str) -> Result<u64> {
        self.workers.iter().map(|node| node.count(pointer)).sum()
    }

    /// A command of edge in a balancer's namespace.
    ///
    /// # Errors
    /// If there is no such balancer, or edge is not built.
    pub fn edge_command(&self, number: usize, words: &[&str]) -> Result<Command> {
        let mut command = self.balancer(number)?.command(Programs::default().path("edge")?);
        command.args(words);
        Ok(command)
    }

    fn node(&self, number: usize) -> Result<&Node> {
        self.balancers.get(number).context("no such balancer")
    }
}

impl Node {
    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::create_dir_all(&self.config)?;
        let file = self.config.join(file);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    fn start(&mut self, logs: &Path, text: &str) -> Result<()> {
        self.write("edge.yaml", text)?;
        let mut command = self.netns.command(Programs::default().path("edge")?);
        command.args(["run", "--config"]).arg(&self.config);
        self.edge = Some(Process::spawn(
            &format!("{}-edge", self.name),
            &mut command,
            logs,
        )?);
        Ok(())
    }

    fn wait_until_ready(&self) -> Result<()> {
        let ready = || Ok(self.admin("/healthz/ready")?.0 == 200);
        wait_until(&format!("edge on {}", self.name), START, ready).with_context(|| {
            let log = self.edge.as_ref().map(Process::tail);
            format!("edge said:{}", log.unwrap_or_default())
        })
    }

    fn admin(&self, path: &str) -> Result<(u16, String)> {
        let answer = Curl::new(&self.netns).get(&format!("http://{ADMIN}{path}"))?;
        Ok((answer.status, answer.text()))
    }

    fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.admin("/status")?.1).context("the status is not JSON")
    }

    fn count(&self, pointer: &str) -> Result<u64> {
        let number = self.status()?.pointer(pointer).and_then(Value::as_u64);
        number.with_context(|| format!("the status of {} has no number {pointer}", self.name))
    }

    fn snapshot(&self) -> Result<u64> {
        let status = self.status()?;
        let number = status.pointer("/config/snapshot").and_then(Value::as_u64);
        number.context("the status has no snapshot")
    }
}

/// Lets this process hold both ends of some thousand connections.
fn allow_many_files() {
    let limits = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limits.maximum,
        ..limits
    };
    // Where it is refused, a test of many connections fails and says so.
    let _ = setrlimit(Resource::Nofile, wanted);
}

/// Gives a worker the virtual addresses, and starts its server.
fn serve(worker: &Node) -> Result<Server> {
    let netns = &worker.netns;
    netns.ip(&format!("address replace {VIP}/32 dev lo"))?;
    netns.ip(&format!("address replace {VIP_V6}/128 dev lo nodad"))?;
    netns.enter(|| Server::start(&worker.name))
}
