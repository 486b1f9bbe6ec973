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
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
";

    fn virtual_service(name: &str, prefix: &str) -> String {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  \
             hosts: [{name}.com]\n  gateways: [web]\n  http: [{{match: [{{uri: {{prefix: {prefix}}}}}], \
             directResponse: {{status: 200}}}}]\n"
        )
    }

    struct Lab {
        folder: tempfile::TempDir,
        store: Store,
    }

    impl Lab {
        fn new(files: usize) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("edge.yaml"), "workers: 1\nhashSeed: 1\n").unwrap();
            fs::write(folder.path().join("gateway.yaml"), GATEWAY).unwrap();
            for number in 0..files {
                let text = virtual_service(&format!("host{number}"), "/a");
                fs::write(folder.path().join(format!("host{number}.yaml")), text).unwrap();
            }
            let store = Store::open(folder.path(), Process::new).unwrap();
            Self { folder, store }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Writes a file, or removes it, and lets the store follow.
        fn change(&mut self, name: &str, text: Option<&str>) {
            let path = self.path(name);
            match text {
                Some(text) => fs::write(&path, text).unwrap(),
                None => drop(fs::remove_file(&path)),
            }
            self.store.refresh(&Changes::Paths([path].into())).unwrap();
        }

        /// What is in the store must be what loading the folder comes to.
        #[track_caller]
        fn check(&self, what: &str) {
            let loaded = load(self.folder.path()).unwrap();
            assert_eq!(*self.store.snapshot(), loaded.snapshot, "{what}");
            let sorted = |problems: &[Problem]| {
                let mut lines: Vec<_> = problems.iter().map(Problem::with_location).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(self.store.problems()), sorted(&loaded.problems), "{what}");
        }
    }

    #[test]
    fn following_files_one_by_one_comes_to_what_loading_them_comes_to() {
        let mut lab = Lab::new(3);
        lab.check("at the start");
        let two = virtual_service("host0", "/b") + &virtual_service("new", "/c");
        let moved = format!("# a line more\n{two}");
        let unknown = virtual_service("host1", "/a").replace("[web]", "[nowhere]");
        let steps = [
            (
                "a route is changed",
                "host0.yaml",
                Some(virtual_service("host0", "/b")),
            ),
            ("an object is added to a file", "host0.yaml", Some(two.clone())),
            ("lines move", "host0.yaml", Some(moved)),
            ("a file is added", "more.yaml", Some(virtual_service("more", "/"))),
            ("a Gateway is unknown", "host1.yaml", Some(unknown.clone())),
            (
                "and its lines move",
                "host1.yaml",
                Some(format!("# a line more\n{unknown}")),
            ),
            (
                "a field is unknown",
                "host2.yaml",
                Some(virtual_service("host2", "/").replace("hosts", "hostz")),
            ),
            ("a file is no YAML", "host2.yaml", Some("{".to_owned())),
            (
                "a name is taken",
                "host2.yaml",
                Some(virtual_service("new", "/x")),
            ),
            (
                "and another file changes",
                "host1.yaml",
                Some(virtual_service("host1", "/x")),
            ),
            (
                "the name is free again",
                "host0.yaml",
                Some(virtual_service("host0", "/")),
            ),
            (
                "a name comes twice in a file",
                "more.yaml",
                Some(virtual_service("m", "/").repeat(2)),
            ),
            ("a file is gone", "more.yaml", None),
            ("a file is empty", "host2.yaml", Some(String::new())),
            ("the Gateway is gone", "gateway.yaml", None),
            ("a name is no resource's", "notes.txt", Some("x".to_owned())),
            (
                "the Gateway is back",
                "gateway.yaml",
                Some(GATEWAY.replace("80", "81")),
            ),
            (
                "the bootstrap file changes",
                "edge.yaml",
                Some("hashSeed: 1\nworkers: 1\nvirtualAddresses: [{address: 192.0.2.1}]\n".to_owned()),
            ),
        ];
        for (what, name, text) in steps {
            lab.change(name, text.as_deref());
            lab.check(what);
        }
    }

    #[test]
    fn a_log_in_the_folder_costs_no_compiling_and_what_a_link_leads_to_is_read() {
        let mut lab = Lab::new(1);
        let listener = |store: &Store| Arc::clone(&store.snapshot().listeners[0]);
        let before = listener(&lab.store);
        fs::write(lab.path("access.log"), "GET /\n").unwrap();
        let changes = Changes::Paths([lab.path("access.log")].into());
        assert!(!lab.store.refresh(&changes).unwrap());
        assert!(Arc::ptr_eq(&before, &listener(&lab.store)));
        for (link, target) in [("linked.yaml", "linked.txt"), ("denied", "denied.txt")] {
            fs::write(lab.path(target), "").unwrap();
            std::os::unix::fs::symlink(target, lab.path(link)).unwrap();
        }
        lab.change(
            "edge.yaml",
            Some("workers: 1\nhashSeed: 1\nsources: {denyFiles: [denied]}\n"),
        );
        for (target, text) in [
            ("linked.txt", virtual_service("linked", "/")),
            ("denied.txt", "192.0.2.0/24\n".to_owned()),
        ] {
            lab.change(target, Some(&text));
            lab.check(target);
        }
        assert!(!Arc::ptr_eq(&before, &listener(&lab.store)));
    }

    #[test]
    fn a_changed_file_alone_is_read_again() {
        let mut lab = Lab::new(20);
        let before: Vec<_> = lab
            .store
            .files
            .values()
            .flat_map(|file| file.resources.clone())
            .collect();
        lab.change("host7.yaml", Some(&virtual_service("host7", "/b")));
        let after = lab.store.files.values().flat_map(|file| &file.resources);
        let other = before
            .iter()
            .zip(after)
            .filter(|(before, after)| !Arc::ptr_eq(before, after));
        let names: Vec<_> = other.map(|(before, _)| before.meta().name.as_str()).collect();
        assert_eq!(names, ["host7"]);
    }

    #[test]
    fn a_change_of_one_file_among_many_makes_one_virtual_host_anew() {
        let mut lab = Lab::new(300);
        let table = |store: &Store| Arc::clone(store.snapshot().listeners[0].tables().next().unwrap());
        let before = table(&lab.store);
        lab.change("host7.yaml", Some(&virtual_service("host7", "/b")));
        let after = table(&lab.store);
        assert_eq!(after.virtual_hosts.changes_since(&before.virtual_hosts).len(), 1);
        let mut text = String::new();
        write!(text, "# the same\n{}", virtual_service("host8", "/a")).unwrap();
        lab.change("host8.yaml", Some(&text));
        assert!(table(&lab.store).virtual_hosts.is_same(&after.virtual_hosts));
    }

    #[test]
    fn a_folder_that_could_not_be_read_is_read_as_a_whole_when_it_is_back() {
        let mut lab = Lab::new(1);
        let elsewhere = tempfile::tempdir().unwrap();
        let (folder, aside) = (lab.folder.path().to_owned(), elsewhere.path().join("aside"));
        fs::rename(&folder, &aside).unwrap();
        assert!(lab.store.refresh(&Changes::Unknown).is_err());
        fs::write(aside.join("host0.yaml"), virtual_service("host0", "/b")).unwrap();
        fs::rename(&aside, &folder).unwrap();
        let path = lab.path("gateway.yaml");
        lab.store.refresh(&Changes::Paths([path].into())).unwrap();
        lab.check("the folder is back");
    }
}
