//! The operating system of a box that runs an image of Holdfast: which one runs, and how another one gets there.
//!
//! ```text
//! check   signer, processor, room: before the first byte is written
//! stage   chunks from the running slot, then from the pack → the slot that does not run; read back; named in the partition table
//! install kernel image → the EFI system partition, last, with its boot counter
//!         (restart: systemd-boot tries it; what does not come up goes back by itself)
//! go_back the other slot's image is the one that boots next
//! ```
//!
//! In: the section `os` of a document, and the manifest that it names. Out: the image in the other slot, ready to boot. It guarantees that the slot
//! that runs is never written; that nothing at all is written for an image that cannot work; that a power cut at any point leaves a box that
//! boots, and work that goes on where it stopped; and that memory does not grow with the image.

mod efi;
mod error;
mod exchange;
mod fetch;
mod gpt;
mod layout;
mod pe;
mod running;
mod slots;
mod stage;
#[cfg(test)]
mod tests;

pub use efi::{TRIES, compare_versions};
pub use error::Fault;
pub use exchange::open;
pub use layout::Slot;
pub use running::{Places, RunningImage};

use crate::{artifacts::Fetcher, settings::Settings};
use efi::{Directory, State, Tries};
use holdfast_core::failure::Failure;
use holdfast_os::{Architecture, Manifest, SignedManifest};
use holdfast_protocol::{Digest, document::Artifact};
use layout::Layout;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// The image that a document wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its version.
    pub version: String,
    /// Its signed manifest, which is in the store.
    pub manifest: Artifact,
    /// The most bytes per second that are fetched for it.
    pub max_bytes_per_second: Option<u64>,
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booted {
    /// Its version.
    pub version: String,
    /// Root hash of its `/usr`.
    pub usr_hash: String,
    /// The slot that it runs from.
    pub slot: Slot,
    /// Whether it came up once. False while a new version is on trial.
    pub good: bool,
    /// How often it may still be tried, where that is counted.
    pub tries_left: Option<u32>,
    /// What is whole in the other slot and can be booted.
    pub other: Option<Other>,
}

/// The image in the other slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its version.
    pub version: String,
    /// Whether it came up once.
    pub good: bool,
}

/// An image that is whole in the other slot; its kernel image is not installed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its version.
    pub version: String,
    /// Digest of its manifest, as documents name it.
    pub digest: Digest,
    /// Its kernel image.
    uki: PathBuf,
    /// SHA-256 of that.
    uki_digest: Digest,
}

/// How far staging is, in bytes of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageProgress {
    /// Bytes that are in their place.
    pub done: u64,
    /// Bytes of the whole image: file system, hash tree and kernel image.
    pub total: u64,
    /// Bytes that were fetched for it in this run, packed.
    pub fetched: u64,
}

/// The operating system of this box. Clones share the work that goes on.
#[derive(Clone)]
pub struct Os {
    places: Places,
    /// Fetches; a process that only looks has none.
    fetcher: Option<Fetcher>,
    /// Bytes of the state partition that must stay free.
    reserve: u64,
    progress: watch::Sender<StageProgress>,
    /// Held by whoever writes.
    writing: Arc<Mutex<()>>,
}

impl Os {
    /// That of the box with these settings. Nothing is read yet.
    pub fn new(settings: &Settings, fetcher: Option<Fetcher>) -> Self {
        let mut os = Self::at(Places::of_box(&settings.state_dir), fetcher);
        os.reserve = settings.disk_reserve.0;
        os
    }

    /// One that is elsewhere.
    pub fn at(places: Places, fetcher: Option<Fetcher>) -> Self {
        Self {
            places,
            fetcher,
            reserve: 0,
            progress: watch::Sender::default(),
            writing: Arc::default(),
        }
    }

    /// What runs; none on a machine that runs no image of Holdfast's.
    pub async fn booted(&self) -> Result<Option<Booted>, Failure> {
        let places = self.places.clone();
        blocking(move || booted(&places)).await
    }

