//! What clients that mean ill cost the others: response times of a good client beside one that floods, stalls or drips,
//! and whether that one is cut. It is run by hand against a proxy that runs already:
//!
//! `cargo run --release -p edge-bench-proxy -- abuse --to 127.0.0.1:8080`

mod cases;
mod frames;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use cases::{CASES, Case, Outcome, What};

/// Pause of the good client between a response and its next request.
const PAUSE: Duration = Duration::from_millis(4);

/// What the good client waits for a response before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which proxy, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A plain-text port that speaks HTTP/1.1 and HTTP/2, where GET and POST of `/` are answered with 200.
    #[arg(long)]
    to: SocketAddr,
    /// Authority of the requests.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// Path of a large response, for clients that do not take it.
    #[arg(long, default_value = crate::backend::LARGE_PATH)]
    large: String,
    /// Seconds for each flood; clients that are slow get ten times as many, as timeouts are to cut them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only this case; may be repeated.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Where abusers go, and what they ask for.
#[derive(Debug, Clone)]
struct Target {
    address: SocketAddr,
    host: String,
    large: String,
}

/// How a good client fares.
struct Fared {
    requests: usize,
    failed: usize,
    /// Milliseconds.
    median: f64,
    p99: f64,
    worst: f64,
}

/// Runs the cases.
pub(crate) fn run(args: &Args) -> Result<()> {
    for name in &args.cases {
        let is_known = CASES.iter().any(|case| case.name == name);
        ensure!(is_known, "there is no case {name}");
    }
    let target = Target {
        address: args.to,
        host: args.host.clone(),
        large: args.large.clone(),
    };
    let wanted = CASES
        .iter()
        .filter(|case| args.cases.is_empty() || args.cases.iter().any(|name| name == case.name));
    for case in wanted {
        let seconds = match case.what {
            What::Nothing | What::Flood { .. } => args.seconds,
            What::Hold { .. } => 10 * args.seconds,
        };
        let end = Instant::now() + Duration::from_secs(seconds.into());
        let (fared, outcome) = std::thread::scope(|scope| {
            let good = scope.spawn(|| probe(&target, end));
            let outcome = case.run(&target, end);
            (good.join(), outcome)
        });
        let fared = fared.map_err(|_| anyhow::anyhow!("the good client has panicked"))??;
        print(args.json, case, &fared, &outcome);
    }
    Ok(())
}

/// Asks again and again, one request at a time.
fn probe(target: &Target, end: Instant) -> Result<Fared> {
    let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", target.host);
    let (mut times, mut failed) = (Vec::new(), 0);
    let mut kept = None;
    while Instant::now() < end {
        let begin = Instant::now();
        match ask(&mut kept, target.address, &request) {
            Ok(true) => {}
            Ok(false) => failed += 1,
            Err(_) => {
                failed += 1;
                kept = None;
            }
        }
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(PAUSE);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        // A share of a length is an index, and none is beyond the last.
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).copied()
    };
    Ok(Fared {
        requests: times.len(),
        failed,
        median: at(0.5).context("no request was made")?,
        p99: at(0.99).unwrap_or(0.0),
        worst: at(1.0).unwrap_or(0.0),
    })
}

/// Whether the answer is 200.
fn ask(kept: &mut Option<TcpStream>, address: SocketAddr, request: &str) -> std::io::Result<bool> {
    let stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            kept.insert(stream)
        }
    };
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..length]);
        if let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n")
            && answer.len() >= head + 4 + content_length(&answer[..head])
        {
            return Ok(answer.starts_with(b"HTTP/1.1 200"));
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn print(as_json: bool, case: &Case, fared: &Fared, outcome: &Outcome) {
    if as_json {
        let line = json!({
            "case": case.name,
            "requests": fared.requests,
            "failed": fared.failed,
            "median_ms": fared.median,
            "p99_ms": fared.p99,
            "worst_ms": fared.worst,
            "connections": outcome.opened,
            "cut": outcome.cut,
            "left": outcome.left,
            "first_cut_seconds": outcome.first_cut.map(|time| time.as_secs_f64()),
        });
        println!("{line}");
        return;
    }
    let first = outcome
        .first_cut
        .map_or("-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()));
    println!(
        "{:20} {:6} requests, {} failed, median {:7.2} p99 {:7.2} worst {:7.2} ms; {} connections, {} cut, {} left, first \
         after {first}",
        case.name,
        fared.requests,
        fared.failed,
        fared.median,
        fared.p99,
        fared.worst,
        outcome.opened,
        outcome.cut,
        outcome.left,
    );
}
