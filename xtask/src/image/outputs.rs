//! What a build leaves in its output directory, and whether two builds are the same.
//!
//! In: the directory mkosi built into. Out, each named `holdfast_<version>_<architecture>` and what it is: `.raw` (the disk image), `.raw.zst`,
//! `.usr`, `.usr-verity` and `.efi` (slot, hash tree and kernel image), `.pack` and `.manifest.json` (what an update is fetched from), `.spdx.json` (list of parts); beside them `image.json` (what a
//! tool needs to know), `os-keys.json`, `secure-boot.crt`, `SHA256SUMS` and its signature `SHA256SUMS.sig` (Ed25519, raw, base64). Guarantees:
//! the sums are of the files as they lie there; nothing of another version is left.

use super::{
    Architecture,
    keys::Keys,
    lock::Packages,
    sbom,
    update::{self, Parts},
};
use crate::{files, shell};
use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_protocol::Digest;
use ring::signature::KeyPair as _;
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How hard the image is compressed. Level 19 makes it 2 % smaller than 15 and takes three times as long.
const COMPRESSION: &str = "-15";

/// An image as mkosi left it.
pub struct Image {
    pub directory: PathBuf,
    pub version: String,
    pub architecture: Architecture,
}

impl Image {
    pub fn manifests(&self) -> Vec<PathBuf> {
        ["holdfast.manifest", "initrd.manifest"]
            .map(|name| self.directory.join(name))
            .to_vec()
    }

    fn raw(&self) -> PathBuf {
        self.directory.join("holdfast.raw")
    }

    fn part(&self, name: &str) -> PathBuf {
        self.directory.join(format!("holdfast.{name}.raw"))
    }

    /// The erofs of `/usr`.
    pub fn usr(&self) -> PathBuf {
        self.part("usr")
    }

    fn kernel_image(&self) -> PathBuf {
        self.directory.join("holdfast.efi")
    }

    /// The root hash of `/usr`, from the command line in the kernel image.
    fn usr_hash(&self) -> Result<String> {
        let content = fs::read(self.kernel_image())?;
        usr_hash(&content).with_context(|| format!("{} names no usrhash", self.kernel_image().display()))
    }
}

fn usr_hash(kernel_image: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"usrhash=";
    kernel_image
        .windows(KEY.len() + 64)
        .filter(|window| window.starts_with(KEY))
        .find_map(|window| {
            let text = std::str::from_utf8(&window[KEY.len()..]).ok()?;
            text.bytes()
                .all(|byte| byte.is_ascii_hexdigit())
                .then(|| text.to_owned())
        })
}

/// Fails unless both builds have the same `/usr`, the same verity data and the same kernel image.
pub fn compare(first: &Image, second: &Image) -> Result<()> {
    let mut different = Vec::new();
    for (name, left, right) in [
        ("/usr", first.part("usr"), second.part("usr")),
        ("verity data", first.part("verity"), second.part("verity")),
        ("kernel image", first.kernel_image(), second.kernel_image()),
    ] {
        let (left, right) = (files::sha256(&left)?, files::sha256(&right)?);
        eprintln!(
            "image: {name}: {left}{}",
            if left == right { ", twice" } else { "" }
        );
        if left != right {
            different.push(name);
        }
    }
    if !different.is_empty() {
        bail!("two builds of the same input differ: {}", different.join(", "));
    }
    Ok(())
}

