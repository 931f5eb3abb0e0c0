//! A CA and what it issues, as the hub's own would: certificates of nodes, of the hub and of a broker, and a revocation list.

use holdfast_hub::broker::{BrokerTls, HUB_IDENTITY};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A certificate authority.
pub struct Authority {
    pub certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    serials: AtomicU64,
}

/// A certificate and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub serial: u64,
    pem: String,
    key_pem: String,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            serial: self.serial,
            pem: self.pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Holdfast hub CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            serials: AtomicU64::new(1),
        }
    }

    pub fn node(&self, name: &str) -> Identity {
        self.issue(name, |_| {})
    }

    pub fn expired(&self, name: &str) -> Identity {
        self.issue(name, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        })
    }

    pub fn server(&self, name: &str) -> Identity {
        self.issue(name, |params| {
            params.subject_alt_names = vec![rcgen::SanType::IpAddress("127.0.0.1".parse().unwrap())];
        })
    }

    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            serial,
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Writes the files of a broker or of the hub.
    pub fn files(&self, directory: &Path, name: &str) -> BrokerTls {
        let identity = self.server(name);
        let write = |file: &str, content: &str| -> PathBuf {
            let path = directory.join(format!("{name}-{file}"));
            std::fs::write(&path, content).unwrap();
            path
        };
        let tls = BrokerTls {
            ca_file: write("ca.pem", &self.pem),
            certificate_file: write("certificate.pem", &identity.pem),
            key_file: write("key.pem", &identity.key_pem),
            revoked_file: directory.join("revoked.pem"),
        };
        self.revoke(&tls.revoked_file, &[]);
        tls
    }

    /// The hub's own files.
    pub fn hub(&self, directory: &Path) -> BrokerTls {
        self.files(directory, HUB_IDENTITY)
    }

    /// Writes a revocation list.
    pub fn revoke(&self, file: &Path, revoked: &[&Identity]) {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(revoked.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|identity| RevokedCertParams {
                    serial_number: SerialNumber::from(identity.serial),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(file, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
    }
}
