//! The value of a document that [`scan`](super::scan) has let through.
//!
//! Values are those that kubectl sends to the API server, so that a file means here what it means there: it reads YAML with
//! version 2 of go-yaml, whose plain scalars are those of YAML 1.1 (`yes` is true, `0755` is octal) with decimal numbers of
//! YAML 1.2, and which knows merge keys (`<<`). But keys stay as they are written, and an entry of a map wins over one that
//! is merged wherever it stands, as in version 3: version 2 lets a later merge take its place.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, ScalarStyle, Tag};
use serde_yaml::value::TaggedValue;
use serde_yaml::{Mapping, Value};

use super::flow::Source;
use super::scalar;

/// The key whose value is merged into the map around it.
const MERGE_KEY: &str = "<<";

/// Reads the value of a document; `aliased` are the anchors that are referred to.
pub(super) fn compose(source: &Source<'_>, aliased: &HashSet<usize>) -> Value {
    let mut composer = Composer {
        source,
        aliased,
        anchors: HashMap::new(),
        frames: vec![],
        root: Value::Null,
    };
    // No event can be wrong: the scan saw them all.
    for (event, _) in source.parser().map_while(Result::ok) {
        composer.step(event);
    }
    composer.root
}

struct Composer<'a> {
    source: &'a Source<'a>,
    aliased: &'a HashSet<usize>,
    anchors: HashMap<usize, Value>,
    frames: Vec<Frame>,
    root: Value,
}

/// A mapping or sequence that is being read.
struct Frame {
    anchor: usize,
    tag: Option<Tag>,
    inside: Inside,
}

enum Inside {
    Sequence(Vec<Value>),
    Mapping {
        entries: Mapping,
        key: Option<Key>,
        merged: Vec<Value>,
    },
}

enum Key {
    Merge,
    Text(String),
}

impl Composer<'_> {
    fn step(&mut self, event: Event<'_>) {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_merge = style == ScalarStyle::Plain && tag.is_none() && text == MERGE_KEY;
                let text = self.source.said(&text);
                match self.awaited_key() {
                    Some(key) if is_merge => *key = Some(Key::Merge),
                    // Keys become the names of JSON's fields, which are text; as they are written, for who reads them.
                    Some(key) => {
                        *key = Some(Key::Text(text.clone().into_owned()));
                        self.remember(anchor, || text.as_ref().into());
                    }
                    None => self.take(anchor, scalar_value(&text, style, tag.as_deref())),
                }
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().unwrap_or_default();
                self.take(0, value);
            }
            Event::SequenceStart(anchor, tag) => self.frames.push(Frame {
                anchor,
                tag: tag.map(|tag| tag.into_owned()),
                inside: Inside::Sequence(vec![]),
            }),
            Event::MappingStart(anchor, tag) => self.frames.push(Frame {
                anchor,
                tag: tag.map(|tag| tag.into_owned()),
                inside: Inside::Mapping {
                    entries: Mapping::new(),
                    key: None,
                    merged: vec![],
                },
            }),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.frames.pop() {
                    let anchor = frame.anchor;
                    self.take(anchor, frame.finish());
                }
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }

    /// Where the key goes that a mapping waits for.
    fn awaited_key(&mut self) -> Option<&mut Option<Key>> {
        match self.frames.last_mut().map(|frame| &mut frame.inside) {
            Some(Inside::Mapping { key, .. }) if key.is_none() => Some(key),
            Some(Inside::Mapping { .. } | Inside::Sequence(_)) | None => None,
        }
    }

    fn remember(&mut self, anchor: usize, value: impl FnOnce() -> Value) {
        if anchor != 0 && self.aliased.contains(&anchor) {
            self.anchors.insert(anchor, value());
        }
    }

    /// A value is whole.
    fn take(&mut self, anchor: usize, value: Value) {
        self.remember(anchor, || value.clone());
        match self.frames.last_mut().map(|frame| &mut frame.inside) {
            None => self.root = value,
            Some(Inside::Sequence(elements)) => elements.push(value),
            Some(Inside::Mapping { entries, key, merged }) => match key.take() {
                Some(Key::Merge) => merged.push(value),
                Some(Key::Text(key)) => {
                    entries.insert(key.into(), value);
                }
                // The scan lets no value stand where a key is awaited.
                None => {}
            },
        }
    }
}

impl Frame {
    fn finish(self) -> Value {
        let value = match self.inside {
            Inside::Sequence(elements) => Value::Sequence(elements),
            Inside::Mapping {
                mut entries, merged, ..
            } => {
                for value in merged {
                    merge(&mut entries, value);
                }
                Value::Mapping(entries)
            }
        };
        match self.tag {
            Some(tag) if !is_core(&tag, &["seq", "map"]) => tagged(&tag, value),
            _ => value,
        }
    }
}

