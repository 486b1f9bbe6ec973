//! What all objects come to together is bounded: a change that goes beyond a bound has everything compiled, which finds the
//! object that is one too many.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use edge_model::{Listener, RouteTable, VirtualHost, VirtualHosts};

use crate::compile::{MAX_PLACES, MAX_ROUTES, Output};

/// Counts of what is bounded.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    is_cut: bool,
    /// Places of the clusters of each service's host.
    places: HashMap<String, usize>,
    /// Their sum.
    all_places: usize,
    /// Routes of each table.
    routes: HashMap<String, usize>,
}

impl Bounds {
    /// Counts what everything came to.
    pub(super) fn new(output: &Output) -> Self {
        let tables = tables(&output.compiled.snapshot.listeners);
        Self {
            is_cut: output.is_cut,
            places: output.places.clone(),
            all_places: output.places.values().sum(),
            routes: tables
                .map(|table| (table.name.clone(), routes_of(table.virtual_hosts.iter())))
                .collect(),
        }
    }

    /// Whether something was left out for want of room.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Counts the clusters of some hosts anew; whether there is room for them.
    pub(super) fn count_places(&mut self, hosts: &BTreeSet<String>, places: &HashMap<String, usize>) -> bool {
        for host in hosts {
            let before = self.places.remove(host).unwrap_or_default();
            let after = places.get(host).copied();
            self.all_places = self.all_places - before + after.unwrap_or_default();
            if let Some(after) = after {
                self.places.insert(host.clone(), after);
            }
        }
        self.all_places <= MAX_PLACES
    }

    /// Counts the routes of what changed; whether there is room for them. It costs what changed.
    pub(super) fn count_routes(&mut self, old: &[Arc<Listener>], new: &[Arc<Listener>]) -> bool {
        let old: HashMap<_, _> = tables(old).map(|table| (table.name.as_str(), table)).collect();
        let none = VirtualHosts::default();
        let mut routes = HashMap::with_capacity(old.len());
        let mut is_room = true;
        for table in tables(new) {
            let before = old.get(table.name.as_str());
            let changes = match before {
                Some(before) if Arc::ptr_eq(before, table) => vec![],
                before => {
                    let before = before.map_or(&none, |before| &before.virtual_hosts);
                    table.virtual_hosts.changes_since(before)
                }
            };
            let gone = routes_of(changes.iter().filter_map(|change| change.before));
            let come = routes_of(changes.iter().filter_map(|change| change.after));
            let known = self.routes.get(&table.name).copied().unwrap_or_default();
            let count = (known + come).saturating_sub(gone);
            is_room &= count <= MAX_ROUTES;
            routes.insert(table.name.clone(), count);
        }
        self.routes = routes;
        is_room
    }
}

fn tables(listeners: &[Arc<Listener>]) -> impl Iterator<Item = &Arc<RouteTable>> {
    listeners.iter().flat_map(|listener| listener.tables())
}

fn routes_of<'h>(hosts: impl Iterator<Item = &'h Arc<VirtualHost>>) -> usize {
    hosts.map(|host| host.routes.len()).sum()
}
