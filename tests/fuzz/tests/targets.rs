//! Every target with its seeds and with mutations of them, the same in every run.
//!
//! More of them: `EDGE_FUZZ_CASES=100000 EDGE_FUZZ_SEED=7 cargo test -p edge-fuzz`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{env, fs};

use edge_fuzz::{TARGETS, Target, mutate};

/// Draws that are not told otherwise begin here.
const SEED: u64 = 20_261_128;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, in the order of their names; none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return vec![];
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let root = folder().ancestors().nth(2).unwrap();
    let more = target.more_seeds.iter().flat_map(|seeds| {
        let found = files(&root.join(seeds));
        assert!(!found.is_empty(), "{}: {seeds} holds no seeds", target.name);
        found
    });
    let own = files(&folder().join("seeds").join(target.name));
    own.into_iter()
        .chain(more)
        .map(|file| fs::read(file).unwrap())
        .collect()
}

fn words(target: &Target) -> Vec<Vec<u8>> {
    let file = folder()
        .join("dictionaries")
        .join(format!("{}.dict", target.name));
    fs::read_to_string(file).map_or(vec![], |text| mutate::words(&text).unwrap())
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Runs a target over one input; one that fails is kept in a file.
fn run(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
        fs::write(&file, input).unwrap();
        panic!(
            "{} fails for the {} bytes of {}",
            target.name,
            input.len(),
            file.display()
        );
    }
}

#[track_caller]
fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let (seeds, words) = (seeds(target), words(target));
    for input in &seeds {
        run(target, input);
    }
    let mut rng = fastrand::Rng::with_seed(number("EDGE_FUZZ_SEED").unwrap_or(SEED));
    let cases = number("EDGE_FUZZ_CASES").unwrap_or(target.cases as u64);
    for _ in 0..cases {
        run(target, &mutate::mutate(&seeds, &words, &mut rng));
    }
}

/// One test for each target, so that they run beside each other.
macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets!(
    frames,
    hosts,
    lookup,
    packet,
    proxy_header,
    requests,
    responses,
    yaml
);

#[test]
fn every_target_has_its_program_and_its_test() {
    let programs: BTreeSet<_> = files(&folder().join("fuzz_targets"))
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let tested: BTreeSet<_> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(programs, names, "fuzz_targets/ and TARGETS differ");
    assert_eq!(tested, names, "targets!() and TARGETS differ");
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    for name in names {
        let path = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&path), "Cargo.toml has no [[bin]] for {name}");
        let program = fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            program.contains(&format!("edge_fuzz::{name}::target")),
            "fuzz_targets/{name}.rs calls another target"
        );
    }
}
