//! `os` of `release.yaml`, with images as their build leaves them.

use super::*;
use holdfast_harness::images::{self, key};
use holdfast_os::Architecture;
use holdfast_protocol::trust::{Role, TrustPolicy, TrustedKey};
use ring::signature::KeyPair as _;

/// An image whose three parts are small.
fn image(directory: &Path, version: &str, architecture: Architecture) -> PathBuf {
    images::build(directory, version, architecture, 8_192, &key(1).unwrap())
        .unwrap()
        .file
}

fn release(settings: &str) -> TempDir {
    let found = directory(&[("till/a.yaml", &config_map("a")), ("release.yaml", settings)]);
    let images = found.path().join("images");
    for version in ["2", "3.1"] {
        image(&images, version, Architecture::Amd64);
        image(&images, version, Architecture::Arm64);
    }
    found
}

#[test]
fn an_image_that_is_named_by_its_path_is_pushed_with_its_pack() {
    for (settings, version) in [
        (
            "os:\n  version: '3.1'\n  images: {amd64: images, arm64: images}\n",
            "3.1",
        ),
        (
            "os:\n  images:\n    amd64: images/holdfast_2_amd64.manifest.json\n    arm64: {file: images}\n  maxBytesPerSecond: 500000\n",
            "2",
        ),
    ] {
        let found = release(settings);
        let release = load(found.path()).unwrap();
        let os = release.content.os.as_ref().unwrap();
        assert_eq!(os.version, version);
        assert_eq!(os.images.len(), 2);
        for (architecture, manifest) in &os.images {
            let file = &release.files[&manifest.digest];
            assert_eq!(
                file.file_name().unwrap().to_str().unwrap(),
                format!("holdfast_{version}_{architecture}.manifest.json")
            );
            let bytes = fs::read(file).unwrap();
            assert_eq!(Digest::of(&bytes), manifest.digest);
            let pack = crate::os::peek(&bytes).unwrap().pack;
            assert!(release.files.contains_key(&pack.digest));
        }
        // What a node gets says the same.
        let node: NodeId = "shop-17".parse().unwrap();
        let rendered = release.render(&node, &BTreeMap::new()).unwrap();
        assert_eq!(rendered.content.os, release.content.os);
    }
}

#[test]
fn what_is_filled_in_for_each_node_may_be_the_limit_of_the_os() {
    let found = release(
        "variables: {limit: {type: integer, default: 70000}}\nos:\n  version: '2'\n  images: {amd64: images}\n  maxBytesPerSecond: ${variables.limit}\n",
    );
    let release = load(found.path()).unwrap();
    let node: NodeId = "shop-17".parse().unwrap();
    let rendered = release.render(&node, &BTreeMap::new()).unwrap();
    assert_eq!(rendered.content.os.unwrap().max_bytes_per_second, Some(70_000));
}

#[test]
fn what_is_wrong_with_an_image_is_told_with_its_line() {
    let digest = Digest::of(b"x");
    for (settings, line, words) in [
        (
            "os:\n  version: '9'\n  images:\n    amd64: images\n",
            4,
            "there is no image for amd64 of version 9",
        ),
        (
            "os:\n  images:\n    amd64: images\n",
            3,
            "there are 2 images for amd64",
        ),
        (
            "os:\n  version: '2'\n  images:\n    arm64: images/holdfast_2_amd64.manifest.json\n",
            4,
            "the image is for amd64, not for arm64",
        ),
        (
            "os:\n  version: '2'\n  images:\n    amd64: images/holdfast_3.1_amd64.manifest.json\n",
            4,
            "the image has the version 3.1",
        ),
        (
            "os:\n  version: '2'\n  images:\n    amd64: till/a.yaml\n",
            4,
            "not a DSSE envelope",
        ),
        (
            "os:\n  version: '2'\n  images:\n    amd64: {digest: \"DIGEST\"}\n",
            4,
            "the artifact has no size",
        ),
        (
            "os:\n  version: '2'\n  images:\n    amd64: {digest: \"DIGEST\", size: 1}\n  maxBytesPerSecond: 0\n",
            5,
            "0 would never end",
        ),
        (
            "os:\n  version: 'no spaces'\n  images:\n    amd64: {digest: \"DIGEST\", size: 1}\n",
            2,
            "is no version of an image",
        ),
        (
            "os:\n  version: '2'\n  images:\n    riscv64: images\n",
            4,
            "\"riscv64\" is no architecture of a box; known are amd64, arm64",
        ),
        ("os:\n  versoin: '2'\n", 2, "unknown key \"versoin\""),
    ] {
        let settings = settings.replace("DIGEST", &digest.to_string());
        let found = release(&settings);
        let problem = load(found.path()).map(|_| ()).expect_err(&settings);
        assert!(
            problem.message.contains(&format!("release.yaml:{line}:")) && problem.message.contains(words),
            "{settings}\n{problem:?}"
        );
        assert!(!problem.action.is_empty(), "{problem:?}");
    }
}

