//! Self-signed certificates for a lab's hosts, made by openssl(1).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs::output;

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate; it is its own authority, so `curl --cacert` takes it.
    pub cert: PathBuf,
    /// The private key (ECDSA on P-256, PKCS #8).
    pub key: PathBuf,
}

/// Writes `tls.crt` and `tls.key` into a folder, valid for a day, for all of the host names.
///
/// # Errors
/// If there is no host, or openssl(1) is missing or cannot write there.
pub fn self_signed(folder: &Path, hosts: &[&str]) -> Result<CertFiles> {
    let first = hosts.first().context("a certificate needs a host")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let files = CertFiles {
        cert: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    let names: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-noenc",
        ])
        .args(["-days", "1", "-subj", &format!("/CN={first}")])
        // RFC 9525 section 2: clients look at the subject's alternative names and not at its common name.
        .args(["-addext", &format!("subjectAltName={}", names.join(","))])
        .arg("-out")
        .arg(&files.cert)
        .arg("-keyout")
        .arg(&files.key);
    output(&mut openssl)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_all_hosts_and_has_its_key() {
        let dir = tempfile::tempdir().expect("a folder");
        let files =
            self_signed(&dir.path().join("certs"), &["a.example", "b.example"]).expect("openssl works");
        for host in ["a.example", "b.example"] {
            let mut check = Command::new("openssl");
            check
                .args(["x509", "-noout", "-checkhost", host, "-in"])
                .arg(&files.cert);
            let answer = output(&mut check).expect("openssl reads it");
            assert!(answer.contains("does match"), "{host}: {answer}");
        }
        let key = std::fs::read_to_string(&files.key).expect("a key");
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn a_certificate_for_nobody_is_refused() {
        assert!(self_signed(Path::new("/nonexistent"), &[]).is_err());
    }
}
