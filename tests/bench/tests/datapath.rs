//! The benchmark itself: every case measures what it says. Needs root.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

#[test]
fn every_case_sends_packets_that_meet_their_fate_and_prints_one_object() -> Result<()> {
    let bench = || Command::new(env!("CARGO_BIN_EXE_bench-datapath"));
    let names = bench().arg("--list").output()?.stdout;
    let names: Vec<_> = str::from_utf8(&names)?.lines().collect();
    let output = bench().args(["--json", "--rounds", "1"]).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = str::from_utf8(&output.stdout)?.lines();
    let lines: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let cases: Vec<_> = lines.iter().filter_map(|line| line["case"].as_str()).collect();
    assert_eq!(cases, names);
    for line in &lines {
        let number = |key: &str| line[key].as_f64().with_context(|| format!("{key} of {line}"));
        assert!(number("ns")? > 0.0 && number("floor_ns")? > 0.0, "{line}");
        assert!(
            (number("ratio")? - number("ns")? / number("floor_ns")?).abs() < 0.01,
            "{line}"
        );
        assert!(line["goal"].is_null() || number("goal")? > 0.0, "{line}");
    }
    Ok(())
}

#[test]
fn a_case_that_is_not_there_is_refused() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_bench-datapath"))
        .args(["--case", "nonsense"])
        .output()?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nonsense"));
    Ok(())
}
