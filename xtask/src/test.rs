//! `cargo xtask test`: builds the programs that tests start, then runs every test of the workspace.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::setup;
use crate::sh::{self, say};

/// The package of end-to-end labs. Its tests load two cores fully, so they run one at a time.
const E2E: &str = "edge-e2e";
/// The benchmarks, whose tests start the packet generator.
const BENCH: &str = "edge-bench";

/// Packages that are not built for the host: the BPF programs, which the build script of edge-datapath
/// builds and the tests of tests/datapath run in the kernel.
pub(crate) const NOT_FOR_THE_HOST: &str = "edge-ebpf";

/// Runs all tests: pure ones, BPF programs in the kernel, and labs in network namespaces.
///
/// Needs root. A test that lacks a privilege or a kernel feature fails; none is skipped. For the pure
/// crates alone `cargo test -p edge-routing` and the like need neither root nor this command.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask test                       everything\n  \
                  cargo xtask test -p edge-routing       one package\n  \
                  cargo xtask test -p edge-e2e penalty   tests with `penalty` in their name\n  \
                  cargo xtask test -- --nocapture        arguments for the test programs"
)]
pub(crate) struct Args {
    /// Run the tests of this package only; may be repeated.
    #[arg(short, long = "package", value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Run only tests whose name contains this.
    filter: Option<String>,
    /// Arguments for the test programs.
    #[arg(last = true)]
    test_args: Vec<String>,
}

impl Args {
    /// All tests of the workspace.
    pub(crate) fn everything() -> Self {
        Self {
            packages: Vec::new(),
            filter: None,
            test_args: Vec::new(),
        }
    }
}

/// The verb. Its last lines are cargo test's own closing lines and their sum.
///
/// # Errors
/// If setup or the build failed; a failed test is told by the exit code.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    ensure!(
        sh::is_root(),
        "the tests load BPF programs and make network namespaces, which needs root: run `sudo -E cargo xtask \
         test`, or test one of the pure crates, for example `cargo test -p edge-routing`"
    );
    setup::ensure()?;
    // Only these start programs of other packages.
    if args.packages.is_empty() || args.packages.iter().any(|name| name == E2E || name == BENCH) {
        build_programs()?;
    }
    let mut outcome = Outcome::default();
    for selection in selections(&args.packages) {
        outcome.add(run_tests(&selection, args)?);
    }
    outcome.print();
    Ok(if outcome.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds what tests start as processes: `edge`, the lab's backend, the packet generator.
fn build_programs() -> Result<()> {
    say("test: building the programs that tests start");
    sh::run(sh::cargo().args(["build", "--workspace", "--bins", "--exclude", NOT_FOR_THE_HOST]))
}

/// The cargo runs that cover the wanted packages: the end-to-end tests are a run of their own.
fn selections(packages: &[String]) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    if packages.is_empty() {
        let rest = words(&["--workspace", "--exclude", NOT_FOR_THE_HOST, "--exclude", E2E]);
        return vec![rest, words(&["--package", E2E])];
    }
    let (e2e, rest): (Vec<_>, Vec<_>) = packages.iter().partition(|name| *name == E2E);
    let named = |names: Vec<&String>| names.iter().flat_map(|n| words(&["--package", n])).collect();
    [rest, e2e]
        .into_iter()
        .filter(|names| !names.is_empty())
        .map(named)
        .collect()
}

fn run_tests(selection: &[String], args: &Args) -> Result<Outcome> {
    let mut cargo = sh::cargo();
    cargo
        .args(["test", "--no-fail-fast"])
        .args(selection)
        .args(&args.filter)
        .arg("--");
    if selection.iter().any(|word| word == E2E) && !selection.iter().any(|word| word == "--exclude") {
        cargo.arg("--test-threads=1");
    }
    cargo.args(&args.test_args);
    say(format!("test: {}", sh::show(&cargo)));
    tee(&mut cargo)
}

/// Runs cargo test with its output shown as it comes, and reads the closing lines from it.
fn tee(cargo: &mut Command) -> Result<Outcome> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no standard output")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        outcome.read(&String::from_utf8_lossy(&line));
    }
    outcome.cargo_failed = !child.wait()?.success();
    Ok(outcome)
}

/// What cargo test said, over all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// The lines `test result: ...`, as they came.
    closing: Vec<String>,
    passed: u64,
    failed: u64,
    /// Cargo's exit code was not 0: a test failed, or something did not compile.
    cargo_failed: bool,
}

impl Outcome {
    /// Takes note of a closing line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
    fn read(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        self.closing.push(line.to_owned());
        self.passed += count(result, "passed");
        self.failed += count(result, "failed");
    }

    fn add(&mut self, other: Self) {
        self.closing.extend(other.closing);
        self.passed += other.passed;
        self.failed += other.failed;
        self.cargo_failed |= other.cargo_failed;
    }

    fn passed(&self) -> bool {
        // A run of no test at all proves nothing: most likely the filter is mistyped.
        !self.cargo_failed && self.failed == 0 && self.passed > 0
    }

    fn print(&self) {
        if self.cargo_failed {
            say("error: cargo test failed; see above");
        } else if self.passed == 0 {
            say("error: no test ran; is the name right?");
        }
        println!(
            "\n{}\n{} passed, {} failed",
            self.closing.join("\n"),
            self.passed,
            self.failed
        );
    }
}

/// The number before a word: 3 in `ok. 3 passed; 0 failed`.
fn count(result: &str, word: &str) -> u64 {
    let words: Vec<&str> = result.split([' ', ';']).filter(|w| !w.is_empty()).collect();
    let pair = words.windows(2).find(|pair| pair.get(1) == Some(&word));
    pair.and_then(|pair| pair.first()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_summed_and_others_are_not() {
        let mut outcome = Outcome::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test a ... FAILED",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            outcome.read(line);
        }
        assert_eq!(
            (outcome.passed, outcome.failed, outcome.closing.len()),
            (13, 2, 2)
        );
        assert!(!outcome.passed());
    }

    #[test]
    fn only_tests_that_ran_without_a_failure_are_a_pass() {
        let check = |passed, failed, cargo_failed, expected| {
            let outcome = Outcome {
                closing: Vec::new(),
                passed,
                failed,
                cargo_failed,
            };
            assert_eq!(outcome.passed(), expected, "{outcome:?}");
        };
        check(1, 0, false, true);
        check(1, 1, true, false);
        check(1, 0, true, false); // Another program did not compile.
        check(0, 0, false, false); // No test ran.
    }

    #[test]
    fn end_to_end_tests_are_a_run_of_their_own() {
        let check = |packages: &[&str], expected: &[&str]| {
            let packages: Vec<String> = packages.iter().map(ToString::to_string).collect();
            let runs: Vec<String> = selections(&packages).iter().map(|run| run.join(" ")).collect();
            assert_eq!(runs, expected, "{packages:?}");
        };
        check(
            &[],
            &[
                "--workspace --exclude edge-ebpf --exclude edge-e2e",
                "--package edge-e2e",
            ],
        );
        check(
            &["edge-model", "edge-e2e"],
            &["--package edge-model", "--package edge-e2e"],
        );
        check(&["edge-e2e"], &["--package edge-e2e"]);
    }
}