/// Moves what was built to `output` and writes what goes with it. `quick` leaves out what only a publication needs.
pub fn write(
    image: &Image,
    output: &Path,
    packages: &Packages,
    keys: &Keys,
    epoch: u64,
    quick: bool,
) -> Result<()> {
    let usr_hash = image.usr_hash()?;
    empty(output)?;
    let name = format!("holdfast_{}_{}", image.version, image.architecture.name());
    let place = |from: PathBuf, kind: &str| -> Result<String> {
        let file = format!("{name}.{kind}");
        files::relocate(&from, &output.join(&file))?;
        Ok(file)
    };
    let raw = place(image.raw(), "raw")?;
    let usr = place(image.part("usr"), "usr")?;
    let verity = place(image.part("verity"), "usr-verity")?;
    let kernel_image = place(image.kernel_image(), "efi")?;
    update::write(
        &Parts {
            version: &image.version,
            architecture: image.architecture,
            usr_hash: &usr_hash,
            usr: &output.join(&usr),
            verity: &output.join(&verity),
            kernel_image: &output.join(&kernel_image),
        },
        output,
        &name,
        keys,
    )?;
    fs::copy(keys.trust(), output.join("os-keys.json"))?;
    fs::copy(keys.secure_boot_certificate(), output.join("secure-boot.crt"))?;
    let mut compressed = None;
    if !quick {
        let file = format!("{raw}.zst");
        shell::run(
            shell::command("zstd")
                .args(["--quiet", "--force", "--threads=0", "--long=27", COMPRESSION])
                .arg(output.join(&raw))
                .arg("-o")
                .arg(output.join(&file)),
        )?;
        compressed = Some(fs::metadata(output.join(&file))?.len());
        let list = sbom::spdx(image.architecture, &image.version, packages, &usr_hash, epoch)?;
        files::replace(output.join(format!("{name}.spdx.json")), list)?;
    }
    let size = |file: &str| -> Result<u64> { Ok(fs::metadata(output.join(file))?.len()) };
    let described = serde_json::json!({
        "version": image.version,
        "architecture": image.architecture.debian(),
        "usrHash": usr_hash,
        "raw": raw,
        "usr": {"file": usr, "size": size(&usr)?},
        "verity": {"file": verity, "size": size(&verity)?},
        "uki": {"file": kernel_image, "size": size(&kernel_image)?},
        "compressedBytes": compressed,
        "sourceDateEpoch": epoch,
    });
    files::replace(
        output.join("image.json"),
        format!("{}\n", serde_json::to_string_pretty(&described)?),
    )?;
    if quick {
        return Ok(());
    }
    let sums = sums(output)?;
    let signer = keys.signer()?;
    let signature = STANDARD.encode(signer.sign(sums.as_bytes()));
    eprintln!(
        "image: SHA256SUMS is signed by {}",
        Digest::of(signer.public_key().as_ref())
    );
    files::replace(output.join("SHA256SUMS"), sums)?;
    files::replace(output.join("SHA256SUMS.sig"), format!("{signature}\n"))?;
    Ok(())
}

/// Leaves in `build.json` what benchmarks ask of the build itself: its seconds without those of a second build, and whether that one was the same.
pub fn tell(output: &Path, took: Duration, compared: bool) -> Result<()> {
    let told = serde_json::json!({"seconds": took.as_secs(), "reproducible": compared.then_some(true)});
    files::replace(output.join("build.json"), format!("{told:#}\n"))
}

/// Removes the files of an earlier build; a directory in it is somebody else's and stays.
fn empty(output: &Path) -> Result<()> {
    fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    for entry in fs::read_dir(output)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("holdfast_")
            || [
                "image.json",
                "build.json",
                "os-keys.json",
                "secure-boot.crt",
                "SHA256SUMS",
                "SHA256SUMS.sig",
            ]
            .iter()
            .any(|file| name == *file);
        if ours && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The sums of all files in a directory, as `sha256sum` writes them.
fn sums(directory: &Path) -> Result<String> {
    let mut names: Vec<_> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    names.sort();
    let mut text = String::new();
    for name in names {
        let path = directory.join(&name);
        if path.is_file() {
            let _ = writeln!(text, "{}  {}", files::sha256(&path)?, name.to_string_lossy());
        }
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write plain files")]
mod tests {
    use super::*;

    #[test]
    fn the_root_hash_is_read_out_of_a_kernel_image() {
        let hash = "a1".repeat(32);
        let image = format!("MZ usrhash=short ... rw usrhash={hash} quiet");
        assert_eq!(usr_hash(image.as_bytes()), Some(hash));
        assert_eq!(usr_hash(b"MZ"), None);
    }

    #[test]
    fn builds_that_differ_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let image = |name: &str, usr: &str| {
            let image = Image {
                directory: directory.path().join(name),
                version: "1".to_owned(),
                architecture: Architecture::X86_64,
            };
            fs::create_dir(&image.directory).unwrap();
            fs::write(image.part("usr"), usr).unwrap();
            fs::write(image.part("verity"), "v").unwrap();
            fs::write(image.kernel_image(), "k").unwrap();
            image
        };
        let (first, same, other) = (image("a", "1"), image("b", "1"), image("c", "2"));
        assert!(compare(&first, &same).is_ok());
        assert!(compare(&first, &other).unwrap_err().to_string().contains("/usr"));
    }

    #[test]
    fn an_output_directory_keeps_what_is_not_ours() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["holdfast_0_x86_64.raw", "notes.txt", "SHA256SUMS"] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        empty(directory.path()).unwrap();
        assert!(directory.path().join("notes.txt").exists());
        assert!(!directory.path().join("holdfast_0_x86_64.raw").exists());
        assert!(!directory.path().join("SHA256SUMS").exists());
    }
}
