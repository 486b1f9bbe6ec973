//! Clients and servers that are not ours, with a library of their own on both sides.

use crate::edge::{Edge, NOBODY, PORT, gateway, service};

/// Port of the server.
const BACKEND: u16 = 9000;

#[test]
fn calls_of_grpc_pass_in_every_form_and_fail_in_their_own_terms() {
    let rules = "
  - {match: [{uri: {prefix: /lab.Echo/}}], route: [{destination: {host: echo.internal}}]}
  - {match: [{uri: {prefix: /gone/}}], route: [{destination: {host: gone.internal}}]}
  - match: [{uri: {prefix: /abort/}}]
    fault: {abort: {percentage: {value: 100}, grpcStatus: RESOURCE_EXHAUSTED}}
    route: [{destination: {host: echo.internal}}]
";
    let services = service("echo", "grpc", &[BACKEND]) + &service("gone", "grpc", &[NOBODY]);
    let edge = Edge::start(&(gateway("grpc.example.com", rules) + &services));
    let arguments = [format!("127.0.0.1:{PORT}"), format!("127.0.0.1:{BACKEND}")];
    let seen = edge.run("grpc_calls.py", &arguments.each_ref().map(String::as_str));
    assert_eq!(seen.len(), 9, "{seen:?}");
}

#[test]
fn websockets_pass_with_all_that_their_ends_agree_on() {
    let rules = "
  - {route: [{destination: {host: chat.internal}}]}
";
    let edge = Edge::start(&(gateway("ws.example.com", rules) + &service("chat", "http", &[BACKEND])));
    let ports = [PORT, BACKEND].map(|port| port.to_string());
    let seen = edge.run("websockets_through.py", &["127.0.0.1", &ports[0], &ports[1]]);
    assert_eq!(seen.len(), 7, "{seen:?}");
}

#[test]
fn websockets_are_streams_of_http2_that_end_each_by_itself() {
    const OTHER: u16 = 9001;
    let rules = "
  - {match: [{uri: {prefix: /one}}], route: [{destination: {host: one.internal}}]}
  - {match: [{uri: {prefix: /two}}], route: [{destination: {host: two.internal}}]}
";
    let services = service("one", "http", &[BACKEND]) + &service("two", "http2", &[OTHER]);
    let edge = Edge::start(&(gateway("ws.example.com", rules) + &services));
    let ports = [PORT, BACKEND, OTHER].map(|port| port.to_string());
    let mut arguments = vec!["127.0.0.1"];
    arguments.extend(ports.iter().map(String::as_str));
    let seen = edge.run("websockets_over_http2.py", &arguments);
    assert_eq!(seen.len(), 13, "{seen:?}");
}
