//! Requests as test data writes them.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

/// A request of a client.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Method and URL, such as `GET http://a.com/x?y=z`; `https` stands for TLS with the host as the server name.
    pub request: String,
    /// Host header, when it is not the authority of the URL.
    pub host: Option<String>,
    /// Port that is connected to, when it is not the scheme's or the URL's.
    pub port: Option<u16>,
    /// Server name of the TLS handshake; an empty one stands for a handshake without.
    pub sni: Option<String>,
    /// Header lines as `name: value`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Random number that picks among weighted destinations.
    #[serde(default)]
    pub draw: u64,
}

/// A request taken apart.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) method: String,
    pub(crate) is_tls: bool,
    pub(crate) authority: String,
    pub(crate) path_and_query: String,
    pub(crate) port: u16,
    pub(crate) sni: Option<String>,
    pub(crate) headers: HeaderMap,
}

impl Request {
    /// Takes the texts apart.
    ///
    /// # Errors
    /// Says which text is malformed.
    pub(crate) fn parts(&self) -> Result<Parts, String> {
        let (method, url) = self.request.split_once(' ').ok_or("a request is METHOD URL")?;
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let is_tls = uri.scheme_str() == Some("https");
        let default_port = if is_tls { 443 } else { 80 };
        let host = uri.host().ok_or_else(|| format!("{url} has no host"))?;
        let sni = self.sni.clone().unwrap_or_else(|| host.to_owned());
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        // The path stands in the text as the client sends it; the parser may have changed it.
        let path = url
            .splitn(4, '/')
            .nth(3)
            .map_or("/".to_owned(), |path| format!("/{path}"));
        Ok(Parts {
            method: method.to_owned(),
            is_tls,
            authority: self.host.clone().unwrap_or(authority),
            path_and_query: path,
            port: self.port.or(uri.port_u16()).unwrap_or(default_port),
            sni: Some(sni).filter(|name| is_tls && !name.is_empty()),
            headers: headers(&self.headers)?,
        })
    }
}

fn headers(lines: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("{line} is no header line"))?;
        let name: HeaderName = name.trim().parse().map_err(|error| format!("{line}: {error}"))?;
        let value: HeaderValue = value.trim().parse().map_err(|error| format!("{line}: {error}"))?;
        headers.append(name, value);
    }
    Ok(headers)
}
