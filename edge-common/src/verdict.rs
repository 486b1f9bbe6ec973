//! The fate of a packet, and every reason for it.
//!
//! A reason's discriminant is its index in the counter map, so a new reason is one line here: the counter, its
//! name in `edge status` and its metric follow from it.

/// Defines an enum of reasons with its names, so that neither can be without the other.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every reason, in the order of the counter map.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Name in metrics, in `edge status` and in `edge explain packets`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// What it means, in sentences.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_start(),)+ }
            }

            /// The reason with an index.
            #[inline(always)]
            #[must_use]
            pub fn at(index: u32) -> Option<Self> {
                Self::ALL.get(index as usize).copied()
            }

            /// Index of the reason's counter.
            #[inline(always)]
            #[must_use]
            pub const fn index(self) -> u32 {
                self as u32
            }
        }
    };
}

reasons! {
    /// Why a packet goes up the stack as if tier 1 were not there.
    PassReason {
        /// Neither IPv4 nor IPv6 (ARP, LLDP, 802.3 length frames, ...), or below more than two VLAN tags.
        NotIp = "not_ip",
        /// To an address that is no virtual address.
        NoVip = "no_vip",
        /// To a virtual address that has workers on this node or is the node's own too, but neither TCP nor UDP: ESP, ICMP
        /// errors, any ICMP where the node has the address. Of all others neighbour discovery.
        OtherProtocol = "other_protocol",
        /// To a virtual address that is the node's own too, on a port that no VIP has: its ssh, for example.
        PortNotServed = "port_not_served",
        /// The program has no configuration yet.
        NotConfigured = "not_configured",
        /// An ICMP error to a virtual address with workers elsewhere and here, about a connection of a worker of this node, or
        /// about none that the address serves.
        IcmpError = "icmp_error",
        /// Taken out of a tunnel that a load balancer sent to this node, which has no gateway workers: its own servers have
        /// the virtual address.
        Decapsulated = "decapsulated",
        /// Taken out of a tunnel that held another, for a worker that may have its connection: the kernel's stack forwards it,
        /// because it is to ask for the next hop's MAC address first, or sends where no driver takes frames of XDP.
        HandedToStack = "handed_to_stack",
    }
}

