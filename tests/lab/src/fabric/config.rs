//! What the fabric's edges are configured with.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{BALANCERS, Segment, VIP, VIP_V6, WORKERS, worker_host};

/// How packets get to the workers. Each has a pool of all workers, and a port of its own on the virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// IPIP, and 6in4: in an IPv4 header.
    Ipip4,
    /// IPv4 in IPv6, and IP6IP6: in an IPv6 header.
    Ipip6,
    /// GUE over IPv4.
    Gue4,
    /// GUE over IPv6.
    Gue6,
    /// As they are, to the worker's MAC address.
    L2,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ipip4, Self::Ipip6, Self::Gue4, Self::Gue6, Self::L2];

    /// Its port, TCP and UDP.
    #[must_use]
    pub const fn port(self) -> u16 {
        8001 + self as u16
    }

    /// Name of its pool.
    #[must_use]
    pub const fn pool(self) -> &'static str {
        match self {
            Self::Ipip4 => "ipip4",
            Self::Ipip6 => "ipip6",
            Self::Gue4 => "gue4",
            Self::Gue6 => "gue6",
            Self::L2 => "l2",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Ipip4 | Self::Ipip6 => "ipip",
            Self::Gue4 | Self::Gue6 => "gue",
            Self::L2 => "l2",
        }
    }

    const fn is_over_v6(self) -> bool {
        matches!(self, Self::Ipip6 | Self::Gue6)
    }
}

/// Whether a worker takes connections, as the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerState {
    /// It takes new ones.
    #[default]
    Active,
    /// It keeps those that it has.
    Draining,
    /// The same, said by its weight.
    WeightZero,
    /// It has failed.
    Down,
    /// The list does not have it.
    Gone,
}

impl WorkerState {
    const fn yaml(self) -> Option<&'static str> {
        match self {
            Self::Active => Some("state: active"),
            Self::Draining => Some("state: draining"),
            Self::WeightZero => Some("weight: 0"),
            Self::Down => Some("state: down"),
            Self::Gone => None,
        }
    }
}

/// How the workers are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// A connection is opened.
    Tcp,
    /// A request is answered.
    Http,
}

/// What the balancers are configured with; all alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The workers' states.
    pub workers: [WorkerState; WORKERS],
    /// Flows that the connection table holds, of each family.
    pub flows: u32,
    /// Key of the hash; `None`: each edge draws one, or goes on with what it finds pinned.
    pub hash_seed: Option<u64>,
    /// Folder on a BPF file system for pins.
    pub pins: Option<PathBuf>,
    /// Whether workers hand on what a worker that drains has.
    pub second_hop: bool,
    /// How the workers of the pool of [`Mode::Ipip4`] are probed.
    pub health: Option<Health>,
    /// More keys, as YAML.
    pub more: String,
    /// What takes the packets on the workers. It does not change while they run.
    pub role: Role,
    /// Where the programs run. It does not change while they do.
    pub xdp: Xdp,
    /// Where the workers are. It does not change.
    pub segment: Segment,
}

/// Where the programs of balancers and workers run. The router's is always in the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Xdp {
    /// In the driver.
    #[default]
    Native,
    /// In the kernel's generic stage.
    Generic,
}

impl Xdp {
    const fn key(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What takes packets that a worker's edge takes out of tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Role {
    /// The worker's [`Server`](super::Server) itself.
    #[default]
    Host,
    /// A gateway worker, which proxies TCP to the server on the same node; with these keys more, as YAML. Datagrams go to the
    /// server itself.
    Gateway(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: [WorkerState::Active; WORKERS],
            flows: 65_536,
            hash_seed: Some(0x5eed),
            pins: None,
            second_hop: false,
            health: None,
            more: String::new(),
            role: Role::Host,
            xdp: Xdp::Native,
            segment: Segment::Front,
        }
    }
}

/// What all edges have in common. One thread of the proxy, which has nothing to do here.
fn common(interfaces: &[String], xdp: Xdp) -> String {
    format!(
        "interfaces: [{}]\nxdpMode: {}\nworkers: 1\n",
        interfaces.join(", "),
        xdp.key()
    )
}

/// Of a balancer.
pub(super) fn balancer(settings: &Settings) -> String {
    let interfaces: &[_] = match settings.segment {
        Segment::Front => &["eth0".to_owned()],
        Segment::Back => &["eth0".to_owned(), "eth1".to_owned()],
    };
    let mut yaml = common(interfaces, settings.xdp);
    // Writing to a String cannot fail.
    let _ = write(&mut yaml, settings);
    yaml
}

