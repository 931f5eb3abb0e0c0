//! Images in a real containerd: imported from archives, pinned, back when they are gone.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{PATIENCE, app, broker::Hub, config_map, deployment, namespace, node::Node};
use holdfast::images::{
    archive,
    ctr::{Ctr, OURS, PINNED},
};
use holdfast_harness::{Process, wait};
use holdfast_protocol::{Digest, report::Phase};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs::File, io::Write as _, path::Path};
use tempfile::TempDir;
use tokio::process::Command;

/// A containerd with a state of its own, and the names of its images.
struct Containerd {
    directory: TempDir,
    ctr: Ctr,
    process: Option<Process>,
}

impl Containerd {
    async fn start() -> Result<Self> {
        let directory = TempDir::new()?;
        let mut it = Self {
            ctr: Ctr {
                command: vec!["ctr".into()],
                socket: directory.path().join("containerd.sock"),
            },
            directory,
            process: None,
        };
        it.run().await?;
        Ok(it)
    }

    async fn run(&mut self) -> Result<()> {
        let directory = self.directory.path();
        // Only what concerns images: without the part that runs pods.
        let config = directory.join("config.toml");
        std::fs::write(
            &config,
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(config);
        command.arg("--root").arg(directory.join("root"));
        command.arg("--state").arg(directory.join("state"));
        command.arg("--address").arg(&self.ctr.socket);
        self.process = Some(Process::start(
            "containerd",
            command,
            &directory.join("containerd.log"),
        )?);
        wait::until("containerd answers", PATIENCE, async || {
            Ok(self.ctr.names(None).await.ok())
        })
        .await?;
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    async fn names(&self) -> Result<BTreeSet<String>> {
        Ok(self.ctr.names(None).await?)
    }

    async fn pinned(&self) -> Result<BTreeSet<String>> {
        Ok(self.ctr.names(Some(PINNED)).await?)
    }

    async fn until_pinned(&self, names: &[&str]) -> Result<()> {
        let wanted: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let what = format!("{names:?} are pinned, and no other");
        wait::until(&what, PATIENCE, async || {
            Ok((self.pinned().await? == wanted).then_some(()))
        })
        .await
        .with_context(|| "images and pins differ")
    }

    /// The kubelet's garbage collection under disk pressure, when no container runs: every image that the CRI does not call pinned.
    async fn collect_garbage(&self) -> Result<()> {
        let pinned = self.pinned().await?;
        let free = self.names().await?.difference(&pinned).cloned().collect();
        Ok(self.ctr.remove(&free).await?)
    }
}

fn entry(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// An archive with one image under these names, as an OCI layout.
fn image_archive(names: &[&str], seed: &str) -> Vec<u8> {
    let mut layer = Vec::new();
    entry(&mut layer, "hello", seed.repeat(1_000).as_bytes());
    layer.resize(layer.len() + 1_024, 0);
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}
    });
    let config = config.to_string().into_bytes();
    let of = |content: &[u8], kind: &str| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": Digest::of(content), "size": content.len()
        })
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": of(&config, "config.v1+json"), "layers": [of(&layer, "layer.v1.tar")]
    });
    let manifest = manifest.to_string().into_bytes();
    let manifests: Vec<Value> = names
        .iter()
        .map(|name| {
            let mut it = of(&manifest, "manifest.v1+json");
            it["annotations"] = json!({"io.containerd.image.name": name});
            it
        })
        .collect();
    let mut tar = Vec::new();
    entry(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for blob in [&config, &manifest, &layer] {
        entry(
            &mut tar,
            &format!("blobs/sha256/{}", Digest::of(blob).hex()),
            blob,
        );
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    entry(&mut tar, "index.json", index.to_string().as_bytes());
    tar.resize(tar.len() + 1_024, 0);
    tar
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let output = std::process::Command::new("zstd")
        .args(["-q", "-c", "-16", "--long=25"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A node whose image holds these archives and whose containerd is this one.
async fn node_with(hub: &Hub, name: &str, containerd: &Containerd, archives: &[&[u8]]) -> Result<Node> {
    let mut node = Node::enrolled(hub, name).await?;
    node.settings.images.ctr.clone_from(&containerd.ctr.command);
    node.settings.images.containerd.clone_from(&containerd.ctr.socket);
    node.settings.artifacts.baked = node.path("baked");
    node.settings.apply.retry_max = node.settings.apply.retry_min;
    let baked = node.path("baked/sha256");
    std::fs::create_dir_all(&baked)?;
    for archive in archives {
        std::fs::write(baked.join(Digest::of(archive).hex()), archive)?;
    }
    node.run().await?;
    Ok(node)
}

fn app_of(namespace_name: &str, image: &str, archive: &[u8]) -> Value {
    let mut it = app(
        "app",
        namespace_name,
        &[namespace(namespace_name), deployment("app", image)],
    );
    let artifact = json!({"digest": Digest::of(archive), "size": archive.len(), "name": "app.tar"});
    it["images"] = json!({"amd64": [artifact.clone()], "arm64": [artifact]});
    it
}

#[tokio::test]
async fn pain_09_images_outlive_garbage_collection_and_come_back_without_a_network() -> Result<()> {
    let hub = Hub::start().await?;
    let mut containerd = Containerd::start().await?;
    let [one, two, three] = ["1", "2", "3"].map(|version| format!("example.com/edge/app:{version}"));
    let second_name = "docker.io/library/second:1";
    let archives = [
        zstd(&image_archive(&[&one, second_name], "one")),
        gzip(&image_archive(&[&two], "two")),
        image_archive(&[&three], "three"),
    ];
    let all: Vec<_> = archives.iter().map(Vec::as_slice).collect();
    let mut node = node_with(&hub, "images", &containerd, &all).await?;

    // Something that nobody asked for.
    let junk = node.path("junk.tar");
    std::fs::write(&junk, image_archive(&["docker.io/library/junk:1"], "junk"))?;
    containerd.ctr.import(File::open(&junk)?).await?;

    node.publish(&hub, 1, &[app_of("images", &one, &archives[0])])
        .await?;
    node.until_proven(1).await?;
    containerd.until_pinned(&[&one, second_name]).await?;

    // The image of the document that a rollback goes back to stays, too; what nobody needs goes.
    node.publish(&hub, 2, &[app_of("images", &two, &archives[1])])
        .await?;
    node.until_proven(2).await?;
    containerd.until_pinned(&[&one, &two, second_name]).await?;
    assert_eq!(containerd.names().await?.len(), 4);
    containerd.collect_garbage().await?;
    let left: Vec<_> = containerd.names().await?.into_iter().collect();
    assert_eq!(left, [second_name, &one, &two]);

    // Two documents later, nothing goes back there.
    node.publish(&hub, 3, &[app_of("images", &three, &archives[2])])
        .await?;
    node.until_proven(3).await?;
    containerd.until_pinned(&[&two, &three]).await?;
    containerd.collect_garbage().await?;
    let left: Vec<_> = containerd.names().await?.into_iter().collect();
    assert_eq!(left, [two.as_str(), &three]);

    // One is removed by hand, and is back at the next look, from its archive.
    node.stop().await?;
    containerd.ctr.remove(&BTreeSet::from([three.clone()])).await?;
    node.run().await?;
    containerd.until_pinned(&[&two, &three]).await?;

    // All that containerd knew is lost.
    node.stop().await?;
    containerd.stop().await?;
    std::fs::remove_dir_all(containerd.directory.path().join("root"))?;
    containerd.run().await?;
    assert!(containerd.names().await?.is_empty());
    node.run().await?;
    containerd.until_pinned(&[&two, &three]).await?;
    node.stop().await?;
    containerd.stop().await
}

#[tokio::test]
async fn an_image_that_was_pulled_is_pinned_as_long_as_a_document_names_it() -> Result<()> {
    let hub = Hub::start().await?;
    let mut containerd = Containerd::start().await?;
    let mut node = node_with(&hub, "pulled", &containerd, &[]).await?;
    let file = node.path("pulled.tar");
    let name = "docker.io/library/pulled:1";
    std::fs::write(
        &file,
        image_archive(&[name, "docker.io/library/sandbox:1"], "pulled"),
    )?;
    containerd.ctr.import(File::open(&file)?).await?;
    // What containerd itself pins is not ours to unpin.
    let label = [
        "images",
        "label",
        "docker.io/library/sandbox:1",
        "io.cri-containerd.pinned=pinned",
    ];
    let status = Command::new("ctr")
        .arg("-a")
        .arg(&containerd.ctr.socket)
        .args(["-n", "k8s.io"])
        .args(label)
        .status()
        .await?;
    assert!(status.success());
    let objects = [namespace("pulled"), deployment("pulled", "pulled:1")];
    node.publish(&hub, 1, &[app("app", "pulled", &objects)]).await?;
    node.until_proven(1).await?;
    containerd
        .until_pinned(&[name, "docker.io/library/sandbox:1"])
        .await?;
    assert_eq!(containerd.ctr.names(Some(OURS)).await?.len(), 1);
    for counter in [2, 3] {
        let objects = [namespace("pulled"), config_map("other", &counter.to_string())];
        node.publish(&hub, counter, &[app("app", "pulled", &objects)])
            .await?;
        node.until_proven(counter).await?;
    }
    containerd.until_pinned(&["docker.io/library/sandbox:1"]).await?;
    node.stop().await?;
    containerd.stop().await
}

#[tokio::test]
async fn an_archive_that_is_none_fails_its_document_by_name() -> Result<()> {
    let hub = Hub::start().await?;
    let mut containerd = Containerd::start().await?;
    let nonsense = b"this is no archive".repeat(100);
    let mut node = node_with(&hub, "nonsense", &containerd, &[&nonsense]).await?;
    node.publish(&hub, 1, &[app_of("nonsense", "a:1", &nonsense)])
        .await?;
    let status = node
        .until("the document failed", |status| {
            status.generation.phase == Phase::Failed
        })
        .await?;
    let cause = status.generation.cause.context("a cause")?;
    assert_eq!(cause.code, holdfast::codes::IMAGE_ARCHIVE_INVALID);
    assert!(cause.message.contains("no tar archive"), "{}", cause.message);
    node.stop().await?;
    containerd.stop().await
}

#[test]
fn names_are_read_from_every_form_of_archive() {
    let names = ["docker.io/library/a:1", "example.com/b:2"];
    let expected: BTreeSet<_> = names.map(str::to_owned).into();
    let plain = image_archive(&names, "x");
    let directory = TempDir::new().unwrap();
    for (form, content) in [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("zstd", zstd(&plain)),
        (
            "two frames of zstd",
            [zstd(&plain[..700]), zstd(&plain[700..])].concat(),
        ),
    ] {
        let mut tar = Vec::new();
        let file = file(directory.path(), &content);
        assert_eq!(archive::unpack(file, &mut tar).unwrap(), expected, "{form}");
        assert_eq!(tar, plain, "{form}");
    }

    // As docker save writes it, with a long entry before.
    let mut saved = Vec::new();
    entry(&mut saved, "layer.tar", &vec![1; 100_000]);
    let manifest = json!([{"Config": "x.json", "RepoTags": ["a:1", "example.com/b:2"], "Layers": ["layer.tar"]}, {"RepoTags": null}]);
    entry(&mut saved, "./manifest.json", manifest.to_string().as_bytes());
    let file_of = |content: &[u8]| file(directory.path(), content);
    assert_eq!(
        archive::unpack(file_of(&saved), std::io::sink()).unwrap(),
        expected
    );

    for (what, content) in [
        ("nothing", Vec::new()),
        ("no archive", vec![b'x'; 2_000]),
        ("half a zstd", zstd(&plain)[..200].to_vec()),
        ("half a gzip", gzip(&plain)[..200].to_vec()),
    ] {
        assert!(
            archive::unpack(file_of(&content), std::io::sink()).is_err(),
            "{what}"
        );
    }
}

fn file(directory: &Path, content: &[u8]) -> File {
    let path = directory.join("archive");
    std::fs::write(&path, content).unwrap();
    File::open(path).unwrap()
}
