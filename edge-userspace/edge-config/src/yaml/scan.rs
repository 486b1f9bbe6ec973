//! One pass over a document's events before its values are read: it finds the line of every field and the keys that
//! stand twice, and refuses documents whose nesting or aliases would cost more than their text.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use saphyr_parser::{Event, Span};
use serde_yaml::Value;

use super::compose::compose;
use super::flow::Source;
use super::in_path;
use crate::{ObjectName, Problem, Severity};

/// Deepest nesting, where an alias is as deep as what it stands for: a value is cloned and dropped level by level, on the
/// stack. An EnvoyFilter, the deepest kind, needs about 25 levels.
const MAX_DEPTH: usize = 100;

/// A scalar counts as one node more for each so many bytes, because every alias copies its text.
const BYTES_PER_NODE: usize = 32;

/// Most nodes that the aliases of a document may stand for, all together. People use a handful.
const MAX_ALIASED_NODES: usize = 10_000;

/// Lines of the fields of one document, by their paths.
///
/// Only the hash of each path is kept: a clash, once in 2^64, would name a wrong line and do no other harm.
#[derive(Debug, Default)]
pub(crate) struct LineIndex {
    /// Sorted by hash.
    lines: Vec<(u64, usize)>,
    /// Line of the document's first node.
    first: usize,
}

