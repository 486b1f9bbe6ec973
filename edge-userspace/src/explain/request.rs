//! `edge explain request`.

use anyhow::{Context as _, Result, anyhow, bail};
use edge_routing::{Claims, Explanation, Probe, explain};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::cli::ExplainRequestArgs;
use crate::config;
use crate::failure::Failure;

/// Explains one request.
pub(crate) fn run(args: &ExplainRequestArgs) -> Result<(), Failure> {
    let loaded = config::load(&args.config)?;
    let request = Request::new(args).map_err(Failure::WrongInput)?;
    let probe = Probe {
        port: args.port,
        tls: args.tls,
        sni: request.sni.as_deref(),
        authority: &request.authority,
        path_and_query: &request.path_and_query,
        method: &args.method,
        headers: &request.headers,
        claims: request.claims.as_ref(),
    };
    let explanation = explain(&loaded.snapshot, &probe);
    if args.json {
        let line =
            serde_json::to_string(&explanation).map_err(|error| Failure::CannotBeDone(error.into()))?;
        println!("{line}");
    } else {
        print(&explanation);
    }
    Ok(())
}

/// The request that the arguments describe.
struct Request {
    authority: String,
    path_and_query: String,
    headers: HeaderMap,
    sni: Option<String>,
    claims: Option<Claims>,
}

impl Request {
    fn new(args: &ExplainRequestArgs) -> Result<Self> {
        let uri: Uri = args
            .url
            .parse()
            .with_context(|| format!("{:?} is no URL", args.url))?;
        let mut headers = headers(&args.headers)?;
        let host = headers
            .remove(header::HOST)
            .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let of_url = uri.authority().map(ToString::to_string);
        let Some(authority) = host.or(of_url) else {
            bail!(
                "{:?} names no host: give a whole URL, or -H 'host: NAME'",
                args.url
            );
        };
        let sni = args
            .tls
            .then(|| args.sni.clone().or_else(|| uri.host().map(ToOwned::to_owned)))
            .flatten();
        let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let claims = args.claims.as_deref().map(claims).transpose()?;
        Ok(Self {
            authority,
            path_and_query,
            headers,
            sni,
            claims,
        })
    }
}

fn claims(json: &str) -> Result<Claims> {
    serde_json::from_str(json).with_context(|| format!("the claims {json:?} are no JSON object"))
}

fn headers(lines: &[String]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| anyhow!("header {line:?} has no colon: write 'name: value'"))?;
        let name: HeaderName = name
            .trim()
            .parse()
            .with_context(|| format!("{name:?} is no header name"))?;
        let value =
            HeaderValue::from_str(value.trim()).with_context(|| format!("{value:?} is no header value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The explanation for people: the decision first, then the way to it.
fn print(explanation: &Explanation) {
    let outcome = serde_json::to_value(explanation.outcome).ok();
    println!(
        "{}",
        outcome
            .as_ref()
            .and_then(|outcome| outcome.as_str())
            .unwrap_or_default()
    );
    let fields = [
        ("listener", &explanation.listener),
        ("routes", &explanation.route_config),
        ("virtual host", &explanation.virtual_host),
        ("route", &explanation.route),
        ("object", &explanation.object),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            println!("  {name:<14} {value}");
        }
    }
    for cluster in &explanation.clusters {
        let endpoints = match &cluster.endpoints {
            None => "no such cluster: 503".to_owned(),
            Some(endpoints) if endpoints.is_empty() => "no endpoint: 503".to_owned(),
            Some(endpoints) => endpoints.join(", "),
        };
        println!(
            "  {:<14} {} weight {}: {endpoints}",
            "cluster", cluster.name, cluster.weight
        );
    }
    println!("because");
    for (number, step) in (1..).zip(&explanation.trace) {
        println!("  {number:>3}. {}", step.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str, headers: &[&str]) -> ExplainRequestArgs {
        ExplainRequestArgs {
            config: "unused".into(),
            json: false,
            port: 443,
            tls: true,
            sni: None,
            method: "GET".to_owned(),
            headers: headers.iter().map(ToString::to_string).collect(),
            claims: None,
            url: url.to_owned(),
        }
    }

    #[test]
    fn a_host_header_goes_before_the_host_of_the_url_and_the_url_gives_the_server_name() {
        let request = Request::new(&args(
            "https://a.com:8443/x?y",
            &["Host: b.com", "x-a: 1", "x-a: 2"],
        ))
        .unwrap();
        assert_eq!(
            (request.authority.as_str(), request.path_and_query.as_str()),
            ("b.com", "/x?y")
        );
        assert_eq!(
            (
                request.sni.as_deref(),
                request.headers.get_all("x-a").iter().count()
            ),
            (Some("a.com"), 2)
        );
    }

    #[test]
    fn requests_that_cannot_be_sent_are_refused_with_a_reason() {
        for (url, headers, reason) in [
            ("/path", vec![], "names no host"),
            ("http://a b/", vec![], "is no URL"),
            ("http://a/", vec!["no colon"], "has no colon"),
            ("http://a/", vec!["b d: x"], "is no header name"),
        ] {
            let error = Request::new(&args(url, &headers)).err().unwrap();
            assert!(format!("{error:#}").contains(reason), "{error:#}");
        }
    }
}
