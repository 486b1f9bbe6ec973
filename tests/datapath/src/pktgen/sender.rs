//! The generator's program, and running it at a rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use edge_common::pktgen::{self, FRAME_LEN, Progress, Settings};
use edge_datapath::object;

/// Frames that the kernel makes room for at once: the largest batch it takes (`TEST_XDP_MAX_BATCH` is 256; its
/// default is 64, which leaves room in a veth's ring of 256).
const BATCH: u32 = 64;
/// Length of one call. Setting one up costs up to 30 ms, so a shorter one would waste much of its time.
const CALL: Duration = Duration::from_millis(100);
/// Rate that calls are planned with until one has been timed.
const FIRST_GUESS: f64 = 200_000.0;

/// The loaded generator.
pub(crate) struct Sender {
    ebpf: Ebpf,
    progress: PerCpuArray<MapData, Progress>,
}

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Frames that the program made.
    pub(crate) made: u64,
    /// Frames that the interface refused.
    pub(crate) lost: u64,
    /// How long it took.
    pub(crate) time: Duration,
}

impl Sent {
    /// Frames that the peer was given.
    pub(crate) fn on_the_wire(&self) -> u64 {
        self.made.saturating_sub(self.lost)
    }
}

impl Sender {
    pub(crate) fn load(settings: &Settings) -> Result<Self> {
        let mut ebpf = Ebpf::load(object::PKTGEN).context("loading the generator needs root")?;
        let map = ebpf
            .take_map(pktgen::SETTINGS)
            .context("the object has no settings")?;
        let mut map = Array::<MapData, Settings>::try_from(map)?;
        map.set(0, settings, 0)?;
        let progress = ebpf
            .take_map(pktgen::PROGRESS)
            .context("the object has no counter")?
            .try_into()?;
        program(&mut ebpf)?.load()?;
        Ok(Self { ebpf, progress })
    }

    /// Sends for a time, at a rate or as fast as it goes, until it is told to stop.
    pub(crate) fn send(&mut self, time: Duration, pps: Option<u32>, stop: &AtomicBool) -> Result<Sent> {
        let start = Instant::now();
        let mut speed = FIRST_GUESS;
        let mut planned = 0_u64;
        while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let frames = match pps {
                // What should have been sent by the end of this call, but for what has been.
                Some(pps) => {
                    let end = (start.elapsed() + CALL).min(time);
                    ((f64::from(pps) * end.as_secs_f64()) as u64).saturating_sub(planned)
                }
                None => (speed * left.min(CALL).as_secs_f64()) as u64,
            };
            let call = Instant::now();
            if frames > 0 {
                match self.call(frames.min(u64::from(u32::MAX)) as u32) {
                    // The signal that stops it ends the call, too.
                    Err(_) if stop.load(Ordering::Relaxed) => break,
                    result => result?,
                }
                speed = (frames as f64 / call.elapsed().as_secs_f64()).max(1000.0);
            }
            planned += frames;
            if pps.is_some() {
                thread::sleep(
                    CALL.saturating_sub(call.elapsed())
                        .min(time.saturating_sub(start.elapsed())),
                );
            }
        }
        Ok(Sent {
            made: self.made()?,
            lost: 0,
            time: start.elapsed(),
        })
    }

    fn call(&mut self, frames: u32) -> Result<()> {
        let template = [0; FRAME_LEN];
        let options = TestRunOptions {
            data_in: Some(&template),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..Default::default()
        };
        program(&mut self.ebpf)?
            .test_run(options)
            .context("sending live frames")?;
        Ok(())
    }

    fn made(&self) -> Result<u64> {
        let counts = self.progress.get(&0, 0)?;
        Ok(counts.iter().map(|progress| progress.frames).sum())
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf
        .program_mut(pktgen::PROGRAM)
        .context("the object has no program")?;
    Ok(program.try_into()?)
}
