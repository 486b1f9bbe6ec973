//! A folder that is watched, and the Snapshot that its files come to.
//!
//! A change is taken as a whole or not at all: one error in any file, and everything that was in force stays in force,
//! so that what runs is always a state that somebody wrote. Warnings do not hold a change up.

mod numbers;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use edge_config::{Bootstrap, Problem};
use edge_model::Snapshot;
use tokio::sync::watch;

use self::numbers::renumbered;
use crate::Process;
use crate::load::{resource_folder, unreadable_folder};
use crate::publish::succeed;
use crate::source::watch::{Depth, FolderWatch, Stopper, Wake};
use crate::store::Store;

/// Watches a folder and publishes a Snapshot for each change. Dropping it ends the watch.
#[derive(Debug)]
pub struct Control {
    bootstrap: Bootstrap,
    process: Process,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    status: watch::Receiver<Arc<Status>>,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

/// How the files and the running configuration stand to each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Version of the Snapshot that is in force.
    pub version: u64,
    /// When it came into force.
    pub since: SystemTime,
    /// Whether it is what the files say now; if not, they have errors.
    pub is_current: bool,
    /// Problems of the files as they are now, warnings included.
    pub problems: Arc<[Problem]>,
    /// When files with errors were last found.
    pub last_error_at: Option<SystemTime>,
    /// Keys of `edge.yaml` that were changed and take effect with the next start.
    pub restart_needed: Vec<&'static str>,
}

