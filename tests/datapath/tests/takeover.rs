//! What outlives a data path, and how the next one takes over. Needs root.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapInfo};
use edge_common::{Config, HashKey, maps as names};
use edge_datapath::{DataPath, Error, LoadOptions, OnStop, Pinning, XdpMode, object};
use edge_datapath_tests::node::{Pair, inside};
use edge_datapath_tests::setup::{balancer, config, member};
use edge_lab::BpfFs;
use edge_model::{DataPathConfig, ForwardMode, Measure, Member, MemberState, Penalty, PenaltyReason};

fn options(path: &Path, on_stop: OnStop, mode: XdpMode) -> LoadOptions {
    LoadOptions {
        interfaces: vec!["node0".into()],
        mode,
        manage_local_routes: true,
        pinning: Some(Pinning {
            path: path.to_owned(),
            on_stop,
        }),
        ..LoadOptions::default()
    }
}

fn load(path: &Path, on_stop: OnStop, mode: XdpMode) -> Result<DataPath, Error> {
    DataPath::load(options(path, on_stop, mode))
}

/// Number of the XDP program on the node's interface, and how it is attached.
fn program(pair: &Pair) -> Result<Option<(u32, bool)>> {
    let link = pair.node.ip("link show node0")?;
    let Some((_, program)) = link.split_once("prog/xdp id ") else {
        return Ok(None);
    };
    let id = program.split_whitespace().next().context("an id")?;
    Ok(Some((id.parse()?, link.contains("xdpgeneric"))))
}

fn has_route(pair: &Pair) -> Result<bool> {
    Ok(pair.node.ip("route show table local")?.contains("10.77.100.1"))
}

/// The only folder in a folder whose name begins so.
fn folder(of: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = fs::read_dir(of)?.flatten().map(|entry| entry.path());
    found
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .with_context(|| format!("{prefix} in {}", of.display()))
}

#[test]
fn the_next_one_replaces_the_program_once_its_maps_are_complete() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    inside(&pair.node, || {
        let mut first = load(fs.path(), OnStop::Detach, XdpMode::Auto)?;
        first.reconcile(&config(1), &[])?;
        let before = program(&pair)?.context("attached")?;
        let mut second = load(fs.path(), OnStop::Detach, XdpMode::Auto)?;
        assert_eq!(program(&pair)?, Some(before), "its maps are still empty");
        second.reconcile(&config(1), &[])?;
        let after = program(&pair)?.context("attached")?;
        assert_ne!(after, before);
        first.detach()?;
        assert_eq!(
            program(&pair)?,
            Some(after),
            "it is no longer the first one's to detach"
        );
        assert!(has_route(&pair)?);
        second.detach()?;
        assert_eq!((program(&pair)?, has_route(&pair)?), (None, false));
        assert!(folder(fs.path(), "net-").is_err(), "no pin is left");
        Ok(())
    })
}

#[test]
fn what_is_to_be_kept_stays_attached_until_somebody_takes_it_over() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    inside(&pair.node, || {
        let mut first = load(fs.path(), OnStop::Keep, XdpMode::Auto)?;
        first.reconcile(&config(1), &[])?;
        let kept = program(&pair)?;
        first.detach()?;
        assert!(kept.is_some());
        assert_eq!((program(&pair)?, has_route(&pair)?), (kept, true));
        // A process that fails before its first configuration changes nothing.
        drop(load(fs.path(), OnStop::Detach, XdpMode::Auto)?);
        assert_eq!((program(&pair)?, has_route(&pair)?), (kept, true));
        // A link cannot change its mode: it is made anew.
        let mut generic = load(fs.path(), OnStop::Detach, XdpMode::Generic)?;
        generic.reconcile(&config(1), &[])?;
        assert!(program(&pair)?.is_some_and(|(_, is_generic)| is_generic));
        generic.detach()?;
        assert_eq!((program(&pair)?, has_route(&pair)?), (None, false));
        Ok(())
    })
}

