//! Rules of the repository that no compiler checks. Each test reads the tree as it is and names the place
//! that breaks the rule.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use edge_config::{Bootstrap, parse_documents};
use serde_json::Value;

/// Which of our crates each of our crates may import. What is not in the list of a crate is not for it:
/// imports point one way, and edge-proxy, edge-control and edge-datapath never meet but as values in `edge`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("edge-common", &[]),
    ("edge-ebpf", &["edge-common"]),
    ("edge-model", &["edge-common"]),
    ("edge-config", &["edge-common", "edge-model"]),
    ("edge-routing", &["edge-common", "edge-model"]),
    ("edge-upstream", &["edge-common", "edge-model"]),
    (
        "edge-proxy",
        &["edge-common", "edge-model", "edge-routing", "edge-upstream"],
    ),
    // It compiles what the files say by the same rules that routing looks up by.
    (
        "edge-control",
        &["edge-common", "edge-model", "edge-config", "edge-routing"],
    ),
    ("edge-datapath", &["edge-common", "edge-model"]),
    (
        "edge",
        &[
            "edge-common",
            "edge-model",
            "edge-config",
            "edge-routing",
            "edge-upstream",
            "edge-proxy",
            "edge-control",
            "edge-datapath",
        ],
    ),
    // Setup is compiled before the BPF tool chain exists, so xtask and the lab import nothing that needs it.
    ("edge-lab", &[]),
    ("xtask", &["edge-lab", "edge-config", "edge-control"]),
];

/// Crates below `tests/` that may import any other: nothing imports them.
const TESTS: &[&str] = &[
    "edge-datapath-tests",
    "edge-conformance",
    "edge-fuzz",
    "edge-e2e",
    "edge-bench",
    "edge-bench-proxy",
    "edge-bench-routing",
];

/// Crates that call the kernel or share memory with it, and the programs that libFuzzer calls by a C function. Clippy
/// asks them for a SAFETY comment at each unsafe block; every other crate forbids unsafe code.
const MAY_BE_UNSAFE: &[&str] = &[
    "edge-common",
    "edge-ebpf",
    "edge-datapath",
    "edge-proxy",
    "edge-fuzz",
];

/// The file of a configuration folder that is the node's own and not a resource.
const BOOTSTRAP: &str = "edge.yaml";

/// What may lie in the root folder, besides hidden files.
const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "config",
    "deny.toml",
    "edge-common",
    "edge-ebpf",
    "edge-userspace",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "target",
    "tests",
    "xtask",
];

#[test]
fn imports_point_one_way() {
    for package in packages() {
        let name = text(&package, "name");
        if TESTS.contains(&name) {
            continue;
        }
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
            .unwrap_or_else(|| panic!("{name} has no line in MAY_IMPORT"));
        for import in own_imports(&package) {
            assert!(
                allowed.contains(&import.as_str()),
                "{name} may not import {import}"
            );
        }
    }
}

#[test]
fn every_rule_about_imports_names_a_crate_that_exists() {
    let names: BTreeSet<String> = packages().iter().map(|p| text(p, "name").to_owned()).collect();
    let ruled = MAY_IMPORT
        .iter()
        .flat_map(|(name, allowed)| allowed.iter().chain([name]));
    for name in ruled.chain(TESTS).chain(MAY_BE_UNSAFE) {
        assert!(
            names.contains(*name),
            "tidy names the crate {name}, which the workspace does not have"
        );
    }
}

