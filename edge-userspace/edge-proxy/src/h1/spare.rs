//! Maps of fields that are used again.
//!
//! A map asks for memory twice, and a request has two of them: that one was given back by the last request saves about 900
//! instructions (`bench-proxy --profile --case h1`).

use std::cell::RefCell;

use http::HeaderMap;
use http::header::MaxSizeReached;

/// Maps that are kept: requests that are under way at one time, as far as they are ordinary.
const MAX_KEPT: usize = 64;

/// Largest map that is kept, in names and in fields: a map has room of its own for further fields of a name.
const MAX_FIELDS: usize = 64;

thread_local! {
    static KEPT: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
///
/// # Errors
/// When no map can hold so many.
pub(crate) fn take(fields: usize) -> Result<HeaderMap, MaxSizeReached> {
    let mut map = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    map.try_reserve(fields)?;
    Ok(map)
}

/// Keeps the room of a map whose fields nobody needs any more.
pub(crate) fn give_back(mut map: HeaderMap) {
    if (1..=MAX_FIELDS).contains(&map.capacity()) && map.len() <= MAX_FIELDS {
        map.clear();
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < MAX_KEPT {
                kept.push(map);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::{ACCEPT, HOST};

    #[test]
    fn a_map_that_is_used_again_is_empty_and_large_ones_are_let_go() {
        let mut map = take(4).unwrap();
        for value in ["a", "b"] {
            map.append(ACCEPT, HeaderValue::from_static(value));
        }
        map.append(HOST, HeaderValue::from_static("c"));
        give_back(map);
        let map = take(0).unwrap();
        assert!(map.capacity() >= 4 && map.is_empty());
        assert!(!map.contains_key(HOST) && map.get_all(ACCEPT).iter().next().is_none());
        let mut of_one_name = HeaderMap::new();
        for _ in 0..=MAX_FIELDS {
            of_one_name.append(ACCEPT, HeaderValue::from_static("a"));
        }
        for large in [HeaderMap::with_capacity(MAX_FIELDS * 2), of_one_name] {
            give_back(large);
            assert_eq!(take(0).unwrap().capacity(), 0);
        }
    }
}
