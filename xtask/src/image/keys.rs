//! The builder's keys: an Ed25519 key that signs images and manifests of updates, and an RSA key and certificate for Secure Boot.
//!
//! In: a directory outside the repository. Out: `image.key` (PKCS #8, PEM), `image.pub.json` (the trust policy that is baked into images),
//! `secure-boot.key`, `secure-boot.crt`. Guarantees: keys that are there are never replaced; private keys are readable by their owner alone.

use crate::{files, shell};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use holdfast_protocol::trust::{Role, TrustPolicy, TrustedKey};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// How long a Secure Boot certificate is valid. Firmware does not look at it; tools warn about it.
const SECURE_BOOT_DAYS: &str = "7300";

#[derive(Args)]
pub struct Options {
    /// Directory for the keys [default: target/image/keys]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<()> {
    let keys = Keys::in_directory(options.keys.as_deref());
    keys.make_missing()?;
    println!("{}", keys.directory.display());
    Ok(())
}

/// The keys in a directory.
pub struct Keys {
    directory: PathBuf,
}

impl Keys {
    /// Those of the directory given, else those below `target/image`.
    pub fn in_directory(given: Option<&Path>) -> Self {
        let directory = match given {
            Some(directory) => shell::given(directory),
            None => shell::root().join("target/image/keys"),
        };
        Self { directory }
    }

    pub fn secure_boot_key(&self) -> PathBuf {
        self.directory.join("secure-boot.key")
    }

    pub fn secure_boot_certificate(&self) -> PathBuf {
        self.directory.join("secure-boot.crt")
    }

    /// The public half of the image key as a trust policy, as the node reads it.
    pub fn trust(&self) -> PathBuf {
        self.directory.join("image.pub.json")
    }

    fn image_key(&self) -> PathBuf {
        self.directory.join("image.key")
    }

    /// Makes what is not there yet.
    pub fn make_missing(&self) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .with_context(|| format!("cannot make {}", self.directory.display()))?;
        self.require_pairs()?;
        if !self.image_key().exists() {
            let key = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
                .map_err(|_| anyhow::anyhow!("this machine gives no random numbers"))?;
            write_private(&self.image_key(), pem(key.as_ref()).as_bytes())?;
        }
        let policy = TrustPolicy {
            keys: vec![TrustedKey::ed25519(
                self.signer()?.public_key().as_ref(),
                vec![Role::OsImage],
            )],
            ..TrustPolicy::default()
        };
        let mut text = serde_json::to_string_pretty(&policy)?;
        text.push('\n');
        files::replace(self.trust(), text)?;
        if !self.secure_boot_key().exists() {
            let new = self.directory.join("secure-boot.key.new");
            let new_certificate = self.new_certificate();
            // What an attempt left that was cut off is of no use.
            for left in [&new, &new_certificate] {
                if left.exists() {
                    fs::remove_file(left).with_context(|| format!("cannot remove {}", left.display()))?;
                }
            }
            write_private(&new, b"")?;
            shell::run(
                shell::command("openssl")
                    .args([
                        "req", "-batch", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256",
                    ])
                    .args(["-subj", "/CN=Holdfast image builder/", "-days", SECURE_BOOT_DAYS])
                    .arg("-keyout")
                    .arg(&new)
                    .arg("-out")
                    .arg(&new_certificate),
            )?;
            fs::rename(&new, self.secure_boot_key())?;
        }
        if !self.secure_boot_certificate().exists() {
            fs::rename(self.new_certificate(), self.secure_boot_certificate())?;
        }
        Ok(())
    }

    /// Where the certificate lies until its key has its name.
    fn new_certificate(&self) -> PathBuf {
        self.directory.join("secure-boot.crt.new")
    }

    /// Refuses a public half whose private half was lost, and a key without its certificate: a new pair in their place would make
    /// images whose boxes take no update of the old ones, and nobody would hear of it before.
    fn require_pairs(&self) -> Result<()> {
        for (there, missing) in [
            (self.trust(), self.image_key()),
            (self.secure_boot_certificate(), self.secure_boot_key()),
        ] {
            if there.exists() && !missing.exists() {
                bail!(
                    "{} is there, but not {}, its other half: restore it from a copy, or name another directory for new keys; \
                     boxes of earlier images take no update that is signed by new ones",
                    there.display(),
                    missing.display()
                );
            }
        }
        if self.secure_boot_key().exists()
            && !self.secure_boot_certificate().exists()
            && !self.new_certificate().exists()
        {
            bail!(
                "{} is there, but not {}: restore it from a copy, or take it from where the results of an earlier build are",
                self.secure_boot_key().display(),
                self.secure_boot_certificate().display()
            );
        }
        Ok(())
    }

    /// The key that signs.
    pub fn signer(&self) -> Result<Ed25519KeyPair> {
        let path = self.image_key();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: run `cargo xtask image keys`", path.display()))?;
        let Some(der) = from_pem(&text) else {
            bail!("{} is no private key in PEM form", path.display());
        };
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|error| anyhow::anyhow!("{} is no Ed25519 key: {error}", path.display()))
    }
}

fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn pem(der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

fn from_pem(text: &str) -> Option<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let body = text
        .split_once("-----BEGIN PRIVATE KEY-----")?
        .1
        .split_once("-----END PRIVATE KEY-----")?
        .0;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write plain files")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_are_made_once_and_are_their_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::in_directory(Some(&directory.path().join("keys")));
        assert!(
            shell::find("openssl").is_some(),
            "openssl is missing: cargo xtask prerequisites --for image"
        );
        keys.make_missing().unwrap();
        let (first, certificate) = (
            fs::read(keys.image_key()).unwrap(),
            fs::read(keys.secure_boot_certificate()).unwrap(),
        );
        keys.make_missing().unwrap();
        assert_eq!(fs::read(keys.image_key()).unwrap(), first);
        assert_eq!(fs::read(keys.secure_boot_certificate()).unwrap(), certificate);
        for private in [keys.image_key(), keys.secure_boot_key()] {
            assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let policy: TrustPolicy = serde_json::from_slice(&fs::read(keys.trust()).unwrap()).unwrap();
        assert_eq!(
            policy.keys[0].public,
            keys.signer().unwrap().public_key().as_ref()
        );
        assert_eq!(policy.keys[0].roles, [Role::OsImage]);
    }

    #[test]
    fn half_of_a_pair_is_never_replaced_by_a_new_pair() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::in_directory(Some(&directory.path().join("keys")));
        keys.make_missing().unwrap();
        for lost in [
            keys.image_key(),
            keys.secure_boot_key(),
            keys.secure_boot_certificate(),
        ] {
            let content = fs::read(&lost).unwrap();
            fs::remove_file(&lost).unwrap();
            let told = keys.make_missing().unwrap_err().to_string();
            assert!(told.contains(&lost.display().to_string()), "{told}");
            assert!(!lost.exists(), "{} was made anew", lost.display());
            fs::write(&lost, content).unwrap();
        }
        keys.make_missing().unwrap();
    }

    #[test]
    fn keys_whose_making_was_cut_off_are_made_by_the_next_attempt() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::in_directory(Some(directory.path()));
        for left in ["secure-boot.key.new", "secure-boot.crt.new"] {
            fs::write(directory.path().join(left), "torn").unwrap();
        }
        keys.make_missing().unwrap();
        let certificate = fs::read(keys.secure_boot_certificate()).unwrap();
        // The cut was between the two names.
        fs::rename(keys.secure_boot_certificate(), keys.new_certificate()).unwrap();
        keys.make_missing().unwrap();
        assert_eq!(fs::read(keys.secure_boot_certificate()).unwrap(), certificate);
    }
}
