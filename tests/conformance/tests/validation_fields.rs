//! Every field of Istio's API is read, by its name and with its type: `data/validation/fields.txt`.

use edge_config::{Resource, parse_documents};

const FIELDS: &str = include_str!("../data/validation/fields.txt");

/// Kind, path and type of each field.
fn fields() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let lines = FIELDS.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().expect("a line has three words");
        (word(), word(), word())
    })
}

/// A value of the type that is not its default, as JSON.
fn value(kind: &str) -> String {
    // Some texts are durations, so all of them are.
    let text = "\"1s\"";
    match kind {
        "string" | "string:byte" | "duration" => text.to_owned(),
        "[string]" => format!("[{text}]"),
        "integer" | "integer:int32" => "1".to_owned(),
        "[integer]" => "[1]".to_owned(),
        "number:double" => "1.5".to_owned(),
        "boolean" => "true".to_owned(),
        "map<string,string>" => format!("{{\"k\": {text}}}"),
        "map<string,integer>" => "{\"k\": 1}".to_owned(),
        // The path ends with [] or .*, which makes the list or map.
        "object" | "[object]" | "map<string,object>" => "{}".to_owned(),
        other => {
            let variants = other
                .strip_prefix("enum(")
                .and_then(|rest| rest.strip_suffix(')'));
            // The first is the default.
            let last = variants.and_then(|variants| variants.rsplit('|').next());
            format!(
                "\"{}\"",
                last.unwrap_or_else(|| panic!("{other} is no type of the list"))
            )
        }
    }
}

/// The value within the maps and lists of its path.
fn nested(path: &str, value: String) -> String {
    path.rsplit('.')
        .fold(value, |inner, segment| match segment.strip_suffix("[]") {
            Some(name) => format!("{{\"{name}\": [{inner}]}}"),
            None if segment == "*" => format!("{{\"k\": {inner}}}"),
            None => format!("{{\"{segment}\": {inner}}}"),
        })
}

/// An object of the kind with `body`, a map, as the rest of its fields.
fn object(kind: &str, body: &str) -> String {
    let head = format!(
        "\"apiVersion\": \"networking.istio.io/v1\", \"kind\": \"{kind}\", \"metadata\": {{\"name\": \"a\"}}"
    );
    body.replacen('{', &format!("{{{head}, "), 1)
}

fn read(kind: &str, body: &str) -> Resource {
    let mut parsed = parse_documents("field.yaml", &object(kind, body));
    assert_eq!(parsed.problems, [], "{kind} {body}");
    parsed.resources.pop().expect("what has no problem is read")
}

#[test]
fn every_field_of_istios_api_is_read() {
    assert!(fields().count() > 300);
    for (kind, path, of) in fields() {
        let with = read(kind, &nested(path, value(of)));
        let around = path.rsplit_once('.').map_or("spec", |(around, _)| around);
        let without = read(kind, &nested(around, "{}".to_owned()));
        assert_ne!(with, without, "{kind} {path} is swallowed");
    }
}

#[test]
fn a_value_of_another_type_is_refused_in_every_field() {
    for (kind, path, _) in fields() {
        let body = nested(path.trim_end_matches("[]"), "[[[]]]".to_owned());
        let parsed = parse_documents("field.yaml", &object(kind, &body));
        assert!(
            parsed.resources.is_empty() && !parsed.problems.is_empty(),
            "{kind} {path}"
        );
    }
}
