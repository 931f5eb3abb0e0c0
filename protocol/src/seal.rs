//! Sealing of values to one box, and opening them there: HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256
//! and ChaCha20-Poly1305.
//!
//! In: a box's public key, the name that a value is used under, the value. Out: a [`Sealed`]; and back, with the private key.
//! Guarantees: a value opens under no other name and with no other key; no error and no debug output holds a value or a private key;
//! what was opened is wiped from memory when it is dropped.

use crate::{Digest, document::Sealed, sealing::SealingPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hpke::{
    Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _, aead::ChaCha20Poly1305,
    kdf::HkdfSha256, kem::X25519HkdfSha256,
};
use std::fmt;
pub use zeroize::Zeroizing;

/// `info` of every value that Holdfast seals.
pub const INFO: &[u8] = b"holdfast sealed v1";

/// The largest value that is sealed, in bytes (64 KiB): sealed values travel within the document, which has a limit itself.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

type Kem = X25519HkdfSha256;

/// Why a value cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The public key is one that nothing can be sealed to.
    #[error("the box's sealing key {0} cannot be used: it is not a point that X25519 can agree with")]
    Key(Digest),
    /// The value is too large.
    #[error("the value has {0} bytes; at most {MAX_VALUE_BYTES}")]
    TooLarge(usize),
    /// Sealed to a key that this box does not have.
    #[error("it is sealed to an older or another key ({sealed_to}); this box's key is {own}")]
    OtherKey {
        /// Digest of the key that it was sealed to.
        sealed_to: Digest,
        /// Digest of this box's key.
        own: Digest,
    },
    /// Not in the form that sealed values have.
    #[error("it is damaged: its {0} cannot be read")]
    Malformed(&'static str),
    /// Changed on its way, or used under another name than it was sealed for.
    #[error("it does not open as {name:?}: it was changed on its way, or sealed for another place")]
    Refused {
        /// The name that it was tried under.
        name: String,
    },
}

/// The private key of a box. Shows which key it is, never the key.
pub struct SealingKey {
    private: <Kem as hpke::Kem>::PrivateKey,
    public: SealingPublicKey,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SealingKey").field(&self.public.digest()).finish()
    }
}

impl SealingKey {
    /// A new key, from the system's random numbers.
    pub fn generate() -> Self {
        Self::of(Kem::gen_keypair().0)
    }

    /// The key of these raw bytes; `None` where they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        <Kem as hpke::Kem>::PrivateKey::from_bytes(bytes)
            .ok()
            .map(Self::of)
    }

    fn of(private: <Kem as hpke::Kem>::PrivateKey) -> Self {
        let public = SealingPublicKey(Kem::sk_to_pk(&private).to_bytes().into());
        Self { private, public }
    }

    /// The raw bytes, for the box's own disk.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.private.to_bytes().to_vec())
    }

    /// The public half.
    pub fn public(&self) -> SealingPublicKey {
        self.public
    }

    /// Opens what was sealed to this key under `name`.
    pub fn open(&self, name: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let own = self.public.digest();
        if sealed.key != own {
            return Err(SealError::OtherKey {
                sealed_to: sealed.key,
                own,
            });
        }
        let decode = |text: &str, what| {
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| SealError::Malformed(what))
        };
        let encapsulated = decode(&sealed.encapsulated, "encapsulated key")?;
        let ciphertext = decode(&sealed.ciphertext, "ciphertext")?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&encapsulated)
            .map_err(|_| SealError::Malformed("encapsulated key"))?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &self.private,
            &encapsulated,
            INFO,
            &ciphertext,
            name.as_bytes(),
        )
        .map(Zeroizing::new)
        .map_err(|_| SealError::Refused {
            name: name.to_owned(),
        })
    }
}

