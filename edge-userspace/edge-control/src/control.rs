//! A folder that is watched, and the Snapshot that its files come to.
//!
//! A change is taken as a whole or not at all: one error in any file, and everything that was in force stays in force,
//! so that what runs is always a state that somebody wrote. Warnings do not hold a change up.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use edge_config::{Bootstrap, Problem};
use edge_model::Snapshot;
use tokio::sync::watch;

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
    #[error("{folder}: {source}", folder = .folder.display())]
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
        ("connections.flows", running.flows != now.flows),
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
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::time::{Duration, Instant};

    const GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web}
spec:
  selector: {istio: ingressgateway}
  servers:
    - port: {number: 80, name: http, protocol: HTTP}
      hosts: [a.com]
";

    struct Lab {
        folder: tempfile::TempDir,
        control: Control,
    }

    impl Lab {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("edge.yaml"), "workers: 3\n").unwrap();
            fs::write(folder.path().join("gateway.yaml"), GATEWAY).unwrap();
            let control = Control::start(folder.path()).unwrap();
            Self { folder, control }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join(name), text).unwrap();
        }

        /// Waits until the status is as wanted, and returns it.
        #[track_caller]
        fn until(&self, wanted: impl Fn(&Status) -> bool) -> Arc<Status> {
            let status = self.control.status();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(5) {
                let now = status.borrow().clone();
                if wanted(&now) {
                    return now;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("the status stays {:?}", status.borrow());
        }

        fn ports(&self) -> Vec<u16> {
            self.control
                .snapshots()
                .borrow()
                .listeners
                .iter()
                .map(|listener| listener.port)
                .collect()
        }
    }

    #[test]
    fn a_changed_file_becomes_the_next_version() {
        let lab = Lab::start();
        assert_eq!(lab.ports(), [80]);
        assert_eq!(lab.control.process().workers, 3);
        lab.write("gateway.yaml", &GATEWAY.replace("80", "81"));
        lab.until(|status| status.version == 2);
        assert_eq!(lab.ports(), [81]);
    }

    #[test]
    fn a_wrong_file_changes_nothing_until_it_is_mended() {
        let lab = Lab::start();
        let before = lab.control.snapshots().borrow().clone();
        lab.write(
            "other.yaml",
            &GATEWAY.replace("name: web", "name: other").replace("80", "81"),
        );
        lab.until(|status| status.version == 2);
        assert_eq!(lab.ports(), [80, 81]);
        let shared = lab.control.snapshots().borrow().listener(80).cloned();
        assert!(Arc::ptr_eq(&shared.unwrap(), before.listener(80).unwrap()));

        lab.write(
            "other.yaml",
            &GATEWAY
                .replace("name: web", "name: other")
                .replace("hosts", "hostz"),
        );
        let status = lab.until(|status| !status.is_current);
        assert_eq!((status.version, status.last_error_at.is_some()), (2, true));
        assert!(
            status
                .problems
                .iter()
                .any(|problem| problem.is_error() && problem.field.contains("hostz"))
        );
        assert_eq!(lab.ports(), [80, 81]);

        lab.write(
            "other.yaml",
            &GATEWAY.replace("name: web", "name: other").replace("80", "82"),
        );
        lab.until(|status| status.is_current && status.version == 3);
        assert_eq!(lab.ports(), [80, 82]);
    }

    #[test]
    fn without_its_folder_the_configuration_stays_and_a_new_folder_is_followed() {
        let lab = Lab::start();
        let elsewhere = tempfile::tempdir().unwrap();
        // Moved and not deleted, so that no moment shows the folder half empty.
        fs::rename(lab.folder.path(), elsewhere.path().join("old")).unwrap();
        let status = lab.until(|status| !status.is_current);
        assert_eq!((status.version, status.problems.len()), (1, 1), "{status:?}");
        assert_eq!(lab.ports(), [80]);

        fs::rename(elsewhere.path().join("old"), lab.folder.path()).unwrap();
        lab.until(|status| status.is_current);
        lab.write("gateway.yaml", &GATEWAY.replace("80", "81"));
        lab.until(|status| status.version == 2);
        assert_eq!(lab.ports(), [81]);
    }

    #[test]
    fn a_key_that_needs_a_restart_is_reported_and_others_apply_at_once() {
        let lab = Lab::start();
        lab.write(
            "edge.yaml",
            "workers: 4\nvirtualAddresses: [{address: 192.0.2.1}]\n",
        );
        let status = lab.until(|status| status.version == 2);
        assert_eq!(status.restart_needed, ["workers"]);
        let snapshots = lab.control.snapshots();
        let snapshot = snapshots.borrow();
        assert_eq!(snapshot.datapath.workers.len(), 3);
        assert_eq!(snapshot.datapath.vips.len(), 1);
    }

    #[test]
    fn a_deny_list_is_followed_and_a_wrong_one_changes_nothing() {
        let lab = Lab::start();
        lab.write("drop.txt", "192.0.2.0/24 ; one\n");
        lab.write(
            "edge.yaml",
            "sources: {deny: [198.51.100.7], denyFiles: [drop.txt]}\n",
        );
        let denied = || {
            let snapshots = lab.control.snapshots();
            let snapshot = snapshots.borrow();
            let deny = snapshot.datapath.sources.deny.iter();
            deny.map(ToString::to_string).collect::<Vec<_>>()
        };
        lab.until(|status| status.is_current && denied().len() == 2);
        lab.write("drop.txt", "192.0.2.0/24\nnonsense\n");
        let status = lab.until(|status| !status.is_current);
        assert!(
            status.problems[0]
                .with_location()
                .starts_with("drop.txt:2: error"),
            "{:?}",
            status.problems
        );
        assert_eq!(denied(), ["198.51.100.7", "192.0.2.0/24"]);
        lab.write("drop.txt", "203.0.113.0/24\n");
        lab.until(|status| status.is_current && denied() == ["198.51.100.7", "203.0.113.0/24"]);
    }

    #[test]
    fn a_certificate_outside_of_the_folder_is_watched_too() {
        let certificates = tempfile::tempdir().unwrap();
        let path = |name: &str| certificates.path().join(name).display().to_string();
        let lab = Lab::start();
        let tls = format!(
            "{}      tls: {{mode: SIMPLE, serverCertificate: {}, privateKey: {}}}\n",
            GATEWAY.replace(
                "{number: 80, name: http, protocol: HTTP}",
                "{number: 443, name: https, protocol: HTTPS}"
            ),
            path("tls.crt"),
            path("tls.key"),
        );
        lab.write("gateway.yaml", &tls);
        let status = lab.until(|status| status.version == 2);
        assert_eq!(
            status
                .problems
                .iter()
                .filter(|problem| problem.field.contains("tls"))
                .count(),
            2
        );
        let pair = rcgen::generate_simple_self_signed(["a.com".to_owned()]).unwrap();
        fs::write(path("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        fs::write(path("tls.crt"), pair.cert.pem()).unwrap();
        let status = lab.until(|status| status.problems.is_empty());
        assert!(status.version >= 3);
    }

    #[test]
    fn a_start_with_errors_is_refused_with_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("edge.yaml"), "interfacez: []\n").unwrap();
        fs::write(
            folder.path().join("gateway.yaml"),
            GATEWAY.replace("hosts", "hostz"),
        )
        .unwrap();
        let Err(StartError::Invalid(problems)) = Control::start(folder.path()) else {
            panic!("the start must be refused");
        };
        let files: BTreeSet<_> = problems
            .iter()
            .filter(|p| p.is_error())
            .map(|p| p.file.as_str())
            .collect();
        assert_eq!(files.len(), 2, "{problems:?}");
        assert!(matches!(
            Control::start(Path::new("/nowhere")),
            Err(StartError::Folder { .. })
        ));
    }
}
