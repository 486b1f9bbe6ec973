//! Response flags: why a response is as it is, under Envoy's names.

use std::fmt;

/// Envoy's `%RESPONSE_FLAGS%`, as far as they occur here, in the order in which several are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flag {
    /// `DI`: a fault delayed the request.
    DelayInjected,
    /// `FI`: a fault answered in place of the upstream.
    FaultInjected,
    /// `URX`: every retry that the policy allows was used.
    UpstreamRetryLimitExceeded,
    /// `NR`: no route matched.
    NoRoute,
    /// `NC`: the route names a cluster that does not exist.
    NoCluster,
    /// `DF`: none of the cluster's names resolves to an address. Envoy says so of clusters that it resolves on demand; it
    /// comes with `UH` here.
    DnsFailure,
    /// `UH`: the cluster has no endpoint to send to.
    NoHealthyUpstream,
    /// `UF`: no connection could be made.
    UpstreamConnectionFailure,
    /// `UC`: the connection to the upstream ended too early.
    UpstreamConnectionTermination,
    /// `UO`: a circuit breaker was open.
    UpstreamOverflow,
    /// `LR`: the gateway reset the upstream's stream, for what the upstream did.
    LocalReset,
    /// `UR`: the upstream reset the stream.
    UpstreamRemoteReset,
    /// `UPE`: the upstream's answer was not HTTP.
    UpstreamProtocolError,
    /// `UT`: the route's timeout, or that of the last try, ran out.
    UpstreamRequestTimeout,
    /// `RL`: refused by a rate limit.
    RateLimited,
    /// `SI`: the client sent nothing of its request for too long.
    StreamIdleTimeout,
    /// `DPE`: the client's request was malformed.
    DownstreamProtocolError,
    /// `DC`: the client went away before the response was complete.
    DownstreamConnectionTermination,
    /// `OM`: the edge is overloaded.
    OverloadManager,
    /// `DR`: the client reset the stream of a request over HTTP/2, whose connection goes on.
    DownstreamRemoteReset,
    /// `DT`: the connection has lasted as long as it may.
    DurationTimeout,
}

impl Flag {
    /// All flags in order, with Envoy's short and long names.
    const ALL: [(Self, &'static str, &'static str); 21] = [
        (Self::DelayInjected, "DI", "DelayInjected"),
        (Self::FaultInjected, "FI", "FaultInjected"),
        (
            Self::UpstreamRetryLimitExceeded,
            "URX",
            "UpstreamRetryLimitExceeded",
        ),
        (Self::NoRoute, "NR", "NoRouteFound"),
        (Self::NoCluster, "NC", "NoClusterFound"),
        (Self::DnsFailure, "DF", "DnsResolutionFailed"),
        (Self::NoHealthyUpstream, "UH", "NoHealthyUpstream"),
        (Self::UpstreamConnectionFailure, "UF", "UpstreamConnectionFailure"),
        (
            Self::UpstreamConnectionTermination,
            "UC",
            "UpstreamConnectionTermination",
        ),
        (Self::UpstreamOverflow, "UO", "UpstreamOverflow"),
        (Self::LocalReset, "LR", "LocalReset"),
        (Self::UpstreamRemoteReset, "UR", "UpstreamRemoteReset"),
        (Self::UpstreamProtocolError, "UPE", "UpstreamProtocolError"),
        (Self::UpstreamRequestTimeout, "UT", "UpstreamRequestTimeout"),
        (Self::RateLimited, "RL", "RateLimited"),
        (Self::StreamIdleTimeout, "SI", "StreamIdleTimeout"),
        (Self::DownstreamProtocolError, "DPE", "DownstreamProtocolError"),
        (
            Self::DownstreamConnectionTermination,
            "DC",
            "DownstreamConnectionTermination",
        ),
        (Self::OverloadManager, "OM", "OverloadManagerTerminated"),
        (Self::DownstreamRemoteReset, "DR", "DownstreamRemoteReset"),
        (Self::DurationTimeout, "DT", "DurationTimeout"),
    ];

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// A set of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Flags(u32);

impl Flags {
    /// `-`: nothing out of the ordinary.
    pub(crate) const NONE: Self = Self(0);

    /// The set with one more flag.
    #[must_use]
    pub(crate) fn with(self, flag: Flag) -> Self {
        Self(self.0 | flag.bit())
    }

    /// The flags of both.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn contains(self, flag: Flag) -> bool {
        self.0 & flag.bit() != 0
    }

    /// The long names, joined by commas.
    pub(crate) fn long(self) -> String {
        self.joined(|(_, _, long)| long)
    }

    fn joined(self, name: fn((Flag, &'static str, &'static str)) -> &'static str) -> String {
        let own = Flag::ALL.into_iter().filter(|(flag, ..)| self.contains(*flag));
        let names: Vec<_> = own.map(name).collect();
        match names.as_slice() {
            [] => "-".to_owned(),
            names => names.join(","),
        }
    }
}

impl From<Flag> for Flags {
    fn from(flag: Flag) -> Self {
        Self::NONE.with(flag)
    }
}

impl fmt::Display for Flags {
    /// The short names, joined by commas, as in metrics and access logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined(|(_, short, _)| short))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_flags_are_joined_in_envoys_order() {
        let of = |flags: &[Flag]| flags.iter().fold(Flags::NONE, |set, flag| set.with(*flag));
        for (flags, expected) in [
            (of(&[]), "-"),
            (of(&[Flag::NoRoute]), "NR"),
            (
                of(&[Flag::UpstreamConnectionFailure, Flag::UpstreamRetryLimitExceeded]),
                "URX,UF",
            ),
            (of(&[Flag::FaultInjected, Flag::DelayInjected]), "DI,FI"),
        ] {
            assert_eq!(flags.to_string(), expected);
        }
        let names: std::collections::HashSet<_> = Flag::ALL.iter().map(|(_, short, _)| short).collect();
        assert_eq!(names.len(), Flag::ALL.len());
        assert!(
            Flag::ALL
                .iter()
                .enumerate()
                .all(|(at, (flag, ..))| *flag as usize == at)
        );
    }
}
