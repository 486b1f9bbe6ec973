//! What the new owner of an index finds there of the one before. Needs root.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues};
use edge_common::counter::WorkerCounters;
use edge_common::maps as names;
use edge_common::syncookie::Guard;
use edge_datapath::{DataPath, LoadOptions, OnStop, Pinning, XdpMode};
use edge_datapath_tests::node::{Pair, inside};
use edge_datapath_tests::setup::{balancer, member};
use edge_lab::BpfFs;
use edge_model::{DataPathConfig, ForwardMode, Vip};

/// VIPs with these of the ports that there are, and a pool of these hosts.
fn config(ports: &[u16], hosts: &[u8]) -> DataPathConfig {
    let member = |&host: &u8| {
        member(
            &format!("w{host}"),
            IpAddr::from([10, 0, 0, host]),
            ForwardMode::Ipip,
        )
    };
    let mut config = balancer(hosts.iter().map(member).collect(), Some([2, 0, 0, 0, 0, 9]));
    let template = config.vips[0];
    let vip = |&port: &u16| Vip { port, ..template };
    config.vips = ports.iter().map(vip).collect();
    config
}

/// A map of the process in force.
fn pinned(fs: &BpfFs, name: &str) -> Result<MapData> {
    let first = |folder: PathBuf, prefix: &str| -> Result<PathBuf> {
        let mut entries = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        entries
            .find(|path| {
                path.is_dir()
                    && path
                        .file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            })
            .with_context(|| format!("{prefix} in {}", folder.display()))
    };
    let maps = first(first(fs.path().to_owned(), "net-")?, "maps-")?;
    Ok(MapData::from_pin(maps.join(name))?)
}

#[test]
fn a_worker_and_a_vip_begin_with_nothing_of_whose_index_they_got() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    inside(&pair.node, || {
        let mut datapath = DataPath::load(LoadOptions {
            interfaces: vec!["node0".into()],
            mode: XdpMode::Auto,
            pinning: Some(Pinning {
                path: fs.path().to_owned(),
                on_stop: OnStop::Detach,
            }),
            ..LoadOptions::default()
        })?;
        datapath.reconcile(&config(&[80, 81], &[1, 2]), &[])?;
        // As if both workers had got packets, and both VIPs were under attack.
        let mut counters: PerCpuArray<MapData, WorkerCounters> =
            Map::PerCpuArray(pinned(&fs, names::WORKER_COUNTERS)?).try_into()?;
        let busy = WorkerCounters {
            packets: 1,
            ..WorkerCounters::default()
        };
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let first = names::MAX_LOCAL_WORKERS;
        for index in [first, first + 1] {
            counters.set(index, PerCpuValues::try_from(vec![busy; cpus])?, 0)?;
        }
        let mut guards: Array<MapData, Guard> = Map::Array(pinned(&fs, names::VIP_GUARDS)?).try_into()?;
        let attacked = Guard {
            cookies_until: u64::MAX,
            ..Guard::default()
        };
        for index in [0, 1] {
            guards.set(index, attacked, 0)?;
        }
        let counted = |datapath: &DataPath| -> Result<Vec<(String, u64)>> {
            let members = datapath.stats()?.members.into_iter();
            Ok(members
                .map(|worker| (worker.member.name.to_string(), worker.traffic.packets))
                .collect())
        };
        let all = cpus as u64;
        assert_eq!(
            counted(&datapath)?,
            [("w1".to_owned(), all), ("w2".to_owned(), all)]
        );
        datapath.reconcile(&config(&[81], &[2]), &[])?;
        datapath.reconcile(&config(&[81, 82], &[2, 3]), &[])?;
        assert_eq!(
            counted(&datapath)?,
            [("w3".to_owned(), 0), ("w2".to_owned(), all)],
            "the third has the index of the first"
        );
        let guards = [guards.get(&0, 0)?, guards.get(&1, 0)?];
        assert_eq!(guards, [Guard::default(), attacked]);
        datapath.detach()?;
        Ok(())
    })
}
