//! What the tests share: a site with the demo's configuration, and loads in the background.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_lab::{Process, Programs, Site, Wrk, WrkReport, address};

/// Ample for anything that takes milliseconds, on a machine that compiles at the same time.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// Host header of the shop.
pub(crate) const SHOP: &str = "Host: shop.example.com";

/// Folder of the demo's configuration.
pub(crate) fn demo_config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/demo")
}

/// A site with the demo's configuration.
pub(crate) fn site() -> Site {
    Site::open(&demo_config(), Programs::default()).expect("the site comes up")
}

/// URL of a path on the virtual address.
pub(crate) fn url(path: &str) -> String {
    format!("http://{}{path}", address::VIP)
}

/// A load on the shop that goes on in the background.
pub(crate) struct Load {
    process: Process,
    time: Duration,
}

impl Load {
    /// Starts a load of 16 connections for some seconds.
    pub(crate) fn start(site: &Site, path: &str, time: Duration) -> Self {
        let wrk = Wrk::new(site.lab().client())
            .connections(16, 1)
            .duration(time)
            .header(SHOP);
        let mut command = wrk.command(&url(path));
        let process = Process::spawn("load", &mut command, site.lab().dir()).expect("wrk starts");
        Self { process, time }
    }

    /// Waits for its end and reads what it saw.
    pub(crate) fn finish(mut self) -> WrkReport {
        self.process.wait(self.time + LIMIT).expect("wrk ends");
        let log = self.process.log().expect("a log");
        WrkReport::parse(&log).unwrap_or_else(|error| panic!("{error:#}: {log}"))
    }
}
