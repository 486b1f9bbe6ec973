//! `edge status flows|vips|workers|drops`: one table, with what was added since the last look.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{DataPathStatus, PoolWorkerStatus, Status, VipStatus};
use crate::cli::StatusView;

/// An earlier state, and the seconds since.
type Since<'a> = Option<(&'a Status, u32)>;

/// A table: headings, and rows of a name and counts.
struct Table {
    headings: Vec<&'static str>,
    rows: Vec<(String, Vec<u64>)>,
}

/// A part for programs.
///
/// # Errors
/// None but those of writing JSON.
pub(super) fn json(status: &Status, view: StatusView) -> serde_json::Result<String> {
    let datapath = status.datapath.as_ref();
    let value = match view {
        StatusView::Vips => serde_json::to_value(datapath.map(|datapath| &datapath.vips))?,
        StatusView::Workers => {
            let of_pools = datapath.map_or(&[][..], |datapath| &datapath.pool_workers);
            let own = status.workers.iter().map(serde_json::to_value);
            let all = own.chain(of_pools.iter().map(serde_json::to_value));
            Value::Array(all.collect::<Result<_, _>>()?)
        }
        StatusView::Drops => {
            json!({
                "dropped": datapath.map(|datapath| &datapath.dropped),
                "penalties": datapath.map(|datapath| &datapath.penalties),
            })
        }
        StatusView::Flows => {
            let own = |worker: &super::WorkerStatus| json!({"worker": worker.id, "open": worker.flows, "opened": worker.accepted, "steered": worker.steered});
            let mut all: Vec<_> = status.workers.iter().map(own).collect();
            if let Some(datapath) = datapath {
                all.push(json!({"steer_misses": datapath.steer_misses}));
                let forwarded = datapath.forwarded.iter();
                all.extend(forwarded.map(|(way, count)| json!({"forwarded": way, "packets": count})));
                let evicted = datapath.evicted.iter();
                all.extend(evicted.map(|(kind, count)| json!({"evicted": kind, "flows": count})));
            }
            Value::Array(all)
        }
    };
    serde_json::to_string(&value)
}

/// A part for people. Counts are totals, or, once there is an earlier state, what was added each second.
pub(super) fn table(status: &Status, since: Since<'_>, view: StatusView) -> String {
    let now = rows(status, view);
    let before = since.map(|(before, _)| rows(before, view));
    let seconds = since.map_or(1, |(_, seconds)| u64::from(seconds.max(1)));
    let mut out = String::new();
    let unit = if since.is_some() { "each second" } else { "in all" };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{:<34}",
        format!("{} ({unit})", now.headings.first().unwrap_or(&""))
    );
    for heading in now.headings.iter().skip(1) {
        let _ = write!(out, " {heading:>14}");
    }
    let _ = writeln!(out);
    for (name, counts) in &now.rows {
        let earlier = before
            .as_ref()
            .and_then(|before| before.rows.iter().find(|(other, _)| other == name));
        let _ = write!(out, "{name:<34}");
        for (column, &count) in counts.iter().enumerate() {
            let earlier = earlier.and_then(|(_, counts)| counts.get(column));
            // A row that was not there before had nothing.
            let was = since.map(|_| earlier.copied().unwrap_or_default());
            let is_level = now
                .headings
                .get(column + 1)
                .is_some_and(|heading| *heading == OPEN);
            let shown = match was {
                Some(was) if !is_level => count.saturating_sub(was) / seconds,
                _ => count,
            };
            let _ = write!(out, " {shown:>14}");
        }
        let _ = writeln!(out);
    }
    match (view, &status.datapath) {
        (StatusView::Drops, Some(datapath)) => penalties(&mut out, datapath),
        (StatusView::Workers, Some(datapath)) => {
            let _ = health(&mut out, datapath);
        }
        (StatusView::Drops | StatusView::Workers | StatusView::Flows | StatusView::Vips, _) => {}
    }
    out
}

/// A heading of levels, which are shown as they are; all else are counts.
const OPEN: &str = "open";

