//! `edge validate`: what is wrong with files, resource by resource.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use edge_config::{Bootstrap, ObjectName, Problem, Resource, check, parse_documents, reports};
use edge_control::{BOOTSTRAP, TextFile, read_path};

use crate::cli::ValidateArgs;
use crate::failure::Failure;

/// What the files hold.
#[derive(Default)]
struct Findings {
    objects: Vec<ObjectName>,
    problems: Vec<Problem>,
}

/// Prints every problem of the files.
pub(crate) fn run(args: &ValidateArgs) -> Result<(), Failure> {
    let mut findings = Findings::default();
    for path in &args.paths {
        for file in read(path).map_err(Failure::WrongInput)? {
            findings.add(&file)?;
        }
    }
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
        if Path::new(&file.path)
            .file_name()
            .is_some_and(|name| name == BOOTSTRAP)
        {
            self.problems
                .extend(Bootstrap::parse(&file.path, text).err().into_iter().flatten());
            return Ok(());
        }
        let parsed = parse_documents(&file.path, text);
        self.problems.extend(parsed.problems);
        for resource in &parsed.resources {
            self.objects.push(name(resource));
            self.problems.extend(check(resource));
        }
        Ok(())
    }

    fn print(&self, json: bool) -> Result<(), Failure> {
        if !json {
            for problem in &self.problems {
                println!("{problem}");
            }
            return Ok(());
        }
        for report in reports(self.objects.iter().cloned(), &self.problems) {
            let line = serde_json::to_string(&report).map_err(|error| Failure::CannotBeDone(error.into()))?;
            println!("{line}");
        }
        Ok(())
    }
}

fn name(resource: &Resource) -> ObjectName {
    let meta = resource.meta();
    ObjectName {
        kind: resource.kind().name().to_owned(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
    }
}
