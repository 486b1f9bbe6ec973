//! Header operations of routes and destinations, in the order that Istio gives them.

use edge_model::{
    FormatCommand, FormatPart, FormatString, HeaderEdit, HeaderTemplate, Route, RouteAction,
    WeightedDestination,
};
use http::header::HOST;
use http::{HeaderMap, HeaderValue};

/// What a format command stands for; `None` when there is nothing.
pub type FormatValues<'v> = &'v dyn Fn(&FormatCommand) -> Option<String>;

/// Edits the request's headers before it is forwarded; `values` fills in format commands.
///
/// With a single destination Istio appends its operations to the route's, so that the destination has the last word;
/// with several (Envoy's weighted clusters) those of the destination run first and the route's last. A `set` of Host
/// is no header operation but a rewrite, see [`rewrite`](crate::rewrite).
pub fn apply_request_ops(
    headers: &mut HeaderMap,
    route: &Route,
    destination: &WeightedDestination,
    values: FormatValues<'_>,
) {
    let (own, theirs) = (&route.headers.request, &destination.headers.request);
    apply_both(headers, own, theirs, has_single_destination(route), values);
}

/// Edits the response's headers before it goes to the client, by the same rules. A redirect or a direct response has
/// no destination.
pub fn apply_response_ops(
    headers: &mut HeaderMap,
    route: &Route,
    destination: Option<&WeightedDestination>,
    values: FormatValues<'_>,
) {
    let own = &route.headers.response;
    match destination {
        Some(destination) => {
            apply_both(
                headers,
                own,
                &destination.headers.response,
                has_single_destination(route),
                values,
            );
        }
        None => apply(headers, &[own], values),
    }
}

fn has_single_destination(route: &Route) -> bool {
    matches!(&route.action, RouteAction::Forward(forward) if forward.destinations.len() == 1)
}

fn apply_both(
    headers: &mut HeaderMap,
    route: &HeaderEdit,
    destination: &HeaderEdit,
    is_single: bool,
    values: FormatValues<'_>,
) {
    if is_single {
        apply(headers, &[route, destination], values);
    } else {
        apply(headers, &[destination], values);
        apply(headers, &[route], values);
    }
}

/// Applies edits as one list (Envoy `HeaderParser`): all removes, then the sets and adds of one edit after the other.
fn apply(headers: &mut HeaderMap, edits: &[&HeaderEdit], values: FormatValues<'_>) {
    for name in edits
        .iter()
        .flat_map(|edit| &edit.remove)
        .filter(|name| **name != HOST)
    {
        headers.remove(name);
    }
    for edit in edits {
        for (name, value) in edit.set.iter().filter(|(name, _)| *name != HOST) {
            if let Some(value) = filled(value, values) {
                headers.insert(name, value);
            }
        }
        for (name, value) in edit.add.iter().filter(|(name, _)| *name != HOST) {
            if let Some(value) = filled(value, values) {
                headers.append(name, value);
            }
        }
    }
}

/// The value of a template. `None` when it is one command without a value, or has come to hold what no header may have:
/// the header is then left out.
fn filled(template: &HeaderTemplate, values: FormatValues<'_>) -> Option<HeaderValue> {
    let format = match template {
        HeaderTemplate::Plain(value) => return Some(value.clone()),
        HeaderTemplate::Format(format) => format,
    };
    if let FormatString { parts } = &**format
        && let [FormatPart::Command(only)] = parts.as_slice()
    {
        return HeaderValue::try_from(values(only)?).ok();
    }
    let pieces = format.parts.iter().map(|part| match part {
        FormatPart::Text(text) => text.clone(),
        FormatPart::Command(command) => values(command).unwrap_or_else(|| "-".to_owned()),
    });
    HeaderValue::try_from(pieces.collect::<String>()).ok()
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
        apply_request_ops(&mut request, &route, &destination, &|_| None);
        let mut response = start;
        apply_response_ops(&mut response, &route, Some(&destination), &|_| None);
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

    #[test]
    fn format_commands_are_filled_in_and_a_header_of_nothing_is_left_out() {
        let values = |command: &FormatCommand| {
            let FormatCommand::Value(value) = command else {
                return None;
            };
            match value.name() {
                "PROTOCOL" => Some("HTTP/1.1".to_owned()),
                "ROUTE_NAME" => Some("a\nb".to_owned()),
                _ => None,
            }
        };
        for (text, expected) in [
            ("%PROTOCOL%", Some("HTTP/1.1")),
            ("by %PROTOCOL%%%", Some("by HTTP/1.1%")),
            ("%HOSTNAME%", None),
            ("at %HOSTNAME%", Some("at -")),
            ("%ROUTE_NAME%", None),
        ] {
            let value = filled(&HeaderTemplate::parse(text).unwrap(), &values);
            assert_eq!(
                value.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{text}"
            );
        }
    }
}