#[test]
fn penalties_are_handed_on_and_maps_of_another_shape_are_not() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    inside(&pair.node, || {
        let source = IpAddr::from([10, 77, 0, 1]);
        let penalty = Penalty {
            source: source.into(),
            until: Instant::now() + Duration::from_secs(600),
            reason: PenaltyReason::RateLimit,
            measure: Measure::default(),
        };
        let mut first = load(fs.path(), OnStop::Keep, XdpMode::Auto)?;
        first.reconcile(&config(1), &[])?;
        first.penalise(&penalty)?;
        drop(first);
        let mut second = load(fs.path(), OnStop::Keep, XdpMode::Auto)?;
        second.reconcile(&config(1), &[])?;
        let found: Vec<_> = second.penalties()?.iter().map(|penalty| penalty.source).collect();
        assert_eq!(found, [source.into()]);
        drop(second);

        // A stranger's map under the name of one of ours, and maps that another version left.
        let net = folder(fs.path(), "net-")?;
        let pinned = folder(&net, "maps-")?.join(names::PENALTIES);
        let stranger = Ebpf::load(object::PKTGEN)?;
        let map = stranger.map("SETTINGS").context("a map")?;
        fs::remove_file(&pinned)?;
        map.pin(&pinned)?;
        let other = net.join("maps-0123456789abcdef");
        fs::create_dir(&other)?;
        map.pin(other.join(names::PENALTIES))?;

        let mut third = load(fs.path(), OnStop::Detach, XdpMode::Auto)?;
        third.reconcile(&config(1), &[])?;
        assert_eq!(third.penalties()?, []);
        assert_eq!(MapInfo::from_pin(&pinned)?.max_entries(), names::MAX_PENALTIES);
        assert!(!other.exists());
        third.penalise(&penalty)?;
        assert_eq!(third.penalties()?.len(), 1);
        third.detach()?;
        Ok(())
    })
}

#[test]
fn a_worker_that_was_down_is_known_as_such_until_the_first_configuration() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    inside(&pair.node, || {
        let worker = |host: u8, state| Member {
            state,
            ..member(
                &format!("w{host}"),
                IpAddr::from([10, 0, 0, host]),
                ForwardMode::Ipip,
            )
        };
        let hop = Some([2, 0, 0, 0, 0, 9]);
        let of = |members: &[Member]| balancer(members.to_vec(), hop);
        let names = |datapath: &DataPath, config: &DataPathConfig| -> Vec<String> {
            let down = datapath.inherited_down(config);
            down.iter().map(ToString::to_string).collect()
        };
        let (up, down) = (MemberState::Active, MemberState::Down);
        let before = of(&[
            worker(1, up),
            worker(2, down),
            worker(3, down),
            worker(4, MemberState::Draining),
        ]);
        let mut first = load(fs.path(), OnStop::Keep, XdpMode::Auto)?;
        assert_eq!(names(&first, &before), [""; 0], "nothing is inherited");
        first.reconcile(&before, &[])?;
        drop(first);
        let mut second = load(fs.path(), OnStop::Detach, XdpMode::Auto)?;
        // Another address is another worker.
        let moved = Member {
            address: IpAddr::from([10, 0, 0, 30]),
            ..worker(3, up)
        };
        let now = of(&[worker(5, up), worker(4, up), moved, worker(2, up), worker(1, up)]);
        assert_eq!(names(&second, &now), ["web/w2 (10.0.0.2)"]);
        second.reconcile(&now, &[])?;
        assert_eq!(names(&second, &now), [""; 0]);
        second.detach()?;
        Ok(())
    })
}

/// The key that the process in force hashes flows with.
fn hash_key(path: &Path) -> Result<HashKey> {
    let pinned = folder(&folder(path, "net-")?, "maps-")?.join(names::CONFIG);
    let config: Array<MapData, Config> = Map::Array(MapData::from_pin(&pinned)?).try_into()?;
    Ok(config.get(&0, 0)?.hash)
}

#[test]
fn a_seed_that_nobody_chose_gives_way_to_the_key_of_the_process_before() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    inside(&pair.node, || {
        // Seed, whether somebody chose it, and the seed whose key is in force then.
        let rows = [
            ("nothing is inherited", 1, false, 1),
            ("nobody chose it", 2, false, 1),
            ("nobody chose it this time either", 3, false, 1),
            ("it is given", 4, true, 4),
            ("it is given no longer", 5, false, 4),
        ];
        for (name, hash_seed, is_chosen, expected) in rows {
            let mut datapath = DataPath::load(LoadOptions {
                inherits_hash_key: !is_chosen,
                ..options(fs.path(), OnStop::Keep, XdpMode::Auto)
            })?;
            // The second time everything is there already.
            for workers in [1, 2] {
                datapath.reconcile(
                    &DataPathConfig {
                        hash_seed,
                        ..config(workers)
                    },
                    &[],
                )?;
                assert_eq!(hash_key(fs.path())?, HashKey::from_seed(expected), "{name}");
            }
        }
        load(fs.path(), OnStop::Detach, XdpMode::Auto)?.detach()?;
        Ok(())
    })
}

