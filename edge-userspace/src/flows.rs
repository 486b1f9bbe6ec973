//! `edge status flows --limit`: connections to pools that tier 1 remembers, one by one.

use std::fmt;
use std::net::IpAddr;

use edge_datapath::Connection;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// Most that are listed at once.
pub(crate) const MOST: u32 = 100_000;
/// How many are listed if nobody says.
const DEFAULT: usize = 100;

/// Which flows are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// At most so many.
    pub(crate) limit: usize,
    /// Only those to this VIP, or to this address.
    pub(crate) vip: Option<String>,
    /// Only those of this worker, by name or address.
    pub(crate) worker: Option<String>,
}

impl Query {
    /// Reads the query of a URL: `limit`, `vip` and `worker`, percent-encoded (RFC 3986 2.1) where characters need it.
    ///
    /// # Errors
    /// What is wrong with it, for who asked.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self {
            limit: DEFAULT,
            vip: None,
            worker: None,
        };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "limit" => match value.parse() {
                    Ok(limit) if (1..=MOST as usize).contains(&limit) => query.limit = limit,
                    _ => return Err(format!("limit: a number from 1 to {MOST}")),
                },
                "vip" => query.vip = Some(decoded(value)),
                "worker" => query.worker = Some(decoded(value)),
                _ => return Err(format!("{key}: there are limit, vip and worker")),
            }
        }
        Ok(query)
    }

    fn wants(&self, flow: &Flow) -> bool {
        let address = flow.address.to_string();
        let vip = self.vip.as_deref();
        let worker = self.worker.as_deref();
        let worker_address = flow.worker_address.map(|address| address.to_string());
        vip.is_none_or(|vip| vip == flow.vip || vip == address)
            && worker.is_none_or(|worker| {
                flow.worker.as_deref() == Some(worker) || worker_address.as_deref() == Some(worker)
            })
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit={}", self.limit)?;
        for (key, value) in [("vip", &self.vip), ("worker", &self.worker)] {
            if let Some(value) = value {
                write!(f, "&{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))?;
            }
        }
        Ok(())
    }
}

/// A value of a query as it was before it was percent-encoded. What is no UTF-8 is no name of anything.
fn decoded(value: &str) -> String {
    percent_decode_str(value).decode_utf8_lossy().into_owned()
}

/// Answer of the admin address to `/flows`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing {
    /// Flows, in no order.
    pub(crate) flows: Vec<Flow>,
}

/// A remembered flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// Client's address.
    pub(crate) client: IpAddr,
    /// Client's port; 0 where all of a client's flows go to one worker.
    pub(crate) client_port: u16,
    /// The VIP, as `192.0.2.1:443/tcp`.
    pub(crate) vip: String,
    /// Its address; of a prefix the first.
    pub(crate) address: IpAddr,
    /// Port that the client connects to.
    pub(crate) port: u16,
    /// Pool of the worker; absent if it is gone.
    pub(crate) pool: Option<String>,
    /// Name of the worker.
    pub(crate) worker: Option<String>,
    /// Its address.
    pub(crate) worker_address: Option<IpAddr>,
    /// Whether somebody answers; one that nobody has answered yet gives its place to others first.
    pub(crate) confirmed: bool,
}

impl Listing {
    /// Adds those that are wanted, until there are enough.
    pub(crate) fn add(&mut self, connections: &[Connection], query: &Query) {
        let flows = connections.iter().map(Flow::of).filter(|flow| query.wants(flow));
        self.flows
            .extend(flows.take(query.limit.saturating_sub(self.flows.len())));
    }
}

impl Flow {
    fn of(connection: &Connection) -> Self {
        let member = connection.member.as_ref();
        Self {
            client: connection.client,
            client_port: connection.client_port,
            vip: connection.vip.to_string(),
            address: connection.vip.address,
            port: connection.port,
            pool: member.map(|member| member.pool.to_string()),
            worker: member.map(|member| member.name.to_string()),
            worker_address: member.map(|member| member.address),
            confirmed: connection.is_confirmed,
        }
    }
}

/// For people.
impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<46} {:<32} {:<28} state",
            "client", "virtual address", "worker"
        )?;
        for flow in &self.flows {
            let client = std::net::SocketAddr::new(flow.client, flow.client_port);
            let worker = match (&flow.pool, &flow.worker) {
                (Some(pool), Some(worker)) => format!("{pool}/{worker}"),
                _ => "gone".to_owned(),
            };
            let state = if flow.confirmed {
                "confirmed"
            } else {
                "unconfirmed"
            };
            writeln!(
                f,
                "{:<46} {:<32} {worker:<28} {state}",
                client.to_string(),
                flow.vip
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_is_written() {
        for worker in [
            "node-1",
            "node 1",
            "a&limit=9",
            "100% = a+b; c?#/",
            "Knoten fünf",
            "%41",
        ] {
            let query = Query {
                limit: 7,
                vip: Some("[2001:db8::1]:443/tcp".to_owned()),
                worker: Some(worker.to_owned()),
            };
            let text = query.to_string();
            let uri = format!("/flows?{text}").parse::<hyper::Uri>();
            let of_uri = uri.expect("a URI").query().map(Query::parse);
            assert_eq!(of_uri, Some(Ok(query)), "{text}");
        }
        // As somebody writes it by hand.
        let plain = Query::parse("vip=[2001:db8::1]:443/tcp&worker=node-1").expect("a query");
        assert_eq!(plain.vip.as_deref(), Some("[2001:db8::1]:443/tcp"));
        assert_eq!(plain.worker.as_deref(), Some("node-1"));
        assert_eq!(Query::parse("").map(|query| query.limit), Ok(DEFAULT));
        for wrong in ["limit=0", "limit=x", "limit=100001", "vips=1"] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }
}
