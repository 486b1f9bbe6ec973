//! Files to configuration, once.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use edge_config::{Bootstrap, ObjectName, Parsed, Problem, Resource, Severity, Sources};
use edge_model::{Prefix, Snapshot, SourceLists};

use crate::source::file::{self, NamedFiles, TextFile};
use crate::{CompileOptions, Fate, Process, ReadFile, compile, fates};

/// The configuration that a folder holds.
#[derive(Debug)]
pub struct Loaded {
    /// The bootstrap file; its default when there is none, or when it is wrong.
    pub bootstrap: Bootstrap,
    /// What the resources come to, with version 0. It may be served only when no problem is an error.
    pub snapshot: Snapshot,
    /// Everything that is wrong with the files, and warnings.
    pub problems: Vec<Problem>,
    /// The resources, those that have errors too.
    pub resources: Vec<Resource>,
    /// What the process settled by the bootstrap file.
    process: Process,
}

impl Loaded {
    /// What became of every object.
    #[must_use]
    pub fn fates(&self) -> Vec<Fate> {
        let options = CompileOptions::new(&self.bootstrap, self.process);
        fates(&self.resources, &options, &self.snapshot, &self.problems)
    }

    /// Whether anything is wrong, so that the configuration is refused as a whole.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }
}

/// Reads and compiles the folder of an edge: `edge.yaml`, and the resources in and below the folder that its key
/// `resources` names. Files that resources name are relative to the folder of `edge.yaml`.
///
/// # Errors
/// When a folder cannot be read. What is wrong inside of files is among the problems.
pub fn load(folder: &Path) -> io::Result<Loaded> {
    let mut problems = vec![];
    let bootstrap = bootstrap(folder, &mut problems);
    let process = Process::new(&bootstrap);
    let mut options = CompileOptions::new(&bootstrap, process);
    let resources = resources(&resource_folder(folder, &bootstrap), folder, &mut problems)?;
    let files = NamedFiles::new(folder);
    options.sources = sources(&bootstrap.sources, &files, &mut problems);
    let compiled = compile(&resources, &options, &|path| files.read(path));
    add_fresh(&mut problems, compiled.problems);
    Ok(Loaded {
        bootstrap,
        snapshot: compiled.snapshot,
        problems,
        resources,
        process,
    })
}

/// Adds to the problems of each resource by itself what only shows when all are seen together: references that lead
/// nowhere, conflicts, rules that no request reaches, files and Secrets that are not there. `read` gives the content of
/// the files that resources name.
pub fn check_together(
    resources: &[Resource],
    options: &CompileOptions,
    read: &ReadFile<'_>,
    problems: &mut Vec<Problem>,
) {
    add_fresh(problems, compile(resources, options, read).problems);
}

/// Folder of the resources.
pub(crate) fn resource_folder(folder: &Path, bootstrap: &Bootstrap) -> PathBuf {
    if bootstrap.resources == Path::new(".") {
        folder.to_owned()
    } else {
        folder.join(&bootstrap.resources)
    }
}

pub(crate) fn bootstrap(folder: &Path, problems: &mut Vec<Problem>) -> Bootstrap {
    let Some(file) = file::read_bootstrap(folder) else {
        let path = folder.join(file::BOOTSTRAP).display().to_string();
        let hint = "an empty file means the same and silences this";
        problems.push(file_problem(
            Severity::Warning,
            &path,
            "there is no such file, every key has its default",
            hint,
        ));
        return Bootstrap::default();
    };
    let read = match &file.text {
        Ok(text) => Bootstrap::read(&file.path, text, problems),
        Err(error) => {
            problems.push(unreadable(&file.path, error));
            None
        }
    };
    read.unwrap_or_default()
}

/// The allow and the deny list, with those of their files.
pub(crate) fn sources(sources: &Sources, files: &NamedFiles, problems: &mut Vec<Problem>) -> SourceLists {
    let mut list = |inline: &[Prefix], paths: &[String]| {
        let mut prefixes = inline.to_vec();
        for path in paths {
            let text = files
                .read(path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
            match text {
                Ok(text) => prefixes.extend(edge_config::parse_prefixes(path, &text, problems)),
                Err(error) => problems.push(unreadable(path, &error)),
            }
        }
        prefixes.into()
    };
    SourceLists {
        allow: list(&sources.allow, &sources.allow_files),
        deny: list(&sources.deny, &sources.deny_files),
    }
}

fn resources(folder: &Path, top: &Path, problems: &mut Vec<Problem>) -> io::Result<Vec<Resource>> {
    let mut resources = vec![];
    for path in file::list_resources(folder, &top.join(file::BOOTSTRAP))? {
        if let Some(TextFile { path, text }) = file::read_file(&path) {
            let (mut found, mut more) = parse(&path, &text);
            resources.append(&mut found);
            problems.append(&mut more);
        }
    }
    Ok(resources)
}

/// The resources of a file, and what is wrong with each by itself.
pub(crate) fn parse(path: &str, text: &Result<String, String>) -> (Vec<Resource>, Vec<Problem>) {
    match text {
        Ok(text) => {
            let Parsed {
                resources,
                mut problems,
            } = edge_config::parse_documents(path, text);
            problems.extend(resources.iter().flat_map(edge_config::check));
            // What was refused is compiled all the same: left out, it would be missed by everything that names it, and
            // the one mistake that counts would drown.
            (resources, problems)
        }
        Err(error) => (vec![], vec![unreadable(path, error)]),
    }
}

/// Adds the problems of compiling, except for values that are known to be wrong by themselves: these cannot be compiled
/// either, which need not be said twice.
pub(crate) fn add_fresh(problems: &mut Vec<Problem>, more: Vec<Problem>) {
    let known: HashSet<_> = problems.iter().map(subject).collect();
    let is_fresh: Vec<_> = more
        .iter()
        .map(|problem| !known.contains(&subject(problem)))
        .collect();
    problems.extend(
        more.into_iter()
            .zip(is_fresh)
            .filter_map(|(problem, is_fresh)| is_fresh.then_some(problem)),
    );
}

fn subject(problem: &Problem) -> (Option<&ObjectName>, &str, &str, Severity) {
    (
        problem.object.as_ref(),
        &problem.file,
        &problem.field,
        problem.severity,
    )
}

fn unreadable(path: &str, error: &str) -> Problem {
    let message = format!("the file cannot be read: {error}");
    file_problem(
        Severity::Error,
        path,
        &message,
        "make it a readable text file in UTF-8",
    )
}

/// That the configuration's folder cannot be read.
pub(crate) fn unreadable_folder(folder: &Path, error: &io::Error) -> Problem {
    let message = format!("the folder cannot be read: {error}");
    let path = folder.display().to_string();
    file_problem(
        Severity::Error,
        &path,
        &message,
        "make it a readable folder; it is looked for every second",
    )
}

fn file_problem(severity: Severity, path: &str, message: &str, hint: &str) -> Problem {
    Problem {
        severity,
        object: None,
        file: path.to_owned(),
        line: 0,
        field: String::new(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}
