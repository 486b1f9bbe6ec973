//! Responses of an endpoint.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::cases::{bytes, cases};
use crate::support::{Client, Edge, RawBackend, Reply, Snap, free_port};
use edge_proxy::ProxyOptions;

#[test]
fn no_response_is_split_or_finished_when_it_is_not_whole() {
    let texts = cases(include_str!("responses.cases"));
    let answers: Vec<_> = texts
        .iter()
        .map(|(fate, _, text)| (fate.starts_with("closing"), bytes(text)))
        .collect();
    let backend = RawBackend::start(move |stream, _| serve(stream, &answers));
    let port = free_port();
    let _edge = Edge::start_with(Snap::simple(port, &[backend.address]), ProxyOptions::new(1));
    let mut failures = Vec::new();
    for (number, (fate, name, _)) in texts.iter().enumerate() {
        let fate = fate.strip_prefix("closing ").unwrap_or(fate);
        let (method, fate) = match fate.strip_prefix("head ") {
            Some(fate) => ("HEAD", fate),
            None => ("POST", fate),
        };
        let mut client = Client::connect(port);
        let request = format!("{method} /{number} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        client.write(request).unwrap();
        let got = got(&mut client, method);
        let control = Client::connect(port).get("a", "/control");
        let sound = control.as_ref().is_ok_and(|reply| reply.text() == "control");
        let outcome = check(fate, &got).and_then(|()| match sound {
            true => Ok(()),
            false => Err(format!("the next response is {control:?}")),
        });
        if let Err(why) = outcome {
            failures.push(format!("{name}: {why}"));
        }
    }
    assert!(texts.len() >= 100, "{} cases", texts.len());
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Answers by the number in the path; then the connection stays as it is, or is closed.
fn serve(mut stream: TcpStream, answers: &[(bool, Vec<u8>)]) {
    loop {
        let head = RawBackend::read_head(&mut stream);
        let number = head.split(['/', ' ']).nth(2).unwrap_or("").parse::<usize>();
        let (closes, answer) = match number {
            Ok(number) => answers[number].clone(),
            Err(_) if head.is_empty() => return,
            Err(_) => (
                false,
                b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ncontrol".to_vec(),
            ),
        };
        if stream.write_all(&answer).is_err() || closes {
            return;
        }
    }
}

/// What the client got.
#[derive(Debug)]
enum Got {
    Whole(Reply),
    Cut,
    /// Nothing came, and the connection stayed open.
    Hangs,
}

fn got(client: &mut Client, method: &str) -> Got {
    let mut reply = client.read(method);
    while reply.as_ref().is_ok_and(|reply| reply.status < 200) {
        reply = client.read(method);
    }
    match reply {
        Ok(reply) => Got::Whole(reply),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Got::Hangs,
        Err(_) => {
            let mut rest = Vec::new();
            let _ = client.stream().read_to_end(&mut rest);
            Got::Cut
        }
    }
}

fn check(fate: &str, got: &Got) -> Result<(), String> {
    let good = match (fate, got) {
        ("bad", Got::Whole(reply)) => reply.status == 502 || reply.status == 503,
        ("cut", Got::Cut) => true,
        (_, Got::Whole(reply)) => passed(fate, reply),
        (_, Got::Cut | Got::Hangs) => false,
    };
    match good {
        true => Ok(()),
        false => Err(format!("{got:?}")),
    }
}

fn passed(fate: &str, reply: &Reply) -> bool {
    let mut words = fate.split(' ');
    if (words.next(), words.next()) != (Some("pass"), Some(reply.status.to_string().as_str())) {
        return false;
    }
    words.all(|word| {
        let values: Vec<_> = match word.get(1..).map(|rest| rest.split('=').next().unwrap_or(rest)) {
            Some(name) => reply.headers.iter().filter(|(own, _)| own == name).collect(),
            None => Vec::new(),
        };
        match (word.split_at(1), word.split_once('=')) {
            (("-", _), _) => values.is_empty(),
            (("+", _), Some((_, value))) => {
                matches!(values.as_slice(), [(_, own)] if own.as_bytes() == bytes(value))
            }
            (_, Some(("body", text))) => reply.body == text.as_bytes(),
            _ => panic!("no detail: {word:?}"),
        }
    })
}
