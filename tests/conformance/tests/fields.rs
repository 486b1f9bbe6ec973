//! Every field that an ingress gateway must have is exercised by a case: `data/validation/FIELDS.md` lists the fields of
//! Istio's API with their marks, and the cases are the configurations in `data/rules/` and the rows of
//! `data/validation/rules.yaml`.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

const FIELDS: &str = include_str!("../data/validation/FIELDS.md");

/// Fields that no case exercises, each with the reason.
const UNEXERCISED: [(&str, &str); 0] = [];

/// A field's mark: `I` must be had at an ingress gateway, `i` is rare there; see the list itself for the others.
type Marks = BTreeMap<String, char>;

/// The marks by `Kind path`, where a path has no indices and no keys of the user's. A field without a mark has that of
/// the field around it. `maps` collects the fields whose next level are keys of the user's.
fn marks(maps: &mut BTreeSet<String>) -> Marks {
    let mut marks = Marks::new();
    let mut kind = "";
    let mut around: Vec<(&str, char)> = vec![];
    for line in FIELDS.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            kind = title.split(' ').next().unwrap_or_default();
            around.clear();
        }
        let item = line.trim_start();
        let Some((mark, rest)) = item.strip_prefix("- [").and_then(|rest| rest.split_once("] **")) else {
            continue;
        };
        let depth = (line.len() - item.len()) / 2;
        let (name, rest) = rest.split_once("**").expect("a name stands between asterisks");
        around.truncate(depth);
        let inherited = around.last().map_or('I', |(_, mark)| *mark);
        let mark = mark
            .chars()
            .next()
            .filter(|mark| *mark != ' ')
            .unwrap_or(inherited);
        around.push((name.trim_end_matches('*'), mark));
        let path: Vec<_> = around.iter().map(|(name, _)| *name).collect();
        let path = format!("{kind} {}", path.join("."));
        if rest.contains("`map<string,object>`") {
            maps.insert(path.clone());
        }
        marks.insert(path, mark);
    }
    marks
}

/// Adds the paths of all fields of a value.
fn walk(path: &str, value: &Value, maps: &BTreeSet<String>, seen: &mut BTreeSet<String>) {
    match value {
        Value::Mapping(map) if maps.contains(path) => {
            for map in map.values().filter_map(Value::as_mapping) {
                fields(path, map, maps, seen);
            }
        }
        Value::Mapping(map) => fields(path, map, maps, seen),
        Value::Sequence(items) => items.iter().for_each(|item| walk(path, item, maps, seen)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

fn fields(path: &str, map: &Mapping, maps: &BTreeSet<String>, seen: &mut BTreeSet<String>) {
    for (key, value) in map {
        let separator = if path.contains(' ') { "." } else { " " };
        let field = format!("{path}{separator}{}", key.as_str().unwrap_or_default());
        seen.insert(field.clone());
        walk(&field, value, maps, seen);
    }
}

#[derive(Deserialize)]
struct Case {
    config: String,
}

#[derive(Deserialize)]
struct Row {
    r#in: String,
    fragment: Value,
}

fn exercised(maps: &BTreeSet<String>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/rules");
    for entry in fs::read_dir(folder).expect("the data is there") {
        let text = fs::read_to_string(entry.expect("the data can be read").path()).expect("the data is text");
        let case: Case = serde_yaml::from_str(&text).expect("a case has a configuration");
        for document in serde_yaml::Deserializer::from_str(&case.config) {
            let object = Value::deserialize(document).unwrap_or_default();
            let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
            walk(kind, object.get("spec").unwrap_or(&Value::Null), maps, &mut seen);
        }
    }
    let rows: Vec<Row> = serde_yaml::from_str(include_str!("../data/validation/rules.yaml")).expect("rows");
    for row in rows {
        let path = match row.r#in.as_str() {
            "server" => "Gateway servers",
            "tls" => "Gateway servers.tls",
            "http" => "VirtualService http",
            "policy" => "DestinationRule trafficPolicy",
            kind => kind,
        };
        walk(path, &row.fragment, maps, &mut seen);
    }
    seen
}

/// Fields that an ingress gateway must have, or may have, and that are not among those seen.
fn missing<'m>(marks: &'m Marks, seen: &BTreeSet<String>) -> Vec<&'m str> {
    let wanted = marks.iter().filter(|(_, mark)| matches!(mark, 'I' | 'i'));
    let missing = wanted.filter(|(path, _)| !seen.contains(*path));
    let missing = missing.filter(|(path, _)| !UNEXERCISED.iter().any(|(known, _)| known == path));
    missing.map(|(path, _)| path.as_str()).collect()
}

#[test]
fn every_field_of_an_ingress_gateway_is_exercised_by_a_case() {
    let mut maps = BTreeSet::new();
    let marks = marks(&mut maps);
    assert!(marks.len() > 300, "{} fields", marks.len());
    let seen = exercised(&maps);
    let missing = missing(&marks, &seen);
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    for (path, reason) in UNEXERCISED {
        assert!(marks.contains_key(path) && !reason.is_empty(), "{path}");
    }
}

#[test]
fn a_field_without_a_case_is_found() {
    let mut maps = BTreeSet::new();
    let marks = marks(&mut maps);
    let all = exercised(&maps);
    for field in [
        "Gateway servers.tls.verifyCertificateSpki",
        "VirtualService http.match.queryParams",
        "VirtualService http.match.queryParams.regex",
        "DestinationRule trafficPolicy.loadBalancer.warmup.aggression",
    ] {
        let mut seen = all.clone();
        assert!(seen.remove(field), "{field} is exercised");
        assert_eq!(missing(&marks, &seen), [field]);
    }
    let mut seen = all.clone();
    seen.retain(|path| !path.starts_with("Gateway"));
    assert!(missing(&marks, &seen).len() > 20);
}
