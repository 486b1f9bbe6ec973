//! Compiling one change at a time: what a change touches is compiled anew, everything else is shared with before.
//!
//! A change becomes a plan: hosts whose clusters it touches, domains whose virtual hosts, objects about which something
//! else may be said. The objects of the plan are compiled by themselves, together with all that they refer to, and what
//! comes of it takes the place of what was there.

mod bounds;
mod index;
mod limits;
mod needs;
mod plan;
mod splice;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use edge_config::istio::gateway::Server;
use edge_config::{ObjectName, Problem, Resource};
use edge_model::{ClusterName, Kind, ObjectRef, Snapshot};

use crate::compile::{Bindings, Checked, Output, Socket, Wanted, compile_all, compile_wanted};
use crate::{CompileOptions, Compiled, ReadFile};
use bounds::Bounds;
use index::{Index, Key};
use plan::Plan;
use splice::Splice;

/// Keeps the resources and what they came to.
///
/// A change costs what it touches: of a VirtualService the virtual hosts of its names, of a Service, ServiceEntry or
/// DestinationRule the clusters of its hosts and the routes to them, of an EndpointSlice, Pod or WorkloadEntry the
/// clusters alone. A Gateway, and a Secret or ConfigMap that one names, cost all Gateways, and of the routes those at the
/// hosts that changed. An EnvoyFilter costs its limits alone, on the virtual hosts that it names or on all. A service
/// before the gateway, what shifts servers of other Gateways, and a change beyond a bound on what all objects make together
/// (endpoints, routes of a table) compile everything. Either way the result is the same as that of
/// [`compile`](crate::compile()) on all resources.
#[derive(Debug)]
pub struct Compiler {
    options: CompileOptions,
    resources: HashMap<ObjectRef, Arc<Resource>>,
    index: Index,
    snapshot: Snapshot,
    /// The servers that are served.
    bindings: Bindings,
    problems: HashMap<Option<ObjectName>, Vec<Problem>>,
    /// How often the problems became others.
    problems_count: u64,
    /// The clusters of each service's host.
    clusters_of: HashMap<String, Vec<ClusterName>>,
    checked: Checked,
    bounds: Bounds,
}

/// An object as it was and as it is.
struct Touched {
    object: ObjectRef,
    before: Option<Arc<Resource>>,
    after: Option<Arc<Resource>>,
}

/// Of more changes at once than every so many objects, compiling everything is the quicker way.
const FEW: usize = 4;

impl Compiler {
    /// Compiles resources, each of them once, and keeps them.
    #[must_use]
    pub fn new(
        options: CompileOptions,
        resources: impl IntoIterator<Item = Arc<Resource>>,
        read: &ReadFile<'_>,
    ) -> Self {
        let mut compiler = Self {
            options,
            resources: HashMap::new(),
            index: Index::default(),
            snapshot: Snapshot::default(),
            bindings: Bindings::new(),
            problems: HashMap::new(),
            problems_count: 0,
            clusters_of: HashMap::new(),
            checked: Checked::default(),
            bounds: Bounds::default(),
        };
        for resource in resources {
            let object = resource.object_ref();
            compiler.index.add(&object, &resource, &compiler.options);
            compiler.resources.insert(object, resource);
        }
        compiler.compile_all(read);
        compiler
    }

    /// The configuration, with version 0. It is complete only when no problem is an error.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes over a Snapshot that is equal to the compiled one, but shares parts with an earlier one: what is compiled from
    /// now on shares them too.
    pub fn share(&mut self, same: &Snapshot) {
        self.snapshot = Snapshot {
            version: 0,
            ..same.clone()
        };
    }

    /// The object of a name.
    #[must_use]
    pub fn resource(&self, object: &ObjectRef) -> Option<&Arc<Resource>> {
        self.resources.get(object)
    }

    /// Counts up whenever [`problems`](Self::problems) became others.
    #[must_use]
    pub fn problems_count(&self) -> u64 {
        self.problems_count
    }

    /// All problems, by object.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Puts an object in, in place of the one that it had; `None` takes it out.
    pub fn change(&mut self, object: &ObjectRef, to: Option<Arc<Resource>>, read: &ReadFile<'_>) {
        self.apply([(object.clone(), to)], read);
    }