#[test]
fn one_that_ends_half_way_through_taking_over_leaves_the_maps_of_its_programs() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    inside(&pair.node, || {
        let seeded = |hash_seed| DataPathConfig {
            hash_seed,
            ..config(1)
        };
        let mut first = load(fs.path(), OnStop::Keep, XdpMode::Auto)?;
        first.reconcile(&seeded(1), &[])?;
        drop(first);
        let mut second = load(fs.path(), OnStop::Keep, XdpMode::Auto)?;
        // It gets as far as the socket selection: in the place of the interface's link is none.
        let net = folder(fs.path(), "net-")?;
        let (link, aside) = (folder(&net, "xdp-")?, net.join("aside"));
        fs::rename(&link, &aside)?;
        let stranger = Ebpf::load(object::PKTGEN)?;
        stranger.map("SETTINGS").context("a map")?.pin(&link)?;
        let error = second
            .reconcile(&seeded(2), &[])
            .err()
            .context("no link is there")?;
        assert!(matches!(error, Error::TakeOver { .. }), "{error}");
        drop(second);
        fs::remove_file(&link)?;
        fs::rename(&aside, &link)?;
        assert_eq!(hash_key(fs.path())?, HashKey::from_seed(2));
        assert!(folder(&net, "staged-").is_err(), "nothing is left half done");
        // The first one's program is still in the link, and hands packets on by this.
        let retired = folder(&net, "retired-")?;
        assert!(retired.join("GENERAL").exists(), "{}", retired.display());
        let mut third = load(fs.path(), OnStop::Detach, XdpMode::Auto)?;
        third.reconcile(&seeded(3), &[])?;
        assert_eq!(hash_key(fs.path())?, HashKey::from_seed(3));
        assert!(folder(&net, "retired-").is_err(), "nobody needs them any more");
        third.detach()?;
        Ok(())
    })
}

#[test]
fn an_interface_that_was_made_anew_or_is_no_longer_wanted_does_not_disturb() -> Result<()> {
    let (pair, fs) = (Pair::new()?, BpfFs::mount()?);
    pair.node.ip("link add extra0 type veth peer name extra1")?;
    inside(&pair.node, || {
        let options = |interfaces: &[&str]| LoadOptions {
            interfaces: interfaces.iter().map(ToString::to_string).collect(),
            pinning: Some(Pinning {
                path: fs.path().to_owned(),
                on_stop: OnStop::Detach,
            }),
            ..LoadOptions::default()
        };
        let mut first = DataPath::load(options(&["node0", "extra0"]))?;
        first.reconcile(&config(1), &[])?;
        drop(first);
        assert!(pair.node.ip("link show extra0")?.contains("prog/xdp"));
        let mut second = DataPath::load(options(&["node0"]))?;
        second.reconcile(&config(1), &[])?;
        assert!(!pair.node.ip("link show extra0")?.contains("prog/xdp"));
        drop(second);

        let index = pair.index()?;
        pair.node.ip("link delete node0")?;
        pair.node.ip(&format!(
            "link add node0 index {index} type veth peer name other0"
        ))?;
        let mut third = DataPath::load(options(&["node0"]))?;
        third.reconcile(&config(1), &[])?;
        assert!(program(&pair)?.is_some());
        third.detach()?;
        Ok(())
    })
}

#[test]
fn pins_need_a_bpf_file_system() -> Result<()> {
    let pair = Pair::new()?;
    inside(&pair.node, || {
        let error = load(&std::env::temp_dir(), OnStop::Keep, XdpMode::Auto).err();
        let error = error.context("it is another file system")?;
        assert!(matches!(error, Error::NoBpfFs { .. }), "{error}");
        assert_eq!(program(&pair)?, None);
        Ok(())
    })
}
