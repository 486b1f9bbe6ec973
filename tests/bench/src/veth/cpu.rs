//! How busy the cores are.

use std::fmt;
use std::fs;

use anyhow::{Context as _, Result};

/// Ticks of each core, idle and in all.
#[derive(Debug, Clone)]
pub(crate) struct Ticks(Vec<(u64, u64)>);

/// Busy share of each core, from 0 to 1.
#[derive(Debug, Clone)]
pub(crate) struct Load(pub(crate) Vec<f64>);

impl Ticks {
    /// Of now (proc_stat(5)).
    pub(crate) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let cores = text.lines().filter_map(|line| {
            let (name, values) = line.split_once(' ')?;
            let is_core = name.strip_prefix("cpu").is_some_and(|number| !number.is_empty());
            is_core.then_some(values)
        });
        let ticks = |values: &str| {
            let values: Vec<u64> = values
                .split_whitespace()
                .filter_map(|value| value.parse().ok())
                .collect();
            // The fourth is idle, the fifth waits for input and output; guests are counted in user time.
            let idle = values.iter().skip(3).take(2).sum();
            (idle, values.iter().take(8).sum())
        };
        Self(cores.map(ticks).collect())
    }

    /// The load since then.
    pub(crate) fn load(&self, now: &Self) -> Load {
        let busy = |(&(idle, all), &(idle_now, all_now)): (&(u64, u64), &(u64, u64))| {
            let all = (all_now.saturating_sub(all)).max(1) as f64;
            1.0 - idle_now.saturating_sub(idle) as f64 / all
        };
        Load(self.0.iter().zip(&now.0).map(busy).collect())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = self.0.iter().enumerate();
        let cores: Vec<_> = cores
            .map(|(core, busy)| format!("{core}: {:.0} %", busy * 100.0))
            .collect();
        f.write_str(&cores.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_what_is_neither_idle_nor_waiting() {
        let ticks = |user: u32, idle: u32| {
            Ticks::parse(&format!(
                "cpu 1 1 1 1\ncpu0 {user} 0 0 {idle} 0 0 0 0 5 5\nintr 3\n"
            ))
        };
        let load = ticks(10, 10).load(&ticks(40, 20));
        assert_eq!(load.0, [0.75]);
        assert_eq!(load.to_string(), "0: 75 %");
    }
}
