//! A radix tree over paths: one walk meets every entry whose key is a beginning of the path.

/// Among so many children, looking at each is quicker than a binary search.
const FEW_CHILDREN: usize = 8;

/// Whether bytes are compared as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// As they are.
    Sensitive,
    /// Without regard to the case of ASCII letters.
    Folded,
}

/// The finished tree. Nodes lie in one list, the root first and the children of a node side by side.
#[derive(Debug)]
pub(super) struct Trie<T> {
    case: Case,
    nodes: Box<[Node]>,
    /// The labels of all nodes.
    text: Box<[u8]>,
    entries: Box<[T]>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// Bytes that lead from the parent to here, in `text`.
    label: (u32, u32),
    /// First and number of its children, ordered by the first byte of their labels.
    children: (u32, u32),
    /// Index into `entries`.
    entry: Option<u32>,
    /// First byte of the label; 0 for the root, which has none.
    first: u8,
}

impl<T> Trie<T> {
    /// Calls `visit` with each entry whose key the path begins with, and whether the key is the whole path.
    ///
    /// It takes one step for each byte of the path at most, and a binary search where the tree branches.
    #[inline]
    pub(super) fn walk<'t>(&'t self, path: &str, mut visit: impl FnMut(&'t T, bool)) {
        let mut rest = path.as_bytes();
        let mut node = self.nodes.first();
        while let Some(here) = node {
            let Some(behind) = self.without_label(here, rest) else {
                return;
            };
            rest = behind;
            if let Some(entry) = here.entry.and_then(|entry| self.entries.get(index(entry))) {
                visit(entry, rest.is_empty());
            }
            node = rest.first().and_then(|byte| self.child(here, *byte));
        }
    }

    /// What follows the node's label.
    fn without_label<'p>(&self, node: &Node, rest: &'p [u8]) -> Option<&'p [u8]> {
        let (start, len) = (index(node.label.0), index(node.label.1));
        let label = self.text.get(start..start + len)?;
        let (beginning, behind) = rest.split_at_checked(len)?;
        // The first byte led here.
        let (label, beginning) = (
            label.get(1..).unwrap_or_default(),
            beginning.get(1..).unwrap_or_default(),
        );
        let is_same = label.is_empty()
            || match self.case {
                Case::Sensitive => beginning == label,
                Case::Folded => beginning.eq_ignore_ascii_case(label),
            };
        is_same.then_some(behind)
    }

    fn child(&self, node: &Node, byte: u8) -> Option<&Node> {
        let (start, len) = (index(node.children.0), index(node.children.1));
        let children = self.nodes.get(start..start + len)?;
        let byte = folded(byte, self.case);
        if children.len() <= FEW_CHILDREN {
            return children.iter().find(|child| child.first == byte);
        }
        let found = children.binary_search_by_key(&byte, |child| child.first).ok()?;
        children.get(found)
    }
}

/// A tree that is being filled.
pub(super) struct TrieBuilder<G> {
    case: Case,
    nodes: Vec<Growing<G>>,
}

struct Growing<G> {
    label: Vec<u8>,
    /// By the first byte of their labels.
    children: Vec<(u8, usize)>,
    gathered: Option<G>,
}

impl<G> Growing<G> {
    fn leaf(label: &[u8]) -> Self {
        Self {
            label: label.to_vec(),
            children: vec![],
            gathered: None,
        }
    }
}

impl<G: Default> TrieBuilder<G> {
    pub(super) fn new(case: Case) -> Self {
        Self {
            case,
            nodes: vec![Growing::leaf(b"")],
        }
    }

