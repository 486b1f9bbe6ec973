//! The stages of the pipeline, one file each. A stage returns what it found, or the packet's fate.
//!
//! The first stage, `parse`, is in edge-common, because the host runs it too.

pub(crate) mod connection;
pub(crate) mod decap;
pub(crate) mod flood;
pub(crate) mod forward;
pub(crate) mod icmp;
pub(crate) mod malformed;
pub(crate) mod penalty;
pub(crate) mod prefixes;
pub(crate) mod quoted;
pub(crate) mod route;
pub(crate) mod second_hop;
pub(crate) mod select;
pub(crate) mod socket;
pub(crate) mod source;
pub(crate) mod syncookie;
pub(crate) mod too_big;
pub(crate) mod tunnel;
pub(crate) mod vip;
