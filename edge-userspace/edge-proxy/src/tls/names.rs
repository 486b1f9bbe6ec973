//! Names in certificates, and what a client's certificate tells the upstream.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderValue;
use rustls_pki_types::CertificateDer;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Dns(String),
    Uri(String),
    /// E-mail or IP address.
    Other(String),
}

impl Name {
    /// The name as it is written in lists of names.
    fn text(&self) -> &str {
        match self {
            Self::Dns(text) | Self::Uri(text) | Self::Other(text) => text,
        }
    }
}

/// The subject alternative names of a certificate; none of one that cannot be read.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<Name> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return vec![];
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return vec![];
    };
    let names = extension.value.general_names.iter();
    names.filter_map(name).collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other kinds are compared with nothing"
)]
fn name(name: &GeneralName<'_>) -> Option<Name> {
    Some(match name {
        GeneralName::DNSName(text) => Name::Dns(text.to_ascii_lowercase()),
        GeneralName::URI(text) => Name::Uri((*text).to_owned()),
        GeneralName::RFC822Name(text) => Name::Other((*text).to_owned()),
        GeneralName::IPAddress(bytes) => Name::Other(match <[u8; 4]>::try_from(*bytes) {
            Ok(bytes) => Ipv4Addr::from(bytes).to_string(),
            Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string(),
        }),
        _ => return None,
    })
}

/// Whether a certificate has one of the wanted names. A DNS name with a wildcard stands for one label (RFC 9525 section 6.3).
pub(super) fn has_one_of(certificate: &CertificateDer<'_>, wanted: &[String]) -> bool {
    let names = names(certificate);
    wanted.iter().any(|wanted| {
        names.iter().any(|name| match name {
            Name::Dns(pattern) => is_dns_match(pattern, &wanted.to_ascii_lowercase()),
            Name::Uri(_) | Name::Other(_) => name.text() == wanted,
        })
    })
}

fn is_dns_match(pattern: &str, name: &str) -> bool {
    let under_wildcard = || {
        let suffix = pattern.strip_prefix("*.")?;
        let (label, rest) = name.split_once('.')?;
        Some(!label.is_empty() && rest == suffix)
    };
    pattern == name || under_wildcard() == Some(true)
}

/// The DER of a certificate's SubjectPublicKeyInfo.
pub(super) fn public_key_info(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.public_key().raw.to_vec())
}

/// What a client's certificate says, as text.
pub(crate) struct Facts {
    /// Its subject and its issuer (RFC 2253).
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// Its serial number in hexadecimal.
    pub(crate) serial: String,
    /// SHA-256 of its DER in hexadecimal.
    pub(crate) fingerprint: String,
    /// Its names, of either kind, as it has them.
    pub(crate) uris: Vec<String>,
    pub(crate) dns: Vec<String>,
    /// All of it: PEM, percent-encoded.
    pub(crate) pem: String,
}

impl Facts {
    /// `None` of a certificate that cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let (mut uris, mut dns) = (Vec::new(), Vec::new());
        for name in names(certificate) {
            match name {
                Name::Uri(uri) => uris.push(uri),
                Name::Dns(name) => dns.push(name),
                Name::Other(_) => {}
            }
        }
        let serial = parsed.raw_serial();
        // A number that would else be negative begins with a zero.
        let serial = serial.strip_prefix(&[0]).unwrap_or(serial);
        Some(Self {
            subject: subject(parsed.subject()),
            issuer: subject(parsed.issuer()),
            serial: hexadecimal(serial),
            fingerprint: hexadecimal(&super::client_auth::sha256(certificate)?),
            uris,
            dns,
            pem: percent_encoded(&pem(certificate)),
        })
    }

    /// The element of x-forwarded-client-cert, as Istio's gateways write it: hash, PEM, subject, URI and DNS names.
    pub(crate) fn forwarded(&self) -> Option<HeaderValue> {
        let mut text = format!(
            "Hash={};Cert=\"{}\";Subject=\"{}\"",
            self.fingerprint, self.pem, self.subject
        );
        // Envoy writes all URIs before the first DNS name.
        for (kind, names) in [("URI", &self.uris), ("DNS", &self.dns)] {
            for name in names {
                // Writing to a String does not fail.
                let _ = write!(text, ";{kind}={}", percent_encoded_separators(name));
            }
        }
        HeaderValue::from_bytes(text.as_bytes()).ok()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A name as RFC 2253 writes it, the last part first. What would end the quoted text it stands in is left out.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let attribute = |attribute: &AttributeTypeAndValue<'_>| {
        let known = oid2abbrev(attribute.attr_type(), oid_registry());
        let kind = known.map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
        let value = attribute.as_str().unwrap_or("");
        let value = value
            .chars()
            .filter(|c| !matches!(c, '"' | '\\') && !c.is_control());
        let mut escaped = String::new();
        for c in value {
            if matches!(c, ',' | '+' | '<' | '>' | ';') {
                escaped.push('\\');
            }
            escaped.push(c);
        }
        format!("{kind}={escaped}")
    };
    let parts = parts.iter().rev();
    let parts = parts.map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"));
    parts.collect::<Vec<_>>().join(",")
}

fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut column = 0;
    for group in der.chunks(3) {
        let bits = group
            .iter()
            .fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4usize {
            let digit = (bits >> (18 - 6 * place)) & 0x3f;
            text.push(match place <= group.len() {
                true => char::from(ALPHABET[digit as usize & 0x3f]),
                false => '=',
            });
        }
        column += 4;
        if column == 64 {
            text.push('\n');
            column = 0;
        }
    }
    if column > 0 {
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn percent_encoded(text: &str) -> String {
    encode(text, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
    })
}

/// Encodes what would end the element or the field.
fn percent_encoded_separators(text: &str) -> String {
    encode(text, |byte| {
        byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'=' | b'"' | b'\\')
    })
}

fn encode(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match is_plain(byte) {
            true => encoded.push(char::from(byte)),
            false => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(["a.com".to_owned(), "*.b.com".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI("spiffe://td/ns/x/sa/y".try_into().unwrap()));
        params
            .subject_alt_names
            .push(SanType::IpAddress([10, 0, 0, 1].into()));
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .clone()
    }

    #[test]
    fn names_of_every_kind_are_compared() {
        for (wanted, expected) in [
            ("a.com", true),
            ("A.COM", true),
            ("x.b.com", true),
            ("x.y.b.com", false),
            ("b.com", false),
            ("spiffe://td/ns/x/sa/y", true),
            ("spiffe://td/ns/x/sa/z", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
        ] {
            assert_eq!(
                has_one_of(&certificate(), &[wanted.to_owned()]),
                expected,
                "{wanted}"
            );
        }
    }

    #[test]
    fn the_upstream_learns_of_the_client_without_a_way_to_forge() {
        let text = Facts::of(&certificate()).unwrap().forwarded().unwrap();
        let text = text.to_str().unwrap();
        assert!(text.contains(";URI=spiffe://td/ns/x/sa/y"), "{text}");
        assert!(text.ends_with(";DNS=a.com;DNS=*.b.com"), "{text}");
        assert!(
            text.contains(";Cert=\"-----BEGIN%20CERTIFICATE-----%0A"),
            "{text}"
        );
        assert_eq!(percent_encoded_separators("a,b;c=\"d"), "a%2Cb%3Bc%3D%22d");
    }

    #[test]
    fn a_certificate_says_who_its_client_is() {
        let issuer = (CertificateParams::default(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(["a.com".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Acme, Inc.");
        params.distinguished_name.push(DnType::CommonName, "client");
        params.serial_number = Some(vec![0x80, 0xff, 1, 2].into());
        let issuer = rcgen::Issuer::new(issuer.0, issuer.1);
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let facts = Facts::of(certificate.der()).unwrap();
        assert_eq!(facts.subject, "O=Acme\\, Inc.,CN=client");
        assert_eq!(facts.issuer, "CN=rcgen self signed cert");
        assert_eq!(facts.serial, "80ff0102");
        assert_eq!(facts.fingerprint.len(), 64);
        assert_eq!((facts.uris, facts.dns), (vec![], vec!["a.com".to_owned()]));
        assert!(Facts::of(&CertificateDer::from(vec![0x30, 0])).is_none());
    }

    #[test]
    fn pem_is_what_others_read() {
        use rustls_pki_types::pem::PemObject;
        let certificate = certificate();
        assert_eq!(
            CertificateDer::from_pem_slice(pem(&certificate).as_bytes()).unwrap(),
            certificate
        );
    }
}
