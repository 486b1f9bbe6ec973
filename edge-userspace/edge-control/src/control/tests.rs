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
fn the_first_pool_needs_a_restart_for_a_larger_connection_table() {
    let lab = Lab::start();
    let pool = "pools: [{name: web, workers: [{address: 10.0.0.1, mode: l2}]}]\n";
    let rows: [(&str, String, &[&str]); 5] = [
        ("a pool", pool.to_owned(), &["connections.flows"]),
        (
            "two",
            pool.replace("]}]", "]}, {name: b}]"),
            &["connections.flows"],
        ),
        ("none again", String::new(), &[]),
        (
            "another size",
            "connections: {flows: 5}\n".into(),
            &["connections.flows"],
        ),
        (
            "and a pool",
            format!("connections: {{flows: 5}}\n{pool}"),
            &["connections.flows"],
        ),
    ];
    for (name, text, expected) in rows {
        lab.write("edge.yaml", &format!("workers: 3\n{text}"));
        let pools = text.matches("name:").count();
        let in_force = || lab.control.snapshots().borrow().datapath.pools.len() == pools;
        let status = lab.until(|status| status.restart_needed == expected && in_force());
        assert!(status.is_current, "{name}");
    }
}

#[test]
fn pools_that_were_there_at_the_start_may_go_and_come_back() {
    let pool = |flows: u32| {
        format!(
            "connections: {{flows: {flows}}}\npools: [{{name: web, workers: [{{address: 10.0.0.1, mode: l2}}]}}]\n"
        )
    };
    let read = |text: &str| Bootstrap::read("edge.yaml", text, &mut Vec::new()).expect("it is right");
    let (with, without) = (read(&pool(5)), read("connections: {flows: 5}\n"));
    assert_eq!(restart_needed(&with, &without), [""; 0]);
    assert_eq!(restart_needed(&with, &with), [""; 0]);
    assert_eq!(restart_needed(&with, &read(&pool(6))), ["connections.flows"]);
    assert_eq!(restart_needed(&without, &with), ["connections.flows"]);
}

#[test]
fn a_worker_whose_number_changes_with_its_place_is_warned_of() {
    let lab = Lab::start();
    let pools = |workers: &[&str]| {
        let worker = |worker: &&str| format!("{{address: 10.0.0.1, mode: l2, name: {worker}}}");
        let workers: Vec<_> = workers.iter().map(worker).collect();
        format!(
            "workers: 3\npools: [{{name: web, workers: [{}]}}]\n",
            workers.join(", ")
        )
    };
    let names = || {
        let snapshots = lab.control.snapshots();
        let snapshot = snapshots.borrow();
        let members = snapshot.datapath.pools.iter().flat_map(|pool| &pool.members);
        members.map(|member| member.name.to_string()).collect::<Vec<_>>()
    };
    lab.write("edge.yaml", &pools(&["a", "b", "c"]));
    let status = lab.until(|status| status.version == 2);
    assert_eq!(names(), ["a", "b", "c"]);
    assert_eq!(status.problems[..], []);
    lab.write("edge.yaml", &pools(&["b", "c"]));
    let status = lab.until(|status| status.version == 3);
    assert_eq!(names(), ["b", "c"], "a warning holds nothing up");
    let [problem] = &status.problems[..] else {
        panic!("{:?}", status.problems)
    };
    assert_eq!(
        (problem.is_error(), problem.field.as_str()),
        (false, "pools[0].workers")
    );
    assert!(
        problem.message.contains("b (0, was 1), c (1, was 2)"),
        "{problem:?}"
    );
    assert!(problem.hint.contains("`number`"), "{problem:?}");
    lab.write("edge.yaml", &pools(&["b, number: 0", "c, number: 1"]));
    let status = lab.until(|status| status.version == 4);
    assert_eq!(status.problems[..], []);
    lab.write("edge.yaml", &pools(&["c, number: 1"]));
    let status = lab.until(|status| status.version == 5);
    assert_eq!(status.problems[..], []);
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
