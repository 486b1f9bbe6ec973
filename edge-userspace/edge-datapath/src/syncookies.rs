//! What SYN cookies need to know of the kernel, and what they need of it.

use std::{fs, io};

use edge_common::Config;
use edge_common::flood::Rate;
use edge_common::route::Uplink;
use edge_common::syncookie::Settings;
use edge_model::{DataPathConfig, SynCookies, TokenRate, TunnelRole};

use crate::Error;

/// Bytes of each segment that its time stamp takes, with padding (`TCPOLEN_TSTAMP_ALIGNED`).
const TIMESTAMP_LEN: u16 = 12;

/// The sysctl by which the kernel answers every SYN that it sees with a cookie, and so accepts those of XDP.
const SYNCOOKIES: &str = "net/ipv4/tcp_syncookies";

/// The sysctls by which the kernel says the routes of what the node itself sends, which are those of packets that come by `lo`.
/// Nothing is forwarded because of them: no packet of somebody else comes by it.
const OWN_ROUTES: [&str; 2] = ["net/ipv4/conf/lo/forwarding", "net/ipv6/conf/lo/forwarding"];

/// Which SYNs are answered in XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// None.
    None,
    /// Those that came by no tunnel: the answer goes back the way that they came.
    Back,
    /// These, and those that came by tunnels for this node: to them the answer goes by the node's route to the client.
    ByRoute,
}

/// Which SYNs a configuration has answered. A plain host does not look into what is in tunnels.
pub(crate) fn answered(desired: &DataPathConfig) -> Answered {
    let tunnels = desired.tunnels.as_ref();
    let ends_tunnels =
        tunnels.is_some_and(|tunnels| tunnels.role == TunnelRole::Gateway && !tunnels.endpoints.is_empty());
    match desired.syn_cookies {
        None => Answered::None,
        Some(_) if ends_tunnels => Answered::ByRoute,
        Some(_) => Answered::Back,
    }
}

/// Whether the programs answer SYNs by these settings.
pub(crate) const fn uses_cookies(config: &Config) -> bool {
    config.has(Config::COOKIES_ALWAYS | Config::COOKIES_AUTO)
}

/// The flags and settings that a configuration asks for by itself.
pub(crate) fn desired(desired: &DataPathConfig) -> (u32, Settings) {
    let rate = |rate: TokenRate| Rate::new(rate.per_second, rate.burst);
    let mut flags = 0;
    let mut settings = Settings::default();
    if let Some(limit) = desired.vip_limit {
        flags |= Config::HAS_VIP_GUARDS | Config::HAS_VIP_LIMIT;
        settings.vip_limit = rate(limit);
    }
    match desired.syn_cookies {
        None => {}
        Some(SynCookies::Always) => flags |= Config::HAS_VIP_GUARDS | Config::COOKIES_ALWAYS,
        Some(SynCookies::Above(unanswered)) => {
            flags |= Config::HAS_VIP_GUARDS | Config::COOKIES_AUTO;
            settings.unanswered = rate(unanswered);
        }
    }
    (flags, settings)
}

/// Adds what the kernel would offer with a cookie of its own, to segments of at most this size. When it takes a cookie it computes
/// the scale of windows anew, and the client must have been told the same.
pub(crate) fn complete(settings: &mut Settings, offer: Uplink) {
    let receive: Vec<u64> = numbers("net/ipv4/tcp_rmem");
    let at = |index: usize, otherwise| receive.get(index).copied().unwrap_or(otherwise);
    let most = numbers("net/core/rmem_max")
        .first()
        .copied()
        .unwrap_or(0)
        .max(at(2, 6 << 20));
    let Uplink { mss4, mss6 } = offer;
    let buffer = at(1, 131_072);
    (settings.mss4, settings.mss6) = (mss4, mss6);
    (settings.window4, settings.window6) = (window(buffer, mss4), window(buffer, mss6));
    let stamped = |mss: u16| window(buffer, mss.saturating_sub(TIMESTAMP_LEN));
    (settings.stamped_window4, settings.stamped_window6) = (stamped(mss4), stamped(mss6));
    settings.window_scale = window_scale(most);
    // 2: time stamps without a secret offset, from which the kernel can read the options that XDP wrote into them.
    settings.has_timestamps = u16::from(numbers("net/ipv4/tcp_timestamps") == [2]);
}

/// Makes the kernel accept the cookies: they are refused by a listener that has not sent one itself.
///
/// # Errors
/// The sysctl cannot be written.
pub(crate) fn prepare() -> Result<(), Error> {
    if numbers(SYNCOOKIES) == [2] {
        return Ok(());
    }
    fs::write(format!("/proc/sys/{SYNCOOKIES}"), "2").map_err(|source| Error::Sysctl {
        name: SYNCOOKIES,
        value: "2",
        source,
    })?;
    tracing::info!(
        "sysctl {SYNCOOKIES} set to 2: the kernel answers SYNs with cookies, so that it accepts those of XDP"
    );
    Ok(())
}

/// Has the kernel say the routes of answers to what came by tunnels. Where it does not, it answers by itself.
pub(crate) fn open_own_routes() {
    for name in OWN_ROUTES.into_iter().filter(|name| numbers(name) != [1]) {
        match fs::write(format!("/proc/sys/{name}"), "1") {
            Ok(()) => {
                tracing::info!("sysctl {name} set to 1: XDP finds its way to clients by the node's routes")
            }
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(
                %error,
                "sysctl {name} cannot be set to 1: SYNs that come by tunnels are answered by the kernel, and not by XDP"
            ),
        }
    }
}

/// First window (`tcp_select_initial_window`): half of the buffer, in whole segments if it has room for one.
fn window(buffer: u64, segment: u16) -> u16 {
    let (space, segment) = (buffer / 2, u64::from(segment.max(1)));
    let space = if space > segment {
        space / segment * segment
    } else {
        space
    };
    u16::try_from(space).unwrap_or(u16::MAX)
}

/// Shift of later windows (same function).
fn window_scale(most: u64) -> u16 {
    most.checked_ilog2().unwrap_or(0).saturating_sub(15).min(14) as u16
}

/// The numbers of a sysctl; none if it cannot be read.
fn numbers(name: &str) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_that_the_kernel_chooses() {
        assert_eq!((window(131_072, 1460), window(131_072, 1440)), (64_240, 64_800));
        assert_eq!((window(131_072, 1448), window(131_072, 1428)), (65_160, 64_260));
        assert_eq!((window(16_384, 1460), window(100, 1460)), (7300, 50));
        assert_eq!((window(1 << 20, 1460), window(131_072, 0)), (u16::MAX, u16::MAX));
        assert_eq!(
            (window_scale(32 << 20), window_scale(6 << 20), window_scale(0)),
            (10, 7, 0)
        );
        assert_eq!(window_scale(u64::MAX), 14);
    }

    #[test]
    fn a_stage_without_work_has_no_flag() {
        let config = DataPathConfig::default();
        assert_eq!(desired(&config), (0, Settings::default()));
    }
}
