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
