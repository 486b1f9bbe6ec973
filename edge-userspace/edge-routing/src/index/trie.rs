//! A radix tree over paths: one walk meets every entry whose key is a beginning of the path.

/// First bytes of siblings that are compared at once.
const WINDOW: usize = 16;
/// Bytes of a label that are compared at once.
const WORD: usize = 8;
/// Stands for no number.
pub(super) const NONE: u32 = u32::MAX;

/// Whether bytes are compared as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// As they are.
    Sensitive,
    /// Without regard to the case of ASCII letters.
    Folded,
}

/// The finished tree. Nodes lie in one list, the root first and the children of a node side by side, and each holds
/// what most walks ask of it: a step touches one cache line of nodes and one of first bytes, and compares words and not
/// byte by byte, so that a longer way costs little more than a short one.
#[derive(Debug)]
pub(super) struct Trie<T> {
    case: Case,
    nodes: Box<[Node]>,
    /// First byte of each node's label, 0 for the root, which has none; and [`WINDOW`] bytes more.
    firsts: Box<[u8]>,
    /// The labels that are longer than a word.
    text: Box<[u8]>,
    entries: Box<[T]>,
}

/// What a walk meets at a key that the path begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Met<'t, T> {
    /// Number for every path that begins with the key, and for the key itself where it is the whole path: the lower of
    /// the two, [`NONE`] without any.
    pub(super) certain: u32,
    /// What else belongs to the key.
    pub(super) entry: Option<&'t T>,
    /// Whether the key is the whole path.
    pub(super) is_whole: bool,
}

/// What belongs to a key of the finished tree.
#[derive(Debug)]
pub(super) struct Kept<T> {
    /// Number for every path that begins with the key, or [`NONE`].
    pub(super) beginning: u32,
    /// Number for this path alone, or [`NONE`].
    pub(super) whole: u32,
    /// What else there is.
    pub(super) entry: Option<T>,
}

/// Two of them to a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Node {
    /// Bytes that lead from the parent to here: up to a word of them as they lie in memory, else where they are in `text`.
    label: u64,
    label_len: u32,
    /// First of its children, which are ordered by the first byte of their labels, and how many there are.
    children: u32,
    children_len: u16,
    /// See [`Kept`].
    beginning: u32,
    whole: u32,
    /// Index into `entries`, or [`NONE`].
    entry: u32,
}

impl<T> Trie<T> {
    /// Calls `visit` for each key that the path begins with, from short to long.
    ///
    /// It takes one step for each byte of the path at most.
    #[inline]
    pub(super) fn walk<'t>(&'t self, path: &str, mut visit: impl FnMut(Met<'t, T>)) {
        let path = path.as_bytes();
        let mut rest = path;
        let mut node = self.nodes.first();
        while let Some(here) = node {
            let Some(behind) = self.without_label(here, path, rest) else {
                return;
            };
            rest = behind;
            let is_whole = rest.is_empty();
            let certain = match is_whole {
                true => here.beginning.min(here.whole),
                false => here.beginning,
            };
            if certain != NONE || here.entry != NONE {
                visit(Met {
                    certain,
                    entry: self.entries.get(index(here.entry)),
                    is_whole,
                });
            }
            node = rest.first().and_then(|byte| self.child(here, *byte));
        }
    }

    /// What follows the node's label in `rest`, which is the end of `path`.
    #[inline]
    fn without_label<'p>(&self, node: &Node, path: &[u8], rest: &'p [u8]) -> Option<&'p [u8]> {
        let len = index(node.label_len);
        // The first byte led here.
        if len <= 1 {
            return rest.get(len..);
        }
        let (beginning, behind) = rest.split_at_checked(len)?;
        let is_same = if len <= WORD {
            let word = folded_word(word(path, rest.len()), self.case);
            word << (8 * (WORD - len)) == node.label << (8 * (WORD - len))
        } else {
            let start = usize::try_from(node.label).unwrap_or(usize::MAX);
            let label = self.text.get(start..start.saturating_add(len))?;
            match self.case {
                Case::Sensitive => beginning == label,
                Case::Folded => beginning.eq_ignore_ascii_case(label),
            }
        };
        is_same.then_some(behind)
    }

    #[inline]
    fn child(&self, node: &Node, byte: u8) -> Option<&Node> {
        let (start, len) = (index(node.children), usize::from(node.children_len));
        let byte = folded(byte, self.case);
        let place = match len {
            0 => return None,
            1..=WINDOW => self.place_among_few(start, byte)?,
            _ => self
                .firsts
                .get(start..start + len)?
                .partition_point(|first| *first < byte),
        };
        let is_there = place < len && self.firsts.get(start + place) == Some(&byte);
        self.nodes.get(start + place).filter(|_| is_there)
    }

    /// Where a byte stands among the first bytes from `start` on, within the window; behind it if it is not there.
    /// Whatever they are, it takes the same steps, so that nothing is guessed wrong.
    #[inline]
    fn place_among_few(&self, start: usize, byte: u8) -> Option<usize> {
        const ONES: u128 = u128::MAX / 255;
        let window = self.firsts.get(start..)?.first_chunk::<WINDOW>()?;
        let differing = u128::from_le_bytes(*window) ^ (ONES * u128::from(byte));
        // The lowest byte that is zero is the lowest whose upper bit is set here.
        let zero = differing.wrapping_sub(ONES) & !differing & (ONES << 7);
        usize::try_from(zero.trailing_zeros() / 8).ok()
    }
}

