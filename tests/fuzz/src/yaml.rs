//! A file of resources from anyone is read, checked and compiled without a panic, the same each time and whatever the
//! order of its objects.

use std::collections::HashSet;
use std::io;

use edge_config::{Bootstrap, Resource, check, parse_documents, parse_prefixes};
use edge_control::{CompileOptions, compile, fates};

/// Longest text. What longer ones cost is measured by edge-config's own tests.
const LONGEST: usize = 64 << 10;

/// The bytes are a file.
///
/// # Panics
/// If a promise is broken.
pub fn target(data: &[u8]) {
    let data = data.get(..LONGEST).unwrap_or(data);
    let text = String::from_utf8_lossy(data);
    let _ = Bootstrap::read("edge.yaml", &text, &mut vec![]);
    let _ = parse_prefixes("prefixes", &text, &mut vec![]);
    let parsed = parse_documents("fuzz.yaml", &text);
    assert_eq!(
        parsed,
        parse_documents("fuzz.yaml", &text),
        "a second reading differs"
    );
    let lines = text.split(['\n', '\r']).count();
    for problem in &parsed.problems {
        assert!(
            problem.line <= lines,
            "{problem:?} is behind the last of {lines} lines"
        );
        assert!(
            !problem.hint.is_empty() && !problem.message.is_empty(),
            "{problem:?}"
        );
    }
    compile_in_any_order(&parsed.resources);
}

/// Resources are compiled whether or not they are refused: see `edge_control::load`.
fn compile_in_any_order(resources: &[Resource]) {
    for resource in resources {
        let _ = check(resource);
    }
    let options = CompileOptions::default();
    let no_files = |_: &str| Err(io::ErrorKind::NotFound.into());
    let compiled = compile(resources, &options, &no_files);
    let _ = fates(resources, &options, &compiled.snapshot, &compiled.problems);
    let names: HashSet<_> = resources.iter().map(Resource::object_ref).collect();
    if names.len() == resources.len() {
        let mut resources = resources.to_vec();
        resources.reverse();
        let other = compile(&resources, &options, &no_files).snapshot;
        assert_eq!(compiled.snapshot, other, "the order of the objects counts");
    }
}