    /// Whether the running version is on trial; unknown where its kernel image is not found, as while the EFI system partition is not mounted.
    pub fn is_on_trial(&self) -> Option<bool> {
        let look = || {
            let Some(image) = self.places.image()? else {
                return Ok(Some(false));
            };
            let own = Directory::of(&self.places.esp).find(&image.version)?;
            Ok(own.map(|uki| matches!(uki.state, State::Trial(_))))
        };
        look().unwrap_or_else(|fault: Fault| {
            tracing::warn!(%fault, "the kernel images cannot be looked at");
            None
        })
    }

    /// Whether an image can be brought here, as far as that can be known without writing anything: its signer, its processor, and the room in
    /// slot, EFI system partition and state partition.
    pub async fn check(&self, wanted: &Wanted) -> Result<(), Failure> {
        let (os, wanted) = (self.clone(), wanted.clone());
        blocking(move || os.admit(&wanted).map(|_| ())).await
    }

    /// Whether what a document wants under the version that runs is what runs. A manifest that cannot be read or that nobody here trusts says nothing:
    /// nothing is to be written of it.
    pub async fn check_running(&self, wanted: &Wanted) -> Result<(), Failure> {
        let (os, wanted) = (self.clone(), wanted.clone());
        blocking(move || {
            let (Ok(Some(image)), Ok(signed)) = (os.places.image(), os.signed(&wanted)) else {
                return Ok(());
            };
            same(&image.version, &image.usr_hash, &signed.manifest)
        })
        .await
    }

    /// Has the image whole in the slot that does not run. What is there already is not fetched again, and where all is there this is how to get
    /// its [`Staged`]. Dropping this is cancelling it.
    pub async fn stage(&self, wanted: &Wanted, cancel: CancellationToken) -> Result<Staged, Failure> {
        Ok(Box::pin(stage::stage(self, wanted, &cancel)).await?)
    }

    /// How far staging is.
    pub fn progress(&self) -> watch::Receiver<StageProgress> {
        self.progress.subscribe()
    }

    /// Has the staged image boot next, with its boot counter. Idempotent.
    pub async fn install(&self, staged: &Staged) -> Result<(), Failure> {
        let _writing = self.writing.clone().lock_owned().await;
        let (places, staged) = (self.places.clone(), staged.clone());
        blocking(move || install(&places, &staged)).await
    }

    /// Has the image of the other slot boot next, under a counter of its own, so that a box to which it does not come up returns to what runs now.
    /// Where it cannot be booted, nothing changes. Idempotent.
    pub async fn go_back_to(&self, version: &str) -> Result<(), Failure> {
        let _writing = self.writing.clone().lock_owned().await;
        let (places, version) = (self.places.clone(), version.to_owned());
        blocking(move || go_back(&places, &version)).await
    }

    /// Puts the name of what runs right after it was found good: a version that stood back, and runs because the newer try failed, is the
    /// first again.
    pub async fn settle(&self) -> Result<(), Failure> {
        let _writing = self.writing.clone().lock_owned().await;
        let places = self.places.clone();
        blocking(move || settle(&places)).await
    }

    /// Has the boot loader not start the image of the other slot that waits for its first try, and go on with what runs. Idempotent.
    pub async fn disarm(&self, version: &str) -> Result<(), Failure> {
        let _writing = self.writing.clone().lock_owned().await;
        let (places, version) = (self.places.clone(), version.to_owned());
        blocking(move || disarm(&places, &version)).await
    }

    fn fetcher(&self) -> Result<&Fetcher, Fault> {
        self.fetcher
            .as_ref()
            .ok_or_else(|| Fault::Internal("this process fetches nothing".into()))
    }

    /// The manifest that is wanted, signed by who may.
    fn signed(&self, wanted: &Wanted) -> Result<SignedManifest, Fault> {
        let envelope = self.fetcher()?.blobs.read(wanted.manifest.digest)?;
        Ok(SignedManifest::verify(&envelope, &self.places.keys()?)?)
    }

