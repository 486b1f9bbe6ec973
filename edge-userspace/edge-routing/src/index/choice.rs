//! Many routes for one path, told apart by a value that the request must have.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use edge_model::{Route, RouteMatch, StringMatch};
use http::HeaderName;
use http::header::HOST;

use super::candidates::Candidates;
use crate::query;
use crate::request::Head;

/// Up to so many routes are looked at one by one.
const FEW: usize = 8;
/// Values that are asked for in turn, at most.
const DEEPEST: usize = 4;

/// Routes, by ascending number.
pub(super) enum Choice {
    /// All of them may match.
    List(Box<[u32]>),
    /// Most of them ask for one value of a field.
    Split(Box<Split>),
}

pub(super) struct Split {
    field: Field,
    /// Those that ask for this value exactly.
    by_value: HashMap<Box<[u8]>, Choice, foldhash::fast::FixedState>,
    /// Those that do not ask for a value of the field.
    rest: Choice,
}

/// A part of the request that routes compare with a fixed text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Field {
    Method,
    Authority,
    Header(HeaderName),
    Query(Box<str>),
}

impl Default for Choice {
    fn default() -> Self {
        Self::List(Box::default())
    }
}

impl Choice {
    /// Splits routes, given by ascending number, as far as it pays.
    pub(super) fn new(numbers: Vec<u32>, routes: &[Arc<Route>]) -> Self {
        Self::at_depth(0, numbers, routes)
    }

    fn at_depth(depth: usize, numbers: Vec<u32>, routes: &[Arc<Route>]) -> Self {
        if numbers.len() <= FEW || depth >= DEEPEST {
            return Self::List(numbers.into());
        }
        let Some(field) = best_field(&numbers, routes) else {
            return Self::List(numbers.into());
        };
        let mut by_value: HashMap<Box<[u8]>, Vec<u32>> = HashMap::new();
        let mut rest = vec![];
        for number in numbers {
            match matcher(number, routes).and_then(|matcher| exact_value(matcher, &field)) {
                Some(value) => by_value.entry(value.into()).or_default().push(number),
                None => rest.push(number),
            }
        }
        let by_value = by_value
            .into_iter()
            .map(|(value, numbers)| (value, Self::at_depth(depth + 1, numbers, routes)));
        Self::Split(Box::new(Split {
            by_value: by_value.collect(),
            rest: Self::at_depth(depth + 1, rest, routes),
            field,
        }))
    }

    /// Whether there is no route at all.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::List(numbers) if numbers.is_empty())
    }

    /// Hands the routes over that the request's values leave.
    #[inline]
    pub(super) fn offer<'i>(&'i self, head: &Head<'_>, candidates: &mut Candidates<'i>) {
        match self {
            Self::List(numbers) => candidates.add_list(numbers),
            Self::Split(split) => split.offer(head, candidates),
        }
    }
}

impl Split {
    fn offer<'i>(&'i self, head: &Head<'_>, candidates: &mut Candidates<'i>) {
        let mut offer = |value: &[u8]| {
            if let Some(choice) = self.by_value.get(value) {
                choice.offer(head, candidates);
            }
        };
        match &self.field {
            Field::Method => offer(head.request.method.as_bytes()),
            Field::Authority => offer(head.request.authority.as_bytes()),
            Field::Header(name) => {
                for value in head.request.headers.get_all(name) {
                    offer(value.as_bytes());
                }
            }
            Field::Query(name) => {
                if let Some(value) = query::first_value(head.query, name) {
                    offer(value.as_bytes());
                }
            }
        }
        self.rest.offer(head, candidates);
    }
}

/// The field that leaves the fewest routes: many ask for it, and for many different values.
fn best_field(numbers: &[u32], routes: &[Arc<Route>]) -> Option<Field> {
    let mut values: HashMap<Field, (usize, HashSet<&str>)> = HashMap::new();
    for matcher in numbers.iter().filter_map(|number| matcher(*number, routes)) {
        for (field, value) in exact_values(matcher) {
            let (count, distinct) = values.entry(field).or_default();
            *count += 1;
            distinct.insert(value);
        }
    }
    // What a request is spared on average: all with another value of the field.
    let spared = |(count, distinct): &(usize, HashSet<&str>)| count - count / distinct.len().max(1);
    let best = values
        .into_iter()
        .map(|(field, found)| (spared(&found), field))
        .filter(|(spared, _)| *spared >= FEW)
        .max_by(|a, b| a.0.cmp(&b.0).then_with(|| order(&b.1).cmp(&order(&a.1))));
    best.map(|(_, field)| field)
}

/// Makes the choice among equally good fields the same in every run.
fn order(field: &Field) -> (u8, &str) {
    match field {
        Field::Method => (0, ""),
        Field::Authority => (1, ""),
        Field::Header(name) => (2, name.as_str()),
        Field::Query(name) => (3, name),
    }
}

fn matcher(number: u32, routes: &[Arc<Route>]) -> Option<&RouteMatch> {
    let route = routes.get(usize::try_from(number).ok()?)?;
    Some(&route.matcher)
}

fn exact_value<'m>(matcher: &'m RouteMatch, field: &Field) -> Option<&'m [u8]> {
    let mut values = exact_values(matcher);
    values.find_map(|(other, value)| (other == *field).then_some(value.as_bytes()))
}

fn exact_text(condition: &StringMatch) -> Option<&str> {
    match condition {
        StringMatch::Exact(text) => Some(text),
        StringMatch::Prefix(_) | StringMatch::Regex(_) | StringMatch::Present => None,
    }
}

/// The fields that a route compares with a fixed text.
fn exact_values(matcher: &RouteMatch) -> impl Iterator<Item = (Field, &str)> {
    let method = matcher
        .method
        .as_ref()
        .and_then(exact_text)
        .map(|value| (Field::Method, value));
    let authority = matcher.authority.as_ref().and_then(exact_text);
    let headers = matcher.headers.iter().filter(|condition| !condition.invert);
    let headers = headers.filter_map(move |condition| {
        let field = match &condition.name {
            name if *name == HOST => Field::Authority,
            name => Field::Header(name.clone()),
        };
        Some((field, exact_text(&condition.value)?))
    });
    let query = matcher
        .query
        .iter()
        .filter(|condition| !condition.name.is_empty());
    let query = query.filter_map(move |condition| {
        Some((
            Field::Query(condition.name.as_str().into()),
            exact_text(&condition.value)?,
        ))
    });
    method
        .into_iter()
        .chain(authority.map(|value| (Field::Authority, value)))
        .chain(headers)
        .chain(query)
}
