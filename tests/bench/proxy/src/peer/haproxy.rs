//! HAProxy.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use edge_lab::cert::CertFiles;

use super::{Ports, Prepared, check, find, prefixes, write};
use crate::site::Site;

pub(super) fn prepare(site: &Site, folder: &Path) -> Result<Option<Prepared>> {
    let Some(program) = find("haproxy") else {
        return Ok(None);
    };
    let ports = Ports::new(site)?;
    let pem = |name: &str, files: &CertFiles| {
        let text = std::fs::read_to_string(&files.cert)? + &std::fs::read_to_string(&files.key)?;
        write(folder, name, &text)
    };
    let (ecdsa, rsa) = (pem("ecdsa.pem", &site.ecdsa)?, pem("rsa.pem", &site.rsa)?);
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn 9500\n  maxpipes 100\n  tune.ssl.default-dh-param 2048\ndefaults\n  mode http\n  timeout connect 5s\n  \
         timeout client 60s\n  timeout server 15s\n  timeout http-request 10s\n  timeout http-keep-alive 3600s\n  retries 2\n  \
         retry-on conn-failure empty-response 503\n  option redispatch\n  http-reuse always\n\
         frontend http\n  option forwardfor\n  bind :::{} v4v6\n  bind :::{} v4v6 proto h2\n  bind :::{} v4v6 ssl crt {} alpn h2,http/1.1\n  \
         bind :::{} v4v6 ssl crt {} alpn h2,http/1.1\n  unique-id-format %[uuid()]\n  unique-id-header X-Request-ID\n  \
         http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}\n  \
         http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n",
        ports.http1,
        ports.http2,
        ports.ecdsa,
        ecdsa.display(),
        ports.rsa,
        rsa.display()
    );
    // A map is found by a tree: a list of rules would be walked for each request.
    let map: String = prefixes().map(|prefix| format!("{prefix} other\n")).collect();
    let map = write(folder, "routes.map", &map)?;
    let _ = writeln!(text, "  use_backend %[path,map_beg({},web)]", map.display());
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "  default_backend web\nbackend web\n  server one {0}\nbackend other\n  server one {0}\n\
         listen tcp\n  mode tcp\n  option splice-auto\n  bind :::{1} v4v6\n  server one {0}\n\
         frontend pass\n  mode tcp\n  option splice-auto\n  bind :::{2} v4v6\n  tcp-request inspect-delay 5s\n  \
         tcp-request content accept if {{ req_ssl_hello_type 1 }}\n  use_backend pass if {{ req_ssl_sni localhost }}\n\
         backend pass\n  mode tcp\n  option splice-auto\n  server one {3}",
        site.backend, ports.tcp, ports.passthrough, site.backend_tls
    );
    // `option redispatch` and retries mean nothing for bytes, of which HAProxy warns.
    let file = write(folder, "haproxy.cfg", &text)?;
    check(Command::new(&program).arg("-c").arg("-q").arg("-f").arg(&file))?;
    Ok(Some(Prepared {
        command: vec![program, "-db".into(), "-f".into(), file],
        ports,
    }))
}