fn write(yaml: &mut String, settings: &Settings) -> std::fmt::Result {
    if let Some(seed) = settings.hash_seed {
        writeln!(yaml, "hashSeed: {seed}")?;
    }
    if let Some(pins) = &settings.pins {
        writeln!(yaml, "pinning: {{path: {}, onStop: keep}}", pins.display())?;
    }
    writeln!(yaml, "connections: {{flows: {}}}", settings.flows)?;
    writeln!(
        yaml,
        "forwarding: {{source4: 172.16.0.0/16, source6: 'fd80:ed9e::/96', mtu: 1600, secondHop: {}}}",
        settings.second_hop
    )?;
    writeln!(yaml, "virtualAddresses:")?;
    for vip in [VIP, VIP_V6] {
        writeln!(yaml, "  - address: '{vip}'\n    ports:")?;
        for mode in Mode::ALL {
            for protocol in ["TCP", "UDP"] {
                let (port, pool) = (mode.port(), mode.pool());
                writeln!(
                    yaml,
                    "      - {{port: {port}, protocol: {protocol}, pool: {pool}}}"
                )?;
            }
        }
    }
    writeln!(yaml, "pools:")?;
    for mode in Mode::ALL {
        writeln!(yaml, "  - name: {}\n    workers:", mode.pool())?;
        for (number, state) in settings.workers.iter().enumerate() {
            let Some(state) = state.yaml() else { continue };
            let [v4, v6] = settings.segment.address(worker_host(number));
            let address = if mode.is_over_v6() { v6 } else { v4 };
            let (name, key) = (number + 1, mode.key());
            writeln!(
                yaml,
                "      - {{name: w{name}, address: '{address}', mode: {key}, {state}}}"
            )?;
        }
        if let Some(health) = settings.health.filter(|_| mode == Mode::Ipip4) {
            let probe = match health {
                Health::Tcp => "tcp",
                Health::Http => "http",
            };
            let port = mode.port();
            writeln!(
                yaml,
                "    health: {{probe: {probe}, port: {port}, path: /healthz, interval: 100ms, timeout: 5s, \
                 unhealthyThreshold: 3, healthyThreshold: 3, hold: 500ms}}"
            )?;
        }
    }
    writeln!(yaml, "{}", settings.more)
}

/// Of a worker: it takes packets of the balancers out of tunnels.
pub(super) fn worker(number: usize, settings: &Settings) -> String {
    let common = common(&["eth0".to_owned()], settings.xdp);
    let [v4, v6] = settings.segment.address(worker_host(number));
    let (ports, role, more) = match &settings.role {
        Role::Host => (String::new(), "host", ""),
        Role::Gateway(more) => {
            let port = |mode: Mode| format!("{{port: {}, listenerPort: {}}}", mode.port(), proxy_port(mode));
            let ports = Mode::ALL.map(port).join(", ");
            (format!(", ports: [{ports}]"), "gateway", more.as_str())
        }
    };
    format!(
        "{common}virtualAddresses: [{{address: {VIP}{ports}}}, {{address: '{VIP_V6}'{ports}}}]\ntunnels:\n  endpoints: \
         [{v4}, '{v6}']\n  trusted: [172.16.0.0/16, 'fd80:ed9e::/96', 10.80.1.0/24, 'fd80:1::/64']\n  role: {role}\n{more}\n"
    )
}

/// Where a gateway worker listens for a mode.
const fn proxy_port(mode: Mode) -> u16 {
    10_000 + mode.port()
}

/// The resources of a worker: its gateway proxies each mode's port to its server.
pub(super) fn resources(role: &Role) -> Option<String> {
    let Role::Gateway(_) = role else { return None };
    let each = |line: &dyn Fn(Mode) -> String| Mode::ALL.map(line).concat();
    let servers = each(&|mode| {
        let port = proxy_port(mode);
        format!("    - {{port: {{number: {port}, name: tcp-{port}, protocol: TCP}}, hosts: ['*']}}\n")
    });
    let routes = each(&|mode| {
        let (port, server) = (proxy_port(mode), mode.port());
        format!(
            "    - match: [{{port: {port}}}]\n      route: [{{destination: {{host: server.lab, port: {{number: \
             {server}}}}}}}]\n"
        )
    });
    let ports = each(&|mode| {
        let port = mode.port();
        format!("    - {{number: {port}, name: tcp-{port}, protocol: TCP}}\n")
    });
    let head = |kind: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: lab, namespace: istio-system}}\nspec:\n"
        )
    };
    let (gateway, service) = (head("Gateway"), head("VirtualService"));
    let entry = head("ServiceEntry");
    Some(format!(
        "{gateway}  selector: {{istio: ingressgateway}}\n  servers:\n{servers}---\n{service}  hosts: ['*']\n  gateways: \
         [lab]\n  tcp:\n{routes}---\n{entry}  hosts: [server.lab]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         endpoints: [{{address: 127.0.0.1}}]\n  ports:\n{ports}"
    ))
}

/// The router's port of a balancer's second interface.
pub(super) fn back_port(balancer: usize) -> String {
    format!("lb{}b", balancer + 1)
}

/// Of the router: nothing but a program on the ports of balancers and workers, which both send frames back by XDP.
pub(super) fn router(settings: &Settings) -> String {
    let balancers = (1..=BALANCERS).map(|number| format!("lb{number}"));
    let workers = (1..=WORKERS).map(|number| format!("w{number}"));
    let mut ports: Vec<_> = balancers.chain(workers).collect();
    if settings.segment == Segment::Back {
        ports.extend((0..BALANCERS).map(back_port));
    }
    common(&ports, Xdp::Native)
}