reasons! {
    /// Why a packet was dropped.
    ///
    /// What is wrong before the destination address is known drops for everybody: no host or router would take
    /// such a packet either (RFC 1812 5.2.2, `ip_rcv` and `ip6_rcv` in the kernel). What is wrong behind it
    /// drops only for a virtual address, because other traffic is not tier 1's to judge.
    DropReason {
        /// Shorter than an Ethernet header.
        TruncatedEthernet = "truncated_ethernet",
        /// Ends inside an 802.1Q or 802.1ad tag.
        TruncatedVlan = "truncated_vlan",
        /// Ends inside the IPv4 header or its options.
        TruncatedIpv4 = "truncated_ipv4",
        /// EtherType IPv4, but another version in the header.
        BadIpv4Version = "bad_ipv4_version",
        /// IPv4 header length below 20 bytes, or above the total length.
        BadIpv4HeaderLength = "bad_ipv4_header_length",
        /// IPv4 total length beyond the end of the frame.
        BadIpv4TotalLength = "bad_ipv4_total_length",
        /// Ends inside the IPv6 header.
        TruncatedIpv6 = "truncated_ipv6",
        /// EtherType IPv6, but another version in the header.
        BadIpv6Version = "bad_ipv6_version",
        /// IPv6 payload length beyond the end of the frame.
        BadIpv6PayloadLength = "bad_ipv6_payload_length",
        /// Ends inside an IPv6 extension header.
        TruncatedIpv6Extension = "truncated_ipv6_extension",
        /// More IPv6 extension headers than a packet to a service has use for.
        Ipv6ExtensionLimit = "ipv6_extension_limit",
        /// A fragment to a virtual address. Later fragments carry no ports, so they cannot follow their flow; the first
        /// is of no use without them.
        Fragment = "fragment",
        /// Ends inside the TCP header or its options.
        TruncatedTcp = "truncated_tcp",
        /// TCP data offset below 20 bytes.
        BadTcpDataOffset = "bad_tcp_data_offset",
        /// Ends inside the UDP header.
        TruncatedUdp = "truncated_udp",
        /// UDP length below 8 bytes, or beyond the end of the IP packet.
        BadUdpLength = "bad_udp_length",
        /// To a port that no VIP has, on an address that only VIPs have; or neither TCP, UDP nor ICMP, to one whose workers are all
        /// elsewhere.
        NoService = "no_service",
        /// The source is on the deny list.
        Denied = "denied",
        /// The source is no address of a host: unspecified, loopback, multicast, reserved, or IPv4 in an IPv6 header.
        BadAddress = "bad_address",
        /// Source and destination are one address (the "land" attack).
        Land = "land",
        /// From port 0.
        PortZero = "port_zero",
        /// TCP flags that no TCP sends together, or a SYN-ACK to a service.
        BadTcpFlags = "bad_tcp_flags",
        /// A datagram from a port that reflection attacks come from, and that was configured as one.
        ReflectionPort = "reflection_port",
        /// The source serves a penalty that tier 2 gave it.
        Penalty = "penalty",
        /// The source serves a penalty that leaves it a rate, and exceeds it.
        PenaltyRate = "penalty_rate",
        /// The source sends more packets per second than it may.
        FloodPackets = "flood_packets",
        /// The source opens more connections per second than it may.
        FloodNewConnections = "flood_new_connections",
        /// The VIP is offered more new connections per second than it may take.
        VipNewConnections = "vip_new_connections",
        /// An ACK that acknowledges neither a cookie nor a connection, while cookies are in use.
        BadSynCookie = "bad_syn_cookie",
        /// A SYN with IP options or extension headers, while cookies are in use.
        SynOptions = "syn_options",
        /// The kernel makes no cookie (`net.ipv4.tcp_syncookies` is 0), or the frame has no room for the answer.
        NoSynCookie = "no_syn_cookie",
        /// The VIP has no worker that takes connections.
        NoWorker = "no_worker",
        /// IPv4 options on a packet to a VIP whose workers are elsewhere: no tunnel carries them, and routers on the way
        /// treat them each in their own way (RFC 7126).
        IpOptions = "ip_options",
        /// With the tunnel's headers it would exceed the MTU on the way to the worker, and its sender cannot be told:
        /// it allows fragments (DF is clear), came through a relay, or sent an ICMP error.
        TooBig = "too_big",
        /// No next hop to the worker is known: no route, no neighbour, or forwarding is off for the interface.
        NoRoute = "no_route",
        /// The driver left no room before the frame for the tunnel's headers.
        NoHeadroom = "no_headroom",
        /// Ends inside the ICMP header.
        TruncatedIcmp = "truncated_icmp",
        /// An ICMP message to a virtual address that is neither an echo request nor an error, or neighbour discovery from
        /// beyond a router.
        IcmpType = "icmp_type",
        /// An ICMP error to a virtual address with workers elsewhere that does not tell the flow it is about: it quotes too
        /// little, a later fragment, or a packet of another address. If the address has none here, also one about a packet
        /// without ports, or from a port that no VIP has.
        IcmpQuote = "icmp_quote",
        /// More ICMP answers are due than are given in a second.
        IcmpRate = "icmp_rate",
        /// A tunnel's header with IPv4 options.
        TunnelOptions = "tunnel_options",
        /// A fragment of a tunnel's packet.
        TunnelFragment = "tunnel_fragment",
        /// A tunnel's IPv4 header with a wrong checksum.
        TunnelChecksum = "tunnel_checksum",
        /// A GUE header of an unknown variant, of a control message, or of something that is no IP packet.
        TunnelHeader = "tunnel_header",
        /// From a source that no tunnel is accepted from.
        TunnelSource = "tunnel_source",
        /// A tunnel with something else inside than a packet to a virtual address of this node, or a tunnel to a node that
        /// is not among `tunnels.trusted`.
        TunnelInner = "tunnel_inner",
        /// A packet in a tunnel whose time to live is over.
        TunnelTtl = "tunnel_ttl",
        /// A tunnel's header that a router marked for congestion, around a packet that cannot carry the mark.
        TunnelCongestion = "tunnel_congestion",
        /// A part of the program is missing, or a helper refused a frame.
        Internal = "internal",
    }
}

reasons! {
    /// How the worker of a forwarded packet was found.
    FlowReason {
        /// The connection table knows the flow.
        Known = "known",
        /// A first packet: the selection's worker, which the connection table remembers from now on.
        New = "new",
        /// The connection table does not know the flow, though it is no first packet (another node had it, or the table
        /// lost it): the selection's worker, remembered from now on.
        Adopted = "adopted",
        /// The flow's worker is down or gone: the selection's worker, remembered from now on.
        Reselected = "reselected",
        /// The selection's worker, for a VIP without a connection table.
        Stateless = "stateless",
        /// The selection's worker; the connection table had no place to remember it.
        Unrecorded = "unrecorded",
        /// An ICMP error, which goes where the flow goes that it quotes: to the worker that the connection table has for it,
        /// else to the selection's.
        Quoted = "quoted",
        /// The connection table does not know the flow from its beginning, and the slot had another owner before: the packet
        /// carries both, for the first that has the connection. At a worker's node: handed on to the previous owner, because
        /// no socket here has the connection.
        SecondHop = "second_hop",
    }
}

