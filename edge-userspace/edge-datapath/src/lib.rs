//! Tier 1's control in userspace, and the only writer of its BPF maps.
//!
//! [`DataPath`] loads and attaches the programs, makes the maps what a [`DataPathConfig`] asks for, hands
//! penalties down and brings counters up. [`Explainer`] runs single packets through the same programs and says
//! what became of them and why.
//!
//! A change of configuration goes through three steps that can be looked at one by one: [`image::Image::next`]
//! computes what the maps should hold, [`plan::Plan::between`] the steps from here to there, and the data path
//! carries the steps out in an order in which no packet is sent to something that is not there yet.
//!
//! Nothing here needs an async runtime. Calls take microseconds to milliseconds; they act in the network
//! namespace of the calling thread.
//!
//! [`DataPathConfig`]: edge_model::DataPathConfig

#![deny(unsafe_code)]

mod advmss;
mod attach;
mod connections;
mod datapath;
mod detached;
mod devices;
mod error;
mod events;
mod explain;
mod flows;
mod follow;
pub mod image;
mod inherited;
mod kernel;
mod log_bridge;
pub mod maglev;
mod maps;
mod neighbours;
mod netlink;
mod next_hops;
pub mod object;
mod penalties;
mod pins;
pub mod plan;
mod pools;
mod prefix_filter;
mod routes;
mod sources;
mod stats;
mod syncookies;
mod sys;
mod table;
mod tenants;
mod tunnels;
mod uplinks;
mod ways;

pub use attach::{AttachedMode, InterfaceStatus, XdpMode};
pub use connections::{Connection, ConnectionPage};
pub use datapath::{DataPath, LoadOptions};
pub use detached::Detached;
pub use edge_common::verdict::{Eviction, LeftToKernel, ReplyReason};
pub use edge_common::{DropReason, FlowReason, PassReason};
pub use error::Error;
pub use events::DropEvent;
pub use explain::{Action, Explainer, Explanation};
pub use flows::Flows;
pub use image::{MemberId, VipId, WorkerSocket};
pub use penalties::PenaltyStatus;
pub use pins::{OnStop, Pinning};
pub use plan::{Plan, Step};
pub use stats::{CoreStats, MemberStats, Stats, VipStats, WorkerStats};
pub use ways::NextHop;
