//! `image/k3s.lock`: which k3s a box gets, pinned by digest.
//!
//! In: a version, and the release's own checksum files (`sha256sum-amd64.txt`, `sha256sum-arm64.txt`). Out: the lock file, JSON in the shape of a
//! document's `k3s` section, so that `release.yaml` takes it as it is. It guarantees that every digest in it stands in a checksum file of the release, and
//! that a release whose files changed after they were pinned is noticed.

pub mod pinned;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test")]
pub mod server;

use crate::{files, shell};
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where k3s publishes its releases.
const RELEASES: &str = "https://github.com/k3s-io/k3s/releases/download";

/// Where the lock file is.
pub const LOCK: &str = "image/k3s.lock";

/// Architecture, name of the binary.
const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "k3s"), ("arm64", "k3s-arm64")];

/// What can be done about the pinned k3s.
#[derive(Subcommand)]
pub enum Task {
    /// Pin a version: write image/k3s.lock from the release's own checksum files
    Lock(Lock),
}

/// Options of `lock`.
#[derive(Args)]
pub struct Lock {
    /// Version as k3s names it: v1.36.3+k3s1
    version: String,
    /// Where the releases are, instead of GitHub: below it, a directory for each version
    #[arg(long, default_value = RELEASES)]
    base_url: String,
    /// File to write
    #[arg(long, default_value = LOCK)]
    output: PathBuf,
}

/// Does what was asked for.
pub fn run(task: &Task) -> Result<()> {
    match task {
        Task::Lock(options) => {
            let output = shell::root().join(&options.output);
            lock(&options.version, &options.base_url, &output)?;
            println!("wrote {}", output.display());
            Ok(())
        }
    }
}

/// Writes the lock file `output` of `version`, from the releases below `base_url`.
pub fn lock(version: &str, base_url: &str, output: &Path) -> Result<()> {
    check_version(version)?;
    // A plus is a space to some servers.
    let release = format!(
        "{}/{}",
        base_url.trim_end_matches('/'),
        version.replace('+', "%2B")
    );
    let (mut binaries, mut images) = (Map::new(), Map::new());
    for (architecture, binary) in ARCHITECTURES {
        let list = format!("{release}/sha256sum-{architecture}.txt");
        let checksums = shell::output(shell::command("curl").args(["-fsSL", "--retry", "3", &list]))
            .with_context(|| format!("{list} cannot be had; is {version} a release?"))?;
        let archive = format!("k3s-airgap-images-{architecture}.tar.zst");
        binaries.insert(architecture.into(), artifact(&release, binary, &checksums)?);
        images.insert(
            architecture.into(),
            json!([artifact(&release, &archive, &checksums)?]),
        );
    }
    let made = json!({"version": version, "binaries": binaries, "images": images});
    if let Ok(text) = fs::read_to_string(output) {
        let old: Value = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is no lock file; remove it and run this again",
                output.display()
            )
        })?;
        refuse_changed(&old, &made)?;
    }
    let text = serde_json::to_string_pretty(&made)? + "\n";
    // A path from the root is taken as it is where it is absolute.
    files::replace(output, text)
}

/// It becomes part of an address.
fn check_version(version: &str) -> Result<()> {
    let is_version = version
        .strip_prefix('v')
        .and_then(|rest| rest.split_once("+k3s"))
        .is_some_and(|(numbers, build)| {
            numbers.split('.').count() == 3
                && numbers
                    .split('.')
                    .chain([build])
                    .all(|number| number.parse::<u32>().is_ok())
        });
    if !is_version {
        bail!("{version:?} is not a version of k3s such as v1.36.3+k3s1");
    }
    Ok(())
}

fn artifact(release: &str, name: &str, checksums: &str) -> Result<Value> {
    let digest = checksum(checksums, name)?;
    let url = format!("{release}/{name}");
    let head = shell::output(shell::command("curl").args(["-fsSLI", "--retry", "3", &url]))
        .with_context(|| format!("{url} cannot be had"))?;
    let size = length(&head).with_context(|| format!("{url} does not say how long it is"))?;
    Ok(json!({"digest": format!("sha256:{digest}"), "size": size, "name": name, "sources": [{"url": url}]}))
}

