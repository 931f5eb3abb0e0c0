//! The sealing key: X25519, what values for this box alone are sealed to. Made once on the box; its private half never leaves it.
//!
//! It is apart from the device key because it does another thing: whoever gets hold of one of them has not got the other.

use super::{DeviceKey, IdentityError, directory, write_private};
use holdfast_protocol::{seal::SealingKey, sealing::SealingKeyStatement};
use std::{fs, io, path::Path};

/// File of the key below the identity directory: 32 raw bytes.
pub(super) const FILE: &str = "sealing.key";
/// Where a file that holds no key is put aside.
const DAMAGED: &str = "sealing.key.damaged";

/// Reads the key below `directory`; `None` where there is none. A file that others can read is refused.
pub fn load(directory: &Path) -> Result<Option<SealingKey>, IdentityError> {
    let path = directory.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => holdfast_protocol::seal::Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IdentityError::io("read", &path)(error)),
    };
    directory::check(&path, 0o600)?;
    SealingKey::from_bytes(&bytes)
        .map(Some)
        .ok_or_else(|| IdentityError::Damaged {
            path,
            reason: format!("it has {} bytes, and a key has 32", bytes.len()),
        })
}

/// Reads the key below `directory`, or makes one and has it on the disk before it returns. A damaged one is put aside: the hub is
/// told the new one, and what was sealed to the old one is sealed again by an operator, who need not come for it.
pub(super) fn load_or_make(directory: &Path) -> Result<SealingKey, IdentityError> {
    let path = directory.join(FILE);
    match load(directory) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => {}
        Err(IdentityError::Damaged { reason, .. }) => {
            tracing::warn!(path = %path.display(), reason, "the sealing key is damaged; it is put aside and a new one made");
            fs::rename(&path, directory.join(DAMAGED)).map_err(IdentityError::io("put aside", &path))?;
        }
        Err(other) => return Err(other),
    }
    let key = SealingKey::generate();
    write_private(&path, &key.to_bytes())?;
    Ok(key)
}

/// What the box says to the hub of its key.
pub fn statement(key: &SealingKey, device: &DeviceKey) -> Result<SealingKeyStatement, rcgen::Error> {
    let key = key.public();
    Ok(SealingKeyStatement {
        key,
        signature: device.sign(&SealingKeyStatement::signed_bytes(&key))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn the_key_is_made_once_and_is_nobody_elses_to_read() {
        let directory = directory();
        let made = load_or_make(directory.path()).unwrap();
        let file = directory.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(load_or_make(directory.path()).unwrap().public(), made.public());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load_or_make(directory.path()),
            Err(IdentityError::ModeTooWide { .. })
        ));
    }

    #[test]
    fn a_damaged_key_is_put_aside_and_a_new_one_made() {
        let directory = directory();
        let old = load_or_make(directory.path()).unwrap();
        write_private(&directory.path().join(FILE), b"half").unwrap();
        assert!(matches!(
            load(directory.path()),
            Err(IdentityError::Damaged { .. })
        ));
        let new = load_or_make(directory.path()).unwrap();
        assert_ne!(new.public(), old.public());
        assert_eq!(fs::read(directory.path().join(DAMAGED)).unwrap(), b"half");
    }
}