    /// The same for several objects, each of them once.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = (ObjectRef, Option<Arc<Resource>>)>,
        read: &ReadFile<'_>,
    ) {
        let changes = changes.into_iter();
        let touched: Vec<_> = changes.filter_map(|(object, to)| self.put(object, to)).collect();
        let is_few = touched.len() <= 1 || touched.len() * FEW <= self.resources.len();
        if touched.is_empty() {
            return;
        }
        // Which object is one too many depends on all.
        let is_part = is_few && !self.bounds.is_cut();
        let done = is_part.then(|| self.compile_touched(&touched, read)).flatten();
        if done.is_none() {
            self.compile_all(read);
        }
        self.checked.forget_unused();
    }

    /// Puts one object in or takes it out. `None` when nothing is to be compiled for it, because it says what it said.
    fn put(&mut self, object: ObjectRef, after: Option<Arc<Resource>>) -> Option<Touched> {
        let before = match &after {
            Some(resource) => self.resources.insert(object.clone(), Arc::clone(resource)),
            None => self.resources.remove(&object),
        };
        // Its problems name lines, which may have moved.
        let has_problems = || self.problems.contains_key(&Some(ObjectName::from(&object)));
        if before == after && !has_problems() {
            return None;
        }
        if matches!(object.kind, Kind::Secret | Kind::ConfigMap) && before != after {
            self.checked.forget(object.kind, &object.name);
        }
        if let Some(before) = &before {
            self.index.remove(&object, before, &self.options);
        }
        if let Some(after) = &after {
            self.index.add(&object, after, &self.options);
        }
        Some(Touched {
            object,
            before,
            after,
        })
    }

    fn compile_all(&mut self, read: &ReadFile<'_>) {
        let all: Vec<_> = self.resources.values().map(AsRef::as_ref).collect();
        let output = compile_all(&all, &self.options, read, &self.checked);
        self.bounds = Bounds::new(&output);
        let Compiled { snapshot, problems } = output.compiled;
        self.snapshot = snapshot;
        self.bindings = output.bindings;
        self.clusters_of.clear();
        for cluster in self.snapshot.clusters.values() {
            let of_host = self.clusters_of.entry(cluster.host.clone()).or_default();
            of_host.push(cluster.name.clone());
        }
        self.problems = by_object(problems);
        self.problems_count += 1;
    }

    /// Compiles what the changes touch. `None` when that may be everything.
    fn compile_touched(&mut self, touched: &[Touched], read: &ReadFile<'_>) -> Option<()> {
        let mut plan = Plan::default();
        for touched in touched {
            self.plan(touched, &mut plan)?;
        }
        if !plan.is_empty() {
            self.compile_planned(&mut plan, read)?;
        }
        self.take_limits(&plan);
        Some(())
    }

    /// Compiles what a plan says, except for limits.
    fn compile_planned(&mut self, plan: &mut Plan, read: &ReadFile<'_>) -> Option<()> {
        if plan.listeners {
            plan.owners.extend(self.index.of(&Key::Gateways).cloned());
            plan.owners.extend(self.index.of(&Key::TcpRoutes).cloned());
        }
        let output = self.compile_part(plan, read);
        if output.is_cut || !self.bounds.count_places(&plan.hosts, &output.places) {
            return None;
        }
        let bindings = output.bindings;
        let Compiled { snapshot, problems } = output.compiled;
        if plan.listeners {
            self.take_bindings(bindings, plan)?;
        }
        self.take_listeners(&snapshot, plan)?;
        self.take_clusters(&snapshot, plan);
        if plan.policies {
            self.snapshot.unenforced = snapshot.unenforced;
        }
        let mut problems = by_object(problems);
        for object in &plan.owners {
            let own = Some(ObjectName::from(object));
            let found = problems.remove(&own).unwrap_or_default();
            self.set_problems(own, found);
        }
        Some(())
    }

    /// Compiles the objects of a plan by themselves.
    fn compile_part(&self, plan: &Plan, read: &ReadFile<'_>) -> Output {
        let objects = self.objects_of(plan);
        let part: Vec<_> = objects
            .iter()
            .filter_map(|object| self.resources.get(object))
            .map(AsRef::as_ref)
            .collect();
        let wanted = Wanted {
            clusters: Some(&plan.hosts),
            bindings: (!plan.listeners).then_some(&self.bindings),
            checked: &self.checked,
        };
        compile_wanted(&part, &self.options, read, wanted)
    }

    /// Takes over which servers are served. `None` when that changed for one that the plan does not know of.
    fn take_bindings(&mut self, bindings: Bindings, plan: &Plan) -> Option<()> {
        let names: HashSet<_> = bindings.keys().chain(self.bindings.keys()).collect();
        for object in names {
            let (old, new) = (self.bindings.get(object), bindings.get(object));
            if old == new || plan.is_whole(object) {
                continue;
            }
            let (before, after) = plan.servers_of(object)?;
            let servers = |bound: Option<&Vec<(usize, Socket)>>, servers: &[Server]| {
                let bound = bound.into_iter().flatten();
                let known = bound.filter_map(|(index, socket)| Some((*socket, servers.get(*index)?.clone())));
                known.collect::<Vec<_>>()
            };
            let (old, new) = (servers(old, before), servers(new, after));
            let is_changed = |server: &Server| !(before.contains(server) && after.contains(server));
            let gone = old.iter().filter(|bound| !new.contains(bound));
            let mut moved = gone.chain(new.iter().filter(|bound| !old.contains(bound)));
            if old.is_empty() != new.is_empty() || moved.any(|(_, server)| !is_changed(server)) {
                return None;
            }
        }
        self.bindings = bindings;
        Some(())
    }

    /// `None` when that would be more routes than there is room for.
    fn take_listeners(&mut self, part: &Snapshot, plan: &Plan) -> Option<()> {
        if !plan.listeners && plan.domains.is_empty() {
            return Some(());
        }
        let splice = Splice::new(&self.snapshot.listeners, &plan.domains);
        let listeners = match plan.listeners {
            true => splice.listeners(&part.listeners)?,
            false => splice.hosts(&self.snapshot.listeners, &part.listeners)?,
        };
        if !self.bounds.count_routes(&self.snapshot.listeners, &listeners) {
            return None;
        }
        self.snapshot.listeners = listeners;
        if plan.listeners {
            self.snapshot.datapath = part.datapath.clone();
        }
        Some(())
    }

    fn take_clusters(&mut self, part: &Snapshot, plan: &Plan) {
        let mut own: HashMap<&str, Vec<&ClusterName>> = HashMap::new();
        for cluster in part.clusters.values() {
            own.entry(&cluster.host).or_default().push(&cluster.name);
        }
        for host in &plan.hosts {
            let own = own.remove(host.as_str()).unwrap_or_default();
            for gone in self.clusters_of.get(host).into_iter().flatten() {
                if !own.contains(&gone) {
                    self.snapshot.clusters.remove(gone);
                }
            }
            for name in &own {
                match (part.clusters.get(*name), self.snapshot.clusters.get(*name)) {
                    (Some(new), Some(old)) if new == old => {}
                    (Some(new), _) => {
                        self.snapshot.clusters.insert((*name).clone(), Arc::clone(new));
                    }
                    (None, _) => {}
                }
            }
            if own.is_empty() {
                self.clusters_of.remove(host);
            } else {
                self.clusters_of
                    .insert(host.clone(), own.into_iter().cloned().collect());
            }
        }
    }

    /// What is wrong with one object now.
    fn set_problems(&mut self, object: Option<ObjectName>, problems: Vec<Problem>) {
        let before = if problems.is_empty() {
            self.problems.remove(&object).unwrap_or_default()
        } else {
            self.problems.insert(object, problems.clone()).unwrap_or_default()
        };
        self.problems_count += u64::from(before != problems);
    }
}

fn by_object(problems: Vec<Problem>) -> HashMap<Option<ObjectName>, Vec<Problem>> {
    let mut by_object: HashMap<_, Vec<_>> = HashMap::new();
    for problem in problems {
        by_object.entry(problem.object.clone()).or_default().push(problem);
    }
    by_object
}