    /// All that must hold before anything is written.
    fn admit(&self, wanted: &Wanted) -> Result<Admitted, Fault> {
        let places = &self.places;
        let (image, layout) = running_layout(places)?;
        let signed = self.signed(wanted)?;
        let manifest = &signed.manifest;
        let version = || manifest.version.clone();
        if manifest.version != wanted.version {
            return Err(Fault::OtherVersion {
                wanted: wanted.version.clone(),
                found: version(),
            });
        }
        let own = architecture()?;
        if manifest.architecture != own {
            return Err(Fault::Architecture {
                version: version(),
                found: manifest.architecture.to_string(),
                own: own.to_string(),
            });
        }
        same(&image.version, &image.usr_hash, manifest)?;
        let kernels = Directory::of(&places.esp);
        // What was tried and did not come up may be built anew under its version.
        if let Ok(other) = bootable_other(&layout, &kernels)
            && let Some(hash) = efi::inspect(&other).ok().and_then(|image| image.usr_hash)
        {
            same(&other.version, &hash, manifest)?;
        }
        for (what, needed, room) in [
            ("the file system", manifest.usr.size, layout.other.data.size),
            ("the hash tree", manifest.verity.size, layout.other.hash.size),
        ] {
            if needed > room {
                return Err(Fault::SlotTooSmall {
                    version: version(),
                    what,
                    needed,
                    room,
                });
            }
        }
        let (needed, room) = (manifest.uki.size + efi::SLACK, kernels.room(&image.version)?);
        if needed > room {
            return Err(Fault::EspFull {
                version: version(),
                needed,
                room,
            });
        }
        let (needed, room) = (manifest.uki.size + self.reserve, stage::room(&places.state)?);
        if needed > room {
            return Err(Fault::StateFull {
                version: version(),
                needed,
                room,
            });
        }
        Ok(Admitted {
            signed,
            image,
            layout,
            kernels,
        })
    }
}

/// An image that may be written, and where to.
struct Admitted {
    signed: SignedManifest,
    image: RunningImage,
    layout: Layout,
    kernels: Directory,
}

/// Refuses a manifest of this version whose root hash is another one: records, labels and people know images by their versions.
fn same(version: &str, usr_hash: &str, manifest: &Manifest) -> Result<(), Fault> {
    if manifest.version != version || manifest.usr_hash.eq_ignore_ascii_case(usr_hash) {
        return Ok(());
    }
    Err(Fault::SameVersion {
        version: version.to_owned(),
        own: usr_hash.to_owned(),
        found: manifest.usr_hash.clone(),
    })
}

fn architecture() -> Result<Architecture, Fault> {
    Architecture::current().ok_or_else(|| Fault::NoImage("there are no images for this processor".into()))
}

fn running_layout(places: &Places) -> Result<(RunningImage, Layout), Fault> {
    let image = places
        .image()?
        .ok_or_else(|| Fault::NoImage("its os-release is that of another system".into()))?;
    let layout = Layout::read(&places.disk()?, architecture()?, &image.usr_hash)?;
    Ok((image, layout))
}

fn booted(places: &Places) -> Result<Option<Booted>, Fault> {
    if places.image()?.is_none() {
        return Ok(None);
    }
    let (image, layout) = running_layout(places)?;
    let kernels = Directory::of(&places.esp);
    let own = kernels.find(&image.version)?;
    let (good, tries_left) = match own.map(|uki| uki.state) {
        Some(State::Trial(tries)) => (false, Some(tries.left)),
        // None: somebody took it away while it runs, and nothing counts its boots.
        Some(State::Good | State::StandsBack) | None => (true, None),
    };
    Ok(Some(Booted {
        slot: layout.running,
        good,
        tries_left,
        other: bootable_other(&layout, &kernels).ok().map(|uki| Other {
            good: uki.state == State::Good,
            version: uki.version,
        }),
        version: image.version,
        usr_hash: image.usr_hash,
    }))
}

/// The version that is not the running one and has no try left.
fn spent(places: &Places) -> Result<Option<String>, Fault> {
    let running = places.image()?.map(|image| image.version);
    let kernels = Directory::of(&places.esp).list()?;
    let spent = kernels
        .into_iter()
        .find(|uki| uki.is_exhausted() && Some(&uki.version) != running.as_ref());
    Ok(spent.map(|uki| uki.version))
}

