//! The command line: what can be asked, with help texts and examples.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::flows;

/// Edge load balancer: an XDP program that spreads connections and drops floods at the NIC, and a proxy that applies
/// Istio's Gateway, VirtualService and DestinationRule.
#[derive(Debug, Parser)]
#[command(name = "edge", version, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  good
  1  the input is wrong (configuration, arguments, packets)
  2  it could not be done (privileges, kernel, network, no running edge)";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the load balancer until SIGTERM or SIGINT, then drain and exit.
    #[command(after_help = "\
Examples:
  edge run --config /etc/edge
  edge run --config config/examples/canary --log-format json

DIR holds edge.yaml and the Kubernetes and Istio YAML (subfolders too). It is watched: a good change is applied without
losing a request, a wrong one is reported and changes nothing. RUST_LOG sets the log level, as in RUST_LOG=edge=debug.")]
    Run(RunArgs),

    /// Check configuration files and say what is wrong with them.
    #[command(after_help = "\
Examples:
  edge validate config/demo
  edge validate --json gateway.yaml virtual-service.yaml | jq 'select(.verdict==\"invalid\")'

One line per problem: `error|warning Kind/namespace/name field: message (hint)`. With --json one object per resource:
{\"kind\",\"namespace\",\"name\",\"verdict\":\"valid|warning|invalid\",\"problems\":[{\"severity\",\"file\",\"line\",\"field\",
\"message\",\"hint\"}]}. Each path is a file or a folder; exit code 1 when a resource is invalid.

All files are also looked at together, as `istioctl analyze` does: references that lead nowhere, conflicting Gateways,
rules that no request reaches, credentials that are missing. What is accepted but `not enforced` is a warning.")]
    Validate(ValidateArgs),

    /// Explain what happens to a request or to packets, from the configuration's files.
    #[command(subcommand)]
    Explain(Explain),

    /// List the compiled routes by port and host, from the configuration's files.
    #[command(after_help = "\
Examples:
  edge routes --config config/demo
  edge routes --config config/demo --json | jq .servers

With --json one object per listener.")]
    Routes(RoutesArgs),

    /// Show the state of a running edge.
    #[command(after_help = "\
Examples:
  edge status
  edge status drops --watch
  edge status vips --json | jq '.[] | select(.dropped > 0)'
  edge status --admin 127.0.0.1:15000 --json | jq .datapath.penalties
  edge status flows --limit 20 --vip 192.0.2.10:443/tcp --worker node-1

With --watch the tables show what was added since the last time, per second, until Ctrl-C; with --json one line each.")]
    Status(StatusArgs),

    /// Show the packets that a running edge drops, as samples: at most one of each reason in each timer tick (4 ms) of
    /// each CPU. Counters count them all: `edge status drops`.
    #[command(after_help = "\
Examples:
  edge events
  edge events --reason bad_syn_cookie --vip 192.0.2.10
  edge events --json --duration 10 | jq -r .packet

Any number of these may run at the same time: each gets every sample.")]
    Events(EventsArgs),

    /// Keep such samples as packets that tcpdump and Wireshark read: their first 128 bytes, with time and full length.
    #[command(after_help = "\
Examples:
  edge capture --out drops.pcap --duration 10
  edge capture --out - --reason denied --count 100 | tcpdump -n -r -")]
    Capture(CaptureArgs),

    /// Check this machine: kernel, privileges, BTF, interface, driver mode, MTU, sysctls; says what to do.
    #[command(after_help = "\
Examples:
  edge doctor --interface eth0
  edge doctor --config /etc/edge --json")]
    Doctor(DoctorArgs),

    /// Print a shell completion script.
    #[command(after_help = "Example:\n  edge completions bash > /etc/bash_completion.d/edge")]
    Completions {
        /// Shell to write it for.
        shell: Shell,
    },
}

/// What is explained.
#[derive(Debug, Subcommand)]
pub(crate) enum Explain {
    /// Which listener, virtual host, route, cluster and endpoints a request gets, and why the routes above did not match.
    #[command(after_help = "\
Examples:
  edge explain request --config config/demo --port 80 http://shop.example.com/api/v3/items
  edge explain request --config config/demo --port 80 -H 'x-tester: yes' http://shop.example.com/
  edge explain request --config config/demo --port 443 --tls --sni shop.example.com --json https://shop.example.com/")]
    Request(ExplainRequestArgs),

