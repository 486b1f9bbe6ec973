//! What a client's handshake has told of the client and of the connection.

use std::cell::OnceCell;

use http::HeaderValue;
use rustls::{CipherSuite, ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;

use super::names::Facts;
use super::server::SUITES;

/// A handshake that has ended, or of one that passes through, its beginning.
pub(crate) struct Handshake {
    server_name: Option<Box<str>>,
    version: Option<ProtocolVersion>,
    suite: Option<CipherSuite>,
    /// Boxed, as few clients show one and all have room for it.
    certificate: Option<Box<Certificate>>,
}

/// A client's certificate, with what it says once somebody has asked.
struct Certificate {
    der: CertificateDer<'static>,
    facts: OnceCell<Option<Facts>>,
}

impl Handshake {
    /// Of a client that asks for this server, before anything is agreed.
    pub(crate) fn begun(server_name: Option<&str>) -> Self {
        Self {
            server_name: server_name.map(Into::into),
            version: None,
            suite: None,
            certificate: None,
        }
    }

    /// The same, as it was agreed.
    pub(crate) fn ended(server_name: Option<&str>, agreed: &ServerConnection) -> Self {
        let shown = agreed.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|certificate| {
            Box::new(Certificate {
                der: certificate.clone().into_owned(),
                facts: OnceCell::new(),
            })
        });
        Self {
            version: agreed.protocol_version(),
            suite: agreed.negotiated_cipher_suite().map(|suite| suite.suite()),
            certificate,
            ..Self::begun(server_name)
        }
    }

    /// The server that the client asked for.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The version, as OpenSSL writes it.
    pub(crate) fn version(&self) -> Option<&'static str> {
        let is = |version| self.version == Some(version);
        // No other is ever agreed on.
        (is(ProtocolVersion::TLSv1_2).then_some("TLSv1.2"))
            .or_else(|| is(ProtocolVersion::TLSv1_3).then_some("TLSv1.3"))
    }

    /// The cipher suite, as OpenSSL writes it.
    pub(crate) fn cipher(&self) -> Option<&'static str> {
        let agreed = self.suite?;
        let found = SUITES.iter().find(|(_, suite)| *suite == agreed);
        found.map(|(name, _)| *name)
    }

    /// What endpoints are told of the client's certificate.
    pub(crate) fn forwarded(&self) -> Option<HeaderValue> {
        // Not kept: nobody else may ask.
        Facts::of(&self.certificate.as_deref()?.der)?.forwarded()
    }

    /// What the client's certificate says, if it has shown one that can be read.
    pub(crate) fn certificate(&self) -> Option<&Facts> {
        let certificate = self.certificate.as_deref()?;
        let facts = certificate.facts.get_or_init(|| Facts::of(&certificate.der));
        facts.as_ref()
    }
}
