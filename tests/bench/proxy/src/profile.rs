//! Where the instructions of a request go, function by function, as callgrind counts them.
//!
//! Two runs of different length are subtracted from each other, so that what connections cost falls out. The counts hardly
//! depend on what else the machine does; what comes by time and not by requests (timers) is in them, too.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use edge_lab::output;

use crate::peer::Kind;
use crate::site::Site;

/// Functions that are shown, by what they cost; the rest is one line.
const SHOWN: usize = 40;

/// What allocates, by the names that callgrind gives it.
const ALLOCATING: [&str; 3] = ["malloc", "calloc", "realloc"];

/// Requests before anything is counted: pools and caches are filled by then.
const WARM_UP: u32 = 300;

/// Requests of the two runs.
const COUNTED: [u32; 2] = [300, 2300];

/// How long a proxy has for what it does after it has begun to listen.
const SETTLING: Duration = Duration::from_secs(1);

/// A program that is run by callgrind.
pub(crate) struct Counting {
    /// Its counts go to files of this name and a number.
    file: PathBuf,
}

impl Counting {
    pub(crate) fn new(site: &Site, kind: Kind) -> Self {
        Self {
            file: site.folder().join(format!("callgrind.{}", kind.name())),
        }
    }

    /// What the program is to be run by. Names are written out, and nothing is counted yet.
    pub(crate) fn command(&self) -> [String; 6] {
        let file = format!("--callgrind-out-file={}", self.file.display());
        [
            "valgrind",
            "--tool=callgrind",
            &file,
            "--compress-strings=no",
            "--collect-systime=yes",
            "--instr-atstart=no",
        ]
        .map(str::to_owned)
    }

    /// What a request costs, where `load` makes so many requests to the process `pid`.
    pub(crate) fn run(&self, pid: u32, load: impl Fn(u32) -> Result<()>) -> Result<Profile> {
        std::thread::sleep(SETTLING);
        let control = |action: &str| {
            let mut control = Command::new("callgrind_control");
            output(control.args([action, &pid.to_string()])).map(drop)
        };
        control("--instr=on")?;
        let mut runs = Vec::new();
        for (number, requests) in (1..).zip([WARM_UP].into_iter().chain(COUNTED)) {
            load(requests)?;
            // Which begins to count anew.
            control("--dump")?;
            let file = self.file.with_added_extension(number.to_string());
            let text = std::fs::read_to_string(&file).context("callgrind wrote no file")?;
            runs.push(Profile::parse(&text)?);
        }
        let [few, many] = COUNTED;
        let longer = runs.pop().unwrap_or_default();
        let shorter = runs.pop().unwrap_or_default();
        Ok(longer.less(&shorter, many - few))
    }
}

/// What a function has cost by itself.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Cost {
    instructions: f64,
    /// How often it was called.
    calls: f64,
    /// How often it entered the kernel.
    system_calls: f64,
}

/// What enters the kernel under valgrind only, which has no vDSO (vdso(7)).
const CLOCK: &str = "clock_gettime";

/// What each function has cost in a run, or for a request.
#[derive(Debug, Default)]
pub(crate) struct Profile(HashMap<String, Cost>);

