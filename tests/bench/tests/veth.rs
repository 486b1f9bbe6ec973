//! The comparison on a virtual link: every way to drop a flood is measured. Needs root.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

#[test]
fn every_receiver_drops_the_flood_and_edge_counts_what_arrived() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_bench-veth"))
        .args(["--json", "--rounds", "1", "--seconds", "1"])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = str::from_utf8(&output.stdout)?.lines();
    let lines: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let cases: Vec<_> = lines.iter().filter_map(|line| line["case"].as_str()).collect();
    assert_eq!(cases, ["veth_drop", "veth_edge", "veth_iptables", "veth_nft"]);
    for line in &lines {
        let number = |key: &str| line[key].as_f64().with_context(|| format!("{key} of {line}"));
        assert!(number("received_pps")? > 1000.0, "{line}");
        assert!(number("made_pps")? >= number("received_pps")?, "{line}");
        // A frame or two may be none of the flood's.
        assert!(number("dropped_pps")? > 0.99 * number("received_pps")?, "{line}");
    }
    Ok(())
}