reasons! {
    /// What a flow was that gave its place in the connection table to another. It is selected anew by its next packet,
    /// which finds the same worker unless the pool has changed.
    Eviction {
        /// Nobody had answered yet: SYNs alone, or one datagram.
        Unconfirmed = "unconfirmed",
        /// It had sent nothing for the idle time.
        Idle = "idle",
        /// It was alive: the table is too small for its flows.
        Confirmed = "confirmed",
    }
}

reasons! {
    /// What a packet was turned into that goes back to its sender.
    ReplyReason {
        /// A SYN into a SYN-ACK with a cookie.
        SynCookie = "syn_cookie",
        /// A SYN that came by a tunnel into a SYN-ACK with a cookie, which goes to the client by this node's own route and not
        /// back to the load balancer.
        RoutedSynCookie = "routed_syn_cookie",
        /// An ICMP echo request into its reply.
        Echo = "echo",
        /// A packet that is too big for the tunnel into ICMP "fragmentation needed" or ICMPv6 "packet too big".
        TooBig = "icmp_too_big",
    }
}

reasons! {
    /// Why a SYN that came by a tunnel was left to the kernel, whose own cookie answers it, while XDP's were in use.
    LeftToKernel {
        /// The kernel says no way: `net.ipv4.conf.lo.forwarding` (or `net.ipv6...`) is 0, and edge could not set it.
        ForwardingOff = "answer_forwarding_off",
        /// No route leads from the virtual address to the client, or one that XDP cannot take: to this node itself, or by an
        /// encapsulation of the kernel's.
        NoRoute = "answer_no_route",
        /// The MAC address of the next hop is not known; the kernel asks for it when it answers.
        NoNeighbour = "answer_no_neighbour",
        /// The route leaves by an interface that edge is not attached to, or that is a VLAN of one.
        OtherInterface = "answer_other_interface",
    }
}

/// What becomes of a packet. One exhaustive match in edge-ebpf turns it into action, counters and trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Up the stack, untouched.
    Pass(PassReason),
    /// To a worker of this node.
    Deliver {
        /// Index of the VIP.
        vip: u32,
        /// Index of the worker whose socket takes the flow.
        worker: u32,
        /// TCP with SYN and without ACK.
        opens_connection: bool,
    },
    /// To a worker elsewhere, by the interface it came in by or by another.
    Forward {
        /// Index of the VIP; [`Trace::NONE`] at a worker's node, which hands the packet on in the tunnel that it came with.
        vip: u32,
        /// Index of the worker; likewise.
        worker: u32,
        /// How the worker was found.
        flow: FlowReason,
        /// TCP with SYN and without ACK.
        opens_connection: bool,
    },
    /// Back to its sender, turned into an answer.
    Reply {
        /// Into which.
        reason: ReplyReason,
        /// Index of the VIP; [`Trace::NONE`] where the answer is the address's.
        vip: u32,
    },
    /// Away.
    Drop {
        /// Why.
        reason: DropReason,
        /// The VIP that it was for, where that is known.
        vip: Option<u32>,
    },
}

impl Verdict {
    /// A drop before the VIP is known.
    #[inline(always)]
    #[must_use]
    pub const fn drop(reason: DropReason) -> Self {
        Self::Drop { reason, vip: None }
    }
}

/// Verdict in the layout of the map `TRACE`, which explains one packet to userspace.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trace {
    /// [`Trace::PASS`] or one of its sisters; 0: no packet was seen.
    pub kind: u32,
    /// Index of the reason; of a delivered or forwarded packet 1 if it opens a connection.
    pub reason: u32,
    /// Index of the VIP, or [`Trace::NONE`].
    pub vip: u32,
    /// Index of the worker, or [`Trace::NONE`].
    pub worker: u32,
    /// Index of the [`FlowReason`] of a forwarded packet, or [`Trace::NONE`].
    pub flow: u32,
}

crate::assert_size!(Trace = 20);

