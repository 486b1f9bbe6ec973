//! What is expected of a case, and whether it came to be.

use super::cases::repeated;
use super::recorder::Seen;

/// What may become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing complete arrives.
    Refuse,
    /// One message arrives.
    Pass,
    /// Either of the two.
    Either,
    /// The message arrives, and one more, for `/second`.
    Twice,
    /// The client goes away before its message has ended: nothing complete arrives.
    Cut,
}

/// What is expected of a case.
#[derive(Debug)]
pub(crate) struct Expectation {
    pub(crate) fate: Fate,
    /// Body, target, Host and fields of the message.
    details: Vec<Detail>,
}

#[derive(Debug)]
enum Detail {
    Body(String),
    Target(String),
    Field(String, String),
    NoField(String),
}

impl Expectation {
    pub(crate) fn parse(text: &str) -> Self {
        let text = repeated(text);
        let (fate, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let fate = match fate {
            "refuse" => Fate::Refuse,
            "pass" => Fate::Pass,
            "either" => Fate::Either,
            "twice" => Fate::Twice,
            "cut" => Fate::Cut,
            other => panic!("no fate: {other:?}"),
        };
        // A value may hold spaces: a detail begins with its sign or its name.
        let mut details: Vec<Detail> = Vec::new();
        for word in rest.split(' ').filter(|word| !word.is_empty()) {
            match Detail::parse(word) {
                Some(detail) => details.push(detail),
                None => match details.last_mut() {
                    Some(Detail::Field(_, text) | Detail::Body(text)) => *text += &format!(" {word}"),
                    _ => panic!("no detail: {word:?}"),
                },
            }
        }
        Self { fate, details }
    }

    /// What is wrong with what the endpoint got.
    pub(crate) fn check(&self, seen: &[Seen]) -> Result<(), String> {
        let count = seen.len();
        match (self.fate, count) {
            (Fate::Refuse | Fate::Either | Fate::Cut, 0) => return Ok(()),
            (Fate::Pass | Fate::Either, 1) | (Fate::Twice, 2) => {}
            _ => return Err(format!("{count} messages at the endpoint: {seen:?}")),
        }
        for seen in seen {
            match seen {
                Seen::Broken(why) => return Err(format!("broken at the endpoint: {why}")),
                Seen::Request { target, .. } if target.contains("smuggled") => {
                    return Err("a smuggled request".to_owned());
                }
                Seen::Request { .. } => {}
            }
        }
        // Requests of HTTP/2 may overtake each other.
        let is_second = |seen: &&Seen| matches!(seen, Seen::Request { target, .. } if target == "/second");
        let (second, first): (Vec<_>, Vec<_>) = seen.iter().partition(is_second);
        if first.len() != 1 || second.len() + 1 != count {
            return Err(format!("not /second: {seen:?}"));
        }
        self.details.iter().try_for_each(|detail| detail.check(first[0]))
    }
}

impl Detail {
    fn parse(word: &str) -> Option<Self> {
        if let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) {
            return Some(Self::NoField(name.to_owned()));
        }
        if let Some((name, value)) = word.strip_prefix('+').and_then(|word| word.split_once('=')) {
            return Some(Self::Field(name.to_owned(), value.to_owned()));
        }
        match word.split_once('=') {
            Some(("body", text)) => Some(Self::Body(text.to_owned())),
            Some(("to", text)) => Some(Self::Target(text.to_owned())),
            Some(("host", text)) => Some(Self::Field("host".to_owned(), text.to_owned())),
            _ => None,
        }
    }

    fn check(&self, seen: &Seen) -> Result<(), String> {
        let Seen::Request {
            target, fields, body, ..
        } = seen
        else {
            return Ok(());
        };
        let values = |wanted: &str| -> Vec<_> {
            let lines = fields.iter().filter(|(name, _)| name == wanted);
            lines.map(|(_, value)| value.as_str()).collect()
        };
        let is_so = match self {
            Self::Body(text) => text.as_bytes() == body,
            Self::Target(text) => text == target,
            Self::Field(name, value) => values(name) == [value.as_str()],
            Self::NoField(name) => values(name).is_empty(),
        };
        match is_so {
            true => Ok(()),
            false => Err(format!("not {self:?}: {seen:?}")),
        }
    }
}