fn rows(status: &Status, view: StatusView) -> Table {
    let datapath = status.datapath.as_ref();
    match view {
        StatusView::Vips => Table {
            headings: vec!["VIP", "packets", "bytes", "SYN", "dropped"],
            rows: datapath.map_or_else(Vec::new, |datapath| datapath.vips.iter().map(vip).collect()),
        },
        StatusView::Workers => {
            let row = |worker: &super::WorkerStatus| {
                let counts = vec![
                    worker.packets,
                    worker.new_connections,
                    worker.steered,
                    worker.accepted,
                ];
                (format!("worker {}", worker.id), counts)
            };
            let of_pool = |worker: &PoolWorkerStatus| {
                let name = format!("{}/{}, {}", worker.pool, worker.name, worker.state);
                (name, vec![worker.packets, worker.new_connections, 0, 0])
            };
            let of_pools = datapath.into_iter().flat_map(|datapath| &datapath.pool_workers);
            Table {
                headings: vec!["worker", "packets", "SYN", "steered", "accepted"],
                rows: status
                    .workers
                    .iter()
                    .map(row)
                    .chain(of_pools.map(of_pool))
                    .collect(),
            }
        }
        StatusView::Flows => {
            let row = |worker: &super::WorkerStatus| {
                (
                    format!("worker {}", worker.id),
                    vec![worker.flows, worker.accepted],
                )
            };
            let mut rows: Vec<_> = status.workers.iter().map(row).collect();
            rows.extend(datapath.map(|datapath| ("no socket".to_owned(), vec![0, datapath.steer_misses])));
            let forwarded = datapath.into_iter().flat_map(|datapath| &datapath.forwarded);
            let forwarded = forwarded.filter(|(_, count)| **count > 0);
            rows.extend(forwarded.map(|(way, count)| (format!("packets forwarded, {way}"), vec![0, *count])));
            let evicted = datapath.into_iter().flat_map(|datapath| &datapath.evicted);
            let evicted = evicted.filter(|(_, count)| **count > 0);
            rows.extend(evicted.map(|(kind, count)| (format!("flows given up, {kind}"), vec![0, *count])));
            Table {
                headings: vec!["flows", OPEN, "opened"],
                rows,
            }
        }
        StatusView::Drops => {
            let dropped = datapath.into_iter().flat_map(|datapath| &datapath.dropped);
            let mut rows: Vec<_> = dropped
                .filter(|(_, count)| **count > 0)
                .map(|(reason, count)| (reason.clone(), vec![*count]))
                .collect();
            rows.sort_by(|(_, a), (_, b)| b.cmp(a));
            Table {
                headings: vec!["dropped", "packets"],
                rows,
            }
        }
    }
}

fn vip(vip: &VipStatus) -> (String, Vec<u64>) {
    let name = format!("{}/{}", vip.service(), vip.protocol);
    (
        name,
        vec![vip.packets, vip.bytes, vip.new_connections, vip.dropped],
    )
}

/// The workers that packets do not get to, or whose last probe failed.
pub(super) fn health(out: &mut String, datapath: &DataPathStatus) -> std::fmt::Result {
    for worker in &datapath.pool_workers {
        if let Some(obstacle) = &worker.obstacle {
            writeln!(
                out,
                "\npackets do not get to {}/{}: {obstacle}",
                worker.pool, worker.name
            )?;
        }
        let Some(health) = &worker.health else { continue };
        if let Some(error) = &health.error {
            let verdict = if health.healthy { "healthy" } else { "unhealthy" };
            writeln!(
                out,
                "\n{}/{} is {verdict}; its last probe failed: {error}",
                worker.pool, worker.name
            )?;
        }
    }
    Ok(())
}