impl LineIndex {
    /// Line of a field, or of the nearest field around it that is there.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        let mut path = path;
        while !path.is_empty() {
            let hash = hash(path);
            if let Ok(found) = self.lines.binary_search_by_key(&hash, |(hash, _)| *hash) {
                return self.lines[found].1;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
        self.first
    }
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Why a document is not read any further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ScanError {
    /// Line in the file, from 1.
    pub(crate) line: usize,
    /// Path of the place.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: &'static str,
}

impl ScanError {
    pub(crate) fn into_problem(self, file: &str, object: Option<ObjectName>) -> Problem {
        Problem {
            severity: Severity::Error,
            object,
            file: file.to_owned(),
            line: self.line,
            field: self.field,
            message: self.message,
            hint: self.hint.to_owned(),
        }
    }
}

/// Reads a document: the lines of its fields, and its value.
///
/// # Errors
/// All keys that stand twice, or else the one thing that ended the walk: wrong syntax, or a bound.
pub(crate) fn load(text: &str, lines_before: usize) -> Result<(LineIndex, Value), Vec<ScanError>> {
    let source = Source::new(text);
    let Scanned { lines, aliased } = scan(&source, text, lines_before)?;
    Ok((lines, compose(&source, &aliased)))
}

/// What a walk finds.
#[derive(Debug)]
struct Scanned {
    lines: LineIndex,
    /// Anchors that aliases refer to.
    aliased: HashSet<usize>,
}

fn scan(source: &Source<'_>, text: &str, lines_before: usize) -> Result<Scanned, Vec<ScanError>> {
    let mut walk = Walk {
        lines_before,
        ..Walk::default()
    };
    for event in source.parser() {
        let step = match event {
            Ok((event, span)) => walk.step(source, &event, span),
            Err(error) => {
                // What is missing at the end of the text is told for the line after it, which no editor shows.
                let line = error.marker().line().min(text.lines().count()) + lines_before;
                Err(walk.error(
                    line,
                    error.info().to_owned(),
                    "mend the YAML syntax; often it is the indentation",
                ))
            }
        };
        step.map_err(|error| vec![error])?;
    }
    if !walk.duplicates.is_empty() {
        return Err(walk.duplicates);
    }
    walk.index.lines.sort_unstable();
    walk.index.lines.dedup_by_key(|(hash, _)| *hash);
    Ok(Scanned {
        lines: walk.index,
        aliased: walk.aliased_anchors,
    })
}

#[derive(Default)]
struct Walk {
    lines_before: usize,
    index: LineIndex,
    duplicates: Vec<ScanError>,
    frames: Vec<Frame>,
    /// Path of the node that comes next.
    path: String,
    /// What each anchor stands for; absent while it is being read.
    anchors: HashMap<usize, Extent>,
    aliased: usize,
    aliased_anchors: HashSet<usize>,
}

/// How much there is to a value, or a key.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Nodes in it, itself included, and more for long texts.
    nodes: usize,
    /// Collections that lie in each other.
    height: usize,
}

impl Extent {
    fn of_text(text: &str) -> Self {
        Self {
            nodes: 1 + text.len() / BYTES_PER_NODE,
            height: 0,
        }
    }
}

/// A mapping or sequence that is being read.
struct Frame {
    /// Length of the path of the collection itself.
    path_len: usize,
    /// 0 for none.
    anchor: usize,
    /// What of it was read.
    extent: Extent,
    inside: Inside,
}

enum Inside {
    Mapping { keys: HashSet<String>, at_key: bool },
    Sequence { next: usize },
}

impl Walk {
    fn step(&mut self, source: &Source<'_>, event: &Event<'_>, span: Span) -> Result<(), ScanError> {
        let line = span.start.line() + self.lines_before;
        match event {
            Event::Scalar(text, _, anchor, _) => {
                let extent = Extent::of_text(text);
                if self.take_key(&source.said(text), line) {
                    self.count(*anchor, extent);
                    return Ok(());
                }
                self.enter(line);
                self.leave(*anchor, extent);
            }
            Event::Alias(anchor) => {
                self.expects_value(line)?;
                let extent = self.expand(*anchor, line)?;
                self.enter(line);
                self.leave(0, extent);
            }
            Event::MappingStart(anchor, _) => {
                self.open(
                    *anchor,
                    line,
                    Inside::Mapping {
                        keys: HashSet::new(),
                        at_key: true,
                    },
                )?;
            }
            Event::SequenceStart(anchor, _) => self.open(*anchor, line, Inside::Sequence { next: 0 })?,
            Event::MappingEnd | Event::SequenceEnd => self.close(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Ok(())
    }

    /// Keys are written out: nothing that Kubernetes takes has any others, and two aliases could be the same key.
    fn expects_value(&self, line: usize) -> Result<(), ScanError> {
        let inside = self.frames.last().map(|frame| &frame.inside);
        if matches!(inside, Some(Inside::Mapping { at_key: true, .. })) {
            return Err(self.error(line, "the key is no text".to_owned(), "write the key out"));
        }
        Ok(())
    }

    /// When a mapping waits for a key: `text` becomes it, and the path goes on to its value.
    fn take_key(&mut self, text: &str, line: usize) -> bool {
        let Some(Frame {
            path_len,
            inside:
                Inside::Mapping {
                    keys,
                    at_key: at_key @ true,
                },
            ..
        }) = self.frames.last_mut()
        else {
            return false;
        };
        *at_key = false;
        let is_new = keys.insert(text.to_owned());
        self.path.truncate(*path_len);
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(in_path(text));
        if is_new {
            // The line of a field is that of its key, even if the value begins further down.
            self.index.lines.push((hash(&self.path), line));
        } else {
            let duplicate = self.error(
                line,
                "the key stands twice in the same map".to_owned(),
                "keep one of them; of two, most readers would silently drop the first",
            );
            self.duplicates.push(duplicate);
        }
        true
    }

    /// A value begins: an element of a sequence gets its path here.
    fn enter(&mut self, line: usize) {
        if self.index.first == 0 {
            self.index.first = line;
        }
        if let Some(Frame {
            path_len,
            inside: Inside::Sequence { next },
            ..
        }) = self.frames.last_mut()
        {
            self.path.truncate(*path_len);
            self.path.push_str(&format!("[{next}]"));
            *next += 1;
            self.index.lines.push((hash(&self.path), line));
        }
    }

    fn open(&mut self, anchor: usize, line: usize, inside: Inside) -> Result<(), ScanError> {
        self.expects_value(line)?;
        self.has_room_for(1, line)?;
        self.enter(line);
        self.frames.push(Frame {
            path_len: self.path.len(),
            anchor,
            extent: Extent { nodes: 1, height: 1 },
            inside,
        });
        Ok(())
    }

    /// Whether collections so high may lie in those that are being read.
    fn has_room_for(&self, height: usize, line: usize) -> Result<(), ScanError> {
        if self.frames.len() + height > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(self.error(line, message, "no resource needs as many levels"));
        }
        Ok(())
    }

    fn close(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.path.truncate(frame.path_len);
            self.leave(frame.anchor, frame.extent);
        }
    }

    /// A value has ended; the mapping around it waits for a key again.
    fn leave(&mut self, anchor: usize, extent: Extent) {
        self.count(anchor, extent);
        if let Some(Frame {
            inside: Inside::Mapping { at_key, .. },
            ..
        }) = self.frames.last_mut()
        {
            *at_key = true;
        }
    }

