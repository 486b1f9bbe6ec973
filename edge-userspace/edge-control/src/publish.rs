//! From one Snapshot to the next.

use std::sync::Arc;

use edge_model::Snapshot;

/// Makes `next` the successor of `running`: its version is one higher, and listeners and clusters that did not change
/// are the same values in memory, so that whoever holds them sees at once that nothing happened to them. `None` when
/// nothing changed at all.
pub(crate) fn succeed(mut next: Snapshot, running: &Snapshot) -> Option<Snapshot> {
    next.version = running.version;
    if next == *running {
        return None;
    }
    next.version += 1;
    for listener in &mut next.listeners {
        if let Some(same) = running.listener(listener.port).filter(|old| *old == listener) {
            *listener = Arc::clone(same);
        }
    }
    let clusters = next.clusters.iter().map(|(name, cluster)| {
        let same = running.clusters.get(name).filter(|old| *old == cluster);
        (name.clone(), Arc::clone(same.unwrap_or(cluster)))
    });
    next.clusters = clusters.collect();
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::{Listener, ListenerProtocol};

    fn snapshot(version: u64, ports: &[(u16, &str)]) -> Snapshot {
        let listener = |(port, name): &(u16, &str)| {
            Arc::new(Listener {
                name: (*name).to_owned(),
                ..Listener::new(*port, ListenerProtocol::Tls(vec![]))
            })
        };
        Snapshot {
            version,
            listeners: ports.iter().map(listener).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let running = snapshot(7, &[(80, "a"), (81, "b")]);
        let next = succeed(snapshot(0, &[(80, "a"), (81, "c")]), &running).unwrap();
        assert_eq!(next.version, 8);
        let shared: Vec<_> = next
            .listeners
            .iter()
            .zip(&running.listeners)
            .map(|(new, old)| Arc::ptr_eq(new, old))
            .collect();
        assert_eq!(shared, [true, false]);
    }

    #[test]
    fn the_same_configuration_is_no_successor() {
        assert_eq!(
            succeed(snapshot(0, &[(80, "a")]), &snapshot(7, &[(80, "a")])),
            None
        );
    }
}
