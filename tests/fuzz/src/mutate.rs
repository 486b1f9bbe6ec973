//! Mutations of inputs, for the runs that no fuzzer watches.

use fastrand::Rng;

/// Longest input that a mutation makes, in bytes.
const LONGEST: usize = 4096;

/// Bytes at the edges of what parsers tell apart.
const EDGES: &[u8] = &[
    0, 9, 10, 13, 32, 0x7f, 0x80, 0xff, b'\'', b'"', b'{', b'[', b':', b'*', b'&', b'%', b'-',
];

/// An input made of a seed, another one and words that the target knows: it is cut to a window of the seed, which is then
/// changed in up to eight places. Without seeds it is random bytes.
pub fn mutate(seeds: &[Vec<u8>], words: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let Some(seed) = rng.choice(seeds) else {
        let len = rng.usize(..512);
        return (0..len).map(|_| rng.u8(..)).collect();
    };
    let mut data = window(seed, rng);
    for _ in 0..rng.usize(1..=8) {
        step(&mut data, seeds, words, rng);
    }
    data.truncate(LONGEST);
    data
}

fn step(data: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.usize(..=data.len());
    match rng.u8(..8) {
        0 => data.insert(at, rng.u8(..)),
        1 => data.insert(at, rng.choice(EDGES).copied().unwrap_or_default()),
        2 => {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
        3 => {
            let end = data.len().min(at + rng.usize(1..32));
            data.drain(at..end);
        }
        4 => {
            let piece = window(data, rng);
            insert(data, at, &piece);
        }
        5 => {
            let other = rng.choice(seeds).map_or(vec![], |seed| window(seed, rng));
            insert(data, at, &other);
        }
        _ => {
            let word = rng.choice(words).map_or(&[][..], Vec::as_slice);
            insert(data, at, word);
        }
    }
}

/// Most often all of `data`, else a piece of it.
fn window(data: &[u8], rng: &mut Rng) -> Vec<u8> {
    if rng.bool() {
        return data.to_vec();
    }
    let start = rng.usize(..=data.len());
    let len = rng.usize(..=(data.len() - start).min(256));
    data.iter().skip(start).take(len).copied().collect()
}

fn insert(data: &mut Vec<u8>, at: usize, piece: &[u8]) {
    data.splice(at..at, piece.iter().copied());
}

/// The words of a dictionary in libFuzzer's format: one in quotes a line, with `\\`, `\"` and `\xAB`; a name may stand
/// before it.
///
/// # Errors
/// The first line that is none.
pub fn words(dictionary: &str) -> Result<Vec<Vec<u8>>, String> {
    let lines = dictionary.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| word(line).ok_or_else(|| format!("not a word in quotes: {line}")))
        .collect()
}

fn word(line: &str) -> Option<Vec<u8>> {
    let (_, quoted) = line.split_once('"')?;
    let mut rest = quoted.strip_suffix('"')?;
    let mut word = vec![];
    while let Some(c) = rest.chars().next() {
        let (byte, len) = match c {
            '\\' if rest.starts_with("\\x") => (u8::from_str_radix(rest.get(2..4)?, 16).ok()?, 4),
            '\\' => (*rest.as_bytes().get(1)?, 2),
            _ => (u8::try_from(c).ok()?, c.len_utf8()),
        };
        word.push(byte);
        rest = rest.get(len..)?;
    }
    Some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_are_read_as_libfuzzer_reads_them() {
        let read = words("# words\n\na=\"x\\x0ay\"\n\"\\\\\\\"\"\n");
        assert_eq!(read, Ok(vec![b"x\ny".to_vec(), b"\\\"".to_vec()]));
        assert!(words("no quotes").is_err());
    }

    #[test]
    fn mutations_differ_and_are_the_same_in_every_run() {
        let seeds = [b"kind: Gateway\n".to_vec()];
        let draw = || {
            let mut rng = Rng::with_seed(1);
            (0..50).map(|_| mutate(&seeds, &[], &mut rng)).collect::<Vec<_>>()
        };
        let (first, second) = (draw(), draw());
        assert_eq!(first, second);
        let distinct: std::collections::HashSet<_> = first.iter().collect();
        assert!(distinct.len() > 30, "{} of 50", distinct.len());
    }
}
