//! `edge capture`: keeps the samples of a running edge as packets that tcpdump and Wireshark read.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, TsResolution};

use super::Sample;
use super::filter::Filter;
use super::follow::read;
use crate::cli::CaptureArgs;

/// Longest packet that a file may tell of, as tcpdump has it. Readers refuse packets that are longer, even cut off.
const SNAP_LEN: u32 = 262_144;

/// Writes samples until there are enough, the time is over, the edge ends, or Ctrl-C.
///
/// # Errors
/// No edge answers at the address, there is no reason of a name, or the file cannot be written.
pub(crate) async fn run(args: &CaptureArgs) -> Result<()> {
    let mut filter = Filter::new(&args.samples, Instant::now())?;
    let path = &args.out;
    let name = path.display();
    // Without a buffer: whoever reads a pipe, or ends the command, has what came until then.
    let out = if path.as_os_str() == "-" {
        std::io::stdout().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::create(path)
    };
    let out = out.with_context(|| format!("cannot write {name}"))?;
    let mut file = Capture::new(out).with_context(|| format!("cannot write {name}"))?;
    let reading = read(args.samples.admin, &mut filter, |sample| {
        file.add(sample).with_context(|| format!("cannot write {name}"))
    });
    tokio::select! {
        outcome = reading => outcome?,
        _ = tokio::signal::ctrl_c() => {}
    }
    eprintln!("{} packets written to {name}", file.packets);
    Ok(())
}

/// A file of packets (the classic format of libpcap, times in nanoseconds).
struct Capture<W: Write> {
    writer: PcapWriter<W>,
    packets: u64,
}

impl<W: Write> Capture<W> {
    fn new(out: W) -> Result<Self> {
        let header = PcapHeader {
            snaplen: SNAP_LEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(out, header)?;
        Ok(Self { writer, packets: 0 })
    }

    /// Writes one packet.
    fn add(&mut self, sample: &Sample) -> Result<()> {
        let bytes = sample.bytes().context("the sample's bytes are not hexadecimal")?;
        self.writer.write_packet(&PcapPacket {
            timestamp: Duration::from_nanos(sample.time_ns),
            orig_len: sample.frame_len,
            data: Cow::Owned(bytes),
        })?;
        self.packets += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcap::PcapReader;

    use super::*;

    #[test]
    fn a_capture_has_the_packets_with_time_and_length() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).expect("memory");
        let sample = Sample {
            time_ns: 1_700_000_000_123_456_789,
            reason: "land".into(),
            vip: None,
            interface: "eth0".into(),
            frame_len: 1500,
            packet: String::new(),
            head: "00010203".into(),
        };
        capture.add(&sample).expect("memory");
        assert!(
            capture
                .add(&Sample {
                    head: "xy".into(),
                    ..sample
                })
                .is_err()
        );
        let mut reader = PcapReader::new(&file[..]).expect("a header");
        assert_eq!(reader.header().snaplen, SNAP_LEN);
        let packet = reader.next_packet().expect("one").expect("sound");
        assert_eq!(packet.timestamp, Duration::from_nanos(1_700_000_000_123_456_789));
        assert_eq!((packet.orig_len, packet.data.as_ref()), (1500, &[0, 1, 2, 3][..]));
        assert!(reader.next_packet().is_none());
    }
}
