//! `edge-pktgen`: sends minimal frames from an interface of a lab as fast as one core can.
//!
//! A BPF program makes each frame and redirects it to the interface; the kernel runs it on live frames
//! (BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES), which enter the wire as a driver's would. It works in the
//! namespace it is started in, and only on virtual Ethernet pairs, so that it can flood no network.
#![forbid(unsafe_code)]

mod link;
mod sender;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use edge_common::pktgen::Settings;
use edge_common::{TCP, UDP};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::link::{Link, Mac};
use crate::sender::{Sender, Sent};

/// Sends minimal frames from a virtual Ethernet interface of a lab.
#[derive(Debug, Parser)]
#[command(
    name = "edge-pktgen",
    after_help = "Example:\n  edge-pktgen --interface client0 --kind syn --src-base 198.18.0.1 --src-count 256 \\\n    --dst 10.77.100.1 --dst-port 80 --seconds 2 --json"
)]
struct Arguments {
    /// Interface that the frames leave from; it must be one end of a veth pair.
    #[arg(long)]
    interface: String,
    /// TCP segments with SYN, or UDP datagrams.
    #[arg(long)]
    kind: Kind,
    /// First source address.
    #[arg(long)]
    src_base: Ipv4Addr,
    /// Number of source addresses, from the first on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    src_count: u32,
    /// Destination address.
    #[arg(long)]
    dst: Ipv4Addr,
    /// Destination port.
    #[arg(long)]
    dst_port: u16,
    /// Destination MAC address; `auto` asks the kernel for the next hop's.
    #[arg(long, default_value = "auto")]
    dst_mac: String,
    /// Time to send for, in seconds, unless SIGINT or SIGTERM ends it before.
    #[arg(long)]
    seconds: f64,
    /// Frames per second; as many as possible if it is not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pps: Option<u32>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Syn,
    Udp,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(sent) => {
            report(&sent, arguments.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("edge-pktgen: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Sent> {
    ensure!(
        arguments.seconds > 0.0 && arguments.seconds <= 600.0,
        "--seconds must be above 0, at most 600"
    );
    let link = Link::find(&arguments.interface)?;
    let destination_mac = match arguments.dst_mac.as_str() {
        "auto" => link.next_hop(arguments.dst)?,
        text => Mac::parse(text)?,
    };
    let settings = Settings {
        interface: link.index,
        source_base: arguments.src_base.into(),
        source_count: arguments.src_count,
        destination: arguments.dst.into(),
        destination_port: arguments.dst_port,
        protocol: match arguments.kind {
            Kind::Syn => TCP,
            Kind::Udp => UDP,
        },
        destination_mac: destination_mac.0,
        source_mac: link.mac.0,
        padding: [0],
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut sender = Sender::load(&settings)?;
    let before = link.transmit_drops()?;
    let mut sent = sender.send(Duration::from_secs_f64(arguments.seconds), arguments.pps, &stop)?;
    sent.lost = link.transmit_drops()?.saturating_sub(before);
    ensure!(
        sent.on_the_wire() > 0,
        "no frame left {}: is its peer up, with XDP or GRO?",
        arguments.interface
    );
    Ok(sent)
}

fn report(sent: &Sent, as_json: bool) {
    let seconds = sent.time.as_secs_f64();
    let frames = sent.on_the_wire();
    let pps = (frames as f64 / seconds) as u64;
    if as_json {
        println!(
            "{}",
            json!({ "sent": frames, "lost": sent.lost, "seconds": seconds, "pps": pps })
        );
    } else {
        println!(
            "{frames} frames in {seconds:.2} s, {pps} per second; {} more did not fit the ring",
            sent.lost
        );
    }
}
