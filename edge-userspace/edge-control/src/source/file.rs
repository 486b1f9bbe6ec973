//! Reading a folder: `edge.yaml`, and every `*.yaml`, `*.yml` and `*.json` in it and below.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Name of the bootstrap file, at the top of the folder.
pub const BOOTSTRAP: &str = "edge.yaml";

/// A resource file larger than this is refused. An object has at most 1.5 MiB (the limit of etcd), and a List of ten
/// thousand VirtualServices fits as well.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A file's text, or why it could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// Path as the user would type it: the folder's as it was given, and the way from there.
    pub path: String,
    /// The text.
    pub text: Result<String, String>,
}

/// Reads the bootstrap file; `None` when there is none.
pub(crate) fn read_bootstrap(folder: &Path) -> Option<TextFile> {
    read_file(&folder.join(BOOTSTRAP))
}

/// The resource files of a folder and of those below it.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn list_resources(folder: &Path, bootstrap: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    collect(folder, &mut paths, &mut HashSet::new())?;
    paths.remove(bootstrap);
    Ok(paths)
}

/// Tells one content of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Whether this is the stamp of the same file, with whatever content.
    pub(crate) fn is_of(&self, metadata: &Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }
}

/// A file system counts time in ticks of some milliseconds, and some in seconds: what changed within this time could
/// change again under the same stamp.
const TICK: Duration = Duration::from_secs(2);

/// The stamp of a file; `None` when there is no file, or it changed so recently that a stamp would say nothing.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let changed = u64::try_from(metadata.ctime()).ok()?;
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(changed));
    age.ok().filter(|age| *age > TICK)?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Whether a path is that of a resource file by its name.
pub(crate) fn is_resource_path(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| !is_ignored(&name)) && is_resource(path)
}

/// Reads one file, or every file of a folder and of those below it, the bootstrap file among them.
///
/// # Errors
/// When there is nothing at the path, or a folder cannot be read.
pub fn read_path(path: &Path) -> io::Result<Vec<TextFile>> {
    let mut paths = BTreeSet::new();
    if std::fs::metadata(path)?.is_dir() {
        collect(path, &mut paths, &mut HashSet::new())?;
    } else {
        paths.insert(path.to_owned());
    }
    Ok(paths.iter().filter_map(|path| read_file(path)).collect())
}

/// Reads a file; one that is not there, because it has just vanished for instance, is `None`.
pub(crate) fn read_file(path: &Path) -> Option<TextFile> {
    let text = match read_text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        result => result.map_err(|error| error.to_string()),
    };
    Some(TextFile {
        path: path.display().to_string(),
        text,
    })
}

/// Finds the files of a folder and of those below it. `seen` holds the real folders on the way, so that a symbolic
/// link to one of them does not lead in a circle.
fn collect(folder: &Path, paths: &mut BTreeSet<PathBuf>, seen: &mut HashSet<PathBuf>) -> io::Result<()> {
    if !seen.insert(folder.canonicalize()?) {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_none_or(|name| is_ignored(&name.to_string_lossy()))
        {
            continue;
        }
        // Follows symbolic links, which is how Kubernetes mounts a ConfigMap.
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            collect(&path, paths, seen)?;
        } else if is_resource(&path) {
            paths.insert(path);
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        let message = format!("the file has {size} bytes, at most {MAX_FILE_BYTES} are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    std::fs::read_to_string(path)
}

/// Hidden files (Kubernetes' `..data` among them) and what editors leave behind while they save.
fn is_ignored(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with(['~', '#'])
}

fn is_resource(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Reads files that resources name, relative to the folder, and remembers which were asked for.
#[derive(Debug)]
pub(crate) struct NamedFiles {
    folder: PathBuf,
    asked: RefCell<BTreeSet<PathBuf>>,
}

impl NamedFiles {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            asked: RefCell::default(),
        }
    }

    /// Content of a file, whether it is there or not.
    pub(crate) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let path = self.folder.join(path);
        self.asked.borrow_mut().insert(path.clone());
        std::fs::read(path)
    }

    /// Every file that was asked for, those too that could not be read: they may come.
    pub(crate) fn into_asked(self) -> BTreeSet<PathBuf> {
        self.asked.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn write(folder: &Path, path: &str, text: &str) {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let files = list_resources(folder, &folder.join(BOOTSTRAP)).unwrap();
        files
            .iter()
            .map(|path| path.strip_prefix(folder).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn resource_files_are_found_below_the_folder_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        for path in [
            "b.yml",
            "a.yaml",
            "sub/deep/c.json",
            "edge.yaml",
            "notes.txt",
            ".a.yaml.swp",
            ".hidden.yaml",
            "a.yaml~",
            "#a.yaml#",
            ".git/x.yaml",
            "certs/tls.crt",
        ] {
            write(folder.path(), path, "");
        }
        assert_eq!(names(folder.path()), ["a.yaml", "b.yml", "sub/deep/c.json"]);
    }

    #[test]
    fn a_mounted_config_map_shows_each_file_once() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "..2026_01_01/routes.yaml", "kind: A");
        symlink("..2026_01_01", folder.path().join("..data")).unwrap();
        symlink("..data/routes.yaml", folder.path().join("routes.yaml")).unwrap();
        assert_eq!(names(folder.path()), ["routes.yaml"]);
    }

    #[test]
    fn a_link_that_leads_back_up_ends_the_walk() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "sub/a.yaml", "");
        symlink("..", folder.path().join("sub/up")).unwrap();
        assert_eq!(names(folder.path()), ["sub/a.yaml"]);
    }

    #[test]
    fn a_file_that_is_no_text_is_reported_and_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.yaml", "fine");
        fs::write(folder.path().join("b.yaml"), [0xff, 0xfe]).unwrap();
        let files = list_resources(folder.path(), Path::new("")).unwrap();
        let texts: Vec<_> = files
            .iter()
            .map(|path| read_file(path).unwrap().text.is_ok())
            .collect();
        assert_eq!(texts, [true, false]);
    }

    #[test]
    fn files_that_were_asked_for_are_remembered_even_when_missing() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "certs/tls.crt", "x");
        let files = NamedFiles::new(folder.path());
        assert_eq!(files.read("certs/tls.crt").unwrap(), b"x");
        assert!(files.read("/nowhere/tls.key").is_err());
        let asked = [
            PathBuf::from("/nowhere/tls.key"),
            folder.path().join("certs/tls.crt"),
        ];
        assert!(asked.iter().all(|path| files.asked.borrow().contains(path)));
    }
}
