//! A box that runs an image: a disk in a file, partitioned by `sgdisk`, an EFI system partition in a directory, and images to bring there.

use crate::support::{Box, Manner, Server, artifact};
use anyhow::{Context as _, Result, ensure};
use holdfast::os::{Os, Places, Wanted};
use holdfast_os::{Architecture, Files, Manifest, pack, sign};
use holdfast_protocol::{
    Digest,
    document::ArtifactSource,
    trust::{Role, TrustPolicy, TrustedKey},
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

pub const MIB: u64 = 1 << 20;
/// Where the partitions begin, in MiB, and how large they are: ESP, hash tree and file system of each slot.
const PARTITIONS: [(u64, u64); 5] = [(1, 2), (3, 1), (4, 8), (12, 1), (13, 8)];
pub const USR_A: u64 = 4 * MIB;
pub const USR_B: u64 = 13 * MIB;
pub const USR_BYTES: usize = 6 << 20;
/// Beside the slots, the disk has room for the tables.
const DISK: u64 = 24 * MIB;
/// Large images are of this size, on a larger disk of the same order.
pub const LARGE: u64 = 16;

/// An image and where its pack is.
pub struct Image {
    pub version: String,
    pub usr: Vec<u8>,
    pub verity: Vec<u8>,
    pub uki: Vec<u8>,
    pub usr_hash: String,
    pub manifest: Manifest,
    pub pack: Vec<u8>,
}

pub struct Appliance {
    pub it: Box,
    pub scale: u64,
}

pub use holdfast_harness::images::noise;

pub fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// The smallest PE file with a kernel command line.
fn kernel_image(usr_hash: &str, kernel: &[u8]) -> Vec<u8> {
    let line = format!("quiet usrhash={usr_hash}\n");
    let mut file = vec![0; 512];
    file[..2].copy_from_slice(b"MZ");
    file[60] = 64;
    file[64..68].copy_from_slice(b"PE\0\0");
    file[70] = 2;
    let mut offset = 512;
    for (index, (name, content)) in [(&b".cmdline"[..], line.as_bytes()), (b".linux", kernel)]
        .into_iter()
        .enumerate()
    {
        let at = 88 + index * 40;
        file[at..at + name.len()].copy_from_slice(name);
        let size = (content.len() as u32).to_le_bytes();
        file[at + 8..at + 12].copy_from_slice(&size);
        file[at + 16..at + 20].copy_from_slice(&size);
        file[at + 20..at + 24].copy_from_slice(&u32::try_from(offset).unwrap().to_le_bytes());
        file.extend_from_slice(content);
        offset = file.len();
    }
    file
}

impl Image {
    /// Version `version`: what all have in common, with one package of its own in the middle.
    pub fn new(version: &str, scale: u64) -> Result<Self> {
        let size = USR_BYTES * scale as usize;
        let seed = u64::from(version.bytes().last().unwrap_or_default());
        let mut usr = noise(7, size);
        let package = noise(seed, 150_000);
        let middle = size / 2;
        usr.splice(middle..middle, package);
        usr.truncate(size);
        let verity = noise(seed + 1000, 65_536);
        let usr_hash = Digest::of(&usr).hex();
        let uki = kernel_image(
            &usr_hash,
            &[noise(9, 300_000), noise(seed + 2000, 20_000)].concat(),
        );
        let directory = tempfile::tempdir()?;
        let file = |name: &str, content: &[u8]| -> Result<PathBuf> {
            let path = directory.path().join(name);
            fs::write(&path, content)?;
            Ok(path)
        };
        let out = directory.path().join(format!("holdfast_{version}.pack"));
        let manifest = pack(
            &Files {
                version,
                architecture: Architecture::current().context("an architecture")?,
                usr_hash: &usr_hash,
                usr: &file("usr", &usr)?,
                verity: &file("verity", &verity)?,
                uki: &file("uki", &uki)?,
            },
            &out,
        )?;
        Ok(Self {
            version: version.to_owned(),
            manifest,
            pack: fs::read(out)?,
            usr,
            verity,
            uki,
            usr_hash,
        })
    }

    /// The document's section for it, with its manifest in the store of the box.
    pub fn wanted(&self, appliance: &Appliance, servers: &[&Server]) -> Result<Wanted> {
        let mut manifest = self.manifest.clone();
        manifest.pack.sources = servers
            .iter()
            .map(|server| ArtifactSource::Url(server.url()))
            .collect();
        appliance.wanted(&self.version, &sign(&manifest, &[&key(1)])?)
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .context(program.to_owned())?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

impl Appliance {
    /// A box that runs this image from slot a; slot b is empty.
    pub fn running(image: &Image) -> Result<Self> {
        Self::with(image, 1)
    }

    pub fn with(image: &Image, scale: u64) -> Result<Self> {
        let own = Self {
            it: Box::new()?,
            scale,
        };
        let (esp, disk) = (own.esp(), own.disk());
        fs::create_dir_all(esp.join("EFI/Linux"))?;
        fs::File::create(&disk)?.set_len(DISK * scale)?;
        let (data, hash) = image.usr_hash.split_at(32);
        let (usr, verity) = if cfg!(target_arch = "x86_64") {
            (
                "8484680c-9521-48c6-9c11-b0720656f69e",
                "77ff5f63-e7b6-4633-acf4-1565b864c0e6",
            )
        } else {
            (
                "b0e01050-ee5f-4390-949a-9101b17104e9",
                "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e",
            )
        };
        let mut arguments: Vec<String> = Vec::new();
        for (index, (begin, size)) in PARTITIONS.iter().enumerate() {
            let number = index + 1;
            let kind = ["ef00", verity, usr, verity, usr][index];
            let first = begin * scale * MIB / 512;
            let last = (begin + size) * scale * MIB / 512 - 1;
            arguments.push(format!("--new={number}:{first}:{last}"));
            arguments.push(format!("--typecode={number}:{kind}"));
        }
        let version = &image.version;
        for (number, name) in [
            (1, "esp".to_owned()),
            (2, format!("holdfast_{version}_verity")),
            (3, format!("holdfast_{version}")),
            (4, "_empty".into()),
            (5, "_empty".into()),
        ] {
            arguments.push(format!("--change-name={number}:{name}"));
        }
        for (number, half) in [(2, hash), (3, data)] {
            arguments.push(format!("--partition-guid={number}:{}", dashed(half)));
        }
        arguments.push(disk.to_str().context("a path")?.to_owned());
        run(
            "sgdisk",
            &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        )?;
        let file = OpenOptions::new().write(true).open(&disk)?;
        file.write_all_at(&image.usr, USR_A * scale)?;
        file.write_all_at(&image.verity, 3 * MIB * scale)?;
        fs::write(esp.join(format!("EFI/Linux/holdfast_{version}.efi")), &image.uki)?;
        own.boots(image)?;
        let keys = TrustPolicy {
            keys: vec![TrustedKey::ed25519(
                key(1).public_key().as_ref(),
                vec![Role::OsImage],
            )],
            ..TrustPolicy::default()
        };
        let place = own.root().join("usr/lib/holdfast");
        fs::create_dir_all(&place)?;
        fs::write(place.join("os-keys.json"), serde_json::to_vec(&keys)?)?;
        Ok(own)
    }

    /// Has this image be the one that runs, as after a restart.
    pub fn boots(&self, image: &Image) -> Result<()> {
        let root = self.root();
        fs::create_dir_all(root.join("usr/lib"))?;
        fs::create_dir_all(root.join("proc"))?;
        fs::write(
            root.join("usr/lib/os-release"),
            format!(
                "ID=holdfast\nIMAGE_ID=holdfast\nIMAGE_VERSION=\"{}\"\n",
                image.version
            ),
        )?;
        fs::write(
            root.join("proc/cmdline"),
            format!("root=x usrhash={} quiet\n", image.usr_hash),
        )?;
        Ok(())
    }

    pub fn root(&self) -> PathBuf {
        self.it.directory.path().join("root")
    }

    pub fn disk(&self) -> PathBuf {
        self.it.directory.path().join("disk.raw")
    }

    pub fn esp(&self) -> PathBuf {
        self.it.directory.path().join("efi")
    }

    pub fn places(&self) -> Places {
        places_in(self.it.directory.path())
    }

    pub fn os(&self) -> Result<Os> {
        Ok(Os::at(self.places(), Some(self.it.fetcher(None)?)))
    }

    /// A document's section, with this manifest in the store.
    pub fn wanted(&self, version: &str, manifest: &[u8]) -> Result<Wanted> {
        self.it.fetcher(None)?.blobs.put(manifest)?;
        Ok(Wanted {
            version: version.to_owned(),
            manifest: artifact(manifest, &[]),
            max_bytes_per_second: None,
        })
    }

    pub async fn server(&self, image: &Image, manners: &[Manner]) -> Result<Server> {
        Server::start(&self.it.authority, &image.pack, manners).await
    }

    /// Digest of the whole disk.
    pub fn disk_digest(&self) -> Result<Digest> {
        Ok(Digest::of(&fs::read(self.disk())?))
    }

    /// Bytes of the disk.
    pub fn read(&self, at: u64, size: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; size];
        fs::File::open(self.disk())?.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Whether slot b holds this image, by its bytes and by its names; `sgdisk` is the witness.
    pub fn holds(&self, image: &Image) -> Result<()> {
        let scale = self.scale;
        ensure!(
            self.read(USR_B * scale, image.usr.len())? == image.usr,
            "the file system differs"
        );
        ensure!(
            self.read(12 * MIB * scale, image.verity.len())? == image.verity,
            "the hash tree differs"
        );
        let (data, hash) = image.usr_hash.split_at(32);
        let version = &image.version;
        for (number, label, half) in [
            ("4", format!("holdfast_{version}_verity"), hash),
            ("5", format!("holdfast_{version}"), data),
        ] {
            let told = self.sgdisk(&["-i", number])?;
            ensure!(told.contains(&format!("Partition name: '{label}'")), "{told}");
            let unique = format!("Partition unique GUID: {}", dashed(half).to_uppercase());
            ensure!(told.contains(&unique), "{told}");
        }
        self.table_is_sound()
    }

    pub fn sgdisk(&self, arguments: &[&str]) -> Result<String> {
        let disk = self.disk();
        let mut all = arguments.to_vec();
        all.push(disk.to_str().context("a path")?);
        run("sgdisk", &all)
    }

    pub fn table_is_sound(&self) -> Result<()> {
        let told = self.sgdisk(&["-v"])?;
        ensure!(told.contains("No problems found"), "{told}");
        Ok(())
    }

    /// Names of the kernel images, sorted.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let mut names: Vec<_> = fs::read_dir(self.esp().join("EFI/Linux"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }
}

pub fn places_in(directory: &Path) -> Places {
    Places {
        root: directory.join("root"),
        esp: directory.join("efi"),
        state: directory.join("state/os"),
        disk: Some(directory.join("disk.raw")),
    }
}

/// 32 hex digits as a UUID is written.
fn dashed(half: &str) -> String {
    let part = |from: usize, to: usize| &half[from..to];
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// The pack with one byte of this chunk changed.
pub fn tampered(image: &Image, chunk: usize) -> Vec<u8> {
    let chunk = image.manifest.usr.chunks[chunk];
    let mut pack = image.pack.clone();
    pack[chunk.end() as usize - 3] ^= 1;
    pack
}
