//! A site: the lab with edge on its node and versions of the sample backend behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{Curl, Lab, Process, address, bin, cert, wait_until};

/// Admin address of edge inside the node's namespace.
const ADMIN: &str = "127.0.0.1:15000";
/// Ample for programs that start in milliseconds, on a machine that compiles at the same time.
const START: Duration = Duration::from_secs(20);
/// Hosts of the certificate that every site has in `certs/tls.crt`.
const TLS_HOSTS: [&str; 2] = ["shop.example.com", "secure.example.com"];

/// Everything goes with the value: programs first, then the namespaces that they run in.
#[derive(Debug)]
pub struct Site {
    edge: Process,
    backends: Vec<Process>,
    config: PathBuf,
    programs: Programs,
    lab: Lab,
}

/// Where the programs of this workspace are.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    folder: Option<PathBuf>,
}

impl Programs {
    /// The programs of one folder, such as `target/release`; the default are those beside the running program.
    #[must_use]
    pub fn of(folder: PathBuf) -> Self {
        Self { folder: Some(folder) }
    }

    /// Path of a program.
    ///
    /// # Errors
    /// If it is not built.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        match self
            .folder
            .as_ref()
            .map(|folder| folder.join(name))
            .filter(|program| program.is_file())
        {
            Some(program) => Ok(program),
            None => bin(name),
        }
    }
}

impl Site {
    /// Makes the lab, starts three versions of the backend and edge with a copy of the files in `config`, and waits
    /// until edge is ready. The copy has a self-signed certificate in `certs`.
    ///
    /// # Errors
    /// If this process is not root, a program is missing, or edge does not become ready; the message holds its log.
    pub fn open(config: &Path, programs: Programs) -> Result<Self> {
        let lab = Lab::new()?;
        let copy = lab.dir().join("config");
        copy_files(config, &copy)?;
        cert::self_signed(&copy.join("certs"), &TLS_HOSTS)?;
        let backends = (1..=3)
            .map(|version| backend(&lab, &programs, version))
            .collect::<Result<Vec<_>>>()?;
        let edge = run_edge(&lab, &programs, &copy)?;
        let site = Self {
            edge,
            backends,
            config: copy,
            programs,
            lab,
        };
        site.wait_until_ready()?;
        Ok(site)
    }

    /// The namespaces.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The running edge.
    pub fn edge(&mut self) -> &mut Process {
        &mut self.edge
    }

    /// The process id of edge.
    #[must_use]
    pub fn edge_pid(&self) -> u32 {
        self.edge.pid()
    }

