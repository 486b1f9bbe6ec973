//! The checks. Each reads one thing from /proc, /sys or the kernel's netlink and judges it.

use std::fs;
use std::path::Path;

use super::Finding;
use super::links::Link;
use super::xdp_features::{self, XdpFeatures};

/// Oldest kernel that has every helper the programs call; the newest of them is `bpf_ktime_get_coarse_ns` in 5.11, and
/// the verifier has taken their loops since 5.19.
const OLDEST_KERNEL: (u32, u32) = (5, 19);

/// Largest MTU that common drivers take with an XDP program of one buffer a packet: a 4 KiB page less headroom (256)
/// and `skb_shared_info` (320).
const LARGEST_MTU: u32 = 3498;

/// Accept queues are cut to this sysctl's value; the listeners ask for as much.
const BACKLOG: u64 = 4096;

/// Descriptors that a busy node needs: two for each proxied connection.
const DESCRIPTORS: u64 = 65_536;

/// Capability numbers of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Runs all checks for the given interfaces.
pub(super) fn all(interfaces: &[String], links: &[Link]) -> Vec<Finding> {
    let mut findings = vec![
        kernel(&read("/proc/sys/kernel/osrelease")),
        privileges(&read("/proc/self/status")),
        btf(Path::new("/sys/kernel/btf/vmlinux").exists()),
        jit(&read("/proc/sys/net/core/bpf_jit_enable")),
        backlog(&read("/proc/sys/net/core/somaxconn")),
        syn_cookies(&read("/proc/sys/net/ipv4/tcp_syncookies")),
        descriptors(&read("/proc/self/limits")),
    ];
    if interfaces.is_empty() {
        let hint = "name one with --interface, or under `interfaces` in edge.yaml";
        findings.push(Finding::warning(
            "interface",
            "none to check: tier 1 would be off",
            hint,
        ));
    }
    for name in interfaces {
        findings.extend(interface(name, links));
    }
    findings
}

/// The file's text without surrounding white space; empty when it cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn kernel(release: &str) -> Finding {
    let mut parts = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= OLDEST_KERNEL {
        Finding::ok("kernel", release)
    } else {
        let (major, minor) = OLDEST_KERNEL;
        Finding::failure(
            "kernel",
            release,
            format!("tier 1 needs Linux {major}.{minor} or newer"),
        )
    }
}

fn privileges(status: &str) -> Finding {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: u32| effective & (1 << capability) != 0;
    let missing: Vec<&str> = [
        ("CAP_BPF", CAP_BPF),
        ("CAP_NET_ADMIN", CAP_NET_ADMIN),
        ("CAP_PERFMON", CAP_PERFMON),
    ]
    .into_iter()
    .filter(|(_, capability)| !(has(*capability) || has(CAP_SYS_ADMIN) && *capability != CAP_NET_ADMIN))
    .map(|(name, _)| name)
    .collect();
    if missing.is_empty() {
        Finding::ok("privileges", "may load and attach BPF programs")
    } else {
        let detail = format!("missing {}", missing.join(", "));
        Finding::failure(
            "privileges",
            detail,
            "run as root, or give the process these capabilities",
        )
    }
}

fn btf(present: bool) -> Finding {
    if present {
        Finding::ok("BTF", "/sys/kernel/btf/vmlinux")
    } else {
        let hint = "use a kernel built with CONFIG_DEBUG_INFO_BTF (distributions' kernels are)";
        Finding::warning("BTF", "the kernel does not describe its types", hint)
    }
}

fn jit(value: &str) -> Finding {
    if value.is_empty() {
        // The kernel shows this sysctl in the first network namespace only.
        return Finding::ok("BPF JIT", "not told in this network namespace");
    }
    if matches!(value, "1" | "2") {
        Finding::ok("BPF JIT", format!("net.core.bpf_jit_enable = {value}"))
    } else {
        let hint = "sysctl -w net.core.bpf_jit_enable=1 (interpreted programs are several times slower)";
        Finding::warning("BPF JIT", format!("net.core.bpf_jit_enable = {value:?}"), hint)
    }
}

fn backlog(value: &str) -> Finding {
    let detail = format!("net.core.somaxconn = {value}");
    if value.parse::<u64>().is_ok_and(|value| value >= BACKLOG) {
        Finding::ok("accept queue", detail)
    } else {
        Finding::warning(
            "accept queue",
            detail,
            format!("sysctl -w net.core.somaxconn={BACKLOG}"),
        )
    }
}

fn syn_cookies(value: &str) -> Finding {
    let detail = format!("net.ipv4.tcp_syncookies = {value}");
    if value == "0" {
        let hint =
            "sysctl -w net.ipv4.tcp_syncookies=1 (a SYN flood from many sources fills the queue otherwise)";
        Finding::warning("SYN cookies", detail, hint)
    } else {
        Finding::ok("SYN cookies", detail)
    }
}

