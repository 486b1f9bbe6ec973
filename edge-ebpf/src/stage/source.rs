//! The allow and the deny list.

use edge_common::maps::{SOURCE_ALLOWED, SOURCE_BUCKET_BITS, SOURCE_DENIED};
use edge_common::prefix::{Prefix, half};
use edge_common::{Address, Config, DropReason};

use super::prefixes;
use crate::maps;

/// Lengths of prefixes that a family can have in a set.
pub(crate) const MAX_CLASSES: u32 = 32;

/// What the lists say of a source that may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Exempt from penalties and limits.
    Allowed,
    /// On no list.
    Ordinary,
}

/// Looks the source up in both lists at once, if its marks say that it may be there. One entry of the allow list outweighs any
/// of the deny list.
#[inline(always)]
pub(crate) fn check(config: &Config, source: Address, marks: u64) -> Result<Trust, DropReason> {
    if !config.has(Config::HAS_SOURCES) {
        return Ok(Trust::Ordinary);
    }
    let candidates = config.sources.candidates(source, (marks >> half::SOURCES) as u8);
    if candidates == 0 {
        return Ok(Trust::Ordinary);
    }
    let allowed = candidates & config.allowed.classes(source);
    // As a rule one class is left, it is the right one, and no allowed prefix has it: that saves the call.
    let prefix = Prefix::of_class(source, candidates.trailing_zeros());
    let kind = prefixes::find(&maps::SOURCES, &maps::MORE_SOURCES, SOURCE_BUCKET_BITS, &prefix);
    if kind == Some(SOURCE_DENIED) && allowed == 0 {
        return Err(DropReason::Denied);
    }
    let [a, b, c, d] = source.0;
    match source_search(pair(a, b), pair(c, d), candidates, allowed) {
        SOURCE_ALLOWED => Ok(Trust::Allowed),
        SOURCE_DENIED => Err(DropReason::Denied),
        _ => Ok(Trust::Ordinary),
    }
}

/// What the lists say of the source's prefixes of these classes; 0: nothing. It is a function of its own, so that the
/// verifier need not follow each way through the loop to the end of the pipeline. `allowed` are those of them that prefixes of
/// the allow list have.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn source_search(high: u64, low: u64, mut candidates: u32, allowed: u32) -> u32 {
    let source = unpair(high, low);
    let mut found = 0;
    for _ in 0..MAX_CLASSES {
        if candidates == 0 {
            break;
        }
        let prefix = Prefix::of_class(source, candidates.trailing_zeros());
        candidates &= candidates - 1;
        let kind = prefixes::find(&maps::SOURCES, &maps::MORE_SOURCES, SOURCE_BUCKET_BITS, &prefix);
        let kind = kind.unwrap_or_default();
        if kind == SOURCE_ALLOWED || (kind == SOURCE_DENIED && candidates & allowed == 0) {
            return kind;
        }
        found |= kind;
    }
    found
}

/// Two words of an address in one register.
#[inline(always)]
pub(crate) const fn pair(first: u32, second: u32) -> u64 {
    (first as u64) << 32 | second as u64
}

/// The address of two registers.
#[inline(always)]
pub(crate) const fn unpair(high: u64, low: u64) -> Address {
    Address([(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32])
}
