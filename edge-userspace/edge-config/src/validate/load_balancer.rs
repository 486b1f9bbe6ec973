//! Load balancer settings of a DestinationRule.

use std::collections::HashSet;

use super::values;
use crate::checker::Checker;
use crate::istio::destination_rule::policy::{
    ConsistentHashLb, Failover, HttpCookie, LoadBalancerSettings, LocalityLbSetting, Maglev,
    WarmupConfiguration,
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
    if let Some(zone) = &settings.zone_aware_lb_setting {
        let path = format!("{path}.zoneAwareLbSetting");
        for (index, label) in zone.failover_priority.iter().enumerate() {
            if TOPOLOGY.contains(&label.as_str()) {
                let message =
                    format!("{label} needs no place: regions and zones are told apart by themselves");
                check.error(&format!("{path}.failoverPriority[{index}]"), message, "remove it");
            }
        }
        let has_failover = !zone.failover.is_empty() || !zone.failover_priority.is_empty();
        failover(check, &path, &zone.failover, has_failover && !outlier_detection);
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
    // Envoy lets 1 through.
    number >= 1
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
    if let Some(percent) = warmup.minimum_percent.filter(|percent| *percent > 100.0) {
        let message = format!("{percent} % is more than 100");
        check.error(&format!("{path}.minimumPercent"), message, "10 is the default");
    }
    if warmup.aggression.is_some_and(|aggression| aggression <= 0.0) {
        check.error(
            &format!("{path}.aggression"),
            "must be above 0",
            "1 is a linear rise",
        );
    }
}

/// Labels that say where an endpoint is.
const TOPOLOGY: [&str; 3] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];

fn locality(check: &mut Checker<'_>, path: &str, setting: &LocalityLbSetting, outlier_detection: bool) {
    let has_failover = !setting.failover.is_empty();
    if !setting.distribute.is_empty() && has_failover {
        check.error(path, "distribute excludes failover", "keep one of them");
    }
    // Other labels of failoverPriority refine failover.
    let topology = setting
        .failover_priority
        .iter()
        .find(|label| TOPOLOGY.contains(&label.as_str()));
    if let Some(label) = topology.filter(|_| has_failover) {
        let message = format!("{label} excludes failover, which is about regions, too");
        check.error(&format!("{path}.failoverPriority"), message, "keep one of them");
    }
    for (index, distribute) in setting.distribute.iter().enumerate() {
        let path = format!("{path}.distribute[{index}].to");
        let sum: u64 = distribute.to.values().map(|share| u64::from(*share)).sum();
        if sum != 100 || distribute.to.values().any(|share| !(1..=100).contains(share)) {
            let message = format!("the shares sum to {sum}");
            check.error(&path, message, "give shares from 1 to 100 that sum to 100");
        }
        localities(check, &path, distribute.to.keys());
    }
    let sources = setting.distribute.iter().map(|distribute| &distribute.from);
    localities(check, &format!("{path}.distribute"), sources);
    let fails_over = has_failover || !setting.failover_priority.is_empty();
    failover(check, path, &setting.failover, fails_over && !outlier_detection);
}

/// Places as `region/zone/subzone`, of which a `*` may stand for what is at the end. No two may overlap.
fn localities<'a>(check: &mut Checker<'_>, field: &str, places: impl Iterator<Item = &'a String>) {
    let mut seen = Places::default();
    for place in places {
        let stars = place.matches('*').count();
        if stars > 1 || (stars == 1 && !place.ends_with('*')) {
            check.error(
                field,
                format!("{place:?} has a * elsewhere than at its end"),
                "write region/zone/*",
            );
        }
        if place.splitn(3, '/').any(str::is_empty) {
            check.error(
                field,
                format!("{place:?} has an empty part"),
                "write region/zone/subzone",
            );
        } else if seen.overlap(place) {
            let message = format!("{place:?} is within another place, or another within it");
            check.error(field, message, "name places that have nothing in common");
        }
    }
}

/// Places that were seen, without stars at their ends, so that overlaps are found by look-ups.
#[derive(Default)]
struct Places<'a> {
    whole: HashSet<&'a str>,
    /// Every place that one of them is within.
    around: HashSet<&'a str>,
}

impl<'a> Places<'a> {
    /// Adds a place; whether it is within one of those before it, or one of them within it, or both are the same.
    fn overlap(&mut self, place: &'a str) -> bool {
        let place = match place.strip_suffix('*') {
            Some(rest) => rest.strip_suffix('/').unwrap_or(rest),
            None => place,
        };
        let slashes = place.match_indices('/').take(2).map(|(at, _)| at);
        let around: Vec<&str> = slashes.filter_map(|at| place.get(..at)).chain(Some("")).collect();
        let within = around
            .iter()
            .any(|wider| *wider != place && self.whole.contains(wider));
        let overlaps = within || self.whole.contains(place) || self.around.contains(place);
        self.whole.insert(place);
        self.around
            .extend(around.into_iter().filter(|wider| *wider != place));
        overlaps
    }
}

fn failover(check: &mut Checker<'_>, path: &str, pairs: &[Failover], lacks_outlier_detection: bool) {
    if lacks_outlier_detection {
        let hint = "add outlierDetection to the same policy";
        check.warn(
            &format!("{path}.failover"),
            "has no effect without outlierDetection",
            hint,
        );
    }
    for (index, Failover { from, to }) in pairs.iter().enumerate() {
        let field = format!("{path}.failover[{index}].to");
        if from == to {
            check.error(
                &field,
                "a region cannot fail over to itself",
                "name another region",
            );
        }
        if from.contains(['/', '*']) || to.contains(['/', '*']) {
            let hint = "write the names of regions";
            check.error(&field, "only whole regions fail over", hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_overlap_when_one_is_within_the_other() {
        for (one, other, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a/b", "a", true),
            ("a", "b", false),
            ("a/b", "a/c", false),
            ("a/*", "a/c", true),
            ("*", "a/c/d", true),
            ("a/b/c", "a/b/d", false),
            ("a/b/c", "a/b/*", true),
        ] {
            let mut places = Places::default();
            assert!(!places.overlap(one), "{one}");
            assert_eq!(places.overlap(other), expected, "{one} {other}");
        }
    }

    #[test]
    fn primes_are_told_from_other_numbers() {
        for (number, expected) in [
            (0, false),
            (1, true),
            (2, true),
            (9, false),
            (65_537, true),
            (65_536, false),
        ] {
            assert_eq!(is_prime(number), expected, "{number}");
        }
    }
}
