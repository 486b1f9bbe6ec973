//! Floods and abusers are stopped at the NIC, and nobody else suffers.

use std::collections::BTreeMap;
use std::time::Duration;

use edge_lab::{Curl, Process, address, wait_until};
use serde_json::Value;

use crate::fixture::{LIMIT, SHOP, site, url};

/// Host with a limit of 200 requests, and 100 a second after that, for each client.
const LIMITED: &str = "Host: limited.example.com";

#[test]
fn a_flood_is_dropped_and_a_good_client_is_served_meanwhile() {
    let site = site();
    for (kind, reason) in [("syn", "flood_new_connections"), ("udp", "no_service")] {
        let mut command = site
            .flood_command(kind, 4, Duration::from_secs(2))
            .expect("it is built");
        let mut flood = Process::spawn(kind, &mut command, site.lab().dir()).expect("it starts");
        let mut served = 0;
        while flood.is_running().expect("known") {
            let answer = Curl::new(site.lab().client())
                .header(SHOP)
                .get(&url("/"))
                .expect("an answer");
            assert_eq!(answer.status, 200);
            served += 1;
        }
        assert!(flood.wait(LIMIT).expect("it ends").success(), "{}", flood.tail());
        let log = flood.log().expect("a log");
        let report: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
        let sent = report["sent"].as_u64().expect("a number");
        let dropped = site.dropped(reason).expect("a counter");
        assert!(served > 0);
        assert!(
            sent > 50_000 && dropped * 100 >= sent * 99,
            "{kind}: {dropped} of {sent} dropped"
        );
    }
}

#[test]
fn a_client_that_goes_on_past_its_limit_is_dropped_at_the_nic_until_its_penalty_ends() {
    let site = site();
    let abuser = Curl::new(site.lab().client())
        .header(LIMITED)
        .source(address::ABUSER);
    let burst = abuser
        .clone()
        .max_time(Duration::from_millis(300))
        .burst(&url("/"), 400)
        .expect("curl runs");
    assert!(burst.count(200) >= 200, "{burst:?}");
    assert!(burst.count(429) >= 50, "{burst:?}");
    assert!(burst.count(0) > 0, "{burst:?}");

    let status = site.status().expect("a status");
    let penalties = status["datapath"]["penalties"].as_array().expect("penalties");
    assert_eq!(penalties.len(), 1, "{status}");
    assert_eq!(penalties[0]["source"], address::ABUSER);
    assert_eq!(penalties[0]["reason"], "rate_limit");
    assert!(penalties[0]["remaining_seconds"].as_f64().expect("a number") <= 5.0);

    let bystander = Curl::new(site.lab().client())
        .header(LIMITED)
        .get(&url("/"))
        .expect("an answer");
    assert_eq!(bystander.status, 200);
    let freed = || {
        Ok(abuser
            .clone()
            .max_time(Duration::from_millis(500))
            .get(&url("/"))?
            .status
            == 200)
    };
    wait_until("the end of the penalty", LIMIT, freed).expect("it ends");
    let over = || {
        Ok(site.status()?["datapath"]["penalties"]
            .as_array()
            .is_some_and(Vec::is_empty))
    };
    wait_until("the penalty to be forgotten", LIMIT, over).expect("it is");

    // Both tiers count the same: what tier 2 refused and asked for, tier 1 was told and dropped.
    let metrics = metrics(&site.admin("/stats/prometheus").expect("metrics").1);
    let total = |name: &str| {
        metrics
            .iter()
            .filter(|(key, _)| key.starts_with(name))
            .map(|(_, value)| value)
            .sum::<f64>()
    };
    #[allow(clippy::cast_precision_loss, reason = "a few hundred packets")]
    let dropped = site.dropped("penalty").expect("a counter") as f64;
    assert!(dropped > 0.0);
    assert!(
        (total("edge_datapath_dropped_packets_total{reason=\"penalty\"") - dropped).abs() < 0.5,
        "{metrics:?}"
    );
    assert!(
        (total("edge_penalties_issued_total") - 1.0).abs() < 0.5,
        "{metrics:?}"
    );
    assert!(
        (total("edge_datapath_penalties_written_total") - 1.0).abs() < 0.5,
        "{metrics:?}"
    );
    #[allow(clippy::cast_precision_loss, reason = "a few hundred requests")]
    let refused = burst.count(429) as f64;
    // A refusal may be under way to the client when the penalty begins.
    assert!(
        total("edge_rate_limited_total") >= refused && total("edge_rate_limited_total") <= refused + 20.0
    );
}

/// Samples of the text format, by name with labels.
fn metrics(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}
