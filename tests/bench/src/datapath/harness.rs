//! Running programs on the packets of a case.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use edge_common::bench::{self, HEAD_WORDS, Settings, State};
use edge_common::verdict::ReplyReason;
use edge_datapath::{Stats, object};

use crate::cases::{Case, Fate};
use crate::frame;

/// How long one run of a program takes, about: long against its set-up, short against the machine's moods.
const RUN: Duration = Duration::from_millis(8);
/// Packets of the run that finds out how many fit into [`RUN`].
const TRIAL: u32 = 20_000;

/// The harness program, and the floors.
pub(crate) struct Harness {
    ebpf: Ebpf,
    settings: Array<MapData, Settings>,
    state: Array<MapData, State>,
    target: ProgramArray<MapData>,
    frame: Vec<u8>,
}

/// Medians, in nanoseconds a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    /// The program under test.
    pub(crate) ns: f64,
    /// The program that parses and drops.
    pub(crate) floor_ns: f64,
    /// The program that drops at once.
    pub(crate) drop_ns: f64,
    /// The program that parses, has the kernel make a SYN cookie, and drops; of cases that are answered with one.
    pub(crate) cookie_ns: Option<f64>,
}

impl Harness {
    /// Loads harness and floors.
    pub(crate) fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(object::BENCH).context("loading the harness needs root")?;
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("the object has no map {name}"))
        };
        let (settings, state, target) = (map(bench::SETTINGS)?, map(bench::STATE)?, map(bench::TARGET)?);
        for name in [
            bench::PROGRAM,
            bench::DROP_AT_ONCE,
            bench::PARSE_AND_DROP,
            bench::COOKIE_AND_DROP,
        ] {
            program(&mut ebpf, name)?.load()?;
        }
        Ok(Self {
            settings: settings.try_into()?,
            state: state.try_into()?,
            target: target.try_into()?,
            frame: Vec::new(),
            ebpf,
        })
    }

    /// Measures a case: warm-up, then rounds in which program and floors take turns. `flows` is what the connection table
    /// has room for.
    pub(crate) fn measure(&mut self, case: &Case, rounds: u32, flows: u32) -> Result<Figures> {
        let mut tier_1 = case.load(flows)?;
        self.write_settings(case)?;
        let program = tier_1.program()?.try_clone()?;
        self.warm_up(case, &program)?;
        let (before, start) = (tier_1.stats()?, Instant::now());
        let trial = self.run(&program, TRIAL)?;
        let repeat = (RUN.as_nanos() as f64 / trial).clamp(1000.0, 1e6) as u32;
        let floor = program_fd(&mut self.ebpf, bench::PARSE_AND_DROP)?;
        let drop = program_fd(&mut self.ebpf, bench::DROP_AT_ONCE)?;
        let is_answered = case.fate == Fate::Reply(ReplyReason::SynCookie);
        let cookie = is_answered
            .then(|| program_fd(&mut self.ebpf, bench::COOKIE_AND_DROP))
            .transpose()?;
        let (mut own, mut floors, mut drops) = (Vec::new(), Vec::new(), Vec::new());
        let mut cookies = Vec::new();
        for _ in 0..rounds {
            floors.push(self.run(&floor, repeat)?);
            own.push(self.run(&program, repeat)?);
            drops.push(self.run(&drop, repeat)?);
            if let Some(cookie) = &cookie {
                cookies.push(self.run(cookie, repeat)?);
            }
        }
        let measured = u64::from(repeat) * u64::from(rounds) + u64::from(TRIAL);
        check(case, &before, &tier_1.stats()?, measured, start.elapsed())?;
        Ok(Figures {
            ns: median(own),
            floor_ns: median(floors),
            drop_ns: median(drops),
            cookie_ns: cookie.map(|_| median(cookies)),
        })
    }

    fn write_settings(&mut self, case: &Case) -> Result<()> {
        self.frame = frame::build(case.traffic.kind, case.traffic.is_v6);
        let mut head = [0; HEAD_WORDS];
        for (word, bytes) in head.iter_mut().zip(self.frame.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        ensure!(case.traffic.flows.is_power_of_two(), "flows are masked");
        let settings = Settings {
            head,
            flows: case.traffic.flows,
            len: u32::try_from(self.frame.len())?,
            is_v6: u32::from(case.traffic.is_v6),
            source: case.traffic.source,
            destination: case.traffic.destination,
            destinations: case.traffic.destinations,
            padding: 0,
        };
        self.settings.set(0, settings, 0)?;
        self.state.set(0, State::default(), 0)?;
        Ok(())
    }

    /// Sends the packets that bring the maps to where they are in lasting operation.
    fn warm_up(&mut self, case: &Case, program: &ProgramFd) -> Result<()> {
        let (mut left, start) = (case.warm_up, Instant::now());
        while left > 0 {
            let part = left.min(1_000_000) as u32;
            self.run(program, part)?;
            left -= u64::from(part);
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "the warm-up takes too long"
            );
        }
        Ok(())
    }

    /// Runs a program on the next packets: nanoseconds for each.
    fn run(&mut self, program: &ProgramFd, repeat: u32) -> Result<f64> {
        self.target.set(0, program, 0)?;
        let state = self.state.get(&0, 0)?;
        // The kernel lays the frame somewhere else each time.
        self.state.set(0, State { home: 0, ..state }, 0)?;
        let result = self::program(&mut self.ebpf, bench::PROGRAM)?.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            repeat,
            ..Default::default()
        })?;
        ensure!(result.return_value != 0, "the program aborted");
        let done = self.state.get(&0, 0)?.sequence - state.sequence;
        ensure!(done == u64::from(repeat), "{done} of {repeat} packets were run");
        Ok(result.duration.as_nanos() as f64)
    }
}

/// Refuses a figure whose packets did not all meet the fate that the case is about.
fn check(case: &Case, before: &Stats, after: &Stats, packets: u64, time: Duration) -> Result<()> {
    let count = |stats: &Stats| match case.fate {
        Fate::Deliver => stats
            .workers
            .iter()
            .map(|worker| worker.traffic.packets)
            .sum::<u64>(),
        Fate::Forward => stats
            .members
            .iter()
            .map(|member| member.traffic.packets)
            .sum::<u64>(),
        Fate::Pass(reason) => stats
            .passed
            .iter()
            .filter(|(of, _)| *of == reason)
            .map(|(_, count)| count)
            .sum(),
        Fate::Drop(reason) => stats.dropped_for(reason),
        Fate::Reply(reason) => stats.replied_with(reason),
    };
    let met = count(after) - count(before);
    let allowed = match case.fate {
        Fate::Reply(_) => time.as_secs() + 2,
        Fate::Deliver | Fate::Forward | Fate::Pass(_) | Fate::Drop(_) => 0,
    };
    ensure!(
        met <= packets && packets - met <= allowed,
        "{met} of {packets} packets met the fate {:?}",
        case.fate
    );
    Ok(())
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn program_fd(ebpf: &mut Ebpf, name: &str) -> Result<ProgramFd> {
    Ok(program(ebpf, name)?.fd()?.try_clone()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
