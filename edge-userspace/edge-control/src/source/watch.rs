//! Noticing that files change.
//!
//! inotify(7) follows a folder by its inode, the edge by its path. A folder that was deleted and made anew, moved, mounted
//! over, or is reached by a link that now leads elsewhere is therefore found by looking, and watched again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Files change in bursts (an editor writes, renames and removes; a ConfigMap swaps a link): a change is over when
/// nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(100);

/// A burst that does not end is taken for a change after this long all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often to look, without an event, whether the folders are still the ones that are watched.
const LOOK: Duration = Duration::from_secs(1);

/// Why the watch ended or a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Something changed.
    Changed,
    /// The watcher was told to stop.
    Stopped,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changes {
    /// These paths, as they lie below the folders that are watched, and nothing else.
    Paths(BTreeSet<PathBuf>),
    /// That is not known: everything may have.
    Unknown,
}

impl Default for Changes {
    fn default() -> Self {
        Self::Paths(BTreeSet::new())
    }
}

/// How much of a folder is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The files in it.
    Files,
    /// The files in it and in all folders below.
    All,
}

/// What the watching thread is told.
#[derive(Debug)]
enum Message {
    /// Something happened to these paths; without any, it is not known to what.
    Event(Vec<PathBuf>),
    Stop,
}

/// Ends a wait from another thread.
#[derive(Debug, Clone)]
pub(crate) struct Stopper(Sender<Message>);

impl Stopper {
    /// Ends the current or the next wait. Without effect when the watch is gone already.
    pub(crate) fn stop(&self) {
        let _ = self.0.send(Message::Stop);
    }
}

/// Tells a folder from another at its path: device, inode, and time of creation, because inode numbers are used again.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(folder: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

/// A folder that is watched, or will be once it is there.
#[derive(Debug)]
struct Root {
    depth: Depth,
    /// What is watched.
    watched: Option<Identity>,
    /// The kernel refused the watch, which has been said.
    is_refused: bool,
}

impl Root {
    fn new(depth: Depth) -> Self {
        Self {
            depth,
            watched: None,
            is_refused: false,
        }
    }

    /// Watches the folder that is at the path now, if that is another one or the first.
    fn follow(&mut self, path: &Path, watcher: &mut RecommendedWatcher) -> notify::Result<()> {
        // Looked at before it is watched: should it be replaced in between, the next look finds out.
        let found = identity(path);
        if found == self.watched {
            return Ok(());
        }
        if self.watched.take().is_some() {
            // The folder may have vanished, and its watch with it.
            let _ = watcher.unwatch(path);
        }
        if found.is_some() {
            let mode = match self.depth {
                Depth::Files => RecursiveMode::NonRecursive,
                Depth::All => RecursiveMode::Recursive,
            };
            watcher.watch(path, mode)?;
            self.watched = found;
        }
        Ok(())
    }

    /// The same, and whether that changed anything. What the kernel refuses is said once and tried again each time.
    fn refresh(&mut self, path: &Path, watcher: &mut RecommendedWatcher) -> bool {
        let before = self.watched;
        let result = self.follow(path, watcher);
        if let Err(error) = &result
            && !self.is_refused
        {
            tracing::warn!(folder = %path.display(), %error, "the folder cannot be watched");
        }
        self.is_refused = result.is_err();
        self.watched != before
    }
}

/// Watches a folder with all below it, and further folders.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    watcher: RecommendedWatcher,
    folder: PathBuf,
    /// The folder and the further ones.
    roots: BTreeMap<PathBuf, Root>,
    messages: Receiver<Message>,
    /// What changed since it was last asked for.
    changes: Changes,
}

