//! The files of a folder as they were last read, and what their objects come to.
//!
//! A change of resource files costs what it touches: those files alone are read again, those objects alone that changed
//! in them are compiled. When anything else changed (the bootstrap file, a certificate, a folder), every file is looked
//! at, those that changed are read, and everything is compiled.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_config::{Bootstrap, Problem, Resource};
use edge_model::{ObjectRef, Snapshot};

use crate::compile::{Checked, compile_all};
use crate::load;
use crate::source::file::{self, NamedFiles, Stamp, TextFile};
use crate::source::watch::Changes;
use crate::{CompileOptions, Compiler, Process};

/// What the folder of an edge holds.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    process: Process,
    bootstrap: Bootstrap,
    options: CompileOptions,
    files: BTreeMap<PathBuf, SourceFile>,
    /// Problems of the bootstrap file and of the lists that it names.
    own_problems: Vec<Problem>,
    /// Problems of the resource files by themselves, where there are any.
    file_problems: BTreeMap<PathBuf, Vec<Problem>>,
    state: State,
    /// Files that the resources and the bootstrap file name.
    named_files: BTreeSet<PathBuf>,
    problems: Arc<[Problem]>,
    /// What `problems` was put together from: the compiler's count.
    problems_at: Option<u64>,
    /// The last attempt to read did not come to its end.
    is_stale: bool,
}

/// So many files are looked at for one that lies in a given folder.
const NEAR: usize = 16;

/// A resource file.
#[derive(Debug)]
struct SourceFile {
    stamp: Option<Stamp>,
    resources: Vec<Arc<Resource>>,
}

/// What the resources come to.
#[derive(Debug)]
enum State {
    /// Each object is defined once.
    Compiled(Box<Compiler>),
    /// Some are defined twice, which is an error. Changes are not followed one by one then.
    Conflicting(Box<Snapshot>, Vec<Problem>),
}

/// Changed objects; `None` where one went.
type ObjectChanges = BTreeMap<ObjectRef, Option<Arc<Resource>>>;

