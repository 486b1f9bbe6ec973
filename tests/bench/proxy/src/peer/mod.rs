//! The proxies that are compared, each configured to do the same.

mod edge;
mod envoy;
mod haproxy;
mod nginx;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use edge_lab::Process;

use crate::case::{Port, Variant};
use crate::site::{Site, on_core, wait_for};

/// Routes of the cases that do not ask for others: few match, the last one does.
pub(crate) const ROUTES: u32 = 100;

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Edge,
    Haproxy,
    Nginx,
    Envoy,
    Floor,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Edge, Self::Haproxy, Self::Nginx, Self::Envoy, Self::Floor];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::Floor => "floor",
        }
    }
}

/// Ports that a proxy listens on; 0 where it does not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ports {
    pub(crate) http1: u16,
    pub(crate) http2: u16,
    pub(crate) ecdsa: u16,
    pub(crate) rsa: u16,
    pub(crate) tcp: u16,
    pub(crate) passthrough: u16,
    pub(crate) admin: u16,
}

impl Ports {
    fn new(site: &Site) -> Result<Self> {
        Ok(Self {
            http1: site.port()?,
            http2: site.port()?,
            ecdsa: site.port()?,
            rsa: site.port()?,
            tcp: site.port()?,
            passthrough: site.port()?,
            admin: site.port()?,
        })
    }

    fn get(&self, port: Port) -> Option<u16> {
        let number = match port {
            Port::Http1 => self.http1,
            Port::Http2 => self.http2,
            Port::TlsEcdsa => self.ecdsa,
            Port::TlsRsa => self.rsa,
            Port::Tcp => self.tcp,
            Port::Passthrough => self.passthrough,
        };
        (number != 0).then_some(number)
    }
}

/// Programs that may be missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Programs {
    pub(crate) edge: PathBuf,
    pub(crate) envoy: Option<PathBuf>,
}

/// A proxy at work.
pub(crate) struct Running {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    ports: Ports,
}

/// A command and the ports that it will listen on.
struct Prepared {
    command: Vec<PathBuf>,
    ports: Ports,
}

impl Running {
    /// Starts a proxy; `None` where this machine lacks it. `port` says what the floor is to be a floor for, and `under`
    /// what the program is run by, if not directly.
    pub(crate) fn start(
        kind: Kind,
        site: &Site,
        programs: &Programs,
        variant: Variant,
        port: Port,
        under: &[&str],
    ) -> Result<Option<Self>> {
        let folder = tempfile::tempdir_in(site.folder())?.keep();
        let prepared = match kind {
            Kind::Edge => Some(edge::prepare(site, &folder, &programs.edge, variant)?),
            Kind::Haproxy => haproxy::prepare(site, &folder)?,
            Kind::Nginx => nginx::prepare(site, &folder)?,
            Kind::Envoy => envoy::prepare(site, &folder, programs.envoy.as_deref())?,
            Kind::Floor => floor(site, port)?,
        };
        let Some(Prepared { command, ports }) = prepared else {
            return Ok(None);
        };
        let mut words = under.iter().map(PathBuf::from).chain(command);
        let program = words.next().context("a command has a program")?;
        let mut line = on_core(site.proxy_core, program);
        line.args(words);
        let process = Process::spawn(kind.name(), &mut line, &folder)?;
        let mut running = Self { kind, process, ports };
        if let Some(first) = Port::ALL.into_iter().find_map(|port| ports.get(port))
            && let Err(error) = wait_for(first)
        {
            return Err(error.context(format!("{} {}", kind.name(), running.process.tail())));
        }
        Ok(running.process.is_running()?.then_some(running))
    }

    pub(crate) fn port(&self, port: Port) -> Option<u16> {
        self.ports.get(port)
    }

    /// Ends it and waits for it.
    pub(crate) fn end(mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(60)).map(drop)
    }
}

impl Port {
    const ALL: [Self; 6] = [
        Self::Http1,
        Self::Http2,
        Self::TlsEcdsa,
        Self::TlsRsa,
        Self::Tcp,
        Self::Passthrough,
    ];
}

/// Bytes alone: copied for requests, spliced where nobody has to look at them.
fn floor(site: &Site, port: Port) -> Result<Option<Prepared>> {
    let number = site.port()?;
    let (to, ports, splices) = match port {
        Port::Http1 => (
            site.backend,
            Ports {
                http1: number,
                ..Ports::default()
            },
            false,
        ),
        Port::Tcp => (
            site.backend,
            Ports {
                tcp: number,
                ..Ports::default()
            },
            true,
        ),
        Port::Passthrough => (
            site.backend_tls,
            Ports {
                passthrough: number,
                ..Ports::default()
            },
            true,
        ),
        Port::Http2 | Port::TlsEcdsa | Port::TlsRsa => return Ok(None),
    };
    let mut command = vec![std::env::current_exe()?];
    let words = ["floor", "--listen", &number.to_string(), "--to", &to.to_string()];
    command.extend(words.iter().map(PathBuf::from));
    command.extend(splices.then(|| "--splice".into()));
    Ok(Some(Prepared { command, ports }))
}

/// Finds a program on `PATH` and where Debian has those of daemons.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Writes a configuration, and returns its name.
fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = folder.join(name);
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// The paths of the routes in front of the last one.
fn prefixes() -> impl Iterator<Item = String> {
    (1..ROUTES).map(|number| format!("/service{number}/"))
}

/// Shows a command that failed its own check of a configuration.
fn check(command: &mut Command) -> Result<()> {
    edge_lab::output(command).map(drop)
}
