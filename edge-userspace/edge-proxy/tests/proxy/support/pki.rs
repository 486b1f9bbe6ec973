//! Certificates: an authority of the test's own, and what it signs.

use std::sync::Arc;

use edge_model::Certificate;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// An RSA key, which rcgen cannot make with ring: `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`. It
/// guards nothing.
const RSA_KEY: &str = include_str!("rsa.key.pem");

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) der: CertificateDer<'static>,
    /// DER of its SubjectPublicKeyInfo.
    pub(crate) public_key: Vec<u8>,
    serial: SerialNumber,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A certificate for DNS names and URIs, with an ECDSA key.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, &KeyPair::generate().unwrap())
    }

    /// The same with an RSA key.
    pub(crate) fn issue_rsa(&self, names: &[&str]) -> Issued {
        self.issue_with(names, &KeyPair::from_pem(RSA_KEY).unwrap())
    }

    fn issue_with(&self, names: &[&str], key: &KeyPair) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.contains("://") {
                true => SanType::URI((*name).try_into().unwrap()),
                false => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        let serial = SerialNumber::from(fastrand::u64(1..));
        params.serial_number = Some(serial.clone());
        params.distinguished_name.push(DnType::OrganizationName, "Shop");
        params
            .distinguished_name
            .push(DnType::CommonName, *names.first().unwrap());
        let signed = params.signed_by(key, &self.0).unwrap();
        Issued {
            certificate: Arc::new(Certificate {
                chain_pem: signed.pem().into_bytes(),
                key_pem: key.serialize_pem().into_bytes(),
                ocsp_staple: None,
            }),
            public_key: rcgen::PublicKeyData::subject_public_key_info(key),
            der: signed.der().clone(),
            serial,
        }
    }

    /// A list that revokes the given certificates.
    pub(crate) fn revoke(&self, revoked: &[&Issued]) -> Vec<u8> {
        let revoked_certs = revoked.iter().map(|issued| RevokedCertParams {
            serial_number: issued.serial.clone(),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap().into_bytes()
    }
}

impl Issued {
    /// Chain and key as rustls takes them.
    pub(crate) fn chain_and_key(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from_pem_slice(&self.certificate.key_pem).unwrap();
        (vec![self.der.clone()], key)
    }

    /// The same, ready to sign.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        let (chain, key) = self.chain_and_key();
        let provider = rustls::crypto::ring::default_provider();
        Arc::new(CertifiedKey::from_der(chain, key, &provider).unwrap())
    }
}
