//! Which objects have to be compiled to find out what a plan comes to.

use std::collections::{BTreeSet, HashSet};

use edge_config::Resource;
use edge_config::k8s::secret::CA_SECRET_SUFFIX;
use edge_model::{Kind, ObjectRef};

use super::Compiler;
use super::index::{self, Key};
use super::plan::Plan;
use crate::compile::has_all;

impl Compiler {
    /// The objects that have to be compiled for a plan, with all that they refer to.
    pub(super) fn objects_of(&self, plan: &Plan) -> BTreeSet<ObjectRef> {
        let mut objects = plan.owners.clone();
        for domain in &plan.domains {
            objects.extend(self.index.routes_of(domain));
            objects.extend(self.index.of(&Key::ServerHost(domain.clone())).cloned());
        }
        let mut all = |key: &Key| objects.extend(self.index.of(key).cloned());
        if plan.policies {
            all(&Key::Policies);
        }
        // No EnvoyFilters: limits are put on what comes of this.
        if plan.listeners {
            all(&Key::Gateways);
            all(&Key::BeforeGateway);
        }
        self.add_delegates(&mut objects);
        self.add_references(&mut objects);
        for host in &plan.hosts {
            self.add_service(host, &mut objects);
        }
        self.add_witnesses(plan, &mut objects);
        self.add_credentials(&mut objects);
        objects
    }

    /// Adds the delegates of VirtualServices, and to delegates the VirtualServices that name them.
    fn add_delegates(&self, objects: &mut BTreeSet<ObjectRef>) {
        let mut more = BTreeSet::new();
        for object in objects.iter() {
            if let Some(Resource::VirtualService(found)) = self.resource_of(object)
                && found.spec.hosts.is_empty()
            {
                let key = Key::Root(object.namespace.clone(), object.name.clone());
                more.extend(self.index.of(&key).cloned());
            }
        }
        objects.append(&mut more);
        for object in objects.iter() {
            if let Some(Resource::VirtualService(found)) = self.resource_of(object) {
                more.extend(index::delegates_of(&found.spec, &object.namespace));
            }
        }
        objects.append(&mut more);
    }

    /// Adds the Gateways that VirtualServices name, and the services that they lead to with the rules for them.
    fn add_references(&self, objects: &mut BTreeSet<ObjectRef>) {
        let (mut hosts, mut more) = (HashSet::new(), BTreeSet::new());
        for object in objects.iter() {
            if let Some(Resource::VirtualService(found)) = self.resource_of(object) {
                hosts.extend(index::destinations(&found.spec, &object.namespace, &self.options));
                let gateways = found.spec.gateways.iter();
                let keys = gateways.map(|name| crate::compile::gateway_key(name, &object.namespace));
                more.extend(keys.filter_map(|key| {
                    let (namespace, name) = key.split_once('/')?;
                    Some(ObjectRef {
                        kind: Kind::Gateway,
                        namespace: namespace.to_owned(),
                        name: name.to_owned(),
                    })
                }));
            }
        }
        objects.append(&mut more);
        for host in hosts {
            self.add_host(&host, objects);
        }
    }

    /// Adds the services of a host and the rules for it.
    fn add_host(&self, host: &str, objects: &mut BTreeSet<ObjectRef>) {
        for key in [
            Key::Service(host.to_owned()),
            Key::Rule(host.to_owned()),
            Key::WildcardRules,
        ] {
            objects.extend(self.index.of(&key).cloned());
        }
    }

    /// The same with what is behind the services.
    fn add_service(&self, host: &str, objects: &mut BTreeSet<ObjectRef>) {
        self.add_host(host, objects);
        for object in self.index.of(&Key::Service(host.to_owned())) {
            if let Some(Resource::ServiceEntry(entry)) = self.resource_of(object) {
                if let Some(selector) = &entry.spec.workload_selector {
                    let workloads = self.index.of(&Key::Workload(object.namespace.clone()));
                    let is_selected = |workload: &&ObjectRef| {
                        self.resource_of(workload).is_some_and(|resource| {
                            let of_spec = matches!(
                                resource,
                                Resource::WorkloadEntry(entry) if has_all(&entry.spec.labels, &selector.labels)
                            );
                            of_spec || has_all(&resource.meta().labels, &selector.labels)
                        })
                    };
                    objects.extend(workloads.filter(is_selected).cloned());
                }
                continue;
            }
            for slice in self
                .index
                .of(&Key::Slice(object.namespace.clone(), object.name.clone()))
            {
                if let Some(Resource::EndpointSlice(found)) = self.resource_of(slice) {
                    objects.extend(index::pods_of(&found.spec, &slice.namespace));
                }
                objects.insert(slice.clone());
            }
        }
    }

    /// Adds a service for each rule that is for many, so that it is not taken for one that is for none.
    fn add_witnesses(&self, plan: &Plan, objects: &mut BTreeSet<ObjectRef>) {
        let mut hosts = vec![];
        for object in objects
            .iter()
            .filter(|object| object.kind == Kind::DestinationRule)
        {
            if let Some(Resource::DestinationRule(found)) = self.resource_of(object) {
                let host = index::rule_host(&found.spec, &found.meta, &self.options);
                if host.starts_with('*') {
                    let all = self.index.hosts_of_rule(&host);
                    // One that had clusters is seen by the gateway; those of the plan are there in any case.
                    let known = all.iter().find(|host| self.clusters_of.contains_key(*host));
                    match known.filter(|host| !plan.hosts.contains(*host)).cloned() {
                        Some(known) => hosts.push(known),
                        None => hosts.extend(all),
                    }
                } else {
                    hosts.push(host);
                }
            }
        }
        for host in hosts {
            objects.extend(self.index.of(&Key::Service(host)).cloned());
        }
    }

    /// Adds the Secrets and ConfigMaps that Gateways and rules name.
    fn add_credentials(&self, objects: &mut BTreeSet<ObjectRef>) {
        let mut names: HashSet<&str> = HashSet::new();
        for resource in objects.iter().filter_map(|object| self.resource_of(object)) {
            if let Resource::Gateway(found) = resource {
                names.extend(index::credentials_of_gateway(&found.spec));
            } else if let Resource::DestinationRule(found) = resource {
                names.extend(index::credentials_of_rule(&found.spec));
            }
        }
        for name in names {
            let names = [name.to_owned(), format!("{name}{CA_SECRET_SUFFIX}")];
            objects.extend(names.into_iter().flat_map(|name| {
                [Kind::Secret, Kind::ConfigMap].map(|kind| ObjectRef {
                    kind,
                    namespace: self.options.gateway_namespace.clone(),
                    name: name.clone(),
                })
            }));
        }
    }
}