    /// A key or a value is whole: its anchor stands for it, and the collection around it holds it.
    fn count(&mut self, anchor: usize, own: Extent) {
        if anchor != 0 {
            self.anchors.insert(anchor, own);
        }
        if let Some(Frame { extent, .. }) = self.frames.last_mut() {
            extent.nodes = extent.nodes.saturating_add(own.nodes);
            extent.height = extent.height.max(own.height + 1);
        }
    }

    /// What an alias stands for.
    fn expand(&mut self, anchor: usize, line: usize) -> Result<Extent, ScanError> {
        let Some(extent) = self.anchors.get(&anchor).copied() else {
            let message = "the alias stands within the node that it names".to_owned();
            return Err(self.error(line, message, "write the value out"));
        };
        self.has_room_for(extent.height, line)?;
        self.aliased_anchors.insert(anchor);
        self.aliased = self.aliased.saturating_add(extent.nodes);
        if self.aliased > MAX_ALIASED_NODES {
            let message = format!("the aliases stand for more than {MAX_ALIASED_NODES} nodes");
            return Err(self.error(line, message, "write the values out, or split the file"));
        }
        Ok(extent)
    }

    fn error(&self, line: usize, message: String, hint: &'static str) -> ScanError {
        ScanError {
            line,
            field: self.path.clone(),
            message,
            hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
kind: Gateway
spec:
  servers:
  - port:
      number: 80
    hosts: [a, b]
  - hosts:
    - c
";

    #[track_caller]
    fn check(path: &str, line: usize) {
        assert_eq!(load(SAMPLE, 10).unwrap().0.line_of(path), line, "{path}");
    }

    #[test]
    fn every_field_has_the_line_of_its_key() {
        check("", 11);
        check("kind", 11);
        check("spec", 12);
        check("spec.servers[0].port.number", 15);
        check("spec.servers[0].hosts[1]", 16);
        check("spec.servers[1]", 17);
        check("spec.servers[1].hosts[0]", 18);
    }

    #[test]
    fn a_field_that_is_not_there_has_the_line_of_what_is_around_it() {
        check("spec.servers[0].port.name", 14);
        check("spec.servers[7].hosts", 13);
        check("status.conditions", 11);
    }

    #[track_caller]
    fn check_refused(text: &str, line: usize, part: &str) {
        let errors = load(text, 0).unwrap_err();
        let error = errors.last().unwrap();
        assert!(error.line == line && error.message.contains(part), "{errors:?}");
    }

    #[test]
    fn all_keys_that_stand_twice_are_found() {
        let errors = load("a: 1\nb:\n  c: 1\n  d: {e: 1}\n  c: 2\na: 3\n", 0).unwrap_err();
        let found: Vec<_> = errors
            .iter()
            .map(|error| (error.field.as_str(), error.line))
            .collect();
        assert_eq!(found, [("b.c", 5), ("a", 6)]);
    }

    #[test]
    fn bounds_are_held() {
        check_refused(&"- ".repeat(101), 1, "deeper");
        check_refused("a: &x [1, *x]\n", 1, "within the node");
        let mut bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
        for level in 1..10 {
            let below = level - 1;
            let aliases = vec![format!("*a{below}"); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        check_refused(&bomb, 4, "aliases");
        let key = "k".repeat(BYTES_PER_NODE * MAX_ALIASED_NODES / 2);
        check_refused(&format!("a: &a {{{key}: 1}}\nb: [*a, *a]\n"), 2, "aliases");
        let mut deep = "a0: &a0 [1]\n".to_owned();
        for level in 1..10 {
            let (open, shut) = ("[".repeat(30), "]".repeat(30));
            deep.push_str(&format!("a{level}: &a{level} {open}*a{}{shut}\n", level - 1));
        }
        check_refused(&deep, 5, "deeper");
    }

    #[test]
    fn keys_are_written_out() {
        check_refused("a: &a x\nb: {*a : 1}\n", 2, "no text");
        check_refused("{[a]: 1}", 1, "no text");
        check_refused("? {a: b}\n: 1\n", 1, "no text");
        assert!(load("labels: {&k app: web, z: *k}\n", 0).is_ok());
    }

    #[test]
    fn wrong_syntax_has_its_line() {
        check_refused("a: 1\nb: [1, 2\nc: }\n", 3, "");
        check_refused("a: 1\nb\n", 2, "");
    }
}
