//! The seed: what a box runs that was flashed and never heard of a hub.
//!
//! In: the release that the image of the box holds. Out: a document in the store, and an identity that trusts this document alone. Guarantees: it
//! is taken only where no document was ever accepted; nothing of it is stored before it passed admission, and its files before they were read
//! whole and had the right digests; after that it is kept up, survives restarts and can be gone back to like a document of a hub, whose first
//! one replaces it.
//!
//! Why it is trusted: it lies where the program itself comes from, in the read-only part of the image, which dm-verity checks with every read. Who
//! can change the one can change the other. So it needs no signature of its own; the one that admission demands is made here, with a key that is
//! dropped at once, so that what is in the store is as safe from later changes as any other document.

mod run;

pub use run::{Running, settings_after, start};

use crate::{
    codes,
    enrol::client::requested_name,
    identity::{Identity, IdentityError, write_private},
    settings::Settings,
};
use holdfast_core::{
    admission::{
        Admission,
        seed::{self, SEED_GENERATION, SeedTrust},
    },
    reconcile::ARCHITECTURE,
};
use holdfast_protocol::{
    NodeId, Problem, SchemaVersion, codes as shared,
    event::{Event, EventKind, Severity},
};
use holdfast_release::seed as release;
use holdfast_store::{BlobError, Blobs, Store};
use jiff::Timestamp;
use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
use serde_json::Map;
use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// File of the trust below the identity directory.
const FILE: &str = "seed.json";
/// What a box calls itself that has no usable host name.
const NAMELESS: &str = "box";

/// What vouches for the seed that this box took; none where it took none.
pub fn trust(identity_dir: &Path) -> Result<Option<SeedTrust>, IdentityError> {
    let path = identity_dir.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(IdentityError::Io {
                action: "read",
                path,
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| IdentityError::Damaged {
            path,
            reason: error.to_string(),
        })
}

/// The identity of a box without a hub that runs the seed of its image; none where there is none, or where the box ran documents of a hub.
pub fn identity(settings: &Settings, store: &Store, now: Timestamp) -> Result<Option<Identity>, Problem> {
    let directory = settings.identity_dir();
    let known = trust(&directory).unwrap_or_else(|error| {
        tracing::warn!("what vouches for the seed is made anew: {error}");
        None
    });
    let highest = store.highest().map_err(|error| error.problem())?;
    if highest.is_some_and(|highest| highest.generation > SEED_GENERATION) {
        return Ok(None);
    }
    let trust = match (highest, known) {
        // An image with another seed changes nothing: what runs was taken once and for all.
        (Some(highest), Some(known)) if highest.stored => Some(known),
        (highest, known) => {
            if let Some(lost) = highest.filter(|highest| highest.stored) {
                store.discard(lost.digest).map_err(|error| error.problem())?;
            }
            take(settings, store, known.map(|known| known.node), now)?
        }
    };
    trust
        .map(|trust| Identity::of_seed(&directory, trust))
        .transpose()
        .map_err(|error| Problem::from(&error))
}

/// Takes the seed of the image into the store; none where the image holds none.
fn take(
    settings: &Settings,
    store: &Store,
    name: Option<NodeId>,
    now: Timestamp,
) -> Result<Option<SeedTrust>, Problem> {
    let directory = &settings.artifacts.seed;
    let Some(found) = release::read(directory)? else {
        return Ok(None);
    };
    check_owner(directory)?;
    check_owner(&directory.join(release::FILE))?;
    let node = match name.or_else(|| requested_name(settings)) {
        Some(node) => node,
        None => NAMELESS
            .parse()
            .map_err(|error| internal(&format!("{NAMELESS}: {error}")))?,
    };
    let state = found.document(node, SEED_GENERATION);
    let random = |_| internal("the machine gives no randomness");
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(random)?;
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).map_err(|error| internal(&error.to_string()))?;
    let (envelope, trust) = seed::sign(&state, key).map_err(|error| internal(&error.to_string()))?;
    let highest = store.highest().map_err(|error| error.problem())?;
    let document = match seed::admit(&envelope, &trust, highest).map_err(|rejection| rejection.problem)? {
        Admission::Accept(document) => document,
        Admission::Duplicate { .. } => return Ok(Some(trust)),
    };
    adopt(settings, &found)?;
    let json = serde_json::to_vec_pretty(&trust).map_err(|error| internal(&error.to_string()))?;
    write_private(&settings.identity_dir().join(FILE), &json).map_err(|error| Problem::from(&error))?;
    let taken = Event {
        schema: SchemaVersion::CURRENT,
        node: trust.node.clone(),
        sequence: 0,
        at: now,
        kind: EventKind::DocumentAccepted,
        severity: Severity::Info,
        message: "no hub has sent a document yet: the release that came with the image was taken".to_owned(),
        generation: Some(SEED_GENERATION),
        problem: None,
        details: Map::new(),
    };
    store
        .commit(&document, &[taken], now)
        .map_err(|error| error.problem())?;
    store.flush_floor().map_err(|error| error.problem())?;
    tracing::info!(directory = %directory.display(), node = %trust.node, "the seed of the image was taken");
    Ok(Some(trust))
}

/// Takes the files of the seed into the store, each after it was read whole. What is not there may be elsewhere in the image; it is looked for
/// there when it is needed.
fn adopt(settings: &Settings, found: &release::Seed) -> Result<(), Problem> {
    let blobs = Blobs::open(&settings.state_dir).map_err(|error| error.problem())?;
    for (digest, size) in release::needed(&found.content, ARCHITECTURE) {
        let file: PathBuf = settings
            .artifacts
            .seed
            .join(release::ARTIFACTS)
            .join(digest.hex());
        match blobs.adopt(digest, size, &file) {
            Ok(()) | Err(BlobError::Missing { .. }) => {}
            Err(error) => {
                return Err(Problem::new(
                    codes::SEED_UNUSABLE,
                    format!("{}: {error}", file.display()),
                    "build the image again, with a seed that holdfastctl release render wrote",
                ));
            }
        }
    }
    Ok(())
}

/// Refuses a seed that others than root and the user of Holdfast could have written.
fn check_owner(path: &Path) -> Result<(), Problem> {
    let unusable = |what: String| {
        Problem::new(
            codes::SEED_UNUSABLE,
            format!("{} {what}", path.display()),
            "let it belong to root, and let nobody else write there",
        )
    };
    let metadata = fs::metadata(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(unusable(format!("has mode {mode:04o}; others could change it")));
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(unusable(format!("belongs to user {owner}")));
    }
    Ok(())
}

fn internal(message: &str) -> Problem {
    Problem::new(
        shared::INTERNAL,
        format!("the seed of the image: {message}"),
        "report this with the log of the same moment",
    )
}
