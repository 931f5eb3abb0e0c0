//! A version that was good long ago and whose `/usr` cannot be opened any more gets its counter from the image's own script, on a real file system.

use crate::appliance::noise;
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../image/recipe/mkosi.images/initrd/mkosi.extra/usr/lib/holdfast/count-start"
);
const PARTITION: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// What the initrd of a failing start has.
struct Failing {
    root: TempDir,
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

fn usr_hash(version: &str) -> String {
    version.repeat(64).chars().take(64).collect()
}

impl Failing {
    /// A start of `running`, with these kernel images on the EFI system partition.
    fn new(running: &str, kernels: &[&str]) -> Result<Self> {
        let own = Self {
            root: TempDir::new()?,
        };
        let variables = own.path("sys/firmware/efi/efivars");
        for directory in [
            &variables,
            &own.path("proc"),
            &own.path("dev/disk/by-partuuid"),
            &own.path("esp"),
        ] {
            fs::create_dir_all(directory)?;
        }
        let mut variable = 6_u32.to_le_bytes().to_vec();
        for unit in PARTITION.to_uppercase().encode_utf16().chain([0]) {
            variable.extend_from_slice(&unit.to_le_bytes());
        }
        fs::write(variables.join(format!("LoaderDevicePartUUID-{LOADER}")), variable)?;
        let line = format!("rw usrhash={} panic=10\n", usr_hash(running));
        fs::write(own.path("proc/cmdline"), line)?;
        let disk = own.disk();
        fs::File::create(&disk)?.set_len(4 << 20)?;
        // A kernel that tests run on may know no FAT.
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk))?;
        own.with_esp(|esp| {
            let directory = esp.join("EFI/Linux");
            fs::create_dir_all(&directory)?;
            for kernel in kernels {
                let version = kernel.trim_start_matches("holdfast_").split(['+', '.']).next();
                let line = format!(
                    "rw usrhash={} panic=10\n",
                    usr_hash(version.context("a version")?)
                );
                let content = [noise(1, 100_000), line.into_bytes(), noise(2, 50_000)].concat();
                fs::write(directory.join(kernel), content)?;
            }
            Ok(())
        })?;
        Ok(own)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn disk(&self) -> PathBuf {
        self.path("dev/disk/by-partuuid").join(PARTITION)
    }

    fn with_esp<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let esp = self.path("esp");
        run(Command::new("mount").arg(self.disk()).arg(&esp))?;
        let done = work(&esp);
        run(Command::new("umount").arg(&esp))?;
        done
    }

    /// Names of the kernel images after the emergency of this start.
    fn after_emergency(&self) -> Result<Vec<String>> {
        run(Command::new("sh").arg(SCRIPT).arg(self.root.path()))?;
        self.with_esp(|esp| {
            let mut names = fs::read_dir(esp.join("EFI/Linux"))?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        })
    }
}

#[test]
fn a_good_version_whose_start_ends_in_the_initrd_is_counted_where_another_one_is_there() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to mount a file system");
        return Ok(());
    }
    for (running, before, after) in [
        (
            "2",
            &["holdfast_1.efi", "holdfast_2.efi"][..],
            &["holdfast_1.efi", "holdfast_2+2.efi"][..],
        ),
        // The older one, that was gone back to on purpose.
        (
            "1",
            &["holdfast_1.efi", "holdfast_2+0.efi"],
            &["holdfast_1+2.efi", "holdfast_2+0.efi"],
        ),
        // What is counted already stays as the boot loader has it.
        (
            "2",
            &["holdfast_1.efi", "holdfast_2+1-1.efi"],
            &["holdfast_1.efi", "holdfast_2+1-1.efi"],
        ),
        // There is no other one, or none that comes up.
        ("2", &["holdfast_2.efi"], &["holdfast_2.efi"]),
        (
            "2",
            &["holdfast_2.efi", "holdfast_3+0-3.efi"],
            &["holdfast_2.efi", "holdfast_3+0-3.efi"],
        ),
        // What runs is none of these.
        (
            "4",
            &["holdfast_1.efi", "holdfast_2.efi"],
            &["holdfast_1.efi", "holdfast_2.efi"],
        ),
    ] {
        let failing = Failing::new(running, before)?;
        ensure!(failing.after_emergency()? == after, "{before:?}");
        // A second time changes nothing.
        ensure!(failing.after_emergency()? == after, "{before:?}, twice");
    }
    Ok(())
}
