//! What names stand for now, and clusters with it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use edge_model::{Cluster, Discovery, DnsEndpoint, Endpoint, Snapshot};

/// The last good answer for each name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(HashMap<Arc<str>, Arc<[IpAddr]>>);

impl Answers {
    /// Takes up an answer; whether it says something new.
    pub(crate) fn set(&mut self, name: Arc<str>, addresses: Arc<[IpAddr]>) -> bool {
        let before = self.0.insert(name, Arc::clone(&addresses));
        before.is_none_or(|before| before != addresses)
    }

    /// Forgets all but the given names.
    pub(crate) fn retain(&mut self, names: &BTreeSet<Arc<str>>) {
        self.0.retain(|name, _| names.contains(name));
    }

    fn of(&self, name: &str) -> &[IpAddr] {
        self.0.get(name).map_or(&[], |addresses| addresses)
    }

    /// The cluster with the endpoints that its names stand for besides its own; itself when it has no names.
    pub(crate) fn resolve(&self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        let (names, at_most) = match &cluster.discovery {
            Discovery::Static | Discovery::OriginalDst => return Arc::clone(cluster),
            Discovery::StrictDns(names) => (names, usize::MAX),
            // The first address is as good as any: servers rotate them.
            Discovery::LogicalDns(names) => (names, 1),
        };
        let mut resolved = Cluster::clone(cluster);
        for name in names {
            let addresses = self.of(&name.name).iter().take(at_most);
            resolved
                .endpoints
                .extend(addresses.map(|address| endpoint(name, *address)));
        }
        resolved.endpoints.sort_by_key(|endpoint| endpoint.address);
        resolved.endpoints.dedup_by_key(|endpoint| endpoint.address);
        Arc::new(resolved)
    }

    /// Addresses of a cluster that are not its endpoints just now and may be again: those that `DNS_ROUND_ROBIN` has not
    /// picked. Connections to them are kept.
    pub(crate) fn spare(&self, cluster: &Cluster) -> Vec<SocketAddr> {
        let Discovery::LogicalDns(names) = &cluster.discovery else {
            return vec![];
        };
        let of = |name: &DnsEndpoint| {
            let port = name.port;
            let addresses = self.of(&name.name).iter().skip(1);
            addresses
                .map(move |address| SocketAddr::new(*address, port))
                .collect::<Vec<_>>()
        };
        names.iter().flat_map(of).collect()
    }
}

fn endpoint(name: &DnsEndpoint, address: IpAddr) -> Endpoint {
    Endpoint {
        address: SocketAddr::new(address, name.port),
        weight: name.weight,
        locality: Arc::clone(&name.locality),
        priority: name.priority,
        workload: Arc::clone(&name.workload),
    }
}

/// Names that a cluster's endpoints are resolved from.
pub(crate) fn names_of(cluster: &Cluster) -> impl Iterator<Item = &str> {
    let names: &[DnsEndpoint] = match &cluster.discovery {
        Discovery::Static | Discovery::OriginalDst => &[],
        Discovery::StrictDns(names) | Discovery::LogicalDns(names) => names,
    };
    names.iter().map(|name| name.name.as_str())
}

/// All names of a Snapshot.
pub(crate) fn names(snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
    let clusters = snapshot.clusters.values();
    clusters
        .flat_map(|cluster| names_of(cluster))
        .map(Arc::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::WorkloadMeta;

    fn cluster(
        discovery: fn(Vec<DnsEndpoint>) -> Discovery,
        own: &[&str],
        names: &[(&str, u32)],
    ) -> Arc<Cluster> {
        let workload = Arc::new(WorkloadMeta {
            workload: String::new(),
            namespace: String::new(),
            app: String::new(),
            version: String::new(),
            canonical_service: String::new(),
            canonical_revision: String::new(),
        });
        let names = names.iter().map(|(name, weight)| DnsEndpoint {
            name: (*name).to_owned(),
            port: 80,
            weight: *weight,
            locality: "".into(),
            priority: 0,
            workload: Arc::clone(&workload),
        });
        let endpoint = |text: &&str| Endpoint::new(text.parse().unwrap(), Arc::clone(&workload));
        Arc::new(Cluster {
            discovery: discovery(names.collect()),
            endpoints: own.iter().map(endpoint).collect(),
            ..Cluster::new("a.com", "shop", 80, None)
        })
    }

    fn answers(all: &[(&str, &[&str])]) -> Answers {
        let mut answers = Answers::default();
        for (name, addresses) in all {
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            answers.set((*name).into(), addresses);
        }
        answers
    }

    /// Endpoints as `address weight`.
    fn endpoints(cluster: &Cluster) -> Vec<String> {
        let endpoints = cluster.endpoints.iter();
        endpoints
            .map(|endpoint| format!("{} {}", endpoint.address, endpoint.weight))
            .collect()
    }

    #[test]
    fn every_address_of_every_name_is_an_endpoint_once() {
        let both = answers(&[("a", &["10.0.0.2", "10.0.0.1"]), ("b", &["10.0.0.1", "10.0.0.3"])]);
        let strict = cluster(
            Discovery::StrictDns,
            &["10.0.0.9:80"],
            &[("a", 3), ("b", 1), ("c", 1)],
        );
        assert_eq!(
            endpoints(&both.resolve(&strict)),
            ["10.0.0.1:80 3", "10.0.0.2:80 3", "10.0.0.3:80 1", "10.0.0.9:80 1"]
        );
        assert!(both.spare(&strict).is_empty());
    }

    #[test]
    fn round_robin_takes_the_first_address_and_spares_the_others() {
        let known = answers(&[("a", &["10.0.0.2", "10.0.0.1"])]);
        let logical = cluster(Discovery::LogicalDns, &[], &[("a", 1)]);
        assert_eq!(endpoints(&known.resolve(&logical)), ["10.0.0.2:80 1"]);
        assert_eq!(known.spare(&logical), ["10.0.0.1:80".parse().unwrap()]);
        assert!(endpoints(&answers(&[]).resolve(&logical)).is_empty());
    }

    #[test]
    fn an_answer_is_news_only_when_it_differs() {
        let mut known = answers(&[("a", &["10.0.0.1"])]);
        let one: Arc<[IpAddr]> = Arc::new([[10, 0, 0, 1].into()]);
        assert!(!known.set("a".into(), Arc::clone(&one)));
        assert!(known.set("a".into(), Arc::new([])));
        assert!(known.set("b".into(), one));
        known.retain(&BTreeSet::from(["a".into()]));
        assert!(known.of("b").is_empty());
    }
}
