//! Requests of HTTP/2 for an endpoint of HTTP/1.1.

use super::cases::cases;
use super::expect::{Expectation, Fate};
use super::frames::{Connection, Frame, HEADERS, PING, frames};
use super::recorder::Recorder;
use crate::support::{Client, Edge, Snap, free_port};
use edge_proxy::ProxyOptions;

/// An edge with one worker, so that its next request finds the connections that a case left behind.
struct Lab {
    recorder: Recorder,
    port: u16,
    _edge: Edge,
}

impl Lab {
    fn new() -> Self {
        let recorder = Recorder::start();
        let port = free_port();
        let edge = Edge::start_with(Snap::simple(port, &[recorder.address()]), ProxyOptions::new(1));
        Self {
            recorder,
            port,
            _edge: edge,
        }
    }
}

#[test]
fn no_request_of_http2_is_smuggled_split_or_badly_framed() {
    let mut lab = Lab::new();
    let cases = cases(include_str!("requests_http2.cases"));
    let mut failures = Vec::new();
    for (expected, name, text) in &cases {
        let expected = Expectation::parse(expected);
        if expected.fate == Fate::Either {
            // A request that was cut after it was whole may arrive late: not in the next case's account.
            lab = Lab::new();
        }
        let answered = answered(lab.port, &frames(text), &expected);
        let seen = lab.recorder.take();
        let control = Client::connect(lab.port).get("a", "/control");
        let sound = control.is_ok_and(|reply| reply.header("x-target") == Some("/control"));
        let after = lab.recorder.take();
        let outcome = answered.and_then(|()| expected.check(&seen)).and_then(|()| {
            match sound && (after.len() == 1 || expected.fate == Fate::Either) {
                true => Ok(()),
                false => Err(format!("the next request went wrong: {after:?}")),
            }
        });
        if let Err(why) = outcome {
            failures.push(format!("{name}: {why}"));
        }
        if expected.fate == Fate::Either {
            lab = Lab::new();
        }
    }
    assert!(cases.len() >= 280, "{} cases", cases.len());
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// What is wrong with what the client got.
fn answered(port: u16, frames: &[Frame], expected: &Expectation) -> Result<(), String> {
    let mut connection = Connection::open(port);
    for frame in frames {
        // The edge may close before all is written.
        let _ = connection.send(frame);
    }
    let _ = connection.send(&Frame::new(PING, 0, 0, *b"the end!"));
    if expected.fate == Fate::Cut {
        // By then the edge has read what came before.
        let pong = connection.wait_for(|frame| frame.kind == PING);
        return pong.map(|_| ()).map_err(|error| error.to_string());
    }
    let mut streams: Vec<_> = frames
        .iter()
        .filter(|frame| frame.kind == HEADERS)
        .map(|frame| frame.stream)
        .collect();
    streams.dedup();
    let outcomes = connection
        .outcomes(&streams)
        .map_err(|_| "no answer, and not closed".to_owned())?;
    let passed = outcomes.passed.values().filter(|passed| **passed).count();
    let good = match expected.fate {
        Fate::Refuse => passed == 0,
        Fate::Either | Fate::Cut => true,
        Fate::Pass => passed == 1 && outcomes.goaway.is_none(),
        Fate::Twice => passed == 2 && outcomes.goaway.is_none(),
    };
    match good {
        true => Ok(()),
        false => Err(format!("{outcomes:?}")),
    }
}