    /// What edge has logged.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.edge.log()
    }

    /// Starts edge anew after it has ended, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn restart_edge(&mut self) -> Result<()> {
        self.edge = run_edge(&self.lab, &self.programs, &self.config)?;
        self.wait_until_ready()
    }

    /// The backend of a version, from 1 to 3.
    ///
    /// # Errors
    /// If there is no such version.
    pub fn backend(&mut self, version: u8) -> Result<&mut Process> {
        let index = usize::from(version).checked_sub(1);
        index
            .and_then(|index| self.backends.get_mut(index))
            .with_context(|| format!("no backend v{version}"))
    }

    /// Folder of the configuration that edge watches.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The certificate of the site's hosts, which is its own authority.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.config.join("certs/tls.crt")
    }

    /// A command of edge in the node's namespace.
    ///
    /// # Errors
    /// If edge is not built.
    pub fn edge_command(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.lab.node().command(self.programs.path("edge")?);
        command.args(words);
        Ok(command)
    }

    /// The flood program in the client's namespace, sending from the client's link to the VIP's port 80.
    ///
    /// # Errors
    /// If it is not built.
    pub fn flood_command(&self, kind: &str, sources: u32, time: Duration) -> Result<Command> {
        let mut command = self.lab.client().command(self.programs.path("edge-pktgen")?);
        command.args([
            "--interface",
            self.lab.client_interface(),
            "--json",
            "--kind",
            kind,
        ]);
        command.args(["--src-base", "10.77.0.100", "--src-count", &sources.to_string()]);
        command.args([
            "--dst",
            address::VIP,
            "--dst-port",
            "80",
            "--seconds",
            &time.as_secs().to_string(),
        ]);
        Ok(command)
    }

    /// What `edge status --json` says.
    ///
    /// # Errors
    /// If edge does not answer.
    pub fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.admin("/status")?.1).context("the status is not JSON")
    }

    /// The status once this many connections of clients are open, all that came being accepted.
    ///
    /// Then every worker has accepted as many as it was given. Once clients reset their connections that is no longer so: a
    /// packet for a connection that is gone has its socket looked up as a first one has.
    ///
    /// # Errors
    /// If there are not so many within some seconds, or edge does not answer.
    pub fn status_with_open(&self, connections: u64) -> Result<Value> {
        let what = format!("{connections} open connections");
        wait_until(&what, START, || Ok(open(&self.status()?) == connections))?;
        // Counts of the two tiers are not read at one moment.
        self.status()
    }

    /// Packets dropped so far for a reason.
    ///
    /// # Errors
    /// If edge does not answer.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        let status = self.status()?;
        let count = status
            .pointer(&format!("/datapath/dropped/{reason}"))
            .and_then(Value::as_u64);
        count.with_context(|| format!("the status has no drop reason {reason}"))
    }

    /// Status code and body of a page of the admin address.
    ///
    /// # Errors
    /// If edge does not answer.
    pub fn admin(&self, path: &str) -> Result<(u16, String)> {
        let answer = Curl::new(self.lab.node()).get(&format!("http://{ADMIN}{path}"))?;
        Ok((answer.status, answer.text()))
    }

    /// Requests that each backend counted, v1 first; their own `/count` does not count.
    ///
    /// # Errors
    /// If a backend does not answer.
    pub fn answered(&self) -> Result<[u64; 3]> {
        Ok([self.answered_by(1)?, self.answered_by(2)?, self.answered_by(3)?])
    }

    /// Requests that one backend counted.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn answered_by(&self, version: u8) -> Result<u64> {
        let url = format!("http://{}:8080/count", address::backend(version));
        let answer = Curl::new(self.lab.node()).get(&url)?.json()?;
        answer
            .get("requests")
            .and_then(Value::as_u64)
            .context("the backend told no count")
    }

    /// Waits until a configuration of this number, or a later one, is in force.
    ///
    /// # Errors
    /// If it does not come.
    pub fn wait_for_snapshot(&self, number: u64) -> Result<()> {
        let in_force = || {
            Ok(self
                .status()?
                .pointer("/config/snapshot")
                .and_then(Value::as_u64)
                .is_some_and(|n| n >= number))
        };
        wait_until(&format!("snapshot {number}"), START, in_force)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let ready = || Ok(self.admin("/healthz/ready")?.0 == 200);
        wait_until("edge to be ready", START, ready)
            .with_context(|| format!("edge said:{}", self.edge.tail()))
    }
}

fn run_edge(lab: &Lab, programs: &Programs, config: &Path) -> Result<Process> {
    let mut command = lab.node().command(programs.path("edge")?);
    command.args(["run", "--config"]).arg(config);
    Process::spawn("edge", &mut command, lab.dir())
}

fn backend(lab: &Lab, programs: &Programs, version: u8) -> Result<Process> {
    let listen = format!("{}:8080", address::backend(version));
    let mut command = lab.node().command(programs.path("edge-backend")?);
    command.args(["--listen", &listen, "--version", &format!("v{version}")]);
    let process = Process::spawn(&format!("backend-v{version}"), &mut command, lab.dir())?;
    let url = format!("http://{listen}/count");
    wait_until(&format!("the backend on {listen}"), START, || {
        Ok(Curl::new(lab.node()).get(&url)?.status == 200)
    })?;
    Ok(process)
}

/// Connections of clients that are open, by a status.
fn open(status: &Value) -> u64 {
    let workers = status.get("workers").and_then(Value::as_array);
    let flows = |worker: &Value| worker.get("flows").and_then(Value::as_u64);
    workers.into_iter().flatten().filter_map(flows).sum()
}

/// Copies the files of one folder: a site adds certificates and its tests change files.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