/// The kernel image of the other slot, where both are whole and belong together; else why not.
fn bootable_other(layout: &Layout, kernels: &Directory) -> Result<efi::Uki, String> {
    let version = layout.other.version().ok_or("the other slot is empty")?;
    let uki = kernels
        .find(version)
        .map_err(|fault| fault.to_string())?
        .ok_or_else(|| format!("the kernel image of {version} is gone"))?;
    if uki.is_exhausted() {
        return Err(format!("{version} was tried and did not come up"));
    }
    let image = efi::inspect(&uki).map_err(|reason| format!("the kernel image of {version}: {reason}"))?;
    match image.usr_hash {
        Some(hash) if layout.other.is_of(&hash) => Ok(uki),
        Some(_) => Err(format!(
            "the other slot is not the one that the kernel image of {version} starts"
        )),
        None => Err(format!("the kernel image of {version} names no file system")),
    }
}

fn install(places: &Places, staged: &Staged) -> Result<(), Fault> {
    let (image, layout) = running_layout(places)?;
    let kernels = Directory::of(&places.esp);
    if layout.other.version() != Some(staged.version.as_str()) {
        return Err(Fault::Internal(format!(
            "{} is not in the other slot",
            staged.version
        )));
    }
    kernels.keep_only(&[image.version.as_str(), staged.version.as_str()])?;
    kernels.install(&staged.version, &staged.uki, staged.uki_digest)?;
    boot_next(&kernels, &image, &layout, &staged.version)
}

fn go_back(places: &Places, version: &str) -> Result<(), Fault> {
    let (image, layout) = running_layout(places)?;
    if image.version == version {
        return Ok(());
    }
    boot_next(&Directory::of(&places.esp), &image, &layout, version)
}

/// Has the other slot's image be the first that systemd-boot takes. First it gets its counter, which changes nothing as long as what runs is
/// newer; then, where that is so, what runs stands back. When neither comes up, both have no tries left, and the newer one is taken.
fn boot_next(kernels: &Directory, image: &RunningImage, layout: &Layout, version: &str) -> Result<(), Fault> {
    let no_way = |reason: String| Fault::NoWayBack {
        version: version.to_owned(),
        reason,
    };
    let uki = bootable_other(layout, kernels).map_err(no_way)?;
    if uki.version != version {
        return Err(no_way(format!("the other slot holds {}", uki.version)));
    }
    if !matches!(uki.state, State::Trial(_)) {
        kernels.arm(&uki, TRIES)?;
        crate::failpoint::reach("os-other-armed");
    }
    if compare_versions(&image.version, version).is_gt()
        && let Some(own) = kernels.find(&image.version)?
        && own.state != State::StandsBack
    {
        kernels.stand_back(&own)?;
    }
    Ok(())
}

fn disarm(places: &Places, version: &str) -> Result<(), Fault> {
    let (image, _) = running_layout(places)?;
    if image.version == version {
        return Ok(());
    }
    let kernels = Directory::of(&places.esp);
    // In this order something that is good is always the first.
    if let Some(own) = kernels.find(&image.version)?
        && own.state == State::StandsBack
    {
        kernels.bless(&own)?;
    }
    match kernels.find(version)? {
        Some(uki) if matches!(uki.state, State::Trial(Tries { left: 1.., .. })) => kernels.stand_back(&uki),
        _ => Ok(()),
    }
}

fn settle(places: &Places) -> Result<(), Fault> {
    let Some(image) = places.image()? else {
        return Ok(());
    };
    let kernels = Directory::of(&places.esp);
    let Some(own) = kernels.find(&image.version)? else {
        return Ok(());
    };
    // An older one that waits for its first try must not be overtaken.
    let waits = kernels.list()?.iter().any(|uki| {
        uki.version != image.version && matches!(uki.state, State::Trial(Tries { left: 1.., .. }))
    });
    if own.state == State::StandsBack && !waits {
        kernels.bless(&own)?;
    }
    Ok(())
}

/// Runs work that waits for disks beside everything else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Failure> {
    Ok(off_thread(work).await?)
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Fault::Internal(error.to_string())))
}
