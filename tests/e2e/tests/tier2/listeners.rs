//! Where a Gateway listens.

use crate::edge::{Edge, PORT, gateway_of};

/// A Gateway of a name, at an address of its own if one is given, that answers everything with its name.
fn gateway(name: &str, bind: Option<&str>) -> String {
    let bind = bind.map_or(String::new(), |address| format!("bind: {address}, "));
    let server =
        format!("{{{bind}port: {{number: {PORT}, name: http-{name}, protocol: HTTP}}, hosts: ['*']}}");
    let rule = format!("  - directResponse: {{status: 200, body: {{string: {name}}}}}");
    gateway_of(name, &server, "*", &rule)
}

#[test]
fn a_server_with_an_address_of_its_own_is_reached_there_and_nowhere_else() {
    let ask = |edge: &Edge, address: &str| {
        let answer = edge.curl().get(&format!("http://{address}:{PORT}/"));
        answer.map_or("nobody".to_owned(), |answer| answer.text())
    };
    let edge = Edge::start(&gateway("bound", Some("127.0.0.2")));
    assert_eq!(ask(&edge, "127.0.0.2"), "bound");
    assert_eq!(ask(&edge, "127.0.0.1"), "nobody");
    assert_eq!(ask(&edge, "[::1]"), "nobody");
    drop(edge);

    let all = gateway("bound", Some("127.0.0.2")) + &gateway("six", Some("'::1'")) + &gateway("rest", None);
    let edge = Edge::start(&all);
    for (address, expected) in [
        ("127.0.0.2", "bound"),
        ("[::1]", "six"),
        ("127.0.0.1", "rest"),
        ("127.0.0.3", "rest"),
    ] {
        assert_eq!(ask(&edge, address), expected, "{address}");
    }
}
