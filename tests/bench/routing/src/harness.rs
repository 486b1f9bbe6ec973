//! Criterion with the processor's time: what other processes do on the machine does not count.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tempfile::TempDir;

/// Criterion needs this many samples to tell anything about their spread.
pub(crate) const FEWEST_SAMPLES: usize = 10;
/// Time for a case's samples, if each of them is short.
const MEASURED: Duration = Duration::from_millis(1500);
const WARM_UP: Duration = Duration::from_millis(300);
/// The same when it matters only that every case can be measured.
const QUICKLY: Duration = Duration::from_millis(10);

/// Measures cases, and gives the median of the samples.
pub(crate) struct Harness {
    criterion: Criterion<ProcessorTime>,
    folder: TempDir,
}

impl Harness {
    pub(crate) fn new(samples: usize, is_quick: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (warm_up, measured) = if is_quick {
            (QUICKLY, QUICKLY)
        } else {
            (WARM_UP, MEASURED)
        };
        let criterion = Criterion::default()
            .with_measurement(ProcessorTime)
            .without_plots()
            .output_directory(folder.path())
            .warm_up_time(warm_up)
            .measurement_time(measured)
            .sample_size(samples);
        Ok(Self { criterion, folder })
    }

    /// Nanoseconds of one pass of what `bench` iterates.
    pub(crate) fn measure(
        &mut self,
        name: &str,
        bench: impl FnMut(&mut criterion::Bencher<'_, ProcessorTime>),
    ) -> Result<f64> {
        self.criterion.bench_function(name, bench);
        median(&self.folder.path().join(name).join("new").join("estimates.json"))
    }
}

/// The median that criterion has written down.
fn median(path: &Path) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("criterion left no {}", path.display()))?;
    let estimates: Value = serde_json::from_str(&text)?;
    let median = estimates["median"]["point_estimate"].as_f64();
    median.context("criterion gave no median")
}

/// What criterion says while it measures goes to the standard error, so that the report alone is on the standard
/// output, whose descriptor is the result.
pub(crate) fn set_output_aside() -> Result<impl std::io::Write> {
    std::io::stdout().flush()?;
    let output = rustix::io::dup(std::io::stdout())?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(fs::File::from(output))
}

/// Processor time of the thread.
pub(crate) struct ProcessorTime;

impl Measurement for ProcessorTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(now).unwrap_or_default()
    }

    fn end(&self, start: Duration) -> Duration {
        self.start().saturating_sub(start)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_secs_f64() * 1e9
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Nanoseconds
    }
}

struct Nanoseconds;

impl ValueFormatter for Nanoseconds {
    fn scale_values(&self, _: f64, _: &mut [f64]) -> &'static str {
        "ns"
    }

    fn scale_throughputs(&self, _: f64, _: &Throughput, _: &mut [f64]) -> &'static str {
        "ns"
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ns"
    }
}