/// The first word of the last `len` bytes of a path, the first byte lowest; zeros where the path ends before.
#[inline]
fn word(path: &[u8], len: usize) -> u64 {
    let rest = path.get(path.len() - len..).unwrap_or_default();
    if let Some(whole) = rest.first_chunk::<WORD>() {
        u64::from_le_bytes(*whole)
    } else if let Some(last) = path.last_chunk::<WORD>() {
        let before = 8 * (WORD - len);
        u64::from_le_bytes(*last)
            .checked_shr(u32::try_from(before).unwrap_or(64))
            .unwrap_or(0)
    } else {
        packed(rest)
    }
}

/// A word of up to [`WORD`] bytes, the first byte lowest.
fn packed(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn folded_word(word: u64, case: Case) -> u64 {
    match case {
        Case::Sensitive => word,
        Case::Folded => u64::from_le_bytes(word.to_le_bytes().map(|byte| byte.to_ascii_lowercase())),
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
    pub(super) fn finish<T>(mut self, mut finish: impl FnMut(G) -> Kept<T>) -> Trie<T> {
        let (mut nodes, mut firsts, mut text, mut entries) = (vec![], vec![], vec![], vec![]);
        let mut order = vec![0];
        let mut at = 0;
        while let Some(growing) = order
            .get(at)
            .and_then(|number: &usize| self.nodes.get_mut(*number))
        {
            let kept = growing.gathered.take().map(&mut finish);
            let (beginning, whole) = kept
                .as_ref()
                .map_or((NONE, NONE), |kept| (kept.beginning, kept.whole));
            let entry = kept.and_then(|kept| kept.entry);
            nodes.push(Node {
                label: match growing.label.len() {
                    0..=WORD => packed(&growing.label),
                    _ => text.len() as u64,
                },
                label_len: short(growing.label.len()),
                children: short(order.len()),
                children_len: u16::try_from(growing.children.len()).unwrap_or(u16::MAX),
                beginning,
                whole,
                entry: entry.map_or(NONE, |entry| {
                    entries.push(entry);
                    short(entries.len() - 1)
                }),
            });
            firsts.push(growing.label.first().copied().unwrap_or_default());
            if growing.label.len() > WORD {
                text.append(&mut growing.label);
            }
            order.extend(growing.children.iter().map(|child| child.1));
            at += 1;
        }
        firsts.resize(firsts.len() + WINDOW, 0);
        Trie {
            case: self.case,
            nodes: nodes.into(),
            firsts: firsts.into(),
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
        let trie = builder.finish(|key| Kept {
            beginning: 7,
            whole: 3,
            entry: Some(key),
        });
        let mut met = vec![];
        trie.walk(path, |found| {
            let key = found.entry.unwrap().as_str();
            assert_eq!(found.is_whole, key.len() == path.len(), "{key} of {path}");
            assert_eq!(found.certain, if found.is_whole { 3 } else { 7 });
            met.push(key);
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
    fn labels_of_any_length_are_compared_to_their_ends() {
        let text = "abcdefghijklmnopqrst";
        for len in 1..text.len() {
            for other in 0..len {
                let mut wrong = text[..len].to_owned();
                wrong.replace_range(other..=other, "_");
                for (case, key) in [(Case::Sensitive, text), (Case::Folded, "ABCDEFGHIJKLMNOPQRST")] {
                    check(case, &[&key[..len]], &text[..len], &[&key[..len]]);
                    check(case, &[&key[..len]], text, &[&key[..len]]);
                    check(case, &[&key[..len]], &text[..other], &[]);
                    check(case, &[&key[..len]], &wrong, &[]);
                }
            }
        }
    }

    #[test]
    fn thousands_of_keys_each_the_beginning_of_the_next_are_no_problem() {
        let longest = "a".repeat(2000);
        let keys: Vec<&str> = (0..longest.len()).map(|end| &longest[..end]).collect();
        check(Case::Sensitive, &keys, &longest[..1500], &keys[..1501]);
    }

    #[test]
    fn a_node_with_any_number_of_children_finds_the_right_one() {
        for count in [1_u8, 2, 15, 16, 17, 100] {
            let keys: Vec<String> = (0..count).map(|n| format!("/{}x", char::from(20 + n))).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            for key in &keys {
                check(Case::Sensitive, &keys, &format!("{key}y"), &[*key]);
            }
            check(Case::Sensitive, &keys, "/\u{1}", &[]);
            check(Case::Sensitive, &keys, "/\u{7f}", &[]);
        }
    }
}
