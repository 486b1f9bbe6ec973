//! Query parameters, as Envoy's router reads them.

use edge_model::QueryMatch;

/// The value of the first parameter of a name, as sent: nothing is percent-decoded, `k` and `k=` are both empty.
pub(crate) fn first_value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .find_map(|(key, value)| (key == name && !key.is_empty()).then_some(value))
}

/// Whether the condition holds for the query.
pub(crate) fn matches(condition: &QueryMatch, query: &str) -> bool {
    first_value(query, &condition.name).is_some_and(|value| condition.value.matches(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_model::{Pattern, StringMatch};

    #[track_caller]
    fn check(query: &str, value: StringMatch, expected: bool) {
        let condition = QueryMatch {
            name: "k".into(),
            value,
        };
        assert_eq!(
            matches(&condition, query),
            expected,
            "{condition:?} against {query:?}"
        );
    }

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact(text.into())
    }

    #[test]
    fn a_parameter_without_value_is_there_and_empty() {
        check("k", exact(""), true);
        check("k=", exact(""), true);
        check("k", StringMatch::Present, true);
        check("j=k", StringMatch::Present, false);
        check("", StringMatch::Present, false);
    }

    #[test]
    fn values_are_compared_as_sent() {
        check("k=a%20b", exact("a%20b"), true);
        check("k=a%20b", exact("a b"), false);
        check("k=a=b", exact("a=b"), true);
    }

    #[test]
    fn only_the_first_of_repeated_parameters_is_looked_at() {
        check("x=1&k=a&k=b", exact("a"), true);
        check("x=1&k=a&k=b", exact("b"), false);
    }

    #[test]
    fn a_regular_expression_matches_the_whole_value() {
        let digits = || StringMatch::Regex(Pattern::new(r"\d+$").unwrap());
        check("k=123", digits(), true);
        check("k=a123", digits(), false);
    }
}
