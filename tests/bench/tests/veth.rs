//! The comparison on a virtual link: every way to drop a flood is measured. Needs root.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

#[test]
fn every_receiver_drops_the_flood_or_sends_it_on_and_edge_counts_what_arrived() -> Result<()> {
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
    assert_eq!(
        cases,
        [
            "veth_drop",
            "veth_edge",
            "veth_forward",
            "veth_iptables",
            "veth_nft"
        ]
    );
    for line in &lines {
        let number = |key: &str| line[key].as_f64().with_context(|| format!("{key} of {line}"));
        assert!(number("received_pps")? > 1000.0, "{line}");
        assert!(number("made_pps")? >= number("received_pps")?, "{line}");
        // A frame or two may be none of the flood's.
        let settled = number("dropped_pps")? + number("forwarded_pps")?;
        assert!(settled > 0.99 * number("received_pps")?, "{line}");
        let is_forward = line["case"] == "veth_forward";
        assert_eq!(number("forwarded_pps")? > 0.0, is_forward, "{line}");
        let of_cores = line["cores"].as_array().context("cores")?;
        let received = of_cores.iter().filter_map(|core| core["received_pps"].as_f64());
        let counts = line["case"] == "veth_edge" || is_forward;
        assert_eq!(received.sum::<f64>() > 1000.0, counts, "{line}");
    }
    Ok(())
}
