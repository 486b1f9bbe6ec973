//! What is measured. A case is data: the configuration, the packets, and the fate that each must meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::Result;
use edge_common::verdict::ReplyReason;
use edge_common::{DropReason, PassReason};
use edge_datapath::{Detached, Flows};
use edge_model::{
    DataPathConfig, FloodLimits, ForwardMode, Measure, Member, MemberState, Penalty, PenaltyReason, Pool,
    Prefix, Protocol, SourceLists, SynCookies, TokenRate, Tunnel, Vip, Worker, WorkerId, WorkerKind,
};

use crate::frame::Kind;

/// First source address of flows: 65,536 addresses from here on are used.
const SOURCES: u32 = u32::from_be_bytes([10, 0, 0, 0]);
/// First virtual address.
const VIPS: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// A source with a penalty.
const PENALISED: u32 = u32::from_be_bytes([203, 0, 113, 7]);
/// Penalties that are loaded in every case.
const PENALTIES: u32 = 1000;
/// Prefixes that are denied in every case: of 17 to 32 bits, from here on and apart from each other.
const DENIED: u32 = u32::from_be_bytes([64, 0, 0, 0]);
const DENIED_PREFIXES: u32 = 10_000;
const DENIED_STEP: u32 = 1 << 16;
/// First address of the prefix that is allowed in every case; nothing comes from there.
const ALLOWED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
/// Ports whose datagrams are refused in every case; none comes from them.
const REFLECTION_PORTS: [u16; 4] = [19, 123, 389, 11_211];
/// Every limit: no packet of a run meets it.
const ENOUGH: TokenRate = TokenRate {
    per_second: 1_000_000_000,
    burst: 1_000_000_000,
};
/// An address that is nobody's VIP.
const STRANGER: u32 = u32::from_be_bytes([192, 0, 2, 1]);

/// Flows that the connection table has room for at least: the default of edge.yaml (`connections.flows`).
const FLOWS: u32 = 1 << 20;

/// First worker elsewhere.
const MEMBERS: u32 = u32::from_be_bytes([10, 200, 0, 1]);
/// MAC address of the router that they are behind.
const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

const K64: u64 = 1 << 16;

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: &'static str,
    /// Largest ratio to parse-and-drop that is aimed at.
    pub(crate) goal: Option<f64>,
    /// The packets.
    pub(crate) traffic: Traffic,
    /// Packets that are sent before.
    pub(crate) warm_up: u64,
    /// What happens to each packet.
    pub(crate) fate: Fate,
    vips: u32,
    workers: u16,
    /// How packets get to the workers, if they are elsewhere.
    mode: Option<ForwardMode>,
    syn_cookies: Option<SynCookies>,
}

/// The packets of a case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    /// What they are.
    pub(crate) kind: Kind,
    /// Their family.
    pub(crate) is_v6: bool,
    /// Flows that they belong to, one after the other.
    pub(crate) flows: u64,
    /// First source address, or the last word of it.
    pub(crate) source: u32,
    /// First destination address, likewise.
    pub(crate) destination: u32,
    /// Number of destinations.
    pub(crate) destinations: u32,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes to a worker of this node.
    Deliver,
    /// It goes to a worker elsewhere.
    Forward,
    /// It passes untouched.
    Pass(PassReason),
    /// It is dropped.
    Drop(DropReason),
    /// It is answered, but for one in a second, which is left to the kernel.
    Reply(ReplyReason),
}