impl Store {
    /// Reads a folder for a process that has settled its workers, or settles them by the bootstrap file.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub(crate) fn open(folder: &Path, process: impl FnOnce(&Bootstrap) -> Process) -> io::Result<Self> {
        let bootstrap = load::bootstrap(folder, &mut vec![]);
        let process = process(&bootstrap);
        let mut store = Self {
            folder: folder.to_owned(),
            process,
            options: CompileOptions::new(&bootstrap, process),
            bootstrap,
            files: BTreeMap::new(),
            own_problems: vec![],
            file_problems: BTreeMap::new(),
            state: State::Conflicting(Box::default(), vec![]),
            named_files: BTreeSet::new(),
            problems: Arc::new([]),
            problems_at: None,
            is_stale: false,
        };
        store.read_all()?;
        Ok(store)
    }

    /// Reads what changed; false when that is nothing which the configuration has to do with.
    ///
    /// # Errors
    /// When a folder cannot be read. What was read before stays.
    pub(crate) fn refresh(&mut self, changes: &Changes) -> io::Result<bool> {
        let changed = match changes {
            Changes::Paths(paths) if !self.is_stale => {
                let of_concern = paths.iter().filter(|path| !self.is_of_no_concern(path));
                Some(of_concern.cloned().collect::<BTreeSet<_>>())
            }
            Changes::Paths(_) | Changes::Unknown => None,
        };
        if changed.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(false);
        }
        let is_compiled = matches!(self.state, State::Compiled(_));
        let is_followed =
            |paths: &BTreeSet<PathBuf>| is_compiled && paths.iter().all(|path| self.is_known_resource(path));
        let changed = changed.filter(is_followed);
        self.is_stale = true;
        match changed {
            Some(paths) => self.read_some(&paths),
            None => self.read_all()?,
        }
        self.is_stale = false;
        self.gather_problems();
        Ok(true)
    }

    /// The bootstrap file; its default when it is wrong.
    pub(crate) fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    /// What the process settled.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// Everything that is wrong, and warnings.
    pub(crate) fn problems(&self) -> &Arc<[Problem]> {
        &self.problems
    }

    /// The Snapshot, with version 0. It may be served only when no problem is an error.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        match &self.state {
            State::Compiled(compiler) => compiler.snapshot(),
            State::Conflicting(snapshot, _) => snapshot,
        }
    }

    /// Takes over a Snapshot that says the same as this one and shares parts with the one before it.
    pub(crate) fn share(&mut self, same: &Snapshot) {
        if let State::Compiled(compiler) = &mut self.state {
            compiler.share(same);
        }
    }

    /// Files that the resources and the bootstrap file name, such as certificates.
    pub(crate) fn named_files(&self) -> &BTreeSet<PathBuf> {
        &self.named_files
    }

    /// Whether a path is a resource file in a folder that is known, and nothing else; whether it is there or not.
    fn is_known_resource(&self, path: &Path) -> bool {
        if !file::is_resource_path(path) || self.named_files.contains(path) {
            return false;
        }
        let Some(parent) = path.parent() else {
            return false;
        };
        let is_bootstrap = path == self.folder.join(file::BOOTSTRAP);
        // A file with the same parent was found there, so that the folder is one that is looked through.
        let near = self.files.range(parent.to_owned()..).map(|(path, _)| path);
        let has_sibling = near.take(NEAR).any(|other| other.parent() == Some(parent));
        !is_bootstrap && !path.is_dir() && (self.files.contains_key(path) || has_sibling)
    }

    /// Whether a path is a file that is no resource and that nothing names, such as a log that is written to in the
    /// folder. A file that a link leads to is known by its inode.
    fn is_of_no_concern(&self, path: &Path) -> bool {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return false;
        };
        let leads_here = |link: &Path| {
            let target = fs::metadata(link);
            target.is_ok_and(|target| (target.dev(), target.ino()) == (metadata.dev(), metadata.ino()))
        };
        let is_named = || {
            self.named_files
                .iter()
                .any(|named| named == path || leads_here(named))
        };
        let is_resource = || {
            self.files.iter().any(|(file, SourceFile { stamp, .. })| {
                let stamp = stamp.as_ref();
                stamp.map_or_else(|| leads_here(file), |stamp| stamp.is_of(&metadata))
            })
        };
        metadata.is_file() && !file::is_resource_path(path) && !is_named() && !is_resource()
    }

    /// Looks at every file, reads those that changed, and compiles everything.
    fn read_all(&mut self) -> io::Result<()> {
        let mut own_problems = vec![];
        let bootstrap = load::bootstrap(&self.folder, &mut own_problems);
        let top = self.folder.join(file::BOOTSTRAP);
        let paths = file::list_resources(&load::resource_folder(&self.folder, &bootstrap), &top)?;
        let gone: Vec<_> = self
            .files
            .keys()
            .filter(|path| !paths.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            self.forget(&path);
        }
        for path in paths {
            let stamp = file::stamp(&path);
            let known = self.files.get(&path).and_then(|file| file.stamp.as_ref());
            if stamp.is_none() || known != stamp.as_ref() {
                self.read(&path, &mut BTreeMap::new());
            }
        }
        let named = NamedFiles::new(&self.folder);
        let mut options = CompileOptions::new(&bootstrap, self.process);
        options.sources = load::sources(&bootstrap.sources, &named, &mut own_problems);
        (self.bootstrap, self.options, self.own_problems) = (bootstrap, options, own_problems);
        self.compile(&named);
        self.named_files = named.into_asked();
        self.problems_at = None;
        self.gather_problems();
        Ok(())
    }

    /// Compiles everything.
    fn compile(&mut self, named: &NamedFiles) {
        let all: Vec<_> = self.files.values().flat_map(|file| &file.resources).collect();
        let mut seen = HashSet::with_capacity(all.len());
        let read = |path: &str| named.read(path);
        self.state = if all.iter().all(|resource| seen.insert(resource.object_ref())) {
            let all = all.into_iter().cloned();
            State::Compiled(Box::new(Compiler::new(self.options.clone(), all, &read)))
        } else {
            let all: Vec<_> = all.into_iter().map(AsRef::as_ref).collect();
            let compiled = compile_all(&all, &self.options, &read, &Checked::default()).compiled;
            State::Conflicting(Box::new(compiled.snapshot), compiled.problems)
        };
    }

    /// Reads some resource files, and compiles the objects that changed in them.
    fn read_some(&mut self, paths: &BTreeSet<PathBuf>) {
        let mut changes = ObjectChanges::new();
        let mut is_conflicting = false;
        for path in paths {
            is_conflicting |= self.read(path, &mut changes);
        }
        self.problems_at = None;
        let named = NamedFiles::new(&self.folder);
        let is_done = match &mut self.state {
            State::Compiled(compiler) if !is_conflicting => {
                is_conflicting = changes.iter().any(|(object, to)| {
                    let before = compiler.resource(object).filter(|_| to.is_some());
                    // Another file, which did not change, has it too.
                    before.is_some_and(|before| !paths.contains(Path::new(&*before.source().file)))
                });
                if !is_conflicting {
                    compiler.apply(changes, &|path| named.read(path));
                }
                !is_conflicting
            }
            State::Compiled(_) | State::Conflicting(..) => false,
        };
        if !is_done {
            self.compile(&named);
        }
        self.named_files.extend(named.into_asked());
    }

    /// Reads one file again, or finds that it is gone, and adds what that changes. True when two of the changed objects
    /// have one name.
    fn read(&mut self, path: &Path, changes: &mut ObjectChanges) -> bool {
        for gone in self.forget(path) {
            changes.entry(gone.object_ref()).or_insert(None);
        }
        let stamp = file::stamp(path);
        let Some(TextFile { path: name, text }) = file::read_file(path) else {
            return false;
        };
        let (resources, problems) = load::parse(&name, &text);
        let resources: Vec<_> = resources.into_iter().map(Arc::new).collect();
        let mut is_twice = false;
        for resource in &resources {
            let change = changes.entry(resource.object_ref()).or_insert(None);
            is_twice |= change.replace(Arc::clone(resource)).is_some();
        }
        if !problems.is_empty() {
            self.file_problems.insert(path.to_owned(), problems);
        }
        self.files
            .insert(path.to_owned(), SourceFile { stamp, resources });
        is_twice
    }

    /// Takes a file out; returns the objects that it had.
    fn forget(&mut self, path: &Path) -> Vec<Arc<Resource>> {
        self.file_problems.remove(path);
        self.files
            .remove(path)
            .map(|file| file.resources)
            .unwrap_or_default()
    }

    /// Puts the problems together, unless they are what they were.
    fn gather_problems(&mut self) {
        let compiled: Vec<Problem> = match &self.state {
            State::Compiled(compiler) if self.problems_at == Some(compiler.problems_count()) => return,
            State::Compiled(compiler) => {
                self.problems_at = Some(compiler.problems_count());
                let mut problems: Vec<_> = compiler.problems().cloned().collect();
                problems.sort_by(|a, b| {
                    (&a.file, a.line, &a.field, &a.message).cmp(&(&b.file, b.line, &b.field, &b.message))
                });
                problems
            }
            State::Conflicting(_, problems) => problems.clone(),
        };
        let of_files = self.file_problems.values().flatten();
        let mut problems: Vec<_> = self.own_problems.iter().chain(of_files).cloned().collect();
        load::add_fresh(&mut problems, compiled);
        if *problems != *self.problems {
            self.problems = problems.into();
        }
    }
}

#[cfg(test)]
mod tests;
