//! Tier 2 end to end: edge as a program, with clients that its users have and endpoints that fail, on the loopback of
//! network namespaces.
//!
//! One program, so that it links once; one module a concern.
#![forbid(unsafe_code)]

mod bounds;
mod curl;
mod edge;
mod endpoints;
mod libraries;
mod listeners;
mod names;
mod rotation;
