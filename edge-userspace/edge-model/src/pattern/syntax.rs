//! What an expression comes to before it is compiled: its syntax, its size, how its matches begin.

use std::convert::Infallible;

use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassPerl, ClassPerlKind, ClassSetBinaryOp, ClassSetItem, Flag, FlagsItemKind,
    Span,
};
use regex_syntax::hir::print::Printer;
use regex_syntax::hir::{Class, Hir, HirKind, Look, translate::Translator};

use super::{Pattern, PatternError};

/// A literal prefix longer than this finds no route faster.
const LONGEST_PREFIX: usize = 256;
/// A Unicode class such as `\pL` costs microseconds to look up and thousands of states.
const MOST_UNICODE_CLASSES: u32 = 8;
/// With the flag i it is a tenth of a millisecond, because each of its characters is looked up in turn.
const MOST_FOLDED_UNICODE_CLASSES: u32 = 2;
/// The same for written ranges, in characters: all of Latin, Greek and Cyrillic.
const MOST_FOLDED_CHARACTERS: u32 = 1 << 12;

/// What parsing tells.
pub(super) struct Parsed {
    /// The expression for the crate `regex`, where it differs from RE2's.
    pub(super) rust: Option<Box<str>>,
    /// Number of groups.
    pub(super) groups: usize,
    /// Bytes that every match begins with.
    pub(super) prefix: Box<[u8]>,
    /// What follows the literal text at the beginning, if that can be told from the text behind alone.
    pub(super) rest: Option<Rest>,
    /// About how many states the automaton has.
    pub(super) size: u32,
}

/// An expression without the literal text that it begins with.
pub(super) struct Rest {
    /// Length of that text in bytes.
    pub(super) offset: usize,
    /// What is left.
    pub(super) source: Box<str>,
}

/// Parses an expression.
pub(super) fn parse(source: &str) -> Result<Parsed, PatternError> {
    let mut ast = read(source)?;
    let Ok(differences) = ast::visit(&ast, Differences::default());
    if let Some(span) = differences.foreign {
        let part = source.get(span.start.offset..span.end.offset).unwrap_or(source);
        return Err(PatternError::Syntax(format!("RE2 has no {part}")));
    }
    if differences.is_costly() {
        return Err(PatternError::TooLarge);
    }
    let rust = differences.apply(source);
    if let Some(rust) = &rust {
        ast = read(rust)?;
    }
    let hir = Translator::new()
        .translate(rust.as_deref().unwrap_or(source), &ast)
        .map_err(|error| PatternError::Syntax(error.to_string()))?;
    // Before anything walks through unrolled repetitions.
    let size = size(&hir);
    if size > Pattern::MAX_SIZE {
        return Err(PatternError::TooLarge);
    }
    let mut prefix = vec![];
    add_prefix(&hir, &mut prefix);
    prefix.truncate(LONGEST_PREFIX);
    Ok(Parsed {
        rust: rust.map(Into::into),
        groups: hir.properties().explicit_captures_len(),
        prefix: prefix.into(),
        rest: rest(&hir),
        size,
    })
}

fn read(source: &str) -> Result<Ast, PatternError> {
    let parsed = ast::parse::Parser::new().parse(source);
    parsed.map_err(|error| PatternError::Syntax(error.to_string()))
}

/// Where RE2 and the crate `regex` read the same text differently.
#[derive(Default)]
struct Differences {
    /// Parts to be written in another way, from left to right.
    replacements: Vec<(Span, &'static str)>,
    /// The first part that RE2 would refuse or read as something else.
    foreign: Option<Span>,
    unicode_classes: u32,
    /// How many characters the ranges in brackets hold together.
    characters_in_ranges: u32,
    folds_case: bool,
}

impl Differences {
    fn foreign(&mut self, span: &Span) {
        self.foreign.get_or_insert(*span);
    }

    fn replace(&mut self, span: &Span, by: &'static str) {
        self.replacements.push((*span, by));
    }

    /// Whether translating the classes would take milliseconds.
    fn is_costly(&self) -> bool {
        let most = if self.folds_case {
            MOST_FOLDED_UNICODE_CLASSES
        } else {
            MOST_UNICODE_CLASSES
        };
        self.unicode_classes > most || (self.folds_case && self.characters_in_ranges > MOST_FOLDED_CHARACTERS)
    }