#[test]
fn a_pack_that_is_missing_or_another_one_is_refused() {
    let found = release("os:\n  version: '2'\n  images:\n    amd64: images\n");
    let pack = found.path().join("images/holdfast_2_amd64.pack");
    fs::File::create(&pack).unwrap().write_all(b"other").unwrap();
    let problem = load(found.path()).map(|_| ()).expect_err("another pack");
    assert!(problem.message.contains("the manifest names"), "{problem:?}");
    fs::remove_file(&pack).unwrap();
    let problem = load(found.path()).map(|_| ()).expect_err("no pack");
    assert!(
        problem.message.contains("its pack is not beside it"),
        "{problem:?}"
    );
}

#[test]
fn with_the_builders_keys_given_only_their_images_are_taken() {
    let found = release("os:\n  version: '2'\n  images:\n    amd64: images\n");
    let keys = |seed: u8| {
        let key = TrustedKey::ed25519(key(seed).unwrap().public_key().as_ref(), vec![Role::OsImage]);
        let trust = TrustPolicy {
            keys: vec![key],
            ..TrustPolicy::default()
        };
        let path = found.path().join(format!("keys-{seed}"));
        fs::File::create(&path)
            .unwrap()
            .write_all(&serde_json::to_vec(&trust).unwrap())
            .unwrap();
        let options = Options {
            os_keys: Some(path),
            ..Options::default()
        };
        super::super::load(found.path(), &options)
    };
    assert!(keys(1).is_ok());
    let problem = keys(2).map(|_| ()).expect_err("by another builder");
    assert!(problem.message.contains("trusted key"), "{problem:?}");
}

#[test]
fn a_pipe_or_a_disk_image_in_place_of_a_manifest_is_refused_without_waiting_and_without_being_read_whole() {
    let found = release("");
    let pipe = found.path().join("images/pipe.manifest.json");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = crate::os::image(&pipe, None).unwrap_err();
    assert!(error.message.contains("is no regular file"), "{error:?}");
    // More than the address space of a process holds.
    let disk = found.path().join("images/holdfast.raw");
    fs::File::create(&disk).unwrap().set_len(1 << 43).unwrap();
    let error = crate::os::image(&disk, None).unwrap_err();
    assert!(error.message.contains("bytes"), "{error:?}");
    let keys = crate::os::keys(&disk).unwrap_err();
    assert!(keys.message.contains("holds no keys"), "{keys:?}");
}

#[test]
fn what_is_for_an_unknown_architecture_is_refused_with_the_known_ones() {
    let artifact = format!("{{digest: '{}', size: 9}}", Digest::of(b"x"));
    for (settings, place) in [
        (
            format!("os:\n  version: '2'\n  images: {{banana: {artifact}}}\n"),
            "os.images.banana",
        ),
        ("os:\n  images: {banana: images}\n".to_owned(), "os.images.banana"),
        (
            format!("k3s:\n  version: v1.36.3+k3s1\n  binaries: {{banana: {artifact}}}\n"),
            "k3s.binaries.banana",
        ),
        (
            format!("k3s:\n  version: v1.36.3+k3s1\n  images: {{x86_64: [{artifact}]}}\n"),
            "k3s.images.x86_64",
        ),
        (
            format!("apps:\n  till:\n    images: {{banana: [{artifact}]}}\n"),
            "apps.till.images.banana",
        ),
    ] {
        let found = release(&settings);
        let error = load(found.path()).unwrap_err();
        assert_eq!(error.code, codes::RELEASE_INVALID);
        for words in [place, "release.yaml:", "known are amd64, arm64"] {
            assert!(error.message.contains(words), "{words}: {error:?}");
        }
    }
}
