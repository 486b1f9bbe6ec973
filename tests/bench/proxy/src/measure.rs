//! Measuring: the proxies take turns, and their medians are compared.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use edge_lab::{Process, wait_until};

use crate::Arguments;
use crate::backend::LARGE;
use crate::case::{Case, Goal, Idle, Load, Port, Variant, What};
use crate::load;
use crate::peer::{Kind, Programs, Running};
use crate::profile::{Counting, Profile};
use crate::report::Figures;
use crate::site::{Site, on_core};

/// How long idle connections may take to be opened.
const OPENING: Duration = Duration::from_secs(180);

/// The bench.
pub(crate) struct Bench<'a> {
    arguments: &'a Arguments,
    site: Site,
    programs: Programs,
}

impl<'a> Bench<'a> {
    /// Starts the backend.
    pub(crate) fn new(arguments: &'a Arguments) -> Result<Self> {
        // Programs that are started inherit it.
        crate::idle::raise_limit(u64::from(arguments.connections) * 2 + 20_000)?;
        let edge = match &arguments.edge {
            Some(edge) => edge.clone(),
            None => edge_lab::bin("edge")?,
        };
        Ok(Self {
            site: Site::new(arguments)?,
            programs: Programs {
                edge,
                envoy: arguments.envoy.clone(),
            },
            arguments,
        })
    }

