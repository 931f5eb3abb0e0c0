//! The hub's keys: certificate authority, its own certificate, and the keys that sign documents and time.
//!
//! In: a directory. Out: certificates, signed envelopes, TLS material. Guarantees: keys are made once, on the first start, with
//! mode 0600, and refused where others can read them; a database whose keys are gone is refused rather than given new ones,
//! for every node would then be lost.

mod issue;
mod keys;

pub use issue::{CsrError, Issued, Request};
pub use keys::KeyError;

use crate::{broker::BrokerTls, database::nodes::IssuedCertificate, files};
use holdfast_protocol::{
    Digest,
    enrol::key_pin,
    envelope::{Envelope, TIME_TYPE, TimeStatement},
    seal::Zeroizing,
    trust::{Role, TrustPolicy, TrustedKey},
};
use jiff::Timestamp;
use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the keys are, below the data directory.
const DIRECTORY: &str = "keys";

/// Whether keys may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstStart {
    /// There is no database yet: make what is missing.
    Yes,
    /// There is a database: keys must be there.
    No,
}

/// All keys of the hub.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    pin: Digest,
    documents: Ed25519KeyPair,
    time: Ed25519KeyPair,
    sites: ring::hkdf::Prk,
}

/// What the join secrets of sites are derived under, so that they are of no use for anything else.
const SITES: &[u8] = b"holdfast site token v1";

impl Authority {
    /// Reads the keys below `data_dir`, or makes them on the first start.
    pub fn open(data_dir: &Path, first_start: FirstStart) -> Result<Self, KeyError> {
        let directory = data_dir.join(DIRECTORY);
        files::private_directory(&directory).map_err(|error| KeyError::io(&directory, &error))?;
        let key = keys::certificate_key(&directory.join("ca.key"), first_start)?;
        let documents = keys::signing_key(&directory.join("documents.key"), first_start)?;
        let time = keys::signing_key(&directory.join("time.key"), first_start)?;
        let sites = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, SITES).extract(&key.serialize_der());
        let pin = key_pin(&key.subject_public_key_info());
        let certificate_file = directory.join("ca.pem");
        if !certificate_file.exists() {
            // Made of the key alone, so it may be missing at any time: the pin in tokens is that of the key.
            let pem = issue::self_signed(&key)?;
            files::write(&certificate_file, pem.as_bytes(), files::PUBLIC)
                .map_err(|error| KeyError::io(&certificate_file, &error))?;
        }
        let certificate_pem = std::fs::read_to_string(&certificate_file)
            .map_err(|error| KeyError::io(&certificate_file, &error))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)
            .map_err(|error| KeyError::unusable(&certificate_file, &error))?;
        Ok(Self {
            directory,
            issuer,
            certificate_pem,
            pin,
            documents,
            time,
            sites,
        })
    }

    /// The CA certificate in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the CA's SubjectPublicKeyInfo: what enrolment tokens carry.
    pub fn pin(&self) -> Digest {
        self.pin
    }

    /// The secret by which the boxes of a site join each other, 64 hexadecimal digits. It is derived from the hub's CA key, so that it is
    /// nowhere at rest, and the same after the hub was restored from a backup.
    pub fn site_token(&self, site: &str) -> Result<Zeroizing<String>, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        let info = [site.as_bytes()];
        self.sites
            .expand(&info, ring::hkdf::HKDF_SHA256)
            .and_then(|derived| derived.fill(&mut *bytes))
            .map_err(|_| KeyError::issue(&"the join secret of a site cannot be derived"))?;
        let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or_default();
        let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        Ok(Zeroizing::new(digits.collect()))
    }

    /// Issues a certificate to a node.
    pub fn issue_node(&self, request: &Request, node: &str, lifetime: Duration) -> Result<Issued, KeyError> {
        issue::node(&self.issuer, request, node, lifetime)
    }

    /// Issues a certificate with a new key to a server of this hub, such as an external broker: (chain, key), both PEM.
    pub fn issue_server(
        &self,
        common_name: &str,
        names: &[String],
        lifetime: Duration,
    ) -> Result<(String, String), KeyError> {
        let (chain, key) = issue::server(&self.issuer, common_name, names, lifetime)?;
        Ok((format!("{chain}{}", self.certificate_pem), key))
    }

    /// Files for TLS; the hub's own certificate is among them after [`Self::renew_hub_certificate`].
    pub fn tls_files(&self) -> BrokerTls {
        BrokerTls {
            ca_file: self.directory.join("ca.pem"),
            certificate_file: self.directory.join("hub.pem"),
            key_file: self.directory.join("hub.key"),
            revoked_file: self.directory.join("revoked.pem"),
        }
    }

    /// Makes a new certificate for the hub itself where there is none, it is past two thirds of its life, or it does not name all of
    /// `names`. Gives the moment of the next renewal.
    pub fn renew_hub_certificate(&self, names: &[String], lifetime: Duration) -> Result<Timestamp, KeyError> {
        let tls = self.tls_files();
        if let Some(due) = issue::due(&tls.certificate_file, &tls.key_file, &self.certificate_pem, names)
            && due > Timestamp::now()
        {
            return Ok(due);
        }
        let (chain, key) = self.issue_server(crate::broker::HUB_IDENTITY, names, lifetime)?;
        for (path, content, mode) in [
            (&tls.key_file, key, files::PRIVATE),
            (&tls.certificate_file, chain, files::PUBLIC),
        ] {
            files::write(path, content.as_bytes(), mode).map_err(|error| KeyError::io(path, &error))?;
        }
        tracing::info!(names = names.join(","), "the hub's certificate was renewed");
        Ok(
            issue::due(&tls.certificate_file, &tls.key_file, &self.certificate_pem, names)
                .unwrap_or_else(Timestamp::now),
        )
    }

    /// Writes the list of revoked certificates: serial numbers (hex) with the time of their revocation.
    pub fn write_revoked(&self, number: i64, revoked: &[(String, Timestamp)]) -> Result<(), KeyError> {
        let path = self.tls_files().revoked_file;
        let pem = issue::revocation_list(&self.issuer, number, revoked)?;
        files::write(&path, pem.as_bytes(), files::PUBLIC).map_err(|error| KeyError::io(&path, &error))
    }

    /// Signs a desired-state document.
    pub fn sign_document(&self, payload_type: &str, payload: Vec<u8>) -> Envelope {
        Envelope::sign(payload_type, payload, &[&self.documents])
    }

    /// Signs the current time.
    pub fn signed_time(&self) -> Envelope {
        let statement = TimeStatement {
            time: Timestamp::now(),
        };
        // A struct of one text always serialises.
        let payload = serde_json::to_vec(&statement).unwrap_or_default();
        Envelope::sign(TIME_TYPE, payload, &[&self.time])
    }

    /// Which keys nodes shall trust for what.
    pub fn trust(&self) -> TrustPolicy {
        TrustPolicy {
            keys: vec![
                TrustedKey::ed25519(self.documents.public_key().as_ref(), vec![Role::DesiredState]),
                TrustedKey::ed25519(self.time.public_key().as_ref(), vec![Role::Time]),
            ],
            ..TrustPolicy::default()
        }
    }
}

impl Issued {
    /// What the database keeps of it.
    pub fn record(&self, key_digest: Digest) -> IssuedCertificate {
        IssuedCertificate {
            fingerprint: self.fingerprint,
            serial: self.serial.clone(),
            key_digest,
            not_after: self.not_after,
        }
    }
}
