//! Has an image whole in the slot that does not run.
//!
//! In: an admitted manifest. Out: the slot, filled, read back, and named. First the kernel image comes to the state partition, which differs for
//! every image: only a pack that can be had, and is what the manifest says, costs the box what the slot held. That is nobody's from before the
//! first byte is written until all is read back, and its kernel image is gone before: no half-written slot is ever booted. All of it can be cut at
//! any point and is begun anew; what is in its place already is found there.

use super::{
    Admitted, Os, StageProgress, Staged, Wanted,
    error::Fault,
    fetch, off_thread,
    slots::{Slots, Stretch, Target, Which},
};
use crate::failpoint;
use holdfast_store::fs::create_private_directory;
use nix::fcntl::posix_fallocate;
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

/// Work on an image. It is handed from task to task, and whoever holds it holds the lock.
pub struct Job {
    pub(super) slots: Slots,
    admitted: Admitted,
    uki: PathBuf,
    progress: watch::Sender<StageProgress>,
    pub(super) fetched: u64,
    _writing: OwnedMutexGuard<()>,
}

impl Job {
    /// Says how far it is.
    pub(super) fn show(&self) {
        let now = StageProgress {
            done: self.slots.done(),
            total: self.slots.total(),
            fetched: self.fetched,
        };
        self.progress.send_if_modified(|shown| {
            let is_new = *shown != now;
            *shown = now;
            is_new
        });
    }

    /// Whether the slot holds all that it should.
    fn is_filled(&self) -> bool {
        self.slots.is_done(Which::Usr) && self.slots.is_done(Which::Verity)
    }

    /// Version of the image.
    pub(super) fn version(&self) -> &str {
        &self.admitted.signed.manifest.version
    }
}

fn uki_file(state: &Path) -> PathBuf {
    state.join("staged.efi")
}

/// Bytes that the state partition has for a staged kernel image: free ones, and those of one that is there.
pub fn room(state: &Path) -> Result<u64, Fault> {
    // Before the first image, there is no directory yet.
    let there = state.ancestors().find(|path| path.exists()).unwrap_or(state);
    let free = nix::sys::statvfs::statvfs(there).map_err(|error| Fault::at(there)(error.into()))?;
    let taken = fs::metadata(uki_file(state)).map_or(0, |file| file.blocks() * 512);
    Ok((free.blocks_available() as u64)
        .saturating_mul(free.fragment_size() as u64)
        .saturating_add(taken))
}

/// See [`Os::stage`].
pub async fn stage(os: &Os, wanted: &Wanted, cancel: &CancellationToken) -> Result<Staged, Fault> {
    let cancel = cancel.child_token();
    // Work beside this task ends soon after this is dropped.
    let _on_drop = cancel.clone().drop_guard();
    let writing = os.writing.clone().lock_owned().await;
    let (own, of, token) = (os.clone(), wanted.clone(), cancel.clone());
    let mut job = off_thread(move || prepare(&own, &of, token, writing)).await?;
    let mut pack = job.admitted.signed.manifest.pack.clone();
    // Whoever mirrored the manifest mirrored the pack beside it.
    for source in &wanted.manifest.sources {
        if matches!(source, holdfast_protocol::document::ArtifactSource::Oci(_))
            && !pack.sources.contains(source)
        {
            pack.sources.push(source.clone());
        }
    }
    let sources = os
        .fetcher()?
        .places(&pack, wanted.max_bytes_per_second.unwrap_or(0));
    if !job.is_filled() {
        job = fetch::fetch(job, &sources, &cancel, Some(Which::Uki)).await?;
        job = off_thread(move || take_slot(job)).await?;
    }
    let job = fetch::fetch(job, &sources, &cancel, None).await?;
    off_thread(move || finish(job)).await
}

/// Everything that costs no network.
fn prepare(
    os: &Os,
    wanted: &Wanted,
    cancel: CancellationToken,
    writing: OwnedMutexGuard<()>,
) -> Result<Job, Fault> {
    let admitted = os.admit(wanted)?;
    let manifest = admitted.signed.manifest.clone();
    let state = &os.places.state;
    create_private_directory(state)?;
    let uki = uki_file(state);
    let targets = [
        Target {
            file: admitted.layout.open()?,
            at: admitted.layout.other.data.offset,
        },
        Target {
            file: admitted.layout.open()?,
            at: admitted.layout.other.hash.offset,
        },
        Target {
            file: open_uki(&uki, manifest.uki.size).map_err(Fault::at(&uki))?,
            at: 0,
        },
    ];
    let mut slots = Slots::new(manifest, targets, cancel);
    slots.scan()?;
    // Here one of them is still there that is taken away when the slot is made nobody's.
    if !slots.is_done(Which::Uki) {
        for kernel in admitted.kernels.list()? {
            let file = File::open(&kernel.path).map_err(Fault::at(&kernel.path))?;
            slots.reuse(file, Some(Which::Uki))?;
        }
    }
    let job = Job {
        slots,
        admitted,
        uki,
        progress: os.progress.clone(),
        fetched: 0,
        _writing: writing,
    };
    job.show();
    Ok(job)
}

/// Makes the slot nobody's, and puts into it what the box has.
fn take_slot(mut job: Job) -> Result<Job, Fault> {
    disown(&mut job.admitted)?;
    let layout = &job.admitted.layout;
    let disk = File::open(layout.disk()).map_err(Fault::at(layout.disk()))?;
    for partition in [&layout.own.data, &layout.own.hash] {
        let stretch = Stretch {
            file: &disk,
            at: partition.offset,
            left: partition.size,
        };
        job.slots.reuse(stretch, None)?;
    }
    // The kernel is in the file system too.
    let uki = File::open(&job.uki).map_err(Fault::at(&job.uki))?;
    job.slots.reuse(uki, None)?;
    job.show();
    Ok(job)
}

/// Before the first byte: nothing may boot from this slot any more.
fn disown(admitted: &mut Admitted) -> Result<(), Fault> {
    admitted.kernels.keep_only(&[&admitted.image.version])?;
    failpoint::reach("os-old-uki-gone");
    if admitted.layout.other.version().is_some() {
        admitted.layout.disown_other()?;
        failpoint::reach("os-slot-disowned");
    }
    Ok(())
}

fn open_uki(path: &Path, size: u64) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.len() != size {
        file.set_len(size)?;
        // Room that is taken now cannot be missing later.
        posix_fallocate(&file, 0, size.cast_signed())?;
    }
    Ok(file)
}

fn finish(mut job: Job) -> Result<Staged, Fault> {
    let uki_digest = job.slots.verify()?;
    failpoint::reach("os-slot-verified");
    let manifest = &job.admitted.signed.manifest;
    let other = &job.admitted.layout.other;
    if other.version() != Some(manifest.version.as_str()) || !other.is_of(&manifest.usr_hash) {
        let (version, usr_hash) = (manifest.version.clone(), manifest.usr_hash.clone());
        job.admitted.layout.give_other(&version, &usr_hash)?;
        failpoint::reach("os-slot-given");
    }
    job.show();
    Ok(Staged {
        version: job.version().to_owned(),
        digest: job.admitted.signed.digest,
        uki: job.uki.clone(),
        uki_digest,
    })
}
