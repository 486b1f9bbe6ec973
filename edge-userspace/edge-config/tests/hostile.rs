//! Text from anyone: reading it never panics, and costs time in proportion to its length.

use std::fmt::Write;
use std::time::Duration;

use edge_config::{Bootstrap, Parsed, parse_documents, unsupported, validate};
use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};

/// Length of the hostile texts.
const MEBIBYTE: usize = 1 << 20;

/// Processor time that a mebibyte may take. It takes a tenth of that; the rest is for slow machines. What is not linear
/// takes minutes.
const BOUND: Duration = Duration::from_secs(4);

/// Processor time of this thread so far: unlike the wall clock, it stands still while other programs run.
fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.try_into().unwrap_or(0))
}

/// Everything that is done with a text.
fn read(text: &str) -> Parsed {
    let parsed = parse_documents("hostile.yaml", text);
    for resource in &parsed.resources {
        let problems = validate(resource);
        let lines = problems
            .iter()
            .chain(&parsed.problems)
            .map(|problem| problem.with_location().len());
        assert!(lines.sum::<usize>() < 100 << 20);
        let _ = unsupported(resource);
    }
    let _ = Bootstrap::read("edge.yaml", text, &mut vec![]);
    parsed
}

#[track_caller]
fn check(what: &str, text: &str) {
    let start = processor_time();
    read(text);
    let taken = processor_time().saturating_sub(start);
    assert!(taken < BOUND, "{what}: {taken:?} for {} bytes", text.len());
}

/// `part` again and again, up to a mebibyte.
fn filled(part: &str) -> String {
    part.repeat(MEBIBYTE / part.len())
}

#[test]
fn deep_nesting_costs_no_more_than_its_length() {
    for part in [
        "[", "{", "{a: ", "[{a: ", "- ", "a:\n ", "? ", "- - - ", "!!x [", "&a [", "[[[[]",
    ] {
        check(part, &filled(part));
        check(
            part,
            &format!("apiVersion: v1\nkind: Pod\nspec: {}", filled(part)),
        );
    }
    let mut stairs = String::new();
    for depth in 0..1400 {
        let _ = writeln!(stairs, "{}a:", " ".repeat(depth));
    }
    check("stairs", &stairs);
}

#[test]
fn aliases_cost_no_more_than_their_length() {
    let mut bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..100 {
        let below = level - 1;
        let _ = writeln!(
            bomb,
            "a{level}: &a{level} [{}]",
            vec![format!("*a{below}"); 9].join(", ")
        );
    }
    check("bomb", &bomb);
    let mut anchors = String::from("list:\n");
    for number in 0..50_000 {
        let _ = writeln!(anchors, "- &a{number} x");
    }
    check("anchors", &anchors);
    let text = "x".repeat(MEBIBYTE / 2);
    check(
        "large text behind many aliases",
        &format!("a: &a {text}\nb: [{}]", vec!["*a"; 9_000].join(", ")),
    );
    check(
        "merge keys",
        &format!("a: &a {{x: 1}}\nb:\n{}", "  <<: *a\n".repeat(9_000)),
    );
    check("an alias of itself", "a: &a [*a]\n");
}

#[test]
fn long_texts_of_one_kind_cost_no_more_than_their_length() {
    let parts = [
        "a", "\n", " ", "\t", "#", "-", "---\n", "...\n", ":", "'", "\"", "\\", "%", "!", "&", "*", "|", ">",
        "?",
    ];
    for part in parts.into_iter().chain([
        "a: 1\n",
        "a: b: ",
        "\"\\u",
        "\u{feff}",
        "\u{10ffff}",
        "- a\n",
        "|\n a\n",
        "a,",
    ]) {
        check(part, &filled(part));
        check(part, &format!("a: [{}", filled(part)));
        check(part, &format!("a: \"{}", filled(part)));
    }
    let children = (0..30_000).fold(String::new(), |text, number| text + &format!("  c{number}: 1\n"));
    check(
        "many fields below a long key",
        &format!("? {}\n:\n{children}", "k".repeat(MEBIBYTE / 2)),
    );
    let list = "- 1\n".repeat(MEBIBYTE / 8);
    check(
        "a long list below a long key",
        &format!("? \"{}\"\n:\n{list}", "k".repeat(MEBIBYTE / 2)),
    );
    let numbers: String = (0..100_000).fold(String::new(), |text, number| text + &format!("k{number}: 1\n"));
    check("many keys", &numbers);
}