    /// Measures a case with all proxies.
    pub(crate) fn measure(&mut self, case: &Case) -> Result<Figures> {
        let of =
            |kind, result: Result<Option<f64>>| result.with_context(|| format!("{}: {kind:?}", case.name));
        let mut values = Vec::new();
        match case.what {
            What::Requests(load) => {
                values = self.in_turns(port_of(load), |bench, proxy| bench.requests(load, proxy))?
            }
            What::Bytes(port) => values = self.in_turns(port, |bench, proxy| bench.bytes(port, proxy))?,
            What::Latency => values = self.in_turns(Port::Http1, Self::latency)?,
            What::Idle(idle) => {
                for kind in self.kinds() {
                    values.push((kind, unless_peer(kind, of(kind, self.idle(kind, idle)))?));
                }
            }
            What::Against(base, other) => {
                values.push((Kind::Edge, of(Kind::Edge, self.against(base, other))?))
            }
            What::Instructions => {
                for kind in [Kind::Edge, Kind::Haproxy] {
                    values.push((kind, of(kind, self.instructions(kind))?));
                }
            }
        }
        let value = |kind| {
            values
                .iter()
                .find(|(own, _)| *own == kind)
                .and_then(|(_, value)| *value)
        };
        let goal = match case.goal {
            Goal::Most(most) => Some(most),
            Goal::Times(factors) => {
                let goals = factors
                    .iter()
                    .filter_map(|(kind, factor)| Some(value(*kind)? * factor));
                goals.reduce(f64::min)
            }
        };
        Ok(Figures::new(case, Kind::ALL.map(value), goal))
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> + use<> {
        let peers = self.arguments.peers.clone();
        let is_wanted = move |kind: &Kind| {
            *kind == Kind::Edge || peers.is_empty() || peers.iter().any(|name| name == kind.name())
        };
        Kind::ALL.into_iter().filter(is_wanted)
    }

    /// The median of each proxy, of so many rounds.
    fn in_turns(
        &self,
        port: Port,
        measure: impl Fn(&Self, &Running) -> Result<Option<f64>>,
    ) -> Result<Vec<(Kind, Option<f64>)>> {
        let mut proxies = Vec::new();
        for kind in self.kinds() {
            let proxy = Running::start(kind, &self.site, &self.programs, Variant::Plain, port, &[]);
            proxies.extend(
                proxy
                    .with_context(|| format!("cannot start {}", kind.name()))?
                    .map(|proxy| (proxy, vec![])),
            );
        }
        for round in 0..self.arguments.rounds as usize {
            // Nobody is always the first.
            let first = round % proxies.len().max(1);
            proxies.rotate_left(first);
            for (proxy, values) in &mut proxies {
                let value = measure(self, proxy)
                    .with_context(|| format!("{} {}", proxy.kind.name(), proxy.process.tail()))?;
                values.extend(value);
            }
        }
        let mut medians = Vec::new();
        for (proxy, values) in proxies {
            medians.push((proxy.kind, median(values)));
            proxy.end()?;
        }
        Ok(medians)
    }

    fn requests(&self, load: Load, proxy: &Running) -> Result<Option<f64>> {
        let Some(port) = proxy.port(port_of(load)) else {
            return Ok(None);
        };
        let (count, took) = self.timed(proxy, |seconds| load::requests(&self.site, load, port, seconds))?;
        Ok(Some(took.as_secs_f64() * 1e6 / count as f64))
    }

    fn bytes(&self, kind: Port, proxy: &Running) -> Result<Option<f64>> {
        let Some(port) = proxy.port(kind) else {
            return Ok(None);
        };
        let (count, took) = self.timed(proxy, |seconds| load::bodies(&self.site, kind, port, seconds))?;
        let gib = count as f64 * LARGE as f64 / f64::from(1 << 30);
        Ok(Some(took.as_secs_f64() * 1e3 / gib))
    }

    fn latency(&self, proxy: &Running) -> Result<Option<f64>> {
        let Some(port) = proxy.port(Port::Http1) else {
            return Ok(None);
        };
        load::latency(&self.site, self.site.folder(), port, self.arguments.seconds).map(Some)
    }

    /// Processor time of a proxy while a load runs, and what the load counted.
    fn timed(&self, proxy: &Running, load: impl Fn(u32) -> Result<u64>) -> Result<(u64, Duration)> {
        let pid = proxy.process.pid();
        let before = processor_time(pid)?;
        let count = load(self.arguments.seconds)?;
        Ok((count, processor_time(pid)?.saturating_sub(before)))
    }

    /// Kilobytes of resident memory for each idle connection.
    fn idle(&self, kind: Kind, idle: Idle) -> Result<Option<f64>> {
        let port = match idle {
            Idle::Accepted | Idle::Http1 => Port::Http1,
            Idle::Http2 => Port::Http2,
            Idle::Tls => Port::TlsEcdsa,
        };
        let proxy = Running::start(kind, &self.site, &self.programs, Variant::Plain, port, &[])?;
        let Some((proxy, number)) =
            proxy.and_then(|proxy| Some((proxy.port(port)?, proxy)).map(|(port, proxy)| (proxy, port)))
        else {
            return Ok(None);
        };
        if kind == Kind::Floor {
            // It holds two sockets and nothing else for each.
            proxy.end()?;
            return Ok(None);
        }
        let name = match idle {
            Idle::Accepted => "accepted",
            Idle::Http1 => "http1",
            Idle::Tls => "tls",
            Idle::Http2 => "http2",
        };
        // What the first connection makes the proxy build is not the connections'.
        drop(self.hold(&proxy, number, name, 1)?);
        let before = resident(proxy.process.pid())?;
        let held = self.hold(&proxy, number, name, self.arguments.connections)?;
        // Until what is done at rest is done.
        std::thread::sleep(Duration::from_secs(3));
        let after = resident(proxy.process.pid())?;
        drop(held);
        proxy.end()?;
        Ok(Some(
            (after as f64 - before as f64) / f64::from(self.arguments.connections),
        ))
    }

    fn hold(&self, proxy: &Running, port: u16, after: &str, connections: u32) -> Result<Process> {
        let mut holder = on_core(self.site.load_core, std::env::current_exe()?);
        holder.args(["idle", "--to", &format!("127.0.0.1:{port}"), "--after", after]);
        holder.args(["--connections", &connections.to_string()]);
        let mut holder = Process::spawn("idle", &mut holder, self.site.folder())?;
        let what = format!("{connections} connections to {} are there", proxy.kind.name());
        wait_until(&what, OPENING, || {
            if !holder.is_running()? {
                bail!("the holder has ended: {}", holder.tail());
            }
            Ok(holder.log()?.contains(crate::idle::READY))
        })?;
        Ok(holder)
    }

    /// Processor time for a request with one configuration, as a share of that with another.
    fn against(&self, base: Variant, other: Variant) -> Result<Option<f64>> {
        let start = |variant| {
            let proxy = Running::start(Kind::Edge, &self.site, &self.programs, variant, Port::Http1, &[])?;
            proxy.context("edge did not start")
        };
        let (base, other) = (start(base)?, start(other)?);
        let mut ratios = Vec::new();
        for _ in 0..self.arguments.rounds {
            let measured = |proxy| self.requests(Load::Http1(Port::Http1), proxy);
            if let (Some(base), Some(other)) = (measured(&base)?, measured(&other)?) {
                ratios.push(other / base);
            }
        }
        base.end()?;
        other.end()?;
        Ok(median(ratios))
    }

    /// Instructions in user space for a request.
    fn instructions(&self, kind: Kind) -> Result<Option<f64>> {
        let counted = self.counted(kind, Load::Http1(Port::Http1), Variant::Plain)?;
        Ok(counted.map(|request| request.instructions()))
    }

    /// Prints where the instructions of a request go, in edge.
    pub(crate) fn profile(&self, case: &Case) -> Result<()> {
        let (load, variant) = match case.what {
            What::Requests(load @ (Load::Http1(_) | Load::Http2(_))) => (load, Variant::Plain),
            What::Against(_, variant) => (Load::Http1(Port::Http1), variant),
            What::Instructions => (Load::Http1(Port::Http1), Variant::Plain),
            What::Requests(Load::Handshakes(_)) | What::Bytes(_) | What::Latency | What::Idle(_) => {
                bail!("{} is no case of requests that could be counted", case.name)
            }
        };
        let counted = self.counted(Kind::Edge, load, variant)?;
        counted.context("edge did not start")?.print(case.name);
        Ok(())
    }

    /// What callgrind counts for a request; `None` where this machine lacks the proxy.
    fn counted(&self, kind: Kind, load: Load, variant: Variant) -> Result<Option<Profile>> {
        let counting = Counting::new(&self.site, kind);
        let port = port_of(load);
        let under = counting.command();
        let under: Vec<_> = under.iter().map(String::as_str).collect();
        let proxy = Running::start(kind, &self.site, &self.programs, variant, port, &under)?;
        let Some(proxy) = proxy else { return Ok(None) };
        let number = proxy.port(port).context("no port")?;
        let load = |requests| load::count(&self.site, load, number, requests);
        let profile = counting.run(proxy.process.pid(), load)?;
        proxy.end()?;
        Ok(Some(profile))
    }
}

fn port_of(load: Load) -> Port {
    match load {
        Load::Http1(port) | Load::Http2(port) | Load::Handshakes(port) => port,
    }
}

/// What keeps a peer from being measured is said, and the others are measured without it.
fn unless_peer(kind: Kind, result: Result<Option<f64>>) -> Result<Option<f64>> {
    match result {
        Err(error) if kind != Kind::Edge => {
            eprintln!("bench-proxy: left out: {error:#}");
            Ok(None)
        }
        result => result,
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// User and system time of a process and its threads (proc_pid_stat(5)).
fn processor_time(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("the proxy has ended")?;
    // The name, in brackets, may hold anything.
    let (_, fields) = text.rsplit_once(") ").context("/proc/PID/stat has no name")?;
    let ticks = |index| {
        fields
            .split(' ')
            .nth(index)
            .and_then(|text| text.parse::<u64>().ok())
    };
    let (user, system) = (ticks(11), ticks(12));
    let ticks = user.zip(system).map(|(user, system)| user + system);
    let seconds =
        ticks.context("/proc/PID/stat has no times")? as f64 / rustix::param::clock_ticks_per_second() as f64;
    Ok(Duration::from_secs_f64(seconds))
}

/// Resident memory of a process, in kilobytes.
fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the proxy has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kilobytes.context("/proc/PID/status has no VmRSS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_time_and_memory() {
        let pid = std::process::id();
        assert!(processor_time(pid).expect("own time") < Duration::from_secs(3600));
        assert!(resident(pid).expect("own memory") > 100);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }
}
