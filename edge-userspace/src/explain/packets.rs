//! `edge explain packets`.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use edge_datapath::{Explainer, Explanation};
use serde::{Deserialize, Serialize};

use crate::cli::ExplainPacketsArgs;
use crate::config;
use crate::failure::Failure;

/// Longest frame that is read, in bytes; the kernel runs the program on a page at most.
const LONGEST: usize = 9216;

/// One line of the input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    hex: String,
}

/// A packet to explain.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    name: String,
    frame: Vec<u8>,
}

/// One line of the output.
#[derive(Debug, Serialize)]
struct Answer<'p> {
    name: &'p str,
    action: &'static str,
    reason: &'static str,
    vip: Option<String>,
    worker: Option<u16>,
    /// The worker's pool, name and address, if it is a pool's.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    /// Of a forwarded packet: how its worker was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<&'static str>,
    hex: String,
}

/// Explains every packet of the file, in order.
pub(crate) fn run(args: &ExplainPacketsArgs) -> Result<(), Failure> {
    let loaded = config::load(&args.config)?;
    // All are read before the first is run: a mistake at the end should not cost the state of a bucket.
    let packets = read(&args.input).map_err(Failure::WrongInput)?;
    let answers = || -> Result<()> {
        let mut explainer = Explainer::load()?;
        explainer.configure(&loaded.snapshot.datapath)?;
        explainer.set_interfaces(&loaded.bootstrap.interfaces)?;
        let mut out = std::io::stdout().lock();
        for packet in &packets {
            let explanation = explainer
                .run(&packet.frame)
                .with_context(|| format!("packet {:?} cannot be run", packet.name))?;
            writeln!(
                out,
                "{}",
                serde_json::to_string(&Answer::new(packet, &explanation))?
            )?;
        }
        Ok(())
    };
    answers().map_err(Failure::CannotBeDone)
}

impl<'p> Answer<'p> {
    fn new(packet: &'p Packet, explanation: &Explanation) -> Self {
        Self {
            name: &packet.name,
            action: explanation.action.name(),
            reason: explanation.reason,
            vip: explanation.vip.map(|vip| vip.to_string()),
            worker: explanation.worker.map(|worker| worker.0),
            member: explanation.member.as_ref().map(ToString::to_string),
            flow: explanation.flow,
            hex: encode(&explanation.packet_out),
        }
    }
}

fn read(path: &Path) -> Result<Vec<Packet>> {
    if path == Path::new("-") {
        return parse(std::io::stdin().lock());
    }
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(BufReader::new(file)).with_context(|| path.display().to_string())
}

/// Every line that is not blank.
fn parse(input: impl BufRead) -> Result<Vec<Packet>> {
    let mut packets = Vec::new();
    for (number, line) in (1..).zip(input.lines()) {
        let line = line.with_context(|| format!("line {number}"))?;
        if !line.trim().is_empty() {
            packets.push(packet(&line).with_context(|| format!("line {number}"))?);
        }
    }
    Ok(packets)
}

fn packet(line: &str) -> Result<Packet> {
    let Line { name, hex } =
        serde_json::from_str(line).context("not an object of the form {\"name\":\"...\",\"hex\":\"...\"}")?;
    let frame = decode(&hex)?;
    if frame.len() > LONGEST {
        bail!("the frame has {} bytes, at most {LONGEST} are taken", frame.len());
    }
    Ok(Packet { name, frame })
}

/// Bytes of hexadecimal digits; white space and colons between them do not count.
fn decode(hex: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = hex
        .chars()
        .filter(|c| !c.is_ascii_whitespace() && *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .with_context(|| format!("{hex:?} has something else than hexadecimal digits"))?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        bail!("{hex:?} has an odd number of digits");
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_line_by_line() {
        let text = "{\"name\":\"a\",\"hex\":\"00ff\"}\n\n{\"name\":\"empty\",\"hex\":\"\"}\n{\"name\":\"c\",\"hex\":\"01:0A 0b\"}";
        let packets = parse(text.as_bytes()).unwrap();
        let frames: Vec<_> = packets.iter().map(|packet| encode(&packet.frame)).collect();
        assert_eq!(frames, ["00ff", "", "010a0b"]);
    }

    #[test]
    fn a_wrong_line_is_named_with_its_reason() {
        for (line, reason) in [
            ("{\"name\":\"a\",\"hex\":\"0\"}", "odd number"),
            ("{\"name\":\"a\",\"hex\":\"0g\"}", "hexadecimal"),
            ("{\"name\":\"a\"}", "not an object"),
            ("nonsense", "not an object"),
        ] {
            let error = format!("{:#}", parse(format!("\n{line}\n").as_bytes()).unwrap_err());
            assert!(error.starts_with("line 2") && error.contains(reason), "{error}");
        }
    }
}