#[test]
fn large_objects_cost_no_more_than_their_length() {
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n";
    let hosts = "  - a.example.com\n".repeat(MEBIBYTE / 20);
    check(
        "many hosts",
        &format!("{head}  hosts:\n{hosts}  http: [{{directResponse: {{status: 200}}}}]\n"),
    );
    check(
        "many unknown fields",
        &format!(
            "{head}  hosts: []\n{}",
            (0..50_000).fold(String::new(), |text, n| text + &format!("  h{n}: 1\n"))
        ),
    );
    check(
        "many wrong types",
        &format!("{head}  hosts:\n{}", "  - 1\n".repeat(100_000)),
    );
    // Each expression may cost up to a millisecond, until its compiled form is found to be too large.
    let rules = "  - {match: [{uri: {regex: 'a{1000}{1000}'}}], route: [{destination: {host: a}}]}\n";
    check(
        "many large expressions",
        &format!("{head}  hosts: [a]\n  http:\n{}", rules.repeat(500)),
    );
    let conditions = "x,".repeat(MEBIBYTE / 2);
    check(
        "many wrong conditions",
        &format!(
            "{head}  hosts: [a]\n  http: [{{route: [{{destination: {{host: a}}}}], retries: {{attempts: 1, retryOn: '{conditions}'}}}}]\n"
        ),
    );
    let wildcards = (0..60_000).fold(String::new(), |text, n| text + &format!("  - '*h{n}.com'\n"));
    check(
        "many wildcards",
        &format!("{head}  hosts:\n{wildcards}  http: [{{directResponse: {{status: 200}}}}]\n"),
    );
    let places = (0..50_000).fold(String::new(), |text, n| text + &format!("r{n}/z: 1, "));
    check(
        "many places",
        &format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  host: a\n  \
             trafficPolicy: {{loadBalancer: {{localityLbSetting: {{distribute: [{{from: a, to: {{{places}}}}}]}}}}}}\n"
        ),
    );
    let document = format!("{head}  hosts: [a]\n  http: [{{directResponse: {{status: 200}}}}]\n---\n");
    check("many documents", &document.repeat(MEBIBYTE / document.len()));
}

#[test]
fn anything_else_than_an_object_is_told_and_nothing_is_read() {
    for text in [
        "null",
        "~",
        "1",
        "text",
        "[]",
        "{}",
        "{kind: List}",
        "{kind: List, items: 1}",
        "kind: [x]",
        "!!map {}",
    ] {
        let parsed = read(text);
        assert!(parsed.resources.is_empty(), "{text}");
    }
}

/// Words that the reading looks at, so that random texts get somewhere.
const WORDS: [&str; 40] = [
    "apiVersion: networking.istio.io/v1\n",
    "apiVersion: v1\n",
    "kind: VirtualService\n",
    "kind: Gateway\n",
    "kind: EnvoyFilter\n",
    "kind: DestinationRule\n",
    "kind: ServiceEntry\n",
    "kind: Service\n",
    "kind: List\n",
    "items:\n",
    "metadata: {name: a}\n",
    "spec:\n",
    "  http:\n",
    "  hosts: [a, '*']\n",
    "  - match:\n",
    "    - uri: {regex: '('}\n",
    "  servers:\n",
    "  - port: {number: 80}\n",
    "    tls: {mode: SIMPLE}\n",
    "  configPatches:\n",
    "  - applyTo: HTTP_FILTER\n",
    "    patch: {operation: MERGE, value: {}}\n",
    "  trafficPolicy: {}\n",
    "  subsets: [{name: a}]\n",
    "---\n",
    "- ",
    ": ",
    "null",
    "&a ",
    "*a",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "#",
    "|\n",
    "  ",
    "\t",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_causes_a_panic(text in "\\PC{0,200}") {
        read(&text);
    }

    #[test]
    fn no_heap_of_known_words_causes_a_panic(words in prop::collection::vec(prop::sample::select(&WORDS[..]), 0..40)) {
        read(&words.concat());
    }
}