/// Adds the entries of a map, or of each map of a list, that are not there yet. What is no map stays under the key, where
/// nothing knows it.
fn merge(entries: &mut Mapping, value: Value) {
    match value {
        Value::Mapping(map) => {
            for (key, value) in map {
                entries.entry(key).or_insert(value);
            }
        }
        Value::Sequence(list) if list.iter().all(Value::is_mapping) => {
            list.into_iter().for_each(|value| merge(entries, value));
        }
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Tagged(_)) => {
            entries.insert(MERGE_KEY.into(), other);
        }
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let Some(tag) = tag else {
        return match style == ScalarStyle::Plain {
            true => scalar::resolve(text),
            false => text.into(),
        };
    };
    let is_text = is_core(tag, &["str"]) || (tag.handle.is_empty() && tag.suffix == "!");
    let resolved = if is_text {
        text.into()
    } else {
        scalar::resolve(text)
    };
    let is_fitting = match resolved {
        Value::Null => is_core(tag, &["null"]),
        Value::Bool(_) => is_core(tag, &["bool"]),
        Value::Number(_) => is_core(tag, &["int", "float"]),
        Value::String(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => is_text,
    };
    if is_fitting {
        resolved
    } else {
        tagged(tag, text.into())
    }
}

fn is_core(tag: &Tag, suffixes: &[&str]) -> bool {
    tag.is_yaml_core_schema() && suffixes.contains(&tag.suffix.as_str())
}

/// A value that nothing takes, because its tag means nothing to Kubernetes.
fn tagged(tag: &Tag, value: Value) -> Value {
    let tag = serde_yaml::value::Tag::new(tag.to_string());
    Value::Tagged(Box::new(TaggedValue { tag, value }))
}

#[cfg(test)]
mod tests {
    use super::super::load;

    /// The value of a YAML text is that of the JSON text.
    #[track_caller]
    fn check(yaml: &str, json: &str) {
        let (_, value) = load(yaml, 0).unwrap_or_else(|errors| panic!("{yaml}: {errors:?}"));
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_value(&value).unwrap(), json, "{yaml}");
    }

    #[test]
    fn plain_scalars_in_flow_lists_may_have_colons_anywhere() {
        check("[2001:db8::, '::1']", r#"["2001:db8::", "::1"]"#);
        check("[2001:db8::]", r#"["2001:db8::"]"#);
        check("[::1, ::, fe80::/10]", r#"["::1", "::", "fe80::/10"]"#);
        check("{a: 2001:db8::, b: x::}", r#"{"a": "2001:db8::", "b": "x::"}"#);
        check(
            "[http://a.com:80/x?y=z, a:b]",
            r#"["http://a.com:80/x?y=z", "a:b"]"#,
        );
        check("{a:1: x, b: c:d}", r#"{"a:1": "x", "b": "c:d"}"#);
        check("[a: b, c:]", r#"[{"a": "b"}, "c:"]"#);
        check("{\"a\":1, 'b':2}", r#"{"a": 1, "b": 2}"#);
        check("- 2001:db8::1\n- a:b\n", r#"["2001:db8::1", "a:b"]"#);
        check(r#"["a:, b:]", 'c:}', d]"#, r#"["a:, b:]", "c:}", "d"]"#);
        check(
            "a: b:, c:]\nd: |\n  e:, f:}\n",
            r#"{"a": "b:, c:]", "d": "e:, f:}\n"}"#,
        );
        check("# a:, b\n[x:: , y] # c:]\n", r#"[{"x:": null}, "y"]"#);
        check(r#"[a::, "\ue000"]"#, "[\"a::\", \"\u{e000}\"]");
        check("[\u{e000}::, \u{e001}]", "[\"\u{e000}::\", \"\u{e001}\"]");
    }

    #[test]
    fn merge_keys_add_what_is_not_there() {
        check(
            "base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\n",
            r#"{"base": {"x": 1, "y": 2}, "own": {"y": 3, "x": 1}}"#,
        );
        check(
            "base: &b {x: 1, y: 2}\nown: {y: 3, <<: *b}\n",
            r#"{"base": {"x": 1, "y": 2}, "own": {"y": 3, "x": 1}}"#,
        );
        check(
            "a: &a {x: 1}\nb: &b {x: 2, z: 4}\nown:\n  <<: [*a, *b]\n",
            r#"{"a": {"x": 1}, "b": {"x": 2, "z": 4}, "own": {"x": 1, "z": 4}}"#,
        );
        check("own: {'<<': {x: 1}}", r#"{"own": {"<<": {"x": 1}}}"#);
        check("own: {<<: text}", r#"{"own": {"<<": "text"}}"#);
    }

    #[test]
    fn anchors_stand_for_any_value() {
        check("a: &x text\nb: *x\n", r#"{"a": "text", "b": "text"}"#);
        check(
            "a: &x [1, {b: 2}]\nc: [*x, *x]\n",
            r#"{"a": [1, {"b": 2}], "c": [[1, {"b": 2}], [1, {"b": 2}]]}"#,
        );
        check("a: {&k app: web, z: *k}", r#"{"a": {"app": "web", "z": "app"}}"#);
        check("a: &x 1\nb: &x 2\nc: *x\n", r#"{"a": 1, "b": 2, "c": 2}"#);
    }

    #[test]
    fn keys_are_text_and_tags_say_what_a_scalar_is() {
        check(
            "{1: a, true: b, yes: c, null: d}",
            r#"{"1": "a", "true": "b", "yes": "c", "null": "d"}"#,
        );
        check(
            "[!!str 5, !!int '5', !!float 1.5, ! yes, !!null '']",
            r#"["5", 5, 1.5, "yes", null]"#,
        );
        check("[\"yes\", 'null']", r#"["yes", "null"]"#);
        check("- |-\n  1\n- >-\n  no\n", r#"["1", "no"]"#);
    }
}