/// Seals `value` so that only the box with this key can open it, and only under `name`.
pub fn seal(to: &SealingPublicKey, name: &str, value: &[u8]) -> Result<Sealed, SealError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(SealError::TooLarge(value.len()));
    }
    let unusable = |_| SealError::Key(to.digest());
    let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&to.0).map_err(unusable)?;
    let (encapsulated, ciphertext) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        &public,
        INFO,
        value,
        name.as_bytes(),
    )
    .map_err(unusable)?;
    Ok(Sealed {
        key: to.digest(),
        encapsulated: URL_SAFE_NO_PAD.encode(encapsulated.to_bytes()),
        ciphertext: URL_SAFE_NO_PAD.encode(ciphertext),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hpke::rand_core::{TryCryptoRng, TryRng};

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// Gives the bytes that the test vector names, once.
    struct Given(Vec<u8>);

    impl TryRng for Given {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            unreachable!("keys are filled byte by byte")
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            unreachable!("keys are filled byte by byte")
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
            let rest = self.0.split_off(out.len());
            out.copy_from_slice(&self.0);
            self.0 = rest;
            Ok(())
        }
    }

    impl TryCryptoRng for Given {}

    /// RFC 9180, A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode, sequence number 0.
    #[test]
    fn the_cipher_suite_is_that_of_rfc_9180() {
        let info = hex("4f6465206f6e2061204772656369616e2055726e");
        let plaintext = hex("4265617574792069732074727574682c20747275746820626561757479");
        let aad = hex("436f756e742d30");
        let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(&hex(
            "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        ))
        .unwrap();
        let public = Kem::sk_to_pk(&private);
        assert_eq!(
            public.to_bytes().to_vec(),
            hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
        );
        let mut random = Given(hex(
            "909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b",
        ));
        let (encapsulated, ciphertext) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
                &OpModeS::Base,
                &public,
                &info,
                &plaintext,
                &aad,
                &mut random,
            )
            .unwrap();
        assert_eq!(
            encapsulated.to_bytes().to_vec(),
            hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
        );
        assert_eq!(
            ciphertext,
            hex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")
        );
    }

    #[test]
    fn a_value_opens_with_its_key_under_its_name_and_in_no_other_way() {
        let key = SealingKey::generate();
        let sealed = seal(&key.public(), "secret/db", b"hunter2").unwrap();
        assert_eq!(key.open("secret/db", &sealed).unwrap().as_slice(), b"hunter2");
        assert!(matches!(
            key.open("secret/other", &sealed),
            Err(SealError::Refused { .. })
        ));

        let other = SealingKey::generate();
        assert!(matches!(
            other.open("secret/db", &sealed),
            Err(SealError::OtherKey { .. })
        ));
        // Whoever changes the digest as well only gets as far as the cipher.
        let relabelled = Sealed {
            key: other.public().digest(),
            ..sealed.clone()
        };
        assert!(matches!(
            other.open("secret/db", &relabelled),
            Err(SealError::Refused { .. })
        ));

        let second = seal(&key.public(), "secret/db", b"hunter2").unwrap();
        assert_ne!(
            sealed.ciphertext, second.ciphertext,
            "equal values must not look equal"
        );
        let mixed = Sealed {
            encapsulated: second.encapsulated,
            ..sealed.clone()
        };
        assert!(matches!(
            key.open("secret/db", &mixed),
            Err(SealError::Refused { .. })
        ));
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let key = SealingKey::generate();
        let sealed = seal(&key.public(), "secret/db", b"hunter2").unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&sealed.ciphertext).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = Sealed {
                ciphertext: URL_SAFE_NO_PAD.encode(changed),
                ..sealed.clone()
            };
            assert!(key.open("secret/db", &changed).is_err(), "byte {at}");
        }
        for (encapsulated, ciphertext) in [
            ("", sealed.ciphertext.as_str()),
            (&sealed.encapsulated, ""),
            ("!", "!"),
        ] {
            let changed = Sealed {
                encapsulated: encapsulated.into(),
                ciphertext: ciphertext.into(),
                ..sealed.clone()
            };
            assert!(key.open("secret/db", &changed).is_err());
        }
    }

    #[test]
    fn a_key_comes_back_from_its_bytes_and_never_shows_itself() {
        let key = SealingKey::generate();
        let again = SealingKey::from_bytes(&key.to_bytes()).unwrap();
        assert_eq!(again.public(), key.public());
        assert!(SealingKey::from_bytes(&[1; 31]).is_none());
        let shown = format!("{key:?}");
        assert_eq!(shown, format!("SealingKey({:?})", key.public().digest()));
    }

    #[test]
    fn a_key_that_agrees_with_nothing_is_refused() {
        // The point of order one: every agreement with it is zero.
        assert!(seal(&SealingPublicKey([0; 32]), "secret/db", b"x").is_err());
    }
}