    /// Whether nothing was ever put in.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.nodes.iter().all(|root| root.gathered.is_none())
    }

    /// What belongs to a key; it is made where there is nothing yet.
    pub(super) fn entry(&mut self, key: &[u8]) -> &mut G {
        let key: Vec<u8> = key.iter().map(|byte| folded(*byte, self.case)).collect();
        let node = self.node(&key);
        // `node` answers with an index that exists.
        #[expect(clippy::indexing_slicing, reason = "`node` returns the index of a node")]
        self.nodes[node].gathered.get_or_insert_default()
    }

    fn node(&mut self, key: &[u8]) -> usize {
        let (mut at, mut rest) = (0, key);
        while let Some((first, _)) = rest.split_first() {
            let Some(slot) = self.slot(at, *first) else {
                return self.add(at, rest);
            };
            let common = self.common(slot, rest);
            self.divide(slot, common);
            (at, rest) = (slot, rest.get(common..).unwrap_or_default());
        }
        at
    }

    /// The child whose label begins with a byte.
    fn slot(&self, node: usize, first: u8) -> Option<usize> {
        let children = &self.nodes.get(node)?.children;
        let found = children.binary_search_by_key(&first, |child| child.0).ok()?;
        children.get(found).map(|child| child.1)
    }

    fn add(&mut self, parent: usize, label: &[u8]) -> usize {
        let new = self.nodes.len();
        self.nodes.push(Growing::leaf(label));
        let first = label.first().copied().unwrap_or_default();
        if let Some(parent) = self.nodes.get_mut(parent) {
            let place = parent.children.partition_point(|child| child.0 < first);
            parent.children.insert(place, (first, new));
        }
        new
    }

    /// How many bytes the label of a node and a key have in common.
    fn common(&self, node: usize, key: &[u8]) -> usize {
        let label = self.nodes.get(node).map_or(&[][..], |node| &node.label);
        label.iter().zip(key).take_while(|(a, b)| a == b).count()
    }

    /// Makes the label of a node end after `common` bytes; what it was goes on as its only child.
    fn divide(&mut self, node: usize, common: usize) {
        let lower = self.nodes.len();
        let Some(upper) = self.nodes.get_mut(node).filter(|node| common < node.label.len()) else {
            return;
        };
        let label = upper.label.split_off(common);
        let first = label.first().copied().unwrap_or_default();
        let moved = Growing {
            label,
            children: std::mem::replace(&mut upper.children, vec![(first, lower)]),
            gathered: upper.gathered.take(),
        };
        self.nodes.push(moved);
    }

    /// Lays the tree out level by level, so that the upper ones, which every walk takes, lie together.
    pub(super) fn finish<T>(mut self, mut finish: impl FnMut(G) -> T) -> Trie<T> {
        let (mut nodes, mut text, mut entries) = (vec![], vec![], vec![]);
        let mut order = vec![0];
        let mut at = 0;
        while let Some(growing) = order
            .get(at)
            .and_then(|number: &usize| self.nodes.get_mut(*number))
        {
            nodes.push(Node {
                label: (short(text.len()), short(growing.label.len())),
                children: (short(order.len()), short(growing.children.len())),
                entry: growing.gathered.take().map(|gathered| {
                    entries.push(finish(gathered));
                    short(entries.len() - 1)
                }),
                first: growing.label.first().copied().unwrap_or_default(),
            });
            text.append(&mut growing.label);
            order.extend(growing.children.iter().map(|child| child.1));
            at += 1;
        }
        Trie {
            case: self.case,
            nodes: nodes.into(),
            text: text.into(),
            entries: entries.into(),
        }
    }
}

fn folded(byte: u8, case: Case) -> u8 {
    match case {
        Case::Sensitive => byte,
        Case::Folded => byte.to_ascii_lowercase(),
    }
}

/// Four billion bytes of paths do not fit into a configuration.
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(case: Case, keys: &[&str], path: &str, expected: &[&str]) {
        let mut builder = TrieBuilder::<String>::new(case);
        for key in keys {
            builder.entry(key.as_bytes()).push_str(key);
        }
        let trie = builder.finish(|key| key);
        let mut met = vec![];
        trie.walk(path, |key, is_whole| {
            assert_eq!(is_whole, key.len() == path.len(), "{key} of {path}");
            met.push(key.as_str());
        });
        assert_eq!(met, expected, "{keys:?} for {path}");
    }

    #[test]
    fn a_walk_meets_the_keys_that_the_path_begins_with_from_short_to_long() {
        let keys = ["/", "/foo", "/foobar", "/fo", "/bar", "", "/foo/baz", "/\u{e4}"];
        check(
            Case::Sensitive,
            &keys,
            "/foobar",
            &["", "/", "/fo", "/foo", "/foobar"],
        );
        check(Case::Sensitive, &keys, "/foo/ba", &["", "/", "/fo", "/foo"]);
        check(Case::Sensitive, &keys, "/FOO", &["", "/"]);
        check(Case::Sensitive, &keys, "/\u{e4}b", &["", "/", "/\u{e4}"]);
        check(Case::Sensitive, &keys, "*", &[""]);
        check(Case::Sensitive, &keys, "", &[""]);
        check(Case::Sensitive, &[], "/a", &[]);
    }

    #[test]
    fn the_case_of_letters_can_be_left_out_of_account() {
        check(
            Case::Folded,
            &["/foo", "/foo/BAR"],
            "/FOO/bar",
            &["/foo", "/foo/BAR"],
        );
        check(Case::Folded, &["/\u{c4}"], "/\u{e4}", &[]);
    }

    #[test]
    fn thousands_of_keys_each_the_beginning_of_the_next_are_no_problem() {
        let longest = "a".repeat(2000);
        let keys: Vec<&str> = (0..longest.len()).map(|end| &longest[..end]).collect();
        check(Case::Sensitive, &keys, &longest[..1500], &keys[..1501]);
    }
}
