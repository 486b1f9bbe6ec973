//! Network-namespace labs: what `cargo xtask demo` and the end-to-end tests are made of.
//!
//! A [`Lab`] is a client and a node joined by a veth pair; a [`fabric::Fabric`] load balancers and workers. Programs run inside as [`Process`]es; [`Curl`]
//! and [`Wrk`] make traffic and read what came back. Everything a lab makes carries this process's id in its
//! name and goes away with the value that made it: on return, on panic and on Ctrl-C. What a killed process
//! left behind goes when the next lab starts.
//!
//! ```no_run
//! use edge_lab::{Curl, Lab, Process, bin};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new()?;
//! let mut edge = lab.node().command(bin("edge")?);
//! edge.args(["run", "--config", "config/demo"]);
//! let mut edge = Process::spawn("edge", &mut edge, lab.dir())?;
//! let answer = Curl::new(lab.client()).get("http://10.77.100.1/")?;
//! assert_eq!(answer.status, 200);
//! edge.terminate(std::time::Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod bpffs;
pub mod cert;
pub mod cleanup;
mod curl;
pub mod fabric;
mod lab;
mod netns;
mod process;
mod programs;
mod site;
mod wait;
mod wrk;

pub use bpffs::BpfFs;
pub use curl::{Burst, Curl, Response};
pub use lab::{Lab, address};
pub use netns::{End, NetNs, veth};
pub use process::Process;
pub use programs::{bin, output, show};
pub use rustix::process::Signal;
pub use site::{Programs, Site};
pub use wait::wait_until;
pub use wrk::{Wrk, WrkReport};
