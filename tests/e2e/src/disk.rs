//! A small file system of its own, to be filled and made read-only. Mounting needs root, as the tests of a read-only disk do.

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount, umount};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// A mounted tmpfs, unmounted when dropped.
pub struct SmallDisk {
    path: PathBuf,
    bytes: u64,
}

impl SmallDisk {
    /// Mounts a file system of `bytes` at `path`, which is made.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self> {
        fs::create_dir_all(path)?;
        let disk = Self {
            path: path.to_owned(),
            bytes,
        };
        disk.call(MsFlags::empty())
            .context("mount a small disk: this test needs root")?;
        Ok(disk)
    }

    fn call(&self, flags: MsFlags) -> nix::Result<()> {
        let options = format!("size={},mode=0700", self.bytes);
        mount(
            Some("tmpfs"),
            &self.path,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )
    }

    /// Writes until there is no room left.
    pub fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.path.join("filler"))?;
        let block = [0xff; 1024];
        // It ends with an error: that is what it is for.
        while file.write_all(&block).is_ok() {}
        Ok(())
    }

    /// Makes room again.
    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.path.join("filler"))?)
    }

    /// Makes it read-only, or writable again.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let flags = if read_only {
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY
        } else {
            MsFlags::MS_REMOUNT
        };
        self.call(flags).context("remount the small disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The daemon may still hold it for a moment; a lazy unmount takes it away as soon as that ends.
        let _ =
            umount(&self.path).or_else(|_| nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH));
    }
}
