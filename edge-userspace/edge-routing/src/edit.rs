//! Header operations of routes and destinations, in the order that Istio gives them.

use edge_model::{HeaderEdit, Route, RouteAction, WeightedDestination};
use http::HeaderMap;
use http::header::HOST;

/// Edits the request's headers before it is forwarded.
///
/// With a single destination Istio appends its operations to the route's, so that the destination has the last word;
/// with several (Envoy's weighted clusters) those of the destination run first and the route's last. A `set` of Host
/// is no header operation but a rewrite, see [`rewrite`](crate::rewrite).
pub fn apply_request_ops(headers: &mut HeaderMap, route: &Route, destination: &WeightedDestination) {
    let (own, theirs) = (&route.headers.request, &destination.headers.request);
    apply_both(headers, own, theirs, has_single_destination(route));
}

/// Edits the response's headers before it goes to the client, by the same rules. A redirect or a direct response has
/// no destination.
pub fn apply_response_ops(headers: &mut HeaderMap, route: &Route, destination: Option<&WeightedDestination>) {
    let own = &route.headers.response;
    match destination {
        Some(destination) => {
            apply_both(
                headers,
                own,
                &destination.headers.response,
                has_single_destination(route),
            );
        }
        None => apply(headers, &[own]),
    }
}

fn has_single_destination(route: &Route) -> bool {
    matches!(&route.action, RouteAction::Forward(forward) if forward.destinations.len() == 1)
}

fn apply_both(headers: &mut HeaderMap, route: &HeaderEdit, destination: &HeaderEdit, is_single: bool) {
    if is_single {
        apply(headers, &[route, destination]);
    } else {
        apply(headers, &[destination]);
        apply(headers, &[route]);
    }
}

/// Applies edits as one list (Envoy `HeaderParser`): all removes, then the sets and adds of one edit after the other.
fn apply(headers: &mut HeaderMap, edits: &[&HeaderEdit]) {
    for name in edits
        .iter()
        .flat_map(|edit| &edit.remove)
        .filter(|name| **name != HOST)
    {
        headers.remove(name);
    }
    for edit in edits {
        for (name, value) in edit.set.iter().filter(|(name, _)| *name != HOST) {
            if let Some(value) = value.plain() {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in edit.add.iter().filter(|(name, _)| *name != HOST) {
            if let Some(value) = value.plain() {
                headers.append(name, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{forward_to, route};
    use edge_model::RouteMatch;
    use http::{HeaderName, HeaderValue};

    fn edit(
        remove: &[&'static str],
        set: &[(&'static str, &'static str)],
        add: &[(&'static str, &'static str)],
    ) -> HeaderEdit {
        let pairs = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value).into(),
                    )
                })
                .collect()
        };
        HeaderEdit {
            remove: remove.iter().map(|name| HeaderName::from_static(name)).collect(),
            set: pairs(set),
            add: pairs(add),
        }
    }

    #[track_caller]
    fn check(own: HeaderEdit, theirs: HeaderEdit, destinations: usize, name: &str, expected: &[&str]) {
        let all = [("a", 1), ("b", 1)];
        let mut route = route("r", RouteMatch::any(), forward_to(&all[..destinations]));
        let RouteAction::Forward(forward) = &route.action else {
            unreachable!("forward_to makes a Forward");
        };
        let mut destination = forward.destinations[0].clone();
        route.headers.request = own.clone();
        route.headers.response = own;
        destination.headers.request = theirs.clone();
        destination.headers.response = theirs;

        let mut start = HeaderMap::new();
        start.insert("x-a", HeaderValue::from_static("old"));
        start.insert(HOST, HeaderValue::from_static("a.com"));
        let mut request = start.clone();
        apply_request_ops(&mut request, &route, &destination);
        let mut response = start;
        apply_response_ops(&mut response, &route, Some(&destination));
        for headers in [request, response] {
            let lines: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(lines, expected, "{name} with {destinations} destinations");
        }
    }

    #[test]
    fn removes_run_before_sets_and_sets_before_adds() {
        check(
            edit(&["x-a"], &[("x-a", "new")], &[]),
            HeaderEdit::default(),
            1,
            "x-a",
            &["new"],
        );
        check(
            edit(&[], &[("x-a", "1")], &[("x-a", "2")]),
            HeaderEdit::default(),
            1,
            "x-a",
            &["1", "2"],
        );
        check(
            edit(&[], &[], &[("x-a", "2")]),
            HeaderEdit::default(),
            1,
            "x-a",
            &["old", "2"],
        );
        check(
            edit(&[], &[("x-a", "1")], &[]),
            edit(&["x-a"], &[], &[]),
            1,
            "x-a",
            &["1"],
        );
    }

    #[test]
    fn the_set_of_a_single_destination_beats_the_routes() {
        check(
            edit(&[], &[("x-a", "route")], &[]),
            edit(&[], &[("x-a", "dest")], &[]),
            1,
            "x-a",
            &["dest"],
        );
    }

    #[test]
    fn the_set_of_the_route_beats_that_of_one_destination_among_several() {
        check(
            edit(&[], &[("x-a", "route")], &[]),
            edit(&[], &[("x-a", "dest")], &[]),
            2,
            "x-a",
            &["route"],
        );
        check(
            edit(&[], &[], &[("x-b", "route")]),
            edit(&[], &[], &[("x-b", "dest")]),
            2,
            "x-b",
            &["dest", "route"],
        );
    }

    #[test]
    fn the_host_is_never_touched() {
        check(
            edit(&["host"], &[("host", "b.com")], &[("host", "c.com")]),
            HeaderEdit::default(),
            1,
            "host",
            &["a.com"],
        );
    }
}
