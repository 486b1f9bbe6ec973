//! Requests of HTTP/1.1.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;

use super::cases::{bytes, cases};
use super::expect::{Expectation, Fate};
use super::recorder::Recorder;
use crate::support::{Client, Edge, Snap, free_port};
use edge_proxy::ProxyOptions;

#[test]
fn no_request_is_smuggled_split_or_badly_framed() {
    let recorder = Recorder::start();
    let port = free_port();
    // One worker, so that its next request finds the connections that the case left behind.
    let _edge = Edge::start_with(Snap::simple(port, &[recorder.address()]), ProxyOptions::new(1));
    let cases = cases(include_str!("requests.cases"));
    let mut failures = Vec::new();
    for (expected, name, text) in &cases {
        let expected = Expectation::parse(expected);
        let answered = answered(port, &bytes(text), &expected);
        let seen = recorder.take();
        let control = Client::connect(port).get("a", "/control");
        let sound = control.is_ok_and(|reply| reply.header("x-target") == Some("/control"));
        let after = recorder.take();
        let outcome =
            answered
                .and_then(|()| expected.check(&seen))
                .and_then(|()| match sound && after.len() == 1 {
                    true => Ok(()),
                    false => Err(format!("the next request went wrong: {after:?}")),
                });
        if let Err(why) = outcome {
            failures.push(format!("{name}: {why}"));
        }
    }
    assert!(cases.len() >= 350, "{} cases", cases.len());
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// What is wrong with what the client got: a refused message ends the connection, or is answered with an error; every
/// other one is answered with 200.
fn answered(port: u16, bytes: &[u8], expected: &Expectation) -> Result<(), String> {
    let mut client = Client::connect(port);
    // The edge may close before all is written.
    let _ = client.write(bytes);
    let answers = match expected.fate {
        Fate::Refuse | Fate::Either | Fate::Pass => 1,
        Fate::Twice => 2,
        Fate::Cut => {
            client
                .stream()
                .shutdown(Shutdown::Write)
                .map_err(|error| error.to_string())?;
            let rest = client.rest().map_err(|error| error.to_string())?;
            return match rest.starts_with(b"HTTP/1.1 2") {
                true => Err("answered with 200".to_owned()),
                false => Ok(()),
            };
        }
    };
    let method = match bytes.starts_with(b"HEAD") {
        true => "HEAD",
        false => "GET",
    };
    let mut statuses = Vec::new();
    while statuses.len() < answers {
        match client.read(method) {
            Ok(reply) if reply.status < 200 => {}
            Ok(reply) => statuses.push(reply.status),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err("no answer, and not closed".to_owned());
            }
            Err(_) => break,
        }
    }
    let passed = statuses.iter().filter(|status| **status == 200).count();
    let good = match expected.fate {
        Fate::Refuse => passed == 0 && closed(&mut client, &statuses),
        Fate::Either => true,
        Fate::Pass | Fate::Twice | Fate::Cut => passed == answers,
    };
    match good {
        true => Ok(()),
        false => Err(format!("answered {statuses:?}")),
    }
}

/// A connection on which something was refused takes no further request.
fn closed(client: &mut Client, statuses: &[u16]) -> bool {
    let _ = client.stream().shutdown(Shutdown::Write);
    let mut rest = Vec::new();
    let ended = match client.stream().read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    ended && !rest.starts_with(b"HTTP/1.1 2") && statuses.iter().all(|status| (400..600).contains(status))
}
