//! The limits of EnvoyFilters after a change.

use std::collections::{BTreeSet, HashMap};

use edge_config::{ObjectName, Resource};

use super::index::Key;
use super::plan::Plan;
use super::{Compiler, by_object, splice};
use crate::compile::{Hosts, relimit};

impl Compiler {
    /// Puts limits on what is another table or virtual host than before, and says anew what there is to say about
    /// EnvoyFilters: whether they fit anything depends on all tables.
    pub(super) fn take_limits(&mut self, plan: &Plan) {
        let is_other_table = plan.listeners || !plan.domains.is_empty();
        if plan.filters.is_empty() && !(is_other_table && self.index.has(&Key::Filters)) {
            return;
        }
        // Which servers a table is for decides which patches are for it.
        let hosts = match (plan.listeners, &plan.limited) {
            (false, Hosts::Of(limited)) => Hosts::Of(plan.domains.union(limited).cloned().collect()),
            _ => Hosts::All,
        };
        let objects = self.index.of(&Key::Gateways).chain(self.index.of(&Key::Filters));
        let resources: Vec<&Resource> = objects.filter_map(|object| self.resource_of(object)).collect();
        let tables = self.snapshot.listeners.iter();
        let tables: HashMap<_, _> = tables
            .flat_map(|listener| listener.tables())
            .map(|table| (table.name.as_str(), table))
            .collect();
        let limited = relimit(&resources, &self.options, &self.bindings, &tables, &hosts);
        if !limited.tables.is_empty() {
            self.snapshot.listeners = splice::with_tables(&self.snapshot.listeners, &limited.tables);
        }
        let mut problems = by_object(limited.problems);
        // One that changed may be gone.
        let mut all: BTreeSet<_> = plan.filters.clone();
        all.extend(self.index.of(&Key::Filters).cloned());
        for object in all {
            let own = Some(ObjectName::from(&object));
            let found = problems.remove(&own).unwrap_or_default();
            self.set_problems(own, found);
        }
    }
}