/// Every case, in the order in which they are shown.
pub(crate) fn all() -> Vec<Case> {
    let known = |flows| Case {
        traffic: Traffic { flows, ..ack() },
        warm_up: flows.max(1000),
        ..case("", Fate::Deliver)
    };
    let grown = |name, vips, workers| Case {
        name,
        vips,
        workers,
        traffic: Traffic {
            destinations: vips,
            ..known(K64).traffic
        },
        ..known(K64)
    };
    let forwarded = |flows, mode| Case {
        mode: Some(mode),
        fate: Fate::Forward,
        ..known(flows)
    };
    let ipip = |name, goal, flows| Case {
        name,
        goal: Some(goal),
        ..forwarded(flows, ForwardMode::Ipip)
    };
    let forward_grown = |name, vips, workers| Case {
        mode: Some(ForwardMode::Ipip),
        fate: Fate::Forward,
        ..grown(name, vips, workers)
    };
    let from = |source| Traffic { source, ..ack() };
    vec![
        ipip("known_hot", 3.5, 1),
        ipip("known_64k", 7.2, K64),
        ipip("known_1m", 8.0, 1 << 20),
        Case {
            goal: Some(8.2),
            traffic: Traffic {
                kind: Kind::Syn,
                flows: 1 << 23,
                ..ack()
            },
            mode: Some(ForwardMode::Ipip),
            ..case("new_flow", Fate::Forward)
        },
        Case {
            name: "gue_hot",
            goal: Some(4.2),
            ..forwarded(1, ForwardMode::Gue { port: 6080 })
        },
        Case {
            name: "known_hot_v6",
            traffic: Traffic {
                is_v6: true,
                destination: 0,
                ..ack()
            },
            ..forwarded(1, ForwardMode::Ipip)
        },
        Case {
            name: "local_hot",
            ..known(1)
        },
        Case {
            name: "local_64k",
            ..known(K64)
        },
        Case {
            name: "local_syn",
            traffic: Traffic {
                kind: Kind::Syn,
                ..ack()
            },
            ..known(1)
        },
        Case {
            name: "local_1m",
            ..known(1 << 20)
        },
        Case {
            name: "local_hot_v6",
            traffic: Traffic {
                is_v6: true,
                destination: 0,
                ..ack()
            },
            ..known(1)
        },
        Case {
            goal: Some(1.7),
            traffic: Traffic {
                destination: STRANGER,
                ..ack()
            },
            ..case("no_vip", Fate::Pass(PassReason::NoVip))
        },
        Case {
            goal: Some(2.0),
            traffic: from(DENIED),
            ..case("deny", Fate::Drop(DropReason::Denied))
        },
        Case {
            goal: Some(2.0),
            traffic: from(PENALISED),
            ..case("penalty", Fate::Drop(DropReason::Penalty))
        },
        Case {
            goal: Some(2.0),
            traffic: Traffic {
                kind: Kind::BadLength,
                ..ack()
            },
            ..case("bad_packet", Fate::Drop(DropReason::BadIpv4TotalLength))
        },
        Case {
            goal: Some(3.2),
            traffic: Traffic {
                kind: Kind::Syn,
                flows: K64,
                ..ack()
            },
            syn_cookies: Some(SynCookies::Always),
            ..case("syn_cookie", Fate::Reply(ReplyReason::SynCookie))
        },
        Case {
            traffic: Traffic {
                flows: 1 << 19,
                ..from(DENIED)
            },
            mode: Some(ForwardMode::Ipip),
            ..case("deny_32k", Fate::Drop(DropReason::Denied))
        },
        grown("vips_1", 1, 4),
        grown("vips_64", 64, 4),
        grown("vips_1000", 1000, 4),
        grown("workers_4", 8, 4),
        grown("workers_64", 8, 64),
        grown("workers_1024", 8, 1024),
        forward_grown("forward_vips_1", 1, 4),
        forward_grown("forward_vips_64", 64, 4),
        forward_grown("forward_vips_1000", 1000, 4),
        forward_grown("forward_workers_4", 8, 4),
        forward_grown("forward_workers_64", 8, 64),
        forward_grown("forward_workers_1024", 8, 1024),
    ]
}

/// One flow of segments to the first VIP.
const fn ack() -> Traffic {
    Traffic {
        kind: Kind::Ack,
        is_v6: false,
        flows: 1,
        source: SOURCES,
        destination: VIPS,
        destinations: 1,
    }
}

