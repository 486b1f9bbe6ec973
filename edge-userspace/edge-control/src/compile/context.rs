//! What the rules of a VirtualService are read against.

use super::destination_rules::DestinationRules;
use super::registry::Registry;
use crate::CompileOptions;

/// The services and policies that destinations name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'c, 'r> {
    pub(crate) options: &'c CompileOptions,
    pub(crate) registry: &'c Registry<'r>,
    pub(crate) rules: &'c DestinationRules<'r>,
}
