//! The device key: ECDSA P-256, the curve that every broker accepts. Made once on the box; its private half never leaves it.

use super::{IdentityError, directory, write_private};
use holdfast_protocol::{Digest, enrol::key_pin};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
    SigningKey as _,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{fmt, fs, io, path::Path};

/// File of the key below the identity directory.
pub(super) const FILE: &str = "device.key";

/// The device key.
pub struct DeviceKey(KeyPair);

/// Shows which key it is, never the key.
impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.pin()).finish()
    }
}

impl DeviceKey {
    /// Reads the key below `directory`; `None` where there is none. A file that others can read is refused.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = directory.join(FILE);
        let pem = match fs::read_to_string(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IdentityError::io("read", &path)(error)),
        };
        directory::check(&path, 0o600)?;
        KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ECDSA_P256_SHA256)
            .map(|key| Some(Self(key)))
            .map_err(|error| IdentityError::Damaged {
                path,
                reason: error.to_string(),
            })
    }

    /// Reads the key below `directory`, or makes one and has it on the disk before it returns: what is sent out once must be there
    /// after a power cut, for the hub binds the token to it.
    pub fn load_or_make(directory: &Path) -> Result<Self, IdentityError> {
        if let Some(key) = Self::load(directory)? {
            return Ok(key);
        }
        let path = directory.join(FILE);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| IdentityError::io("make", &path)(io::Error::other(error)))?;
        write_private(&path, key.serialize_pem().as_bytes())?;
        Ok(Self(key))
    }

    /// SHA-256 of the public key's SubjectPublicKeyInfo: the name of the key at the hub.
    pub fn pin(&self) -> Digest {
        key_pin(&self.public_key_info())
    }

    /// SubjectPublicKeyInfo in DER.
    pub fn public_key_info(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A PKCS #10 certificate request in PEM. The hub does not look at its subject.
    pub fn certificate_request(&self, common_name: &str) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serialize_request(&self.0)?.pem()
    }

    /// ECDSA signature (ASN.1, SHA-256) of `message`.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }

    /// The private key for a TLS library in this process.
    pub fn for_tls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}