impl FolderWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because the limit of inotify watches is reached.
    pub(crate) fn new(folder: &Path) -> notify::Result<(Self, Stopper)> {
        let (sender, messages) = channel();
        let events = sender.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let paths = match event {
                // Reading a file is no change, and reading is what a change brings about.
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
                Ok(event) if !event.need_rescan() => event.paths,
                Ok(_) | Err(_) => vec![],
            };
            let _ = events.send(Message::Event(paths));
        })?;
        let mut root = Root::new(Depth::All);
        root.follow(folder, &mut watcher)?;
        let watch = Self {
            watcher,
            folder: folder.to_owned(),
            roots: BTreeMap::from([(folder.to_owned(), root)]),
            messages,
            changes: Changes::default(),
        };
        Ok((watch, Stopper(sender)))
    }

    /// Watches these folders besides, and no longer those that were given before. One that does not exist is watched as
    /// soon as it does.
    pub(crate) fn watch_besides(&mut self, mut folders: BTreeMap<PathBuf, Depth>) {
        folders.retain(|folder, _| !folder.starts_with(&self.folder));
        folders.insert(self.folder.clone(), Depth::All);
        let Self { roots, watcher, .. } = self;
        roots.retain(|folder, root| {
            let is_kept = folders.get(folder) == Some(&root.depth);
            if !is_kept && root.watched.is_some() {
                let _ = watcher.unwatch(folder);
            }
            is_kept
        });
        for (folder, depth) in folders {
            roots.entry(folder).or_insert_with(|| Root::new(depth));
        }
        self.refresh();
    }

    /// Waits for a change and until it is over.
    pub(crate) fn wait(&mut self) -> Wake {
        loop {
            match self.messages.recv_timeout(LOOK) {
                Ok(Message::Event(paths)) => {
                    self.note(paths);
                    return self.settle();
                }
                Err(RecvTimeoutError::Timeout) if self.refresh() => return self.settle(),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Wake::Stopped,
            }
        }
    }

    fn settle(&mut self) -> Wake {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            match self.messages.recv_timeout(QUIET) {
                Ok(Message::Event(paths)) => self.note(paths),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Wake::Stopped,
                // A folder that has come back is still being filled.
                Err(RecvTimeoutError::Timeout) if self.refresh() => {}
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        Wake::Changed
    }

    /// What changed since this was last asked.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    fn note(&mut self, paths: Vec<PathBuf>) {
        match &mut self.changes {
            _ if paths.is_empty() => self.changes = Changes::Unknown,
            Changes::Paths(known) => known.extend(paths),
            Changes::Unknown => {}
        }
    }

    /// Watches the folders that are at the paths now. Whether one came, went or was replaced.
    fn refresh(&mut self) -> bool {
        let Self { roots, watcher, .. } = self;
        let is_changed = roots.iter_mut().fold(false, |is_changed, (path, root)| {
            root.refresh(path, watcher) || is_changed
        });
        if is_changed {
            self.changes = Changes::Unknown;
        }
        is_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::thread;

    /// Watches, does something in another thread, and expects the watch to wake up.
    fn check(prepare: impl Fn(&Path), change: impl FnOnce(&Path) + Send + 'static) {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let (mut watch, stopper) = FolderWatch::new(folder.path()).unwrap();
        let path = folder.path().to_owned();
        let changer = thread::spawn(move || {
            change(&path);
            // A change that went unnoticed must fail the test, and not hang it.
            thread::sleep(Duration::from_secs(2));
            stopper.stop();
        });
        assert_eq!(watch.wait(), Wake::Changed);
        changer.join().unwrap();
    }

    #[test]
    fn a_new_file_in_a_new_folder_is_noticed() {
        check(
            |_| {},
            |folder| {
                fs::create_dir(folder.join("sub")).unwrap();
                fs::write(folder.join("sub/a.yaml"), "x").unwrap();
            },
        );
    }

    #[test]
    fn the_link_swap_of_a_config_map_is_noticed() {
        let prepare = |folder: &Path| {
            for version in ["..1", "..2"] {
                fs::create_dir(folder.join(version)).unwrap();
                fs::write(folder.join(version).join("a.yaml"), version).unwrap();
            }
            symlink("..1", folder.join("..data")).unwrap();
        };
        check(prepare, |folder| {
            symlink("..2", folder.join("..data_tmp")).unwrap();
            fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        });
    }

    #[test]
    fn a_file_outside_is_noticed_once_its_folder_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = tempfile::tempdir().unwrap();
        let (mut watch, stopper) = FolderWatch::new(folder.path()).unwrap();
        let file = certificates.path().join("tls.crt");
        watch.watch_besides(BTreeMap::from([(certificates.path().to_owned(), Depth::Files)]));
        let changer = thread::spawn(move || {
            fs::write(file, "x").unwrap();
            thread::sleep(Duration::from_secs(2));
            stopper.stop();
        });
        assert_eq!(watch.wait(), Wake::Changed);
        changer.join().unwrap();
    }

    /// Replaces a folder, reached by a link, by another one at its path, and expects a file in that to be noticed.
    #[track_caller]
    fn check_replaced(replace: impl Fn(&Path)) {
        let around = tempfile::tempdir().unwrap();
        let path = |name: &str| around.path().join(name);
        fs::create_dir(path("real")).unwrap();
        symlink("real", path("link")).unwrap();
        let (mut watch, stopper) = FolderWatch::new(&path("link")).unwrap();
        let (done, is_done) = channel::<()>();
        let guard = thread::spawn(move || {
            // A change that went unnoticed must fail the test, and not hang it.
            let _ = is_done.recv_timeout(Duration::from_secs(10));
            stopper.stop();
        });
        replace(around.path());
        assert_eq!(watch.wait(), Wake::Changed, "the folder is replaced");
        fs::write(path("link/a.yaml"), "x").unwrap();
        assert_eq!(watch.wait(), Wake::Changed, "a file in it is written");
        drop(done);
        guard.join().unwrap();
    }

    #[test]
    fn a_folder_that_is_deleted_and_made_anew_is_watched_again() {
        check_replaced(|around| {
            fs::remove_dir(around.join("real")).unwrap();
            fs::create_dir(around.join("real")).unwrap();
        });
    }

    #[test]
    fn a_folder_that_takes_the_place_of_a_moved_one_is_watched() {
        check_replaced(|around| {
            fs::rename(around.join("real"), around.join("old")).unwrap();
            fs::create_dir(around.join("real")).unwrap();
        });
    }

    #[test]
    fn a_folder_that_a_link_newly_leads_to_is_watched() {
        check_replaced(|around| {
            fs::create_dir(around.join("other")).unwrap();
            symlink("other", around.join("new")).unwrap();
            fs::rename(around.join("new"), around.join("link")).unwrap();
        });
    }

    #[test]
    fn a_further_folder_is_watched_once_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let around = tempfile::tempdir().unwrap();
        let certificates = around.path().join("certificates");
        let (mut watch, stopper) = FolderWatch::new(folder.path()).unwrap();
        watch.watch_besides(BTreeMap::from([(certificates.clone(), Depth::Files)]));
        let changer = thread::spawn(move || {
            fs::create_dir(certificates).unwrap();
            thread::sleep(Duration::from_secs(3));
            stopper.stop();
        });
        assert_eq!(watch.wait(), Wake::Changed);
        changer.join().unwrap();
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let (mut watch, stopper) = FolderWatch::new(folder.path()).unwrap();
        stopper.stop();
        assert_eq!(watch.wait(), Wake::Stopped);
    }
}
