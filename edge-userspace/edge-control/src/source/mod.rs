//! Where the configuration comes from: a folder of files.

pub(crate) mod file;
pub(crate) mod watch;