fn penalties(out: &mut String, datapath: &DataPathStatus) {
    let _ = writeln!(out, "\npenalties: {}", datapath.penalties.len());
    for penalty in &datapath.penalties {
        let _ = writeln!(
            out,
            "{:<34} {:>14} dropped, {:.1} s left, {}",
            penalty.source.to_string(),
            penalty.dropped,
            penalty.remaining_seconds,
            penalty.reason
        );
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A state with one worker and one reason.
    pub(in crate::status) fn status(packets: u64, dropped: u64) -> Status {
        let status = json!({
            "version": "0", "ready": true, "uptime_seconds": 1,
            "config": {"snapshot": 1, "in_sync": true, "problems": [], "restart_needed": []},
            "datapath": {
                "interfaces": [], "passed": {}, "delivered": packets, "steer_misses": 3, "penalties": [],
                "dropped": {"no_service": dropped, "fragment": 0},
                "forwarded": {"known": packets, "new": 0},
                "evicted": {"confirmed": 6, "unconfirmed": 0},
                "pool_workers": [{"pool": "web", "name": "node-1", "address": "192.0.2.9", "state": "down",
                                  "health": {"healthy": false, "passed": 1, "failed": 3, "error": "refused"},
                                  "obstacle": "no route", "packets": packets, "bytes": 9, "new_connections": 4}],
                "vips": [{"address": "192.0.2.1", "port": 80, "protocol": "tcp", "listener_port": 8080,
                          "packets": packets, "bytes": packets * 60, "new_connections": 2, "dropped": dropped,
                          "dropped_by_reason": {"no_service": dropped}},
                         {"address": "192.0.2.0", "prefix_len": 24, "port": 80, "protocol": "tcp", "listener_port": 0,
                          "packets": 4 * packets, "bytes": 0, "new_connections": 0, "dropped": 0, "dropped_by_reason": {}},
                         {"address": "192.0.2.0", "port": 80, "protocol": "tcp", "listener_port": 0,
                          "packets": 1, "bytes": 0, "new_connections": 0, "dropped": 0, "dropped_by_reason": {}}]
            },
            "workers": [{"id": 0, "packets": packets, "new_connections": 2, "steered": 2, "accepted": 2, "flows": 7}],
            "listeners": [], "clusters": []
        });
        serde_json::from_value(status).expect("a status")
    }

    /// Rows of a table, words joined by one space, without the headings.
    fn shown(view: StatusView, since: Option<u64>) -> Vec<String> {
        let before = since.map(|packets| status(packets, packets));
        let text = table(&status(100, 50), before.as_ref().map(|before| (before, 2)), view);
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines()
            .skip(1)
            .map(line)
            .take_while(|line| !line.is_empty())
            .collect()
    }

    #[test]
    fn a_part_shows_totals_first_and_rates_after() {
        let rows: [(StatusView, Option<u64>, &[&str]); 7] = [
            (
                StatusView::Vips,
                None,
                &[
                    "192.0.2.1:80/tcp 100 6000 2 50",
                    "192.0.2.0/24:80/tcp 400 0 0 0",
                    "192.0.2.0:80/tcp 1 0 0 0",
                ],
            ),
            // A prefix is none of its addresses: each is compared with itself.
            (
                StatusView::Vips,
                Some(20),
                &[
                    "192.0.2.1:80/tcp 40 2400 0 15",
                    "192.0.2.0/24:80/tcp 160 0 0 0",
                    "192.0.2.0:80/tcp 0 0 0 0",
                ],
            ),
            (
                StatusView::Workers,
                None,
                &["worker 0 100 2 2 2", "web/node-1, down 100 4 0 0"],
            ),
            (
                StatusView::Flows,
                None,
                &[
                    "worker 0 7 2",
                    "no socket 0 3",
                    "packets forwarded, known 0 100",
                    "flows given up, confirmed 0 6",
                ],
            ),
            (
                StatusView::Flows,
                Some(0),
                &[
                    "worker 0 7 0",
                    "no socket 0 0",
                    "packets forwarded, known 0 50",
                    "flows given up, confirmed 0 0",
                ],
            ),
            (StatusView::Drops, None, &["no_service 50"]),
            (StatusView::Drops, Some(30), &["no_service 10"]),
        ];
        for (view, since, expected) in rows {
            assert_eq!(shown(view, since), expected, "{view:?} {since:?}");
        }
    }

    #[test]
    fn a_part_is_json_for_programs() {
        let read = |view| -> Value {
            serde_json::from_str(&json(&status(100, 50), view).expect("JSON")).expect("JSON")
        };
        assert_eq!(read(StatusView::Vips)[0]["packets"], 100);
        assert_eq!(read(StatusView::Workers)[0]["id"], 0);
        assert_eq!(read(StatusView::Workers)[1]["health"]["error"], "refused");
        let text = table(&status(100, 50), None, StatusView::Workers);
        assert!(
            text.contains("web/node-1 is unhealthy; its last probe failed: refused"),
            "{text}"
        );
        assert!(
            text.contains("packets do not get to web/node-1: no route"),
            "{text}"
        );
        assert_eq!(read(StatusView::Drops)["dropped"]["no_service"], 50);
        assert_eq!(read(StatusView::Vips)[1]["prefix_len"], 24);
        assert_eq!(read(StatusView::Vips)[2]["prefix_len"], Value::Null);
        assert_eq!(
            read(StatusView::Flows),
            json!([
                {"worker": 0, "open": 7, "opened": 2, "steered": 2},
                {"steer_misses": 3},
                {"forwarded": "known", "packets": 100},
                {"forwarded": "new", "packets": 0},
                {"evicted": "confirmed", "flows": 6},
                {"evicted": "unconfirmed", "flows": 0},
            ])
        );
    }
}