#[test]
fn versions_stand_in_the_root_manifest_alone() {
    for package in packages() {
        let manifest = Path::new(text(&package, "manifest_path"));
        for (number, line) in dependency_lines(&read(manifest)) {
            let inherits = line.contains("workspace = true");
            assert!(
                inherits,
                "{}:{number}: not `workspace = true`: {line}",
                manifest.display()
            );
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for package in packages() {
        let manifest = text(&package, "manifest_path");
        let inherits = read(Path::new(manifest)).contains("[lints]\nworkspace = true");
        assert!(inherits, "{manifest}: [lints] workspace = true is missing");
    }
}

#[test]
fn crates_forbid_unsafe_code_unless_they_call_the_kernel() {
    for package in packages() {
        if MAY_BE_UNSAFE.contains(&text(&package, "name")) {
            continue;
        }
        for target in list(&package, "targets") {
            let root = text(target, "src_path");
            let is_code = list(target, "kind")
                .iter()
                .any(|kind| matches!(kind.as_str(), Some("lib" | "bin")));
            let forbids = read(Path::new(root)).contains("#![forbid(unsafe_code)]");
            assert!(!is_code || forbids, "{root}: #![forbid(unsafe_code)] is missing");
        }
    }
}

#[test]
fn the_root_folder_holds_only_what_a_newcomer_can_place() {
    for entry in fs::read_dir(root()).expect("the root folder can be read") {
        let name = entry
            .expect("the root folder can be read")
            .file_name()
            .to_string_lossy()
            .into_owned();
        assert!(
            name.starts_with('.') || TOP_LEVEL.contains(&name.as_str()),
            "{name}: not in TOP_LEVEL"
        );
    }
}

#[test]
fn every_source_file_is_compiled() {
    let packages = packages();
    let targets: BTreeSet<_> = packages
        .iter()
        .flat_map(|package| list(package, "targets"))
        .map(|target| PathBuf::from(text(target, "src_path")))
        .collect();
    let files = files(&root());
    let sources = files
        .iter()
        .filter(|file| file.extension().is_some_and(|end| end == "rs"));
    for file in sources.filter(|file| !targets.contains(*file)) {
        let (folder, name) = module(file);
        let mut parents = vec![folder.join("mod.rs"), folder.with_extension("rs")];
        parents.extend(
            targets
                .iter()
                .filter(|target| target.parent() == Some(folder))
                .cloned(),
        );
        let declares = |parent: &PathBuf| {
            let source = fs::read_to_string(parent).unwrap_or_default();
            source.lines().any(|line| line.ends_with(&format!("mod {name};")))
        };
        assert!(
            parents.iter().any(declares),
            "{}: no `mod {name};` in any of {parents:?}",
            file.display()
        );
    }
}

/// The folder of the module that a file holds, and its name.
fn module(file: &Path) -> (&Path, String) {
    let own = |path: &Path| {
        let name = path.file_stem().expect("a file has a name");
        name.to_string_lossy().into_owned()
    };
    let folder = file.parent().expect("a file lies in a folder");
    match own(file).as_str() {
        "mod" => (folder.parent().expect("so does a folder"), own(folder)),
        name => (folder, name.to_owned()),
    }
}

#[test]
fn no_file_names_a_package_registry() {
    // In two halves, so that this file passes its own test. A mirror is the business of the machine.
    let hosts = [
        ("crates", ".io"),
        ("static.rust", "-lang.org"),
        ("deb.debian", ".org"),
        ("py", "pi.org"),
    ];
    for file in files(&root()).iter().filter(|file| !file.ends_with("Cargo.lock")) {
        // A file that is not text (a captured packet, say) names nothing.
        let Ok(content) = fs::read_to_string(file) else {
            continue;
        };
        for (first, second) in hosts {
            let host = format!("{first}{second}");
            assert!(!content.contains(&host), "{} names {host}", file.display());
        }
    }
}

#[test]
fn every_file_under_config_has_the_right_shape() {
    for file in files(&root().join("config")) {
        let name = file.display().to_string();
        let yaml = file.extension().is_some_and(|extension| extension == "yaml");
        assert!(yaml, "{name}: config/ holds *.yaml only");
        let mut problems = vec![];
        if file.ends_with(BOOTSTRAP) {
            Bootstrap::read(&name, &read(&file), &mut problems);
        } else {
            problems = parse_documents(&name, &read(&file)).problems;
        }
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn every_folder_under_config_loads_as_a_whole() {
    let bootstraps: Vec<PathBuf> = files(&root().join("config"))
        .into_iter()
        .filter(|file| file.ends_with(BOOTSTRAP))
        .collect();
    assert!(!bootstraps.is_empty(), "config/ holds no {BOOTSTRAP}");
    for bootstrap in bootstraps {
        let folder = bootstrap.parent().expect("a file lies in a folder");
        let copy = copy_with_certificate(folder);
        let loaded = edge_control::load(copy.path()).expect("the copy can be read");
        assert!(
            loaded.problems.is_empty(),
            "{}: {:#?}",
            folder.display(),
            loaded.problems
        );
    }
}

/// Copies a configuration, with the certificate that its user brings: private keys are not kept here.
fn copy_with_certificate(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for file in files(folder) {
        let target = copy
            .path()
            .join(file.strip_prefix(folder).expect("it lies below"));
        fs::create_dir_all(target.parent().expect("a file lies in a folder")).expect("a folder");
        fs::copy(&file, target).expect("a copy");
    }
    edge_lab::cert::self_signed(&copy.path().join("certs"), &["shop.example.com"]).expect("openssl works");
    copy
}

/// The root folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_owned()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The packages of the workspace, as `cargo metadata` describes them.
fn packages() -> Vec<Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    list(&metadata, "packages").to_vec()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text `{key}` in {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .unwrap_or_else(|| panic!("no list `{key}` in {value}"))
}

/// The crates of this workspace that a package depends on, for building or testing.
fn own_imports(package: &Value) -> BTreeSet<String> {
    let own = list(package, "dependencies")
        .iter()
        .filter(|dependency| dependency.get("path").is_some());
    own.map(|dependency| text(dependency, "name").to_owned())
        .collect()
}

/// The lines of a manifest that name a dependency, with their numbers.
fn dependency_lines(manifest: &str) -> Vec<(usize, &str)> {
    let mut in_dependencies = false;
    let mut lines = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
        } else if in_dependencies && line.contains('=') && !line.trim_start().starts_with('#') {
            lines.push((index + 1, line));
        }
    }
    lines
}

/// All files below a folder, without what Git and Cargo keep there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("the folder can be read").path();
            let skip = path.ends_with(".git") || path == root().join("target");
            match path.is_dir() {
                true if !skip => folders.push(path),
                false => found.push(path),
                true => {}
            }
        }
    }
    found
}
