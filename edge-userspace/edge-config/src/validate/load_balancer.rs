//! Load balancer settings of a DestinationRule.

use std::collections::HashSet;

use super::values;
use crate::checker::Checker;
use crate::istio::destination_rule::policy::{
    ConsistentHashLb, HttpCookie, LoadBalancerSettings, LocalityLbSetting, Maglev, WarmupConfiguration,
};

/// Largest Maglev table of Envoy.
const MAX_MAGLEV_TABLE: u64 = 5_000_011;

pub(super) fn check(
    check: &mut Checker<'_>,
    path: &str,
    settings: &LoadBalancerSettings,
    outlier_detection: bool,
) {
    if settings.simple.is_some() && settings.consistent_hash.is_some() {
        check.error(
            path,
            "simple and consistentHash exclude each other",
            "keep one of them",
        );
    }
    if let Some(hash) = &settings.consistent_hash {
        consistent_hash(check, &format!("{path}.consistentHash"), hash);
    }
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        let message = "localityLbSetting and zoneAwareLbSetting exclude each other";
        check.error(path, message, "keep one of them");
    }
    if let Some(locality) = &settings.locality_lb_setting {
        self::locality(
            check,
            &format!("{path}.localityLbSetting"),
            locality,
            outlier_detection,
        );
    }
    if let Some(warmup) = &settings.warmup {
        self::warmup(check, &format!("{path}.warmup"), warmup);
    }
    values::duration(
        check,
        &format!("{path}.warmupDurationSecs"),
        settings.warmup_duration_secs,
    );
    if settings.warmup_duration_secs.is_some() {
        check.warn(
            &format!("{path}.warmupDurationSecs"),
            "is deprecated",
            "write warmup: {duration: ...}",
        );
    }
}

fn consistent_hash(check: &mut Checker<'_>, path: &str, hash: &ConsistentHashLb) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.into_iter().filter(|present| *present).count() > 1 {
        check.error(path, "only one hash key is possible", "keep one of the four");
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        check.error(path, "ringHash and maglev exclude each other", "keep one of them");
    }
    if hash.minimum_ring_size != 0 {
        let field = format!("{path}.minimumRingSize");
        check.warn(&field, "is deprecated", "write ringHash: {minimumRingSize: ...}");
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            check.error(&field, "excludes ringHash and maglev", "remove it");
        }
    }
    if let Some(maglev) = &hash.maglev {
        self::maglev(check, &format!("{path}.maglev.tableSize"), maglev);
    }
    if let Some(cookie) = &hash.http_cookie {
        self::cookie(check, &format!("{path}.httpCookie"), cookie);
    }
}

fn maglev(check: &mut Checker<'_>, field: &str, maglev: &Maglev) {
    let hint = "write a prime such as 65537";
    match maglev.table_size {
        None | Some(0) => check.error(field, "is missing", hint),
        Some(size) if size >= MAX_MAGLEV_TABLE => {
            check.error(field, format!("must be less than {MAX_MAGLEV_TABLE}"), hint);
        }
        Some(size) if !is_prime(size) => check.error(field, format!("{size} is not a prime"), hint),
        Some(_) => {}
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..)
            .take_while(|d| d * d <= number)
            .all(|d| !number.is_multiple_of(d))
}

fn cookie(check: &mut Checker<'_>, path: &str, cookie: &HttpCookie) {
    if cookie.name.is_empty() {
        check.error(&format!("{path}.name"), "is missing", "name the cookie");
    }
    let mut seen = HashSet::new();
    for (index, attribute) in cookie.attributes.iter().enumerate() {
        let field = format!("{path}.attributes[{index}].name");
        if attribute.name.is_empty() {
            check.error(&field, "is missing", "name the attribute, such as SameSite");
        } else if !seen.insert(&attribute.name) {
            check.error(
                &field,
                format!("attribute {:?} stands twice", attribute.name),
                "keep one of them",
            );
        }
    }
}

fn warmup(check: &mut Checker<'_>, path: &str, warmup: &WarmupConfiguration) {
    if warmup.duration.is_none() {
        check.error(
            &format!("{path}.duration"),
            "is missing",
            "set how long the warmup takes, such as 30s",
        );
    }
    values::duration(check, &format!("{path}.duration"), warmup.duration);
    if let Some(percent) = warmup.minimum_percent {
        values::percent_value(check, &format!("{path}.minimumPercent"), percent);
    }
    if warmup.aggression.is_some_and(|aggression| aggression <= 0.0) {
        check.error(
            &format!("{path}.aggression"),
            "must be above 0",
            "1 is a linear rise",
        );
    }
}

fn locality(check: &mut Checker<'_>, path: &str, setting: &LocalityLbSetting, outlier_detection: bool) {
    let kinds = [
        !setting.distribute.is_empty(),
        !setting.failover.is_empty(),
        !setting.failover_priority.is_empty(),
    ];
    // Istio lets failover and failoverPriority stand together: the one refines the other.
    if kinds[0] && (kinds[1] || kinds[2]) {
        check.error(
            path,
            "distribute excludes failover and failoverPriority",
            "keep one of them",
        );
    }
    if kinds[1] && !outlier_detection {
        let hint = "add outlierDetection to the same policy";
        check.warn(
            &format!("{path}.failover"),
            "has no effect without outlierDetection",
            hint,
        );
    }
    for (index, distribute) in setting.distribute.iter().enumerate() {
        let path = format!("{path}.distribute[{index}]");
        let sum: u64 = distribute.to.values().map(|share| u64::from(*share)).sum();
        if sum != 100 || distribute.to.values().any(|share| !(1..=100).contains(share)) {
            let message = format!("the shares sum to {sum}");
            check.error(
                &format!("{path}.to"),
                message,
                "give shares from 1 to 100 that sum to 100",
            );
        }
    }
    for (index, failover) in setting.failover.iter().enumerate() {
        if failover.from == failover.to {
            let field = format!("{path}.failover[{index}].to");
            check.error(
                &field,
                "a region cannot fail over to itself",
                "name another region",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_other_numbers() {
        for (number, expected) in [
            (0, false),
            (1, false),
            (2, true),
            (9, false),
            (65_537, true),
            (65_536, false),
        ] {
            assert_eq!(is_prime(number), expected, "{number}");
        }
    }
}
