//! The root file system of a box that runs an image, as a mount namespace of this machine: everything is this machine's but the image's own files,
//! the EFI system partition, the disk, and what the kernel says of them.
//!
//! In: a directory with `root/usr` (files that the image has and this machine has not, or has otherwise), `efi`, `disk.raw`, `root/proc/cmdline`,
//! `root/proc/boot_id` where the box is to have started at another time than this machine, and what [`describe_disk`] makes. Out: commands that
//! run there. Nothing is left of it when they have ended.

use anyhow::Result;
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
};
use tokio::process::Command;

/// Makes the root file system, and runs what it is told in it.
const ENTER: &str = r#"
set -e
box=$1; shift; root=$box/entered
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
for entry in /*; do
    name=${entry#/}
    case $name in usr | dev | efi) continue ;; esac
    if [ -L "$entry" ]; then cp -P "$entry" "$root/$name"
    elif [ -d "$entry" ]; then mkdir "$root/$name"; mount --rbind "$entry" "$root/$name"
    fi
done
mkdir "$root/usr" "$root/dev" "$root/efi"
mount -t overlay -o "lowerdir=$box/root/usr:/usr" overlay "$root/usr"
mount --bind "$box/efi" "$root/efi"
mount -t tmpfs tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    : > "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
: > "$root/dev/board"; mount --bind "$box/disk.raw" "$root/dev/board"
mount --bind "$box/root/proc/cmdline" "$root/proc/cmdline"
if [ -e "$box/root/proc/boot_id" ]; then
    mount --bind "$box/root/proc/boot_id" "$root/proc/sys/kernel/random/boot_id"
fi
mount --bind "$box/root/block" "$root/sys/class/block"
exec chroot "$root" "$@"
"#;

/// Has the kernel say that `/usr` is read through dm-verity from the second and the third partition of the disk.
pub fn describe_disk(directory: &Path) -> Result<()> {
    let block = directory.join("root/block");
    fs::create_dir_all(block.join("dm-0/dm"))?;
    File::create(block.join("dm-0/dm/name"))?.write_all(b"usr\n")?;
    for partition in ["board2", "board3"] {
        let on_disk = Path::new("board").join(partition);
        fs::create_dir_all(block.join("dm-0/slaves").join(partition))?;
        fs::create_dir_all(block.join(&on_disk))?;
        File::create(block.join(&on_disk).join("partition"))?.write_all(b"2\n")?;
        symlink(&on_disk, block.join(partition))?;
    }
    Ok(fs::create_dir_all(directory.join("entered"))?)
}

/// A command that runs its arguments on the box in `directory`, and ends with its handle.
pub fn enter(directory: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", ENTER, "enter"])
        .arg(directory)
        .kill_on_drop(true);
    command
}