/// Why control could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder cannot be read.
    #[error("cannot read the configuration folder {folder}: {source}", folder = .folder.display())]
    Folder {
        /// The configuration's folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The files have errors; there is no earlier configuration to go on with.
    #[error("the configuration has errors ({})", .0.iter().filter(|problem| problem.is_error()).count())]
    Invalid(Vec<Problem>),
    /// The folder cannot be watched.
    #[error("the folder cannot be watched: {0} (see the sysctl fs.inotify.max_user_watches)")]
    Watch(#[from] notify::Error),
    /// The thread that follows the folder cannot be started.
    #[error("no thread can be started: {0}")]
    Thread(#[source] io::Error),
}

impl Control {
    /// Loads the folder and begins to watch it, in a thread of its own.
    ///
    /// # Errors
    /// When the folder cannot be read or watched, or its files have errors.
    pub fn start(folder: &Path) -> Result<Self, StartError> {
        let unreadable = |source| StartError::Folder {
            folder: folder.to_owned(),
            source,
        };
        folder.read_dir().map_err(unreadable)?;
        // Watching comes before reading, so that no change falls between.
        let (watch, stopper) = FolderWatch::new(folder)?;
        let store = Store::open(folder, Process::new).map_err(unreadable)?;
        if store.problems().iter().any(Problem::is_error) {
            return Err(StartError::Invalid(store.problems().to_vec()));
        }
        log(store.problems());
        Self::follow(folder, store, watch, stopper)
    }

    /// Publishes what was loaded, and follows the folder from then on.
    fn follow(folder: &Path, store: Store, watch: FolderWatch, stopper: Stopper) -> Result<Self, StartError> {
        let process = store.process();
        let bootstrap = store.bootstrap().clone();
        let snapshot = Snapshot {
            version: 1,
            ..store.snapshot().clone()
        };
        let status = Status {
            version: snapshot.version,
            since: SystemTime::now(),
            is_current: true,
            problems: Arc::clone(store.problems()),
            last_error_at: None,
            restart_needed: vec![],
        };
        let (snapshot_sender, snapshots) = watch::channel(Arc::new(snapshot));
        let (status_sender, status) = watch::channel(Arc::new(status));
        let mut follower = Follower {
            folder: folder.to_owned(),
            bootstrap: bootstrap.clone(),
            store,
            watch,
            snapshots: snapshot_sender,
            status: status_sender,
        };
        follower.watch_further();
        let thread = std::thread::Builder::new().name("edge-config".into());
        let thread = thread.spawn(move || follower.run()).map_err(StartError::Thread)?;
        Ok(Self {
            bootstrap,
            process,
            snapshots,
            status,
            stopper,
            thread: Some(thread),
        })
    }

    /// The bootstrap file as it was at the start.
    #[must_use]
    pub fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    /// What was settled at the start.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// The Snapshot in force, and its successors.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// What there is to say about the files.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// Follows the folder.
struct Follower {
    folder: PathBuf,
    /// The bootstrap file as it was at the start.
    bootstrap: Bootstrap,
    store: Store,
    watch: FolderWatch,
    snapshots: watch::Sender<Arc<Snapshot>>,
    status: watch::Sender<Arc<Status>>,
}

impl Follower {
    fn run(&mut self) {
        while self.watch.wait() == Wake::Changed {
            let changes = self.watch.take_changes();
            match self.store.refresh(&changes) {
                Ok(true) => self.take(),
                Ok(false) => {}
                Err(error) => self.refuse([unreadable_folder(&self.folder, &error)].into()),
            }
        }
    }

    fn take(&mut self) {
        let problems = Arc::clone(self.store.problems());
        if problems.iter().any(Problem::is_error) {
            return self.refuse(problems);
        }
        let renumbered = renumbered(
            &self.snapshots.borrow().datapath.pools,
            &self.store.bootstrap().pools,
        );
        // It is about this change, and the next status says nothing of it.
        let problems = if renumbered.is_empty() {
            problems
        } else {
            problems.iter().cloned().chain(renumbered).collect()
        };
        let mut status = self.status_with(problems);
        status.is_current = true;
        self.warn_of_restart(self.store.bootstrap(), &mut status);
        self.publish(&mut status);
        self.watch_further();
        self.status.send_replace(Arc::new(status));
    }

    /// Leaves everything in force as it is.
    fn refuse(&self, problems: Arc<[Problem]>) {
        let mut status = self.status_with(problems);
        status.is_current = false;
        status.last_error_at = Some(SystemTime::now());
        tracing::error!(
            version = status.version,
            "the change has errors, the running configuration goes on"
        );
        self.status.send_replace(Arc::new(status));
    }

    /// The status with what is wrong now, which is logged when it is news.
    fn status_with(&self, problems: Arc<[Problem]>) -> Status {
        let mut status = Status::clone(&self.status.borrow());
        if problems != status.problems {
            log(&problems);
        }
        status.problems = problems;
        status
    }

    fn publish(&mut self, status: &mut Status) {
        let next = succeed(self.store.snapshot(), &self.snapshots.borrow());
        let Some(next) = next else {
            return;
        };
        self.store.share(&next);
        status.version = next.version;
        status.since = SystemTime::now();
        tracing::info!(
            version = next.version,
            listeners = next.listeners.len(),
            clusters = next.clusters.len(),
            "a new configuration is in force"
        );
        self.snapshots.send_replace(Arc::new(next));
    }

    fn warn_of_restart(&self, now: &Bootstrap, status: &mut Status) {
        let keys = restart_needed(&self.bootstrap, now);
        if keys != status.restart_needed && !keys.is_empty() {
            tracing::warn!(
                keys = keys.join(", "),
                "changes of edge.yaml that take effect with the next start"
            );
            if has_first_pools(&self.bootstrap, now) {
                tracing::warn!(
                    "pools were added to an edge that started without any: until the next start its connection table keeps \
                     its small size, whatever connections.flows says"
                );
            }
        }
        status.restart_needed = keys;
    }

    /// Watches what lies outside of the folder: resources and the files that they name.
    fn watch_further(&mut self) {
        let parents = self.store.named_files().iter().filter_map(|file| file.parent());
        let mut folders: BTreeMap<_, _> = parents.map(|parent| (parent.to_owned(), Depth::Files)).collect();
        folders.insert(resource_folder(&self.folder, self.store.bootstrap()), Depth::All);
        self.watch.watch_besides(folders);
    }
}

/// Keys whose change a running process cannot take over: they decide about sockets, threads and attached programs.
fn restart_needed(running: &Bootstrap, now: &Bootstrap) -> Vec<&'static str> {
    let changed = [
        ("interfaces", running.interfaces != now.interfaces),
        ("xdpMode", running.xdp_mode != now.xdp_mode),
        ("localRoutes", running.local_routes != now.local_routes),
        ("pinning", running.pinning != now.pinning),
        ("workers", running.workers != now.workers),
        ("hashSeed", running.hash_seed != now.hash_seed),
        (
            "connections.flows",
            running.flows != now.flows || has_first_pools(running, now),
        ),
        ("admin", running.admin != now.admin),
        ("drain", running.drain != now.drain),
        ("overload", running.overload != now.overload),
        ("dns", running.dns != now.dns),
    ];
    changed
        .into_iter()
        .filter(|(_, is_changed)| *is_changed)
        .map(|(key, _)| key)
        .collect()
}

/// Whether there are pools now and were none at the start, for which a small connection table was enough.
fn has_first_pools(running: &Bootstrap, now: &Bootstrap) -> bool {
    running.pools.is_empty() && !now.pools.is_empty()
}

fn log(problems: &[Problem]) {
    for problem in problems {
        if problem.is_error() {
            tracing::error!("{}", problem.with_location());
        } else {
            tracing::warn!("{}", problem.with_location());
        }
    }
}

#[cfg(test)]
mod tests;
