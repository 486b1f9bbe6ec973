//! The data path on a veth pair with real connections and floods. Needs root.

mod attaching;
mod connections;
mod cookies;
mod floods;
mod offers;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;
use edge_datapath::{DataPath, Error, LoadOptions, XdpMode};
use edge_datapath_tests::setup::{VIP4, VIP6};

pub(crate) const WORKERS: u16 = 4;

pub(crate) fn load() -> Result<DataPath, Error> {
    let interfaces = vec!["node0".into()];
    DataPath::load(LoadOptions {
        interfaces,
        mode: XdpMode::Auto,
        manage_local_routes: true,
        pinning: None,
        ..LoadOptions::default()
    })
}

pub(crate) fn vips() -> [SocketAddr; 2] {
    [SocketAddr::new(VIP4.into(), 80), SocketAddr::new(VIP6.into(), 80)]
}

pub(crate) fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, Duration::from_secs(3))
}

/// Connections that wait at each listener.
pub(crate) fn accept_all(listeners: &[TcpListener]) -> Result<Vec<u64>> {
    let drain = |listener: &TcpListener| {
        let mut accepted = 0;
        loop {
            match listener.accept() {
                Ok(_) => accepted += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(accepted),
                Err(error) => return Err(error.into()),
            }
        }
    };
    listeners.iter().map(drain).collect()
}