fn descriptors(limits: &str) -> Finding {
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or("0");
    let enough = soft == "unlimited" || soft.parse::<u64>().is_ok_and(|soft| soft >= DESCRIPTORS);
    if enough {
        Finding::ok("open files", soft)
    } else {
        let hint = format!(
            "ulimit -n {DESCRIPTORS} (systemd: LimitNOFILE={DESCRIPTORS}); each connection takes two"
        );
        Finding::warning("open files", soft, hint)
    }
}

fn interface(name: &str, links: &[Link]) -> Vec<Finding> {
    let check = format!("interface {name}");
    let Some(link) = links.iter().find(|link| link.name == name) else {
        let hint = "see `ip link`; the name stands under `interfaces` in edge.yaml";
        return vec![Finding::failure(check, "not there", hint)];
    };
    vec![
        link_state(&check, link),
        driver_mode(&check, xdp_features::of_interface(link.index)),
        mtu(&check, link.mtu),
        reverse_path_filter(
            &check,
            &read(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")),
        ),
    ]
}

fn link_state(check: &str, link: &Link) -> Finding {
    let check = format!("{check}: link");
    if link.up {
        Finding::ok(check, "up")
    } else {
        Finding::failure(check, "down", format!("ip link set {} up", link.name))
    }
}

fn driver_mode(check: &str, features: std::io::Result<Option<XdpFeatures>>) -> Finding {
    let check = format!("{check}: driver mode");
    let generic =
        "packets go through generic XDP: it works, after the kernel has built an skb for each packet";
    match features {
        Ok(Some(features)) if features.native() => Finding::ok(check, format!("native XDP ({features})")),
        Ok(Some(_)) => Finding::warning(check, "the driver has no native XDP", generic),
        Ok(None) => Finding::warning(
            check,
            "the kernel does not tell (it does from 6.3 on)",
            "`edge status` shows the mode",
        ),
        Err(error) => Finding::warning(check, format!("cannot ask the kernel: {error}"), generic),
    }
}

fn mtu(check: &str, mtu: u32) -> Finding {
    let check = format!("{check}: MTU");
    if mtu <= LARGEST_MTU {
        return Finding::ok(check, mtu.to_string());
    }
    let hint =
        format!("many drivers refuse native XDP above {LARGEST_MTU}: lower the MTU, or use generic mode");
    Finding::warning(check, mtu.to_string(), hint)
}

fn reverse_path_filter(check: &str, value: &str) -> Finding {
    let check = format!("{check}: rp_filter");
    if value == "1" {
        let hint = "strict: packets whose way back leads over another interface are dropped by the kernel; 2 is loose";
        Finding::warning(check, value, hint)
    } else {
        Finding::ok(check, value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[track_caller]
    fn check(finding: &Finding, expected: Health) {
        assert_eq!(finding.status, expected, "{finding}");
        assert_eq!(
            finding.hint.is_empty(),
            expected == Health::Ok,
            "a hint stands where something is to be done"
        );
    }

    #[test]
    fn kernels_before_5_19_are_too_old() {
        check(&kernel("6.18.44-fc"), Health::Ok);
        check(&kernel("5.19.0"), Health::Ok);
        check(&kernel("5.15.0-33-amd64"), Health::Failure);
        check(&kernel(""), Health::Failure);
    }

    #[test]
    fn sys_admin_stands_for_bpf_but_not_for_net_admin() {
        let with = |mask: u64| format!("Name:\tedge\nCapEff:\t{mask:016x}\n");
        check(&privileges(&with(u64::MAX)), Health::Ok);
        check(
            &privileges(&with(1 << CAP_BPF | 1 << CAP_PERFMON | 1 << CAP_NET_ADMIN)),
            Health::Ok,
        );
        check(
            &privileges(&with(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN)),
            Health::Ok,
        );
        check(&privileges(&with(1 << CAP_SYS_ADMIN)), Health::Failure);
        check(&privileges(&with(0)), Health::Failure);
    }

    #[test]
    fn limits_below_what_a_busy_node_needs_are_warned_of() {
        check(
            &descriptors("Max open files            1024                 4096     files"),
            Health::Warning,
        );
        check(
            &descriptors("Max open files            1048576              1048576  files"),
            Health::Ok,
        );
        check(&backlog("128"), Health::Warning);
        check(&backlog("4096"), Health::Ok);
        check(&mtu("interface x", 9000), Health::Warning);
        check(&mtu("interface x", 1500), Health::Ok);
        check(&syn_cookies("0"), Health::Warning);
        check(&jit("0"), Health::Warning);
        check(&btf(false), Health::Warning);
        check(&reverse_path_filter("interface x", "1"), Health::Warning);
    }

    #[test]
    fn an_interface_that_is_not_there_is_a_failure_with_a_hint() {
        let findings = interface("no-such-if0", &[]);
        assert_eq!(findings.len(), 1);
        check(&findings[0], Health::Failure);
    }
}
