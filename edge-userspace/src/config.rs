//! Reading a configuration's folder for commands that answer from files alone.

use std::path::Path;

use anyhow::Context as _;
use edge_config::{Bootstrap, Problem};
use edge_control::Loaded;

use crate::failure::Failure;

/// The folder's configuration. Problems are printed; an error among them refuses the whole, as `edge run` does.
pub(crate) fn load(folder: &Path) -> Result<Loaded, Failure> {
    let loaded = edge_control::load(folder)
        .with_context(|| format!("cannot read the configuration folder {}", folder.display()))
        .map_err(Failure::WrongInput)?;
    print(&loaded.problems);
    if loaded.has_errors() {
        return Err(Failure::input(format!(
            "the configuration in {} has errors",
            folder.display()
        )));
    }
    Ok(loaded)
}

/// The folder's bootstrap file alone.
pub(crate) fn bootstrap(folder: &Path) -> Result<Bootstrap, Failure> {
    let file = folder.join("edge.yaml");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))
        .map_err(Failure::WrongInput)?;
    let mut problems = Vec::new();
    let bootstrap = Bootstrap::read(&file.display().to_string(), &text, &mut problems);
    print(&problems);
    bootstrap.ok_or_else(|| Failure::input(format!("{} has errors", file.display())))
}

/// Prints problems with file and line, one a line, to standard error.
pub(crate) fn print(problems: &[Problem]) {
    for problem in problems {
        eprintln!("{}", problem.with_location());
    }
}
