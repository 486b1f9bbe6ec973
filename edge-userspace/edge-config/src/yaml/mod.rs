//! Reading YAML from outside: split into documents, bounded, with the line of every field, and into the shapes of
//! this crate with every unknown or wrong field named.

mod read;
mod scan;
mod split;
mod suggest;

pub(crate) use read::{Finding, Style, UnknownFields, read, snake_case};
pub(crate) use scan::{LineIndex, scan};
pub(crate) use split::{Document, split};
pub(crate) use suggest::{distance, nearest};
