//! An access log that goes into a named pipe, whose reader comes late, stalls or goes away: requests never wait for it.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_model::{FormatString, Fraction};
use edge_proxy::{AccessLog, AccessLogFormat, ProxyOptions};

use crate::support::{Client, Edge, Snap, direct, eventually, free_port, prefix, route};

/// What a worker hands over at once (`BATCH` of the writer), and how much of that may wait (`WAITING`).
const BATCH: usize = 32 * 1024;
const WAITING: usize = 128;

/// What a pipe holds (pipe(7)).
const PIPE: usize = 64 * 1024;

/// A named pipe, removed in the end.
struct Pipe(PathBuf);

impl Pipe {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edge-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path)
    }

    /// An edge of one worker that answers by itself, and logs the path of each request.
    fn edge(&self) -> (Edge, u16) {
        let port = free_port();
        let options = ProxyOptions {
            access_log: Some(AccessLog {
                path: Some(self.0.clone()),
                format: AccessLogFormat::Text(FormatString::parse("begin %REQ(:PATH)% end\n").unwrap()),
                sample: Fraction::ALWAYS,
            }),
            ..ProxyOptions::new(1)
        };
        let snap = Snap::new(port, vec![route(prefix("/"), direct(200, "x"))]);
        (Edge::start_with(snap, options), port)
    }

    /// Reads from now on, to the end.
    fn read(&self) -> Reading {
        let mut pipe = File::open(&self.0).unwrap();
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let reading = Arc::clone(&text);
        let thread = std::thread::spawn(move || {
            let mut part = vec![0; PIPE];
            loop {
                match pipe.read(&mut part).unwrap() {
                    0 => return,
                    bytes => reading.lock().unwrap().extend_from_slice(&part[..bytes]),
                }
            }
        });
        Reading { text, thread }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What was read so far.
struct Reading {
    text: Arc<Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Reading {
    fn bytes(&self) -> usize {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Numbers of the requests whose lines were read, each of which is whole.
    #[track_caller]
    fn numbers(&self) -> Vec<usize> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let number = |line: &str| {
            let path = line
                .strip_prefix("begin /")
                .and_then(|rest| rest.strip_suffix(" end"));
            let (number, filler) = path.and_then(|path| path.split_once('/'))?;
            (filler == FILLER).then(|| number.parse().ok())?
        };
        whole
            .lines()
            .map(|line| number(line).unwrap_or_else(|| panic!("torn: {line:?}")))
            .collect()
    }
}

/// What makes a line as long as a head allows many.
const FILLER: &str = match std::str::from_utf8(&[b'x'; 4000]) {
    Ok(text) => text,
    Err(_) => "",
};

/// Bytes of one line, with a number of up to five digits.
const LINE: usize = FILLER.len() + 20;

/// Most that edge may hold of lines: what waits, what its one worker collects, what is being written; each batch with a
/// line more than it is to have.
const HELD: usize = (WAITING + 2) * (BATCH + LINE) + PIPE;

/// Requests by number over one connection, each of which is answered as if there were no log.
fn ask(client: &mut Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let reply = client.get("a", &format!("/{number}/{FILLER}")).unwrap();
        assert_eq!((reply.status, reply.text()), (200, "x"));
    }
}

fn dropped(edge: &Edge) -> usize {
    edge.metric("edge_access_log_dropped_total", &[]) as usize
}

#[test]
fn a_reader_that_comes_late_holds_up_nothing_and_gets_what_the_pipe_and_the_queue_have_kept() {
    let pipe = Pipe::new("late");
    let (edge, port) = pipe.edge();
    ask(&mut Client::connect(port), 0..50);
    edge.expect_flagged("-", 50);
    let reading = pipe.read();
    assert!(eventually(|| reading.numbers().len() == 50));
    assert_eq!(reading.numbers(), (0..50).collect::<Vec<_>>());
    assert_eq!(dropped(&edge), 0);
}

#[test]
fn while_a_reader_stalls_lines_are_dropped_and_counted_and_afterwards_the_log_goes_on_with_whole_lines() {
    // Three times what may be held.
    const REQUESTS: usize = 3 * HELD / LINE;
    let pipe = Pipe::new("stalled");
    let (edge, port) = pipe.edge();
    let mut client = Client::connect(port);
    ask(&mut client, 0..REQUESTS);
    assert!(dropped(&edge) > REQUESTS / 2, "{} lines", dropped(&edge));

    let reading = pipe.read();
    // Each line was either written or counted.
    let all_told = || reading.numbers().len() + dropped(&edge) == REQUESTS;
    assert!(
        eventually(all_told),
        "{} were read and {} dropped of {REQUESTS}",
        reading.numbers().len(),
        dropped(&edge)
    );
    let held = reading.bytes();
    assert!(held <= HELD, "{held} bytes were held");
    assert!(held > PIPE, "{held} bytes were held");

    let (before, lost) = (reading.numbers().len(), dropped(&edge));
    ask(&mut client, REQUESTS..REQUESTS + 50);
    assert!(eventually(|| reading.numbers().len() == before + 50));
    let numbers = reading.numbers();
    assert!(
        numbers.is_sorted_by(|one, next| one < next),
        "in the order of the requests"
    );
    assert_eq!(numbers[before..], (REQUESTS..REQUESTS + 50).collect::<Vec<_>>());
    assert_eq!(dropped(&edge), lost);
}

#[test]
fn a_reader_that_went_away_may_be_followed_by_another() {
    let pipe = Pipe::new("followed");
    let (edge, port) = pipe.edge();
    let mut client = Client::connect(port);
    for round in 0..3 {
        ask(&mut client, round..round + 1);
        // Opened, read from, and closed.
        let mut line = vec![0; "begin /0/ end\n".len() + FILLER.len()];
        File::open(&pipe.0).unwrap().read_exact(&mut line).unwrap();
        assert!(line.starts_with(format!("begin /{round}/x").as_bytes()) && line.ends_with(b"x end\n"));
    }
    edge.expect_flagged("-", 3);
    assert_eq!(dropped(&edge), 0);
}

#[test]
fn the_end_waits_for_a_reader_that_stalls_no_longer_than_a_second() {
    let pipe = Pipe::new("end");
    let (edge, port) = pipe.edge();
    ask(&mut Client::connect(port), 0..2 * HELD / LINE);
    assert!(dropped(&edge) > 0);
    let began = Instant::now();
    let end = std::thread::spawn(move || edge.drain(Duration::from_secs(60)));
    // With what a busy machine takes for the rest of it; without a bound it would not end at all.
    assert!(eventually(|| end.is_finished()));
    assert_eq!(end.join().unwrap().cut, 0);
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "lines may yet be taken"
    );
    // Whoever reads on gets whole lines, and then the end.
    let reading = pipe.read();
    assert!(eventually(|| reading.thread.is_finished()));
    reading.numbers();
    assert!(reading.text.lock().unwrap().ends_with(b" end\n"));
}
