//! What the tests share: a site with the demo's configuration, and loads in the background.

use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_lab::{Process, Programs, Signal, Site, Wrk, WrkReport, address, wait_until};

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

/// A load on the shop that goes on in the background until it is ended.
pub(crate) struct Load {
    process: Process,
}

/// Longer than what a test does under a load takes on any machine.
const LONGEST_LOAD: Duration = Duration::from_secs(600);

impl Load {
    /// Starts a load of 16 connections.
    pub(crate) fn start(site: &Site, path: &str) -> Self {
        let wrk = Wrk::new(site.lab().client())
            .connections(16, 1)
            .duration(LONGEST_LOAD)
            .header(SHOP);
        let mut command = wrk.command(&url(path));
        let process = Process::spawn("load", &mut command, site.lab().dir()).expect("wrk starts");
        Self { process }
    }

    /// Waits until a backend has answered so many more requests.
    pub(crate) fn goes_on(&self, site: &Site, version: u8, requests: u64) {
        let before = site.answered_by(version).expect("a count");
        let answered = || Ok(site.answered_by(version)? >= before + requests);
        wait_until("the load to go on", LIMIT, answered).expect("it goes on");
    }

    /// Ends it, and reads what it saw.
    pub(crate) fn finish(mut self) -> WrkReport {
        let ended = self.process.signal(Signal::INT);
        ended.expect("the load lasted until now");
        self.process.wait(LIMIT).expect("wrk ends");
        let log = self.process.log().expect("a log");
        WrkReport::parse(&log).unwrap_or_else(|error| panic!("{error:#}: {log}"))
    }
}
