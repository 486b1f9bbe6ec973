//! nginx.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Ports, Prepared, check, find, prefixes, write};
use crate::site::Site;

/// Debian's module for bytes, a package of its own.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn prepare(site: &Site, folder: &Path) -> Result<Option<Prepared>> {
    let Some(program) = find("nginx") else {
        return Ok(None);
    };
    let mut ports = Ports::new(site)?;
    let has_stream = Path::new(STREAM).exists();
    if !has_stream {
        (ports.tcp, ports.passthrough) = (0, 0);
    }
    let mut locations = String::new();
    for prefix in prefixes().chain(["/".to_owned()]) {
        // Writing to a String does not fail.
        let _ = writeln!(locations, "    location {prefix} {{ proxy_pass http://web; }}");
    }
    let stream = match has_stream {
        true => format!(
            "stream {{\n  server {{ listen [::]:{} ipv6only=off; proxy_pass {}; }}\n  server {{ listen [::]:{} ipv6only=off; \
             proxy_pass {}; }}\n}}\n",
            ports.tcp, site.backend, ports.passthrough, site.backend_tls
        ),
        false => String::new(),
    };
    let load = match has_stream {
        true => format!("load_module {STREAM};\n"),
        false => String::new(),
    };
    let text = format!(
        "{load}user root;\nworker_processes 1;\ndaemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log \
         error;\nworker_rlimit_nofile 40000;\nevents {{ worker_connections 40000; }}\nhttp {{\n  access_log off;\n  \
         keepalive_timeout 3600s;\n  keepalive_requests 1000000000;\n  client_body_temp_path {dir}/body;\n  proxy_temp_path \
         {dir}/proxy;\n  fastcgi_temp_path {dir}/f;\n  uwsgi_temp_path {dir}/u;\n  scgi_temp_path {dir}/s;\n  upstream web {{ \
         server {backend}; keepalive 256; keepalive_requests 1000000000; }}\n  proxy_http_version 1.1;\n  proxy_set_header \
         Connection \"\";\n  proxy_set_header Host $host;\n  proxy_set_header X-Request-ID $request_id;\n  proxy_set_header \
         X-Forwarded-For $proxy_add_x_forwarded_for;\n  proxy_set_header X-Forwarded-Proto $scheme;\n  proxy_connect_timeout \
         5s;\n  proxy_read_timeout 15s;\n  proxy_next_upstream error timeout http_503;\n  proxy_next_upstream_tries 3;\n  \
         server {{\n    listen [::]:{http1} ipv6only=off;\n    listen [::]:{http2} ipv6only=off http2;\n    listen [::]:{ecdsa} \
         ipv6only=off ssl http2;\n    ssl_certificate {ecdsa_cert};\n    ssl_certificate_key {ecdsa_key};\n    ssl_protocols \
         TLSv1.2 TLSv1.3;\n{locations}  }}\n  server {{\n    listen [::]:{rsa} ipv6only=off \
         ssl http2;\n    ssl_certificate {rsa_cert};\n    ssl_certificate_key {rsa_key};\n    ssl_protocols TLSv1.2 TLSv1.3;\n\
         {locations}  }}\n}}\n{stream}",
        dir = folder.display(),
        backend = site.backend,
        http1 = ports.http1,
        http2 = ports.http2,
        ecdsa = ports.ecdsa,
        ecdsa_cert = site.ecdsa.cert.display(),
        ecdsa_key = site.ecdsa.key.display(),
        rsa = ports.rsa,
        rsa_cert = site.rsa.cert.display(),
        rsa_key = site.rsa.key.display(),
    );
    let file = write(folder, "nginx.conf", &text)?;
    check(Command::new(&program).arg("-t").arg("-q").arg("-c").arg(&file))?;
    Ok(Some(Prepared {
        command: vec![program, "-c".into(), file],
        ports,
    }))
}