fn case(name: &'static str, fate: Fate) -> Case {
    Case {
        name,
        goal: None,
        traffic: ack(),
        warm_up: 1000,
        fate,
        vips: 8,
        workers: 4,
        mode: None,
        syn_cookies: None,
    }
}

/// One prefix of the deny list.
fn denied(n: u32) -> Option<Prefix> {
    let address = Ipv4Addr::from(DENIED.wrapping_add(n.wrapping_mul(DENIED_STEP)));
    Prefix::new(address.into(), 17 + (n % 16) as u8)
}

impl Case {
    /// Flows that the connection table has room for, unless told otherwise: four times those that it is to hold.
    pub(crate) fn table(&self) -> u32 {
        let held = u32::try_from(self.warm_up).unwrap_or(u32::MAX);
        FLOWS.max(held.saturating_mul(4))
    }

    /// Loads and configures the program under test, every stage at work, with a connection table for so many flows.
    pub(crate) fn load(&self, flows: u32) -> Result<Detached> {
        let mut tier_1 = Detached::load(Flows { limit: flows })?;
        tier_1.configure(&self.config())?;
        let until = Instant::now() + Duration::from_secs(3600);
        for n in 0..PENALTIES {
            let source = IpAddr::from(Ipv4Addr::from(PENALISED + n)).into();
            let reason = PenaltyReason::RateLimit;
            tier_1.penalise(&Penalty {
                source,
                until,
                reason,
                measure: Measure::default(),
            })?;
        }
        Ok(tier_1)
    }

    fn config(&self) -> DataPathConfig {
        let protocol = if self.traffic.kind == Kind::Udp {
            Protocol::Udp
        } else {
            Protocol::Tcp
        };
        let vip = |n: u32| Vip {
            pool: self.mode.map(|_| 0),
            ..Vip::local(self.vip(n), 80, protocol, 8080)
        };
        let member = |mode| {
            move |n: u16| {
                let address = Ipv4Addr::from(MEMBERS + u32::from(n));
                Member {
                    name: address.to_string().into(),
                    number: None,
                    address: address.into(),
                    mode,
                    weight: 1,
                    state: MemberState::Active,
                    next_hop: Some(NEXT_HOP),
                }
            }
        };
        let pool = |mode| Pool {
            name: "bench".into(),
            members: (0..self.workers).map(member(mode)).collect(),
        };
        let worker = |id| Worker {
            id: WorkerId(id),
            weight: 1,
            kind: WorkerKind::Local,
        };
        DataPathConfig {
            vips: (0..self.vips).map(vip).collect(),
            workers: (0..self.workers).map(worker).collect(),
            pools: self.mode.into_iter().map(pool).collect(),
            tunnel: Tunnel {
                source4: Prefix::new(IpAddr::from([172, 16, 0, 0]), 16),
                ..Tunnel::default()
            },
            flood: Some(FloodLimits {
                packets: ENOUGH,
                new_connections: ENOUGH,
            }),
            sources: SourceLists {
                allow: Prefix::new(ALLOWED.into(), 24).into_iter().collect(),
                deny: (0..DENIED_PREFIXES).filter_map(denied).collect(),
            },
            reflection_ports: REFLECTION_PORTS.into(),
            vip_limit: Some(ENOUGH),
            syn_cookies: self.syn_cookies.or(Some(SynCookies::Above(ENOUGH))),
            hash_seed: 0x6564_6765,
            ..DataPathConfig::default()
        }
    }

    fn vip(&self, n: u32) -> IpAddr {
        if self.traffic.is_v6 {
            Ipv6Addr::new(0xfd77, 0x100, 0, 0, 0, 0, (n >> 16) as u16, n as u16).into()
        } else {
            Ipv4Addr::from(VIPS + n).into()
        }
    }
}
