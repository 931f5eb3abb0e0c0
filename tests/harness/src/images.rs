//! Images of the operating system as their build leaves them, small ones, packed and signed by what the build uses.

use anyhow::{Context as _, Result};
use holdfast_os::{Architecture, Files, Manifest, pack, sign};
use ring::signature::Ed25519KeyPair;
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

pub use holdfast_os::samples::noise;

/// Root hash of the image's file system; nothing here starts one.
const USR_HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// An image in a directory.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is made of.
    pub manifest: Manifest,
    /// The file of the signed manifest.
    pub file: PathBuf,
    /// The file of the pack.
    pub pack: PathBuf,
}

/// A builder's key; the same for the same seed.
pub fn key(seed: u8) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32])
        .ok()
        .context("a key of 32 bytes")
}

/// Builds an image of about `bytes` bytes, signed by `key`. Another version or architecture is other content.
pub fn build(
    directory: &Path,
    version: &str,
    architecture: Architecture,
    bytes: usize,
    key: &Ed25519KeyPair,
) -> Result<Image> {
    fs::create_dir_all(directory)?;
    let work = tempfile::tempdir_in(directory)?;
    let seed = format!("{version} {architecture}")
        .bytes()
        .fold(7, |seed: u64, byte| {
            seed.wrapping_mul(31).wrapping_add(byte.into())
        });
    let part = |number: u64, bytes: usize| -> Result<PathBuf> {
        let path = work.path().join(number.to_string());
        put(&path, &noise(seed.wrapping_add(number), bytes))?;
        Ok(path)
    };
    // File systems and hash trees are whole blocks.
    let blocks = bytes.div_ceil(4096).max(1) * 4096;
    let (usr, verity, uki) = (part(0, blocks)?, part(1, 4096)?, part(2, 4096)?);
    let files = Files {
        version,
        architecture,
        usr_hash: USR_HASH,
        usr: &usr,
        verity: &verity,
        uki: &uki,
    };
    let name = format!("holdfast_{version}_{architecture}");
    let (pack_file, file) = (
        directory.join(format!("{name}.pack")),
        directory.join(format!("{name}.manifest.json")),
    );
    let manifest = pack(&files, &pack_file)?;
    put(&file, &sign(&manifest, &[key])?)?;
    Ok(Image {
        manifest,
        file,
        pack: pack_file,
    })
}

fn put(path: &Path, content: &[u8]) -> Result<()> {
    Ok(File::create(path)?.write_all(content)?)
}
