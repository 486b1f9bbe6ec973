//! Plain scalars that end with a colon in flow style, such as the address in `[2001:db8::, 2001:db8::1]`.
//!
//! By YAML 1.2 a colon before a comma or a closing bracket ends a key (7.3.3), and that list would have the map of
//! `2001:db8:` to nothing in it. go-yaml, which kubectl reads files with, takes the colon for a part of the scalar, as one
//! who writes addresses does; and so does this. Wherever else such a colon stands it is plain text in either reading:
//! another character takes its place while the text is parsed.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::RangeInclusive;

use saphyr_parser::{Parser, StrInput};

/// Characters that have no meaning of their own (Unicode, private use area).
const PLACEHOLDERS: RangeInclusive<char> = '\u{e000}'..='\u{f8ff}';

/// A text with the colons that are no indicators out of the way.
pub(super) struct Source<'t> {
    text: Cow<'t, str>,
    /// What stands for a colon in it.
    placeholder: Option<char>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let plain = |text: &'t str| Self {
            text: text.into(),
            placeholder: None,
        };
        if colons(text).next().is_none() {
            return plain(text);
        }
        let mut taken: HashSet<char> = text.chars().filter(|c| PLACEHOLDERS.contains(c)).collect();
        taken.extend(escaped(text));
        let Some(placeholder) = PLACEHOLDERS.into_iter().find(|c| !taken.contains(c)) else {
            return plain(text);
        };
        let mut other = String::with_capacity(text.len() + 8);
        let mut done = 0;
        for at in colons(text) {
            other.push_str(text.get(done..at).unwrap_or_default());
            other.push(placeholder);
            done = at + 1;
        }
        other.push_str(text.get(done..).unwrap_or_default());
        Self {
            text: other.into(),
            placeholder: Some(placeholder),
        }
    }

    pub(super) fn parser(&self) -> Parser<'_, StrInput<'_>> {
        Parser::new_from_str(&self.text)
    }

    /// What a scalar says.
    pub(super) fn said<'s>(&self, scalar: &'s str) -> Cow<'s, str> {
        match self.placeholder {
            Some(placeholder) if scalar.contains(placeholder) => scalar.replace(placeholder, ":").into(),
            _ => scalar.into(),
        }
    }
}

/// Characters that escapes of double quotes may stand for (YAML 1.2, 5.7).
fn escaped(text: &str) -> impl Iterator<Item = char> {
    let digits = |(at, _): (usize, &str)| {
        let digits = match text.get(at + 1..)? {
            escape if escape.starts_with('u') => escape.get(1..5),
            escape if escape.starts_with('U') => escape.get(1..9),
            _ => None,
        };
        char::from_u32(u32::from_str_radix(digits?, 16).ok()?)
    };
    text.match_indices('\\').filter_map(digits)
}

/// Where colons stand behind plain text and before what ends a flow node. Behind a quote one ends a key, as in JSON.
fn colons(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    let windows = (1..).zip(bytes.windows(3));
    windows.filter_map(|(at, window)| match window {
        [before, b':', b',' | b']' | b'}'] => {
            let is_plain = !before.is_ascii_whitespace() && !matches!(before, b'"' | b'\'');
            is_plain.then_some(at)
        }
        _ => None,
    })
}