    /// What became of every object: bound (and to what), shadowed, unused or rejected.
    #[command(after_help = "\
Examples:
  edge explain config --config config/demo
  edge explain config --config config/demo --json | jq 'select(.state==\"unused\")'

With --json one object per resource:
{\"kind\",\"namespace\",\"name\",\"file\",\"line\",\"state\":\"bound|shadowed|unused|rejected\",\"places\",\"problems\"}.
Exit code 1 when the configuration has errors.")]
    Config(ExplainConfigArgs),

    /// What the XDP program does with each packet, and why (root only: the real program runs in the kernel).
    #[command(after_help = "\
Example:
  echo '{\"name\":\"runt\",\"hex\":\"020000000001020000000002080045\"}' > packets.jsonl
  edge explain packets --config config/demo --in packets.jsonl

FILE has one JSON object a line: {\"name\",\"hex\"}; `-` reads standard input. The packets go in order through the program
by BPF_PROG_TEST_RUN with the configuration's maps, so that a flood limit counts them. Each answer is one line:
{\"name\",\"action\":\"XDP_PASS|XDP_TX|XDP_DROP|XDP_REDIRECT\",\"reason\",\"vip\",\"worker\",\"hex\"}.")]
    Packets(ExplainPacketsArgs),

    /// What each reason to pass, drop, answer or forward a packet means, as it stands in `edge status drops`, in
    /// `edge events`, in `edge explain packets` and in the metrics.
    #[command(after_help = "\
Examples:
  edge explain reasons
  edge explain reasons bad_syn_cookie vip_new_connections")]
    Reasons(ExplainReasonsArgs),
}

/// Arguments of `edge run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Folder with edge.yaml and the resources.
    #[arg(long, value_name = "DIR")]
    pub(crate) config: PathBuf,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log_format: LogFormat,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Arguments of `edge validate`.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// One JSON object per resource.
    #[arg(long)]
    pub(crate) json: bool,
    /// Files or folders; `-` reads standard input.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

/// Arguments of `edge explain request`.
#[derive(Debug, Args)]
pub(crate) struct ExplainRequestArgs {
    /// Folder with edge.yaml and the resources.
    #[arg(long, value_name = "DIR")]
    pub(crate) config: PathBuf,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Port of the listener that the request comes in by.
    #[arg(long, value_name = "N")]
    pub(crate) port: u16,
    /// The request comes in by TLS.
    #[arg(long)]
    pub(crate) tls: bool,
    /// Server name of the TLS handshake; the URL's host unless given.
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub(crate) sni: Option<String>,
    /// Method of the request.
    #[arg(long, short = 'X', value_name = "M", default_value = "GET")]
    pub(crate) method: String,
    /// Header of the request; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// Claims of the request's token, which is taken as verified.
    #[arg(long, value_name = "JSON")]
    pub(crate) claims: Option<String>,
    /// URL of the request, or its path when a Host header is given.
    pub(crate) url: String,
}

/// Arguments of `edge explain config`.
#[derive(Debug, Args)]
pub(crate) struct ExplainConfigArgs {
    /// Folder with edge.yaml and the resources.
    #[arg(long, value_name = "DIR")]
    pub(crate) config: PathBuf,
    /// One JSON object per resource.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `edge routes`.
#[derive(Debug, Args)]
pub(crate) struct RoutesArgs {
    /// Folder with edge.yaml and the resources.
    #[arg(long, value_name = "DIR")]
    pub(crate) config: PathBuf,
    /// One JSON object per listener.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `edge explain packets`.
#[derive(Debug, Args)]
pub(crate) struct ExplainPacketsArgs {
    /// Folder with edge.yaml and the resources.
    #[arg(long, value_name = "DIR")]
    pub(crate) config: PathBuf,
    /// Packets, one JSON object a line.
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: PathBuf,
}

/// Part of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusView {
    /// Open connections of each worker, and those that got no socket.
    Flows,
    /// Traffic of each VIP.
    Vips,
    /// Traffic of each worker.
    Workers,
    /// Dropped packets by reason, and penalties.
    Drops,
}

/// Arguments of `edge status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show this part alone.
    #[arg(value_enum, value_name = "PART")]
    pub(crate) view: Option<StatusView>,
    /// Ask again every so many seconds (1 unless given), until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) watch: Option<u32>,
    /// Admin address of the running edge (key `admin` of edge.yaml).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15000")]
    pub(crate) admin: SocketAddr,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// With `flows`: list so many of the connections to pools that are remembered, one by one.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=i64::from(flows::MOST)))]
    pub(crate) limit: Option<u32>,
    /// Of these only those to this VIP (`192.0.2.1:443/tcp`), or to this address.
    #[arg(long, value_name = "VIP", requires = "limit")]
    pub(crate) vip: Option<String>,
    /// Of these only those that this worker has, by its name or its address.
    #[arg(long, value_name = "WORKER", requires = "limit")]
    pub(crate) worker: Option<String>,
}

/// Arguments of `edge explain reasons`.
#[derive(Debug, Args)]
pub(crate) struct ExplainReasonsArgs {
    /// Reasons; all unless given.
    #[arg(value_name = "REASON")]
    pub(crate) names: Vec<String>,
    /// One JSON object per reason: {"kind":"drop|pass|reply|forward","reason","meaning"}.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which samples of dropped packets are wanted.
#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// Only packets that were dropped for this reason; may be given several times.
    #[arg(long, value_name = "REASON")]
    pub(crate) reason: Vec<String>,
    /// Only packets for this VIP (`192.0.2.1:443/tcp`), for all of an address (`192.0.2.1`), or for `none`; may be given
    /// several times.
    #[arg(long, value_name = "VIP")]
    pub(crate) vip: Vec<String>,
    /// End after so many.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<f64>,
    /// Admin address of the running edge (key `admin` of edge.yaml).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15000")]
    pub(crate) admin: SocketAddr,
}

/// A number of seconds: above zero, at most a year.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if seconds > 0.0 && seconds <= 365.0 * 86_400.0 {
        Ok(seconds)
    } else {
        Err("must be above 0, at most a year".to_owned())
    }
}

/// Arguments of `edge events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Which samples.
    #[command(flatten)]
    pub(crate) samples: SampleArgs,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `edge capture`.
#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// File to write; `-` is the standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Which samples.
    #[command(flatten)]
    pub(crate) samples: SampleArgs,
}

/// Arguments of `edge doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Interface to check; may be given several times. Unless given, those of the configuration, else all that are up.
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Vec<String>,
    /// Folder with edge.yaml, whose interfaces and addresses are checked.
    #[arg(long, value_name = "DIR")]
    pub(crate) config: Option<PathBuf>,
    /// One JSON object per check.
    #[arg(long)]
    pub(crate) json: bool,
}
