//! A name server of the test's own (RFC 1035), which answers as the test says.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server says.
#[derive(Debug, Clone)]
pub(crate) enum Zone {
    /// Each name has these addresses, and no other name is there.
    Names(Vec<(&'static str, Vec<Ipv4Addr>)>),
    /// SERVFAIL to everything.
    Failing,
    /// Nothing to anybody.
    Silent,
}

/// A running server.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const TYPE_A: [u8; 2] = [0, 1];

impl DnsServer {
    pub(crate) fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let server = Self {
            address: socket.local_addr().unwrap(),
            zone: Arc::new(Mutex::new(zone)),
            asked: Arc::default(),
            stop: Arc::default(),
        };
        let (zone, asked, stop) = (
            Arc::clone(&server.zone),
            Arc::clone(&server.asked),
            Arc::clone(&server.stop),
        );
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while !stop.load(Ordering::SeqCst) {
                let Ok((length, client)) = socket.recv_from(&mut query) else {
                    continue;
                };
                asked.fetch_add(1, Ordering::SeqCst);
                let zone = zone.lock().unwrap().clone();
                if let Some(answer) = answer(&query[..length], &zone) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        server
    }

    /// Says something else from now on.
    pub(crate) fn says(&self, zone: Zone) {
        *self.zone.lock().unwrap() = zone;
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// The name of the question, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            return Some((labels.join("."), at + 4));
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
}

fn answer(query: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let is_a = query.get(end - 4..end - 2)? == TYPE_A;
    let (code, addresses) = match zone {
        Zone::Silent => return None,
        Zone::Failing => (SERVER_FAILURE, vec![]),
        Zone::Names(names) => match names.iter().find(|(own, _)| *own == name) {
            None => (NO_SUCH_NAME, vec![]),
            Some((_, addresses)) if is_a => (NO_ERROR, addresses.clone()),
            Some(_) => (NO_ERROR, vec![]),
        },
    };
    let count = u8::try_from(addresses.len()).unwrap();
    let mut answer = query[..2].to_vec();
    // A response to a recursive query, with one question and so many answers.
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    for address in addresses {
        // The name at offset 12, type A, class IN, a TTL of 0, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
