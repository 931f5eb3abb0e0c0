//! Images of the operating system, as their build left them: a signed manifest and its pack.
//!
//! In: a manifest, or a directory with manifests. Out: what a document says of the image, and the two files that must be uploaded. Guarantees:
//! the manifest has the form that a box reads, it is signed, by one of the builder's keys where those are given, and the pack beside it is the one
//! that it names. Whether a box trusts the signer is for the box to say: the hub and the people at it need not know the builder's keys.

use crate::{
    Result, codes,
    directory::{measure, require_readable, unreadable},
};
use holdfast_os::{Architecture, MANIFEST_TYPE, MAX_MANIFEST_BYTES, Manifest, OsError, SignedManifest};
use holdfast_protocol::{
    Digest, Problem,
    document::Artifact,
    envelope::{Envelope, EnvelopeError},
    trust::TrustPolicy,
};
use serde_json::Map;
use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

/// What the names of manifests end with.
pub const MANIFEST_SUFFIX: &str = ".manifest.json";
/// What the names of packs end with.
pub const PACK_SUFFIX: &str = ".pack";
/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// An image on this machine.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is made of.
    pub manifest: Manifest,
    /// Its manifest, as a document names it.
    pub artifact: Artifact,
    /// The file of the manifest.
    pub file: PathBuf,
    /// The file of the pack.
    pub pack: PathBuf,
}

fn invalid(file: &Path, what: &str, action: &str) -> Problem {
    Problem::new(
        codes::RELEASE_INVALID,
        format!("{}: {what}", file.display()),
        action,
    )
}

/// Reads a manifest whose signers are not known here: its form, and that there are signatures of the right form.
///
/// # Errors
/// [`OsError`], as the box would say it.
pub fn peek(bytes: &[u8]) -> std::result::Result<Manifest, OsError> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(OsError::TooLarge {
            bytes: bytes.len(),
            max: MAX_MANIFEST_BYTES,
        });
    }
    let malformed = |reason: String| OsError::from(EnvelopeError::Malformed { reason });
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if envelope.payload_type != MANIFEST_TYPE {
        return Err(OsError::WrongType {
            found: envelope.payload_type.chars().take(80).collect(),
        });
    }
    if envelope.signatures.is_empty() {
        return Err(EnvelopeError::Unsigned.into());
    }
    for signature in &envelope.signatures {
        if signature.keyid.parse::<Digest>().is_err() || signature.sig.len() != SIGNATURE_BYTES {
            return Err(malformed(
                "a signature is none of Ed25519 by a key that is named by its digest".to_owned(),
            ));
        }
    }
    Manifest::from_payload(&envelope.payload)
}

/// Reads a file, and one byte more than it may have where it has more: whoever names the disk image in place of its manifest is told
/// so, without gigabytes in memory.
pub(crate) fn some_of(file: &Path, max: usize) -> Result<Vec<u8>> {
    require_readable(file)?;
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(max as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(file, &error))?;
    Ok(bytes)
}

/// Reads the builder's public keys, as the image holds them in `/usr/lib/holdfast/os-keys.json`.
pub fn keys(file: &Path) -> Result<TrustPolicy> {
    let bytes = some_of(file, MAX_MANIFEST_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        invalid(
            file,
            &format!("holds no keys: {error}"),
            "give the os-keys.json that the image was built with",
        )
    })
}

/// The manifests of images at a path: the file itself, or those of the directory, by name.
pub fn manifests(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| unreadable(path, &error))?.path();
        if file.is_file() && file.to_string_lossy().ends_with(MANIFEST_SUFFIX) {
            found.push(file);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(invalid(
            path,
            &format!("holds no manifest of an image (*{MANIFEST_SUFFIX})"),
            "build one: cargo xtask image",
        ));
    }
    Ok(found)
}

/// Reads a manifest alone, without its pack.
pub fn read(file: &Path, keys: Option<&TrustPolicy>) -> Result<(Manifest, Artifact)> {
    let bytes = some_of(file, MAX_MANIFEST_BYTES)?;
    let manifest = match keys {
        Some(keys) => SignedManifest::verify(&bytes, keys).map(|signed| signed.manifest),
        None => peek(&bytes),
    }
    .map_err(|error| {
        let Problem { action, .. } = error.problem();
        invalid(file, &error.to_string(), &action)
    })?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let artifact = Artifact {
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
        name: name.into_owned(),
        sources: Vec::new(),
        extra: Map::new(),
    };
    Ok((manifest, artifact))
}

/// Reads an image: its manifest, and the pack beside it, which is read once to see that it is the right one.
pub fn image(file: &Path, keys: Option<&TrustPolicy>) -> Result<Image> {
    let (manifest, artifact) = read(file, keys)?;
    let directory = file.parent().unwrap_or(Path::new("."));
    let stem = artifact.name.strip_suffix(MANIFEST_SUFFIX);
    let named = Path::new(&manifest.pack.name).file_name().map(Path::new);
    let mut candidates: Vec<PathBuf> = named
        .map(|name| directory.join(name))
        .into_iter()
        .chain(stem.map(|stem| directory.join(format!("{stem}{PACK_SUFFIX}"))))
        .collect();
    candidates.dedup();
    let Some(pack) = candidates.iter().find(|pack| pack.is_file()) else {
        let looked: Vec<String> = candidates.iter().map(|it| it.display().to_string()).collect();
        return Err(invalid(
            file,
            &format!("its pack is not beside it; looked for {}", looked.join(", ")),
            "keep the manifest and the pack of an image in one directory",
        ));
    };
    let (digest, size) = measure(pack)?;
    if digest != manifest.pack.digest || size != manifest.pack.size {
        return Err(invalid(
            pack,
            &format!(
                "{digest} of {size} bytes; the manifest names {} of {} bytes",
                manifest.pack.digest, manifest.pack.size
            ),
            "keep the pack that was written with this manifest beside it",
        ));
    }
    Ok(Image {
        pack: pack.clone(),
        manifest,
        artifact,
        file: file.to_owned(),
    })
}

/// What is wrong with the name of an architecture, where no box has it.
pub(crate) fn unknown_architecture(name: &str) -> Option<String> {
    let known = Architecture::ALL.map(Architecture::name);
    (!known.contains(&name)).then(|| {
        format!(
            "{name:?} is no architecture of a box; known are {}",
            known.join(", ")
        )
    })
}

/// Checks that a manifest is that of the image which a section of a release names.
///
/// # Errors
/// What differs, in words.
pub fn fits(manifest: &Manifest, version: &str, architecture: &str) -> std::result::Result<(), String> {
    if manifest.architecture.name() != architecture {
        return Err(format!(
            "the image is for {}, not for {architecture}",
            manifest.architecture
        ));
    }
    if manifest.version != version {
        return Err(format!(
            "the image has the version {}, and the release says {version}",
            manifest.version
        ));
    }
    Ok(())
}
