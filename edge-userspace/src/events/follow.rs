//! `edge events`: shows the samples of a running edge as they come.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::Sample;
use super::filter::Filter;
use crate::cli::EventsArgs;

/// Shows samples until there are enough, the time is over, or the edge ends.
///
/// # Errors
/// No edge answers at the address, or there is no reason of a name.
pub(crate) async fn run(args: &EventsArgs) -> Result<()> {
    let mut filter = Filter::new(&args.samples, Instant::now())?;
    let as_json = args.json;
    read(args.samples.admin, &mut filter, |sample| {
        let mut out = std::io::stdout().lock();
        if as_json {
            serde_json::to_writer(&mut out, sample)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", line(sample))?;
        }
        Ok(out.flush()?)
    })
    .await
}

/// A sample for people: time of day (UTC), why, where, what.
fn line(sample: &Sample) -> String {
    let seconds = sample.time_ns / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    let micros = sample.time_ns / 1000 % 1_000_000;
    format!(
        "{hours:02}:{minutes:02}:{:02}.{micros:06} {} {}: {}, {} bytes, by {}",
        seconds % 60,
        sample.interface,
        sample.reason,
        sample.packet,
        sample.frame_len,
        sample
            .vip
            .as_deref()
            .map_or_else(|| "no VIP".to_owned(), |vip| format!("VIP {vip}")),
    )
}

/// How many samples a reader that was too slow did not get.
#[derive(Deserialize)]
struct Lost {
    lost: u64,
}

/// Hands the samples that the filter takes to `each`.
pub(super) async fn read(
    admin: SocketAddr,
    filter: &mut Filter,
    mut each: impl FnMut(&Sample) -> Result<()>,
) -> Result<()> {
    let hint = "is `edge run` up, and is this its key `admin`?";
    let mut body = tokio::time::timeout(Duration::from_secs(5), connect(admin))
        .await
        .with_context(|| format!("no answer from {admin} within 5 s ({hint})"))?
        .with_context(|| format!("cannot ask {admin} ({hint})"))?;
    let mut buffer = Vec::new();
    while !filter.is_full() {
        let left = filter
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        let frame = match left {
            None => body.frame().await,
            Some(left) => match tokio::time::timeout(left, body.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Ok(()),
            },
        };
        let Some(frame) = frame else {
            eprintln!("the edge at {admin} has ended");
            return Ok(());
        };
        let Ok(data) = frame.context("the connection broke")?.into_data() else {
            continue;
        };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if let Some(sample) = parse(&line)?
                && !filter.is_full()
                && filter.takes(&sample)
            {
                each(&sample)?;
            }
        }
    }
    Ok(())
}

/// The sample in a line; empty lines have none.
fn parse(line: &[u8]) -> Result<Option<Sample>> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    if let Ok(Lost { lost }) = serde_json::from_slice(line) {
        eprintln!("{lost} samples were lost: what reads them is too slow");
        return Ok(None);
    }
    serde_json::from_slice(line)
        .map(Some)
        .context("the answer is not of this program's version")
}

async fn connect(admin: SocketAddr) -> Result<Incoming> {
    let stream = tokio::net::TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/events")
        .header("host", admin.to_string())
        .body(Empty::<bytes::Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        bail!("status {}", response.status());
    }
    Ok(response.into_body())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_why_where_and_what() {
        let sample = Sample {
            time_ns: 86_400_000_000_000 + 3_723_000_045_000,
            reason: "denied".into(),
            vip: Some("192.0.2.1:80/tcp".into()),
            interface: "eth0".into(),
            frame_len: 64,
            packet: "tcp 198.51.100.1:9 > 192.0.2.1:80 SYN".into(),
            head: String::new(),
        };
        assert_eq!(
            line(&sample),
            "01:02:03.000045 eth0 denied: tcp 198.51.100.1:9 > 192.0.2.1:80 SYN, 64 bytes, by VIP 192.0.2.1:80/tcp"
        );
        let text = serde_json::to_vec(&sample).expect("plain values");
        assert_eq!(parse(&text).expect("a sample"), Some(sample));
        assert_eq!(parse(b"\n").expect("nothing"), None);
        assert_eq!(parse(b"{\"lost\":3}\n").expect("a note"), None);
        assert!(parse(b"{\"reason\":3}\n").is_err());
    }
}