impl Profile {
    /// Reads callgrind's file (valgrind manual, "Callgrind Format Specification").
    ///
    /// # Errors
    /// When it does not say what it counts.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let events = text.lines().find_map(|line| line.strip_prefix("events: "));
        let events: Vec<_> = events
            .context("callgrind's file has no events")?
            .split(' ')
            .collect();
        let place = |name| events.iter().position(|event| *event == name);
        let (instructions, system_calls) = (place("Ir").context("no instructions")?, place("sysCount"));
        let mut costs: HashMap<String, Cost> = HashMap::new();
        let (mut function, mut callee, mut is_callees) = ("", "", false);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = name;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let count = calls
                    .split(' ')
                    .next()
                    .and_then(|count| count.parse::<f64>().ok());
                costs.entry(plain(callee)).or_default().calls +=
                    count.context("calls without their number")?;
                // The next line is what the callee has cost with all that it called.
                is_callees = true;
            } else if is_cost(line) && !std::mem::take(&mut is_callees) {
                // The first number is that of a source line; zeros at the end are left out.
                let numbers: Vec<f64> = line.split(' ').skip(1).flat_map(str::parse).collect();
                let number = |at: usize| numbers.get(at).copied().unwrap_or_default();
                let cost = costs.entry(plain(function)).or_default();
                cost.instructions += number(instructions);
                cost.system_calls += system_calls.map_or(0.0, number);
            }
        }
        Ok(Self(costs))
    }

    /// What a request costs, if this run had so many requests more than `shorter`.
    pub(crate) fn less(mut self, shorter: &Self, requests: u32) -> Self {
        let requests = f64::from(requests);
        for (name, cost) in &mut self.0 {
            let before = shorter.0.get(name).copied().unwrap_or_default();
            cost.instructions = (cost.instructions - before.instructions) / requests;
            cost.calls = (cost.calls - before.calls) / requests;
            cost.system_calls = (cost.system_calls - before.system_calls) / requests;
        }
        self
    }

    /// All instructions in user space.
    pub(crate) fn instructions(&self) -> f64 {
        self.sum(|_| true, |cost| cost.instructions)
    }

    fn sum(&self, wanted: impl Fn(&str) -> bool, of: impl Fn(&Cost) -> f64) -> f64 {
        let wanted = self.0.iter().filter(|(name, _)| wanted(name));
        wanted.map(|(_, cost)| of(cost)).sum()
    }

    /// Sums, and the functions that cost most.
    pub(crate) fn print(&self, case: &str) {
        println!(
            "{case}: for a request {:.0} instructions in user space, {:.1} allocations, {:.1} system calls",
            self.instructions(),
            self.sum(|name| ALLOCATING.contains(&name), |cost| cost.calls),
            self.sum(|name| !name.starts_with(CLOCK), |cost| cost.system_calls),
        );
        println!("{:>14}{:>8}  function", "instructions", "calls");
        let mut functions: Vec<_> = self.0.iter().collect();
        functions.sort_by(|(_, one), (_, other)| other.instructions.total_cmp(&one.instructions));
        let line = |instructions: f64, calls: f64, name: &str| {
            println!("{instructions:>14.0}{calls:>8.2}  {name}");
        };
        let (shown, rest) = functions.split_at(SHOWN.min(functions.len()));
        for (name, cost) in shown {
            line(cost.instructions, cost.calls, name);
        }
        let sum = |of: fn(&Cost) -> f64| rest.iter().map(|(_, cost)| of(cost)).sum();
        line(
            sum(|cost| cost.instructions),
            sum(|cost| cost.calls),
            "all others",
        );
    }
}

/// Whether a line tells of a cost: it begins with the number of a source line, or how far that is from the last one.
fn is_cost(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
}

/// A name without the mark of a recursion (`name'2`), so that each function is one.
fn plain(name: &str) -> String {
    let (head, tail) = name.rsplit_once('\'').unwrap_or((name, ""));
    let is_marked = !tail.is_empty() && tail.bytes().all(|byte| byte.is_ascii_digit());
    if is_marked { head } else { name }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "\
events: Ir sysCount sysTime
fl=a.rs
fn=outer
1 10
+2 5 1 7
cfn=inner'2
calls=3 9
* 100 2 9
fn=inner
9 20
fn=inner'2
9 4
";

    #[test]
    fn a_function_costs_what_it_does_by_itself() {
        let run = Profile::parse(RUN).expect("a file");
        let cost = |name: &str| run.0.get(name).copied().expect("a function");
        let of = |instructions, calls, system_calls| Cost {
            instructions,
            calls,
            system_calls,
        };
        assert_eq!(cost("outer"), of(15.0, 0.0, 1.0));
        assert_eq!(cost("inner"), of(24.0, 3.0, 0.0));
        assert!(Profile::parse("fn=a\n").is_err());
    }

    #[test]
    fn what_a_start_costs_falls_out() {
        let short = Profile::parse("events: Ir\nfn=start\n1 50\nfn=serve\n1 10\n").expect("a file");
        let long = Profile::parse("events: Ir\nfn=start\n1 50\nfn=serve\n1 50\n").expect("a file");
        let request = long.less(&short, 20);
        assert_eq!(request.instructions(), 2.0);
        assert_eq!(request.0["start"].instructions, 0.0);
    }
}
