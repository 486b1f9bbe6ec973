//! `edge validate`: what is wrong with files, resource by resource, and with all of them together.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use edge_config::{Bootstrap, ObjectName, Problem, Resource, check, parse_documents, reports};
use edge_control::{BOOTSTRAP, CompileOptions, Process, TextFile, check_together, read_path};

use crate::cli::ValidateArgs;
use crate::failure::Failure;

/// What the files hold.
#[derive(Default)]
struct Findings {
    resources: Vec<Resource>,
    /// The first bootstrap file without an error, and its folder.
    bootstrap: Option<(Bootstrap, PathBuf)>,
    problems: Vec<Problem>,
    /// Numbers of the files in the order in which they were read.
    files: HashMap<String, usize>,
}

/// Prints every problem of the files.
pub(crate) fn run(args: &ValidateArgs) -> Result<(), Failure> {
    let mut findings = Findings::default();
    for path in &args.paths {
        for file in read(path).map_err(Failure::WrongInput)? {
            findings.add(&file)?;
        }
    }
    findings.check_together(args.paths.first().map_or(Path::new("."), PathBuf::as_path));
    findings.sort();
    findings.print(args.json)?;
    match findings
        .problems
        .iter()
        .filter(|problem| problem.is_error())
        .count()
    {
        0 => Ok(()),
        1 => Err(Failure::input("1 error")),
        errors => Err(Failure::input(format!("{errors} errors"))),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<TextFile>> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read standard input")?;
        return Ok(vec![TextFile {
            path: "-".to_owned(),
            text: Ok(text),
        }]);
    }
    read_path(path).with_context(|| format!("cannot read {}", path.display()))
}

impl Findings {
    /// Checks one file.
    fn add(&mut self, file: &TextFile) -> Result<(), Failure> {
        let text = file
            .text
            .as_ref()
            .map_err(|error| Failure::input(format!("{}: {error}", file.path)))?;
        let number = self.files.len();
        self.files.entry(file.path.clone()).or_insert(number);
        let path = Path::new(&file.path);
        if path.file_name().is_some_and(|name| name == BOOTSTRAP) {
            if let Some(bootstrap) = Bootstrap::read(&file.path, text, &mut self.problems) {
                self.bootstrap.get_or_insert_with(|| (bootstrap, folder_of(path)));
            }
            return Ok(());
        }
        let mut parsed = parse_documents(&file.path, text);
        self.problems.append(&mut parsed.problems);
        self.problems.extend(parsed.resources.iter().flat_map(check));
        self.resources.append(&mut parsed.resources);
        Ok(())
    }

    /// Looks at all resources as the edge of the bootstrap file would, or one with every default. Files that resources
    /// name are relative to the folder of the bootstrap file, or else to that of the first path.
    fn check_together(&mut self, first: &Path) {
        let bootstrap = self.bootstrap.take();
        let (bootstrap, folder) = bootstrap.unwrap_or_else(|| {
            let folder = if first.is_dir() {
                first.to_owned()
            } else {
                folder_of(first)
            };
            (Bootstrap::default(), folder)
        });
        let options = CompileOptions::new(&bootstrap, Process::new(&bootstrap));
        let read = |path: &str| std::fs::read(folder.join(path));
        check_together(&self.resources, &options, &read, &mut self.problems);
    }

    /// Puts the problems in the order of the files and their lines.
    fn sort(&mut self) {
        let files = &self.files;
        let place = |problem: &Problem| {
            let file = files.get(&problem.file).copied().unwrap_or(usize::MAX);
            (file, problem.line, !problem.is_error())
        };
        self.problems.sort_by_key(place);
    }

    /// The objects that were read or are only named by a problem, in the order of the files and their lines.
    fn objects(&self) -> impl Iterator<Item = ObjectName> {
        let read = self.resources.iter().map(|resource| {
            let source = resource.source();
            let object = ObjectName::from(&resource.object_ref());
            (source.file.as_ref(), source.line, object)
        });
        let named = self.problems.iter().filter_map(|problem| {
            let object = problem.object.clone()?;
            Some((problem.file.as_str(), problem.line, object))
        });
        let mut objects: Vec<_> = read.chain(named).collect();
        objects.sort_by_key(|(file, line, _)| (self.files.get(*file).copied(), *line));
        objects.into_iter().map(|(_, _, object)| object)
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        if !json {
            for problem in &self.problems {
                println!("{problem}");
            }
            return Ok(());
        }
        for report in reports(self.objects(), &self.problems) {
            let line = serde_json::to_string(&report).map_err(|error| Failure::CannotBeDone(error.into()))?;
            println!("{line}");
        }
        Ok(())
    }
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
