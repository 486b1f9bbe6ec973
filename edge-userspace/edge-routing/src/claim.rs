//! Conditions on the claims of a verified token (Istio `@request.auth.claims`).

use edge_model::{ClaimMatch, StringMatch};
use serde_json::{Map, Value};

/// Claims of a JSON Web Token (RFC 7519 section 4) whose signature and issuer were verified.
pub type Claims = Map<String, Value>;

/// Claims whose text is a list of words (RFC 8693 section 4.2; Istio's `space_delimited_claims`).
const LISTS_OF_WORDS: [&str; 2] = ["scope", "permission"];

/// Whether the condition holds. Without a verified token there are no claims, and only an inverted condition holds.
pub(crate) fn matches(condition: &ClaimMatch, claims: Option<&Claims>) -> bool {
    let value = claims.and_then(|claims| find(claims, &condition.path));
    let holds = value.is_some_and(|value| value_matches(condition, value));
    holds != condition.invert
}

/// The value of the claim for people to read.
pub(crate) fn text(condition: &ClaimMatch, claims: Option<&Claims>) -> String {
    match claims.map(|claims| find(claims, &condition.path)) {
        None => "absent, there is no verified token".into(),
        Some(None) => "absent".into(),
        Some(Some(value)) => value.to_string(),
    }
}

fn find<'c>(claims: &'c Claims, path: &[String]) -> Option<&'c Value> {
    let (first, rest) = path.split_first()?;
    let first = claims.get(first)?;
    rest.iter()
        .try_fold(first, |value, name| value.as_object()?.get(name))
}

/// A text, or one of a list of texts. Numbers, booleans and objects match nothing (istio
/// `MetadataMatcherForJWTClaims`).
fn value_matches(condition: &ClaimMatch, value: &Value) -> bool {
    match value {
        Value::String(text) => text_matches(condition, text),
        Value::Array(values) => values
            .iter()
            .filter_map(Value::as_str)
            .any(|text| condition.value.matches(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            matches!(condition.value, StringMatch::Present)
        }
    }
}

fn text_matches(condition: &ClaimMatch, text: &str) -> bool {
    match condition.path.as_slice() {
        [name] if LISTS_OF_WORDS.contains(&name.as_str()) => {
            text.split(' ').any(|word| condition.value.matches(word))
        }
        _ => condition.value.matches(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact(text.into())
    }

    #[track_caller]
    fn check(path: &[&str], value: StringMatch, expected: bool) {
        let claims = json!({
            "sub": "alice", "admin": true, "groups": ["dev", "ops", 7], "scope": "read write", "empty": "",
            "a.b": "dotted", "realm": {"roles": ["admin"], "name": "n"},
        });
        let condition = ClaimMatch {
            path: path.iter().map(ToString::to_string).collect(),
            value,
            invert: false,
        };
        assert_eq!(matches(&condition, claims.as_object()), expected, "{condition:?}");
        let inverted = ClaimMatch {
            invert: true,
            ..condition
        };
        assert_eq!(matches(&inverted, claims.as_object()), !expected, "{inverted:?}");
    }

    #[test]
    fn a_text_matches_as_a_whole() {
        check(&["sub"], exact("alice"), true);
        check(&["sub"], exact("ali"), false);
        check(&["sub"], StringMatch::Prefix("ali".into()), true);
        check(&["a.b"], exact("dotted"), true);
        check(&["empty"], StringMatch::Present, true);
    }

    #[test]
    fn of_a_list_one_value_is_enough() {
        check(&["groups"], exact("ops"), true);
        check(&["groups"], exact("qa"), false);
        check(&["groups"], exact("7"), false);
        check(&["scope"], exact("write"), true);
        check(&["scope"], exact("read write"), false);
    }

    #[test]
    fn nested_claims_are_found_by_their_path() {
        check(&["realm", "roles"], exact("admin"), true);
        check(&["realm", "name"], exact("n"), true);
        check(&["realm", "missing"], StringMatch::Present, false);
        check(&["sub", "name"], StringMatch::Present, false);
        check(&["realm"], exact("n"), false);
    }

    #[test]
    fn what_is_no_text_is_at_most_there() {
        check(&["admin"], exact("true"), false);
        check(&["admin"], StringMatch::Present, true);
        check(&["missing"], StringMatch::Present, false);
    }

    #[test]
    fn without_a_token_no_condition_holds_but_an_inverted_one() {
        for invert in [false, true] {
            let condition = ClaimMatch {
                path: vec!["sub".into()],
                value: StringMatch::Present,
                invert,
            };
            assert_eq!(matches(&condition, None), invert);
        }
    }
}
