//! The place of a run: ports, certificates, files and the backend.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use edge_lab::cert::{CertFiles, self_signed};
use edge_lab::{Process, output, wait_until};

use crate::Arguments;

/// Ports are taken from here on: below those that the kernel gives to outgoing connections.
const FIRST_PORT: u16 = 21_000;

/// How long a program may take to listen.
const START: Duration = Duration::from_secs(30);

/// Where everything is.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    /// Certificate with an ECDSA key on P-256.
    pub(crate) ecdsa: CertFiles,
    /// Certificate with an RSA key of 2048 bits.
    pub(crate) rsa: CertFiles,
    /// Where the backend answers in plain text.
    pub(crate) backend: SocketAddr,
    /// Where it answers over TLS.
    pub(crate) backend_tls: SocketAddr,
    pub(crate) proxy_core: u32,
    pub(crate) load_core: u32,
    next_port: std::cell::Cell<u16>,
    _backend: Option<Process>,
}

impl Site {
    /// Makes certificates and starts the backend.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let ecdsa = self_signed(&folder.path().join("ecdsa"), &["localhost"])?;
        let rsa = rsa(&folder.path().join("rsa"))?;
        let mut site = Self {
            folder,
            ecdsa,
            rsa,
            backend: SocketAddr::from(([127, 0, 0, 1], 0)),
            backend_tls: SocketAddr::from(([127, 0, 0, 1], 0)),
            proxy_core: arguments.proxy_core,
            load_core: arguments.load_core,
            next_port: FIRST_PORT.into(),
            _backend: None,
        };
        site.backend.set_port(site.port()?);
        site.backend_tls.set_port(site.port()?);
        let mut backend = on_core(site.load_core, std::env::current_exe()?);
        backend.arg("backend");
        backend.args(["--listen", &site.backend.to_string()]);
        backend.args(["--tls", &site.backend_tls.to_string()]);
        backend.arg("--certificate").arg(&site.ecdsa.cert);
        backend.arg("--key").arg(&site.ecdsa.key);
        site._backend = Some(Process::spawn("backend", &mut backend, site.folder.path())?);
        wait_for(site.backend.port())?;
        Ok(site)
    }

    /// A port that nobody listens on.
    pub(crate) fn port(&self) -> Result<u16> {
        loop {
            let port = self.next_port.get();
            self.next_port
                .set(port.checked_add(1).context("there is no free port")?);
            if TcpListener::bind(("::", port)).is_ok() {
                return Ok(port);
            }
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A command on one core (taskset(1)).
pub(crate) fn on_core(core: u32, program: impl Into<PathBuf>) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["--cpu-list", &core.to_string()])
        .arg(program.into());
    command
}

/// Waits until somebody listens on a port.
pub(crate) fn wait_for(port: u16) -> Result<()> {
    let what = format!("somebody listens on port {port}");
    wait_until(&what, START, || {
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
    })
}

fn rsa(folder: &Path) -> Result<CertFiles> {
    std::fs::create_dir_all(folder)?;
    let files = CertFiles {
        cert: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "1"])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .arg("-out")
        .arg(&files.cert)
        .arg("-keyout")
        .arg(&files.key);
    output(&mut openssl)?;
    Ok(files)
}
