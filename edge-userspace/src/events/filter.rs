//! Which samples are wanted, and how many.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use edge_datapath::DropReason;

use super::Sample;
use crate::cli::SampleArgs;

/// What a command was asked for.
#[derive(Debug)]
pub(crate) struct Filter {
    reasons: Vec<String>,
    vips: Vec<String>,
    left: Option<u64>,
    /// When it ends.
    pub(crate) until: Option<Instant>,
}

impl Filter {
    /// The filter of a command that starts now.
    ///
    /// # Errors
    /// A reason that there is not.
    pub(crate) fn new(args: &SampleArgs, now: Instant) -> Result<Self> {
        for name in &args.reason {
            if !DropReason::ALL.iter().any(|reason| reason.name() == name) {
                let names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
                bail!(
                    "--reason {name}: there is no such reason (there are: {})",
                    names.join(", ")
                );
            }
        }
        Ok(Self {
            reasons: args.reason.clone(),
            vips: args.vip.clone(),
            left: args.count,
            until: args
                .duration
                .map(|seconds| now + Duration::from_secs_f64(seconds)),
        })
    }

    /// Whether a sample is wanted, which is then counted.
    pub(crate) fn takes(&mut self, sample: &Sample) -> bool {
        let is_of = |vip: &String| {
            let has = sample.vip.as_deref().unwrap_or("none");
            // `192.0.2.1:443/tcp`, or all of `192.0.2.1`.
            has == vip
                || has
                    .rsplit_once(':')
                    .is_some_and(|(address, _)| address.trim_matches(['[', ']']) == vip)
        };
        let wanted = (self.reasons.is_empty() || self.reasons.contains(&sample.reason))
            && (self.vips.is_empty() || self.vips.iter().any(is_of));
        if wanted && let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        wanted
    }

    /// Whether it has as many as were asked for.
    pub(crate) fn is_full(&self) -> bool {
        self.left == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(reason: &[&str], vip: &[&str], count: Option<u64>) -> SampleArgs {
        SampleArgs {
            reason: reason.iter().map(ToString::to_string).collect(),
            vip: vip.iter().map(ToString::to_string).collect(),
            count,
            duration: None,
            admin: ([127, 0, 0, 1], 15000).into(),
        }
    }

    fn sample(reason: &str, vip: Option<&str>) -> Sample {
        Sample {
            time_ns: 0,
            reason: reason.into(),
            vip: vip.map(Into::into),
            interface: String::new(),
            frame_len: 0,
            packet: String::new(),
            head: String::new(),
        }
    }

    #[test]
    fn a_filter_takes_the_reasons_and_vips_that_it_names() {
        let web = Some("192.0.2.1:443/tcp");
        let rows = [
            (args(&[], &[], None), "denied", web, true),
            (args(&["denied", "land"], &[], None), "denied", web, true),
            (args(&["land"], &[], None), "denied", web, false),
            (args(&[], &["192.0.2.1:443/tcp"], None), "denied", web, true),
            (args(&[], &["192.0.2.1"], None), "denied", web, true),
            (args(&[], &["192.0.2.1:80/tcp"], None), "denied", web, false),
            (
                args(&[], &["2001:db8::1"], None),
                "denied",
                Some("[2001:db8::1]:80/udp"),
                true,
            ),
            (args(&[], &["192.0.2.1"], None), "denied", None, false),
            (args(&[], &["none"], None), "denied", None, true),
        ];
        for (args, reason, vip, expected) in rows {
            let mut filter = Filter::new(&args, Instant::now()).expect("sound");
            assert_eq!(
                filter.takes(&sample(reason, vip)),
                expected,
                "{args:?} {reason} {vip:?}"
            );
        }
    }

    #[test]
    fn a_filter_is_full_after_the_count_of_what_it_took_and_knows_the_reasons() {
        let mut filter = Filter::new(&args(&["land"], &[], Some(2)), Instant::now()).expect("sound");
        for (reason, full) in [("land", false), ("denied", false), ("land", true)] {
            filter.takes(&sample(reason, None));
            assert_eq!(filter.is_full(), full);
        }
        let error = Filter::new(&args(&["lnad"], &[], None), Instant::now()).expect_err("none of that name");
        assert!(error.to_string().contains("penalty_rate"), "{error}");
    }
}