/// The digest of a file, from lines such as sha256sum writes.
fn checksum<'a>(checksums: &'a str, name: &str) -> Result<&'a str> {
    let mut found = checksums.lines().filter_map(|line| {
        let (digest, file) = line.split_once(char::is_whitespace)?;
        (file.trim_start().trim_start_matches('*') == name).then_some(digest)
    });
    let digest = found
        .next()
        .with_context(|| format!("the checksum file names no {name}"))?;
    if found.any(|other| other != digest) {
        bail!("the checksum file names {name} with two digests");
    }
    let is_digest = digest.len() == 64
        && digest
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !is_digest {
        bail!("the checksum file gives {name} the digest {digest:?}, which is none of SHA-256");
    }
    Ok(digest)
}

/// The length in the last of the heads that curl shows: those before it are redirects.
fn length(heads: &str) -> Option<u64> {
    let heads = heads.replace('\r', "");
    let last = heads.trim_end().rsplit("\n\n").next()?;
    last.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .filter(|length| *length > 0)
}

/// A released file never changes. One that did was replaced by someone.
fn refuse_changed(old: &Value, new: &Value) -> Result<()> {
    if old["version"] != new["version"] {
        return Ok(());
    }
    for (architecture, _) in ARCHITECTURES {
        let places = [
            format!("/binaries/{architecture}"),
            format!("/images/{architecture}/0"),
        ];
        for place in places {
            let of = |lock: &Value, key: &str| lock.pointer(&format!("{place}/{key}")).cloned();
            for key in ["digest", "size"] {
                let (before, now) = (of(old, key), of(new, key));
                if before.is_some() && before != now {
                    bail!(
                        "{place} was pinned with the {key} {} and has {} now: files of a release do not change, so find out who changed it \
                         before you remove the lock file",
                        before.unwrap_or_default(),
                        now.unwrap_or_default()
                    );
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        server::{Release, VERSION},
        *,
    };

    fn digest(content: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("content");
        files::replace(&file, content).unwrap();
        files::sha256(&file).unwrap()
    }

    #[test]
    fn a_version_is_pinned_by_the_checksums_of_its_release() {
        let place = tempfile::tempdir().unwrap();
        let output = place.path().join("k3s.lock");
        let url = Release::of(&[1; 700], &[2; 9_000]).serve(false);
        lock(VERSION, &url, &output).unwrap();
        let lock: Value = serde_json::from_str(&fs::read_to_string(&output).unwrap()).unwrap();
        assert_eq!(lock["version"], VERSION);
        assert_eq!(
            lock["binaries"]["arm64"],
            json!({
                "digest": format!("sha256:{}", digest(&[1; 700])), "size": 700, "name": "k3s-arm64",
                "sources": [{"url": format!("{url}/v1.36.3%2Bk3s1/k3s-arm64")}]
            })
        );
        assert_eq!(lock["images"]["amd64"][0]["size"], 9_000);
    }

    #[test]
    fn a_release_that_changed_after_it_was_pinned_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let output = place.path().join("k3s.lock");
        lock(VERSION, &Release::of(b"a", b"images").serve(false), &output).unwrap();
        let before = fs::read_to_string(&output).unwrap();
        let error = lock(VERSION, &Release::of(b"b", b"images").serve(false), &output).unwrap_err();
        assert!(error.to_string().contains("do not change"), "{error}");
        assert_eq!(fs::read_to_string(&output).unwrap(), before);
    }

    #[test]
    fn what_is_missing_or_no_digest_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let output = place.path().join("k3s.lock");
        let mut without = Release::of(b"a", b"images");
        without
            .0
            .retain(|path, _| !path.ends_with("images-arm64.tar.zst"));
        assert!(lock(VERSION, &without.serve(false), &output).is_err());
        let mut no_digest = Release::of(b"a", b"images");
        no_digest.add("sha256sum-arm64.txt", b"none  k3s-arm64\n");
        assert!(lock(VERSION, &no_digest.serve(false), &output).is_err());
        let other = Release::of(b"a", b"images").serve(false);
        assert!(lock("v1.36.4+k3s1", &other, &output).is_err());
        assert!(!output.exists());
        for wrong in ["1.36.3+k3s1", "v1.36.3", "v1.36+k3s1", "v1.36.3+k3s1/../x"] {
            assert!(check_version(wrong).is_err(), "{wrong}");
        }
    }
}