    fn apply(&self, source: &str) -> Option<String> {
        if self.replacements.is_empty() {
            return None;
        }
        let mut out = String::with_capacity(source.len() * 2);
        let mut at = 0;
        for (span, by) in &self.replacements {
            out.push_str(source.get(at..span.start.offset)?);
            out.push_str(by);
            at = span.end.offset;
        }
        out.push_str(source.get(at..)?);
        Some(out)
    }
}

impl ast::Visitor for Differences {
    type Output = Self;
    type Err = Infallible;

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
        match ast {
            Ast::ClassPerl(class) => self.replace(&class.span, ascii(class)),
            Ast::ClassUnicode(_) => self.unicode_classes += 1,
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::WordBoundary => self.replace(&assertion.span, r"(?-u:\b)"),
                AssertionKind::NotWordBoundary => self.replace(&assertion.span, r"(?-u:\B)"),
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText => {}
                AssertionKind::WordBoundaryStart
                | AssertionKind::WordBoundaryEnd
                | AssertionKind::WordBoundaryStartAngle
                | AssertionKind::WordBoundaryEndAngle
                | AssertionKind::WordBoundaryStartHalf
                | AssertionKind::WordBoundaryEndHalf => self.foreign(&assertion.span),
            },
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Group(group) => {
                if let ast::GroupKind::NonCapturing(flags) = &group.kind {
                    self.flags(flags);
                }
            }
            Ast::Empty(_)
            | Ast::Literal(_)
            | Ast::Dot(_)
            | Ast::ClassBracketed(_)
            | Ast::Repetition(_)
            | Ast::Alternation(_)
            | Ast::Concat(_) => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        match item {
            ClassSetItem::Perl(class) => self.replace(&class.span, ascii(class)),
            ClassSetItem::Unicode(_) => self.unicode_classes += 1,
            ClassSetItem::Range(range) => {
                let (first, last) = (u32::from(range.start.c), u32::from(range.end.c));
                let characters = last.saturating_sub(first).saturating_add(1);
                self.characters_in_ranges = self.characters_in_ranges.saturating_add(characters);
            }
            // A class within a class: RE2 takes the bracket for a character.
            ClassSetItem::Bracketed(class) => self.foreign(&class.span),
            ClassSetItem::Empty(_)
            | ClassSetItem::Literal(_)
            | ClassSetItem::Ascii(_)
            | ClassSetItem::Union(_) => {}
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, op: &ClassSetBinaryOp) -> Result<(), Infallible> {
        self.foreign(&op.span);
        Ok(())
    }
}

impl Differences {
    /// RE2 has the flags i, m, s and U.
    fn flags(&mut self, flags: &ast::Flags) {
        for item in &flags.items {
            match item.kind {
                FlagsItemKind::Flag(Flag::CaseInsensitive) => self.folds_case = true,
                FlagsItemKind::Negation
                | FlagsItemKind::Flag(Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed) => {}
                FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace) => {
                    self.foreign(&item.span)
                }
            }
        }
    }
}

/// RE2's classes of ASCII. They stand inside of brackets, too.
fn ascii(class: &ClassPerl) -> &'static str {
    match (&class.kind, class.negated) {
        (ClassPerlKind::Digit, false) => "[0-9]",
        (ClassPerlKind::Digit, true) => "[^0-9]",
        (ClassPerlKind::Space, false) => r"[\t\n\f\r ]",
        (ClassPerlKind::Space, true) => r"[^\t\n\f\r ]",
        (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
        (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
    }
}

/// Adds the bytes that each match of `hir` begins with, and says whether these are the whole of each match.
fn add_prefix(hir: &Hir, out: &mut Vec<u8>) -> bool {
    if out.len() >= LONGEST_PREFIX {
        return false;
    }
    match hir.kind() {
        // An assertion takes no character. It may refuse a text, which a prefix need not know.
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            out.extend_from_slice(&literal.0);
            true
        }
        HirKind::Class(_) => false,
        HirKind::Repetition(repetition) => {
            let mut is_whole = true;
            for _ in 0..repetition.min {
                is_whole = add_prefix(&repetition.sub, out);
                if !is_whole || out.len() >= LONGEST_PREFIX {
                    return false;
                }
            }
            is_whole && repetition.max == Some(repetition.min)
        }
        HirKind::Capture(capture) => add_prefix(&capture.sub, out),
        HirKind::Concat(parts) => parts.iter().all(|part| add_prefix(part, out)),
        HirKind::Alternation(parts) => {
            let mut prefixes = parts.iter().map(|part| {
                let mut prefix = vec![];
                add_prefix(part, &mut prefix);
                prefix
            });
            let first = prefixes.next().unwrap_or_default();
            let common = prefixes.fold(first, |mut common, other| {
                let len = common.iter().zip(&other).take_while(|(a, b)| a == b).count();
                common.truncate(len);
                common
            });
            out.extend_from_slice(&common);
            false
        }
    }
}

/// Takes the literal text off the beginning. `None` when an assertion is left, which looks at what stands before it.
fn rest(hir: &Hir) -> Option<Rest> {
    let mut parts = if let HirKind::Concat(parts) = hir.kind() {
        parts.as_slice()
    } else {
        std::slice::from_ref(hir)
    };
    // The whole of a text is matched, so that these hold where they stand.
    while let [first, behind @ ..] = parts
        && matches!(first.kind(), HirKind::Look(Look::Start))
    {
        parts = behind;
    }
    while let [before @ .., last] = parts
        && matches!(last.kind(), HirKind::Look(Look::End))
    {
        parts = before;
    }
    let mut offset = 0;
    while let [first, behind @ ..] = parts
        && let HirKind::Literal(literal) = first.kind()
        && offset + literal.0.len() <= LONGEST_PREFIX
    {
        offset += literal.0.len();
        parts = behind;
    }
    let hir = Hir::concat(parts.to_vec());
    if !hir.properties().look_set().is_empty() {
        return None;
    }
    let mut source = String::new();
    Printer::new().print(&hir, &mut source).ok()?;
    Some(Rest {
        offset,
        source: source.into(),
    })
}

/// About how many states a Thompson automaton has. Repetitions are unrolled there, so it is what nested counts multiply
/// to, and a class of characters outside of ASCII takes some for each of its ranges in UTF-8.
fn size(hir: &Hir) -> u32 {
    const STATES_OF_A_RANGE: u32 = 4;
    let of_all = |parts: &[Hir]| {
        parts
            .iter()
            .fold(0_u32, |sum, part| sum.saturating_add(size(part)))
    };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(Class::Bytes(_)) => 1,
        HirKind::Literal(literal) => count(literal.0.len()),
        HirKind::Class(Class::Unicode(class)) if class.is_ascii() => 1,
        HirKind::Class(Class::Unicode(class)) => {
            count(class.ranges().len()).saturating_mul(STATES_OF_A_RANGE)
        }
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            size(&repetition.sub).saturating_add(1).saturating_mul(times)
        }
        HirKind::Capture(capture) => size(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) => of_all(parts),
        HirKind::Alternation(parts) => of_all(parts).saturating_add(1),
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