impl Trace {
    /// `kind` of [`Verdict::Pass`].
    pub const PASS: u32 = 1;
    /// `kind` of [`Verdict::Deliver`].
    pub const DELIVER: u32 = 2;
    /// `kind` of [`Verdict::Drop`].
    pub const DROP: u32 = 3;
    /// `kind` of [`Verdict::Reply`].
    pub const REPLY: u32 = 4;
    /// `kind` of [`Verdict::Forward`].
    pub const FORWARD: u32 = 5;
    /// Stands for "no VIP" and "no worker".
    pub const NONE: u32 = u32::MAX;
    /// That of a packet which a worker's node hands on.
    pub const HANDED_ON: Self = Self {
        kind: Self::FORWARD,
        reason: 0,
        vip: Self::NONE,
        worker: Self::NONE,
        flow: FlowReason::SecondHop.index(),
    };

    /// The verdict that this trace stands for; `None` if it stands for none.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let reason = self.reason as usize;
        let index = |value: u32| (value != Self::NONE).then_some(value);
        match self.kind {
            Self::PASS => PassReason::ALL.get(reason).copied().map(Verdict::Pass),
            Self::DELIVER => Some(Verdict::Deliver {
                vip: index(self.vip)?,
                worker: index(self.worker)?,
                opens_connection: self.reason == 1,
            }),
            Self::FORWARD => Some(Verdict::Forward {
                vip: self.vip,
                worker: self.worker,
                flow: FlowReason::ALL.get(self.flow as usize).copied()?,
                opens_connection: self.reason == 1,
            }),
            Self::REPLY => Some(Verdict::Reply {
                reason: ReplyReason::ALL.get(reason).copied()?,
                vip: self.vip,
            }),
            Self::DROP => DropReason::ALL.get(reason).map(|&reason| Verdict::Drop {
                reason,
                vip: index(self.vip),
            }),
            _ => None,
        }
    }
}

impl From<Verdict> for Trace {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        let (kind, reason, vip, worker) = match verdict {
            Verdict::Pass(reason) => (Self::PASS, reason.index(), None, Self::NONE),
            Verdict::Deliver {
                vip,
                worker,
                opens_connection,
            } => (Self::DELIVER, opens_connection as u32, Some(vip), worker),
            Verdict::Forward {
                vip,
                worker,
                opens_connection,
                ..
            } => (Self::FORWARD, opens_connection as u32, Some(vip), worker),
            Verdict::Reply { reason, vip } => (Self::REPLY, reason.index(), Some(vip), Self::NONE),
            Verdict::Drop { reason, vip } => (Self::DROP, reason.index(), vip, Self::NONE),
        };
        let vip = match vip {
            Some(vip) => vip,
            None => Self::NONE,
        };
        let flow = match verdict {
            Verdict::Forward { flow, .. } => flow.index(),
            Verdict::Pass(_) | Verdict::Deliver { .. } | Verdict::Reply { .. } | Verdict::Drop { .. } => {
                Self::NONE
            }
        };
        Self {
            kind,
            reason,
            vip,
            worker,
            flow,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_reason_is_the_index_of_its_counter_and_no_name_is_used_twice() {
        let drops = DropReason::ALL
            .iter()
            .map(|reason| (reason.index(), reason.name()));
        let passes = PassReason::ALL
            .iter()
            .map(|reason| (reason.index(), reason.name()));
        for (at, (index, _)) in drops.clone().enumerate().chain(passes.clone().enumerate()) {
            assert_eq!(at, index as usize);
        }
        let replies = ReplyReason::ALL.iter().map(|reason| reason.name());
        let left = LeftToKernel::ALL.iter().map(|reason| reason.name());
        let names: Vec<_> = drops.chain(passes).map(|(_, name)| name).collect();
        let names: Vec<_> = names.into_iter().chain(replies).chain(left).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
    }

    #[test]
    fn a_trace_gives_back_the_verdict_that_made_it() {
        let verdicts = [
            Verdict::Pass(PassReason::PortNotServed),
            Verdict::Deliver {
                vip: 3,
                worker: 1023,
                opens_connection: true,
            },
            Verdict::Forward {
                vip: 1,
                worker: 7,
                flow: FlowReason::SecondHop,
                opens_connection: false,
            },
            Verdict::Drop {
                reason: DropReason::NoWorker,
                vip: Some(0),
            },
            Verdict::Reply {
                reason: ReplyReason::SynCookie,
                vip: 5,
            },
            Verdict::Forward {
                vip: Trace::NONE,
                worker: Trace::NONE,
                flow: FlowReason::SecondHop,
                opens_connection: false,
            },
            Verdict::drop(DropReason::TruncatedEthernet),
        ];
        for verdict in verdicts {
            assert_eq!(Trace::from(verdict).verdict(), Some(verdict));
        }
        assert_eq!(Trace::default().verdict(), None);
    }
}
