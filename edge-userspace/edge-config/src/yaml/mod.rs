//! Reading YAML from outside: split into documents, bounded, with the line of every field, and into the shapes of
//! this crate with every unknown or wrong field named.

mod compose;
mod flow;
mod read;
mod scalar;
mod scan;
mod split;
mod suggest;

pub(crate) use read::{Finding, Style, UnknownFields, read, snake_case};
pub(crate) use scan::{LineIndex, load};
pub(crate) use split::{Document, split};
pub(crate) use suggest::{distance, nearest};

/// A key as paths have it: its beginning, if it is longer than any field's name. A path is looked at for each field below
/// it, which must not cost more for keys of half a file.
pub(crate) fn in_path(key: &str) -> &str {
    const LONGEST: usize = 256;
    let mut end = key.len().min(LONGEST);
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    &key[..end]
}
