//! Samples of dropped packets: how a running edge hands them out, and the commands that show and keep them.
//!
//! The data path's ring buffer has one reader, the running edge, which hands every sample to whoever asks its admin
//! address for `/events`. So readers do not take samples from each other, and need neither root nor the pins.

mod capture;
mod decode;
mod filter;
mod follow;
mod stream;

pub(crate) use capture::run as capture;
pub(crate) use follow::run as follow;
pub(crate) use stream::{Samples, body};

use std::time::Duration;

use edge_datapath::DropEvent;
use serde::{Deserialize, Serialize};

/// A dropped packet, as a line of `/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// When: nanoseconds since 1970.
    pub(crate) time_ns: u64,
    /// Name of the reason.
    pub(crate) reason: String,
    /// The VIP that it was for, where that is known.
    pub(crate) vip: Option<String>,
    /// Interface that received it.
    pub(crate) interface: String,
    /// Length of the frame, in bytes.
    pub(crate) frame_len: u32,
    /// What is in it, in a line, as far as it can be read.
    pub(crate) packet: String,
    /// The frame from its Ethernet header on, as far as it was kept, in hexadecimal digits.
    pub(crate) head: String,
}

impl Sample {
    /// The sample of an event of the data path, `now` after 1970.
    pub(crate) fn new(event: &DropEvent, now: Duration) -> Self {
        let time = now.saturating_sub(event.age);
        Self {
            time_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            reason: event.reason.name().to_owned(),
            vip: event.vip.map(|vip| vip.to_string()),
            interface: event.interface.clone(),
            frame_len: event.frame_len,
            packet: decode::line(&event.head),
            head: event.head.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The bytes of the frame that were kept; `None` if `head` is not what this program writes.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let digits = self.head.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_time_of_day_and_keeps_its_bytes() {
        let event = DropEvent {
            age: Duration::from_secs(10),
            reason: edge_datapath::DropReason::Denied,
            vip: None,
            interface: "eth0".to_owned(),
            frame_len: 64,
            head: vec![0, 1, 0xfe, 0xff],
        };
        let sample = Sample::new(&event, Duration::from_secs(1_000_000));
        assert_eq!(sample.time_ns, 999_990_000_000_000);
        assert_eq!(
            (sample.head.as_str(), sample.bytes()),
            ("0001feff", Some(event.head))
        );
        let text = serde_json::to_string(&sample).expect("plain values");
        assert_eq!(
            serde_json::from_str::<Sample>(&text).expect("its own text"),
            sample
        );
        assert_eq!(
            Sample {
                head: "0g".into(),
                ..sample
            }
            .bytes(),
            None
        );
    }
}
