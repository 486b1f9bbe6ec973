//! Response flags: why a response is as it is, under Envoy's names.

/// Envoy's `%RESPONSE_FLAGS%`, as far as they occur here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flag {
    /// `-`: nothing out of the ordinary.
    None,
    /// `NR`: no route matched.
    NoRoute,
    /// `NC`: the route names a cluster that does not exist.
    NoCluster,
    /// `UH`: the cluster has no endpoint to send to.
    NoHealthyUpstream,
    /// `UF`: no connection could be made.
    UpstreamConnectionFailure,
    /// `UC`: the connection to the upstream ended too early.
    UpstreamConnectionTermination,
    /// `UPE`: the upstream's answer was not HTTP/1.1.
    UpstreamProtocolError,
    /// `UT`: the route's timeout ran out.
    UpstreamRequestTimeout,
    /// `RL`: refused by a rate limit.
    RateLimited,
    /// `DPE`: the client's request was malformed.
    DownstreamProtocolError,
    /// `DC`: the client went away before the response was complete.
    DownstreamConnectionTermination,
}

impl Flag {
    /// The short name, as in metrics and access logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectionFailure => "UF",
            Self::UpstreamConnectionTermination => "UC",
            Self::UpstreamProtocolError => "UPE",
            Self::UpstreamRequestTimeout => "UT",
            Self::RateLimited => "RL",
            Self::DownstreamProtocolError => "DPE",
            Self::DownstreamConnectionTermination => "DC",
        }
    }
}
