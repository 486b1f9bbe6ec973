//! Connections that a test keeps open, and what becomes of them.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use edge_lab::fabric::{Client, Connection, Datagrams, Mode, Reply};

/// Longer than the longest tick of the connection table's clock.
const TICK: Duration = Duration::from_millis(700);

/// Connections of both families, and flows of datagrams, with the workers that they are at.
pub(crate) struct Kept {
    connections: Vec<(Connection, Reply)>,
    flows: Vec<(Datagrams, Reply)>,
}

/// What became of connections since they were opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Those that were answered by whom they were opened to.
    pub(crate) kept: usize,
    /// Those that were not, with the reason.
    pub(crate) broken: Vec<String>,
    /// Flows of datagrams that another worker answers.
    pub(crate) moved: usize,
}

impl Kept {
    /// Opens so many connections of each family, and half as many flows of datagrams.
    pub(crate) fn open(client: &Client<'_>, mode: Mode, each: usize) -> Self {
        let mut kept = Self {
            connections: Vec::new(),
            flows: Vec::new(),
        };
        for is_v6 in [false, true] {
            for mut connection in client.connect(mode, is_v6, each).expect("connections") {
                let reply = connection.ask().expect("an answer");
                kept.connections.push((connection, reply));
            }
            for _ in 0..each / 2 {
                let mut flow = client.datagrams(mode, is_v6).expect("a socket");
                let reply = flow.ask().expect("an answer");
                kept.flows.push((flow, reply));
            }
        }
        // A datagram some time after the first shows that somebody answers.
        thread::sleep(TICK);
        for (flow, reply) in &mut kept.flows {
            assert_eq!(flow.ask().expect("an answer"), *reply);
        }
        kept
    }

    /// How many connections and flows each worker has.
    pub(crate) fn by_worker(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let replies = self.connections.iter().map(|(_, reply)| reply);
        for reply in replies.chain(self.flows.iter().map(|(_, reply)| reply)) {
            *counts.entry(reply.worker.clone()).or_default() += 1;
        }
        counts
    }

    /// Uses all of them.
    pub(crate) fn ask(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        for (connection, reply) in &mut self.connections {
            match connection.ask() {
                Ok(now) if now == *reply => outcome.kept += 1,
                Ok(now) => outcome.broken.push(format!("{reply:?} is {now:?} now")),
                Err(error) => outcome.broken.push(format!("{}: {error:#}", reply.worker)),
            }
        }
        for (flow, reply) in &mut self.flows {
            match flow.ask() {
                Ok(now) if now == *reply => outcome.kept += 1,
                Ok(now) => {
                    outcome.moved += 1;
                    *reply = now;
                }
                Err(error) => outcome.broken.push(format!("{}: {error:#}", reply.worker)),
            }
        }
        outcome
    }

    /// Uses all of them, each of which has to be where it was.
    #[track_caller]
    pub(crate) fn assert_unbroken(&mut self, when: &str) {
        let outcome = self.ask();
        let all = self.connections.len() + self.flows.len();
        let expected = Outcome {
            kept: all,
            ..Outcome::default()
        };
        assert_eq!(outcome, expected, "{when}");
    }

    /// Forgets the connections to a worker; how many they were.
    pub(crate) fn forget(&mut self, worker: &str) -> usize {
        let before = self.connections.len();
        self.connections.retain(|(_, reply)| reply.worker != worker);
        before - self.connections.len()
    }
}
