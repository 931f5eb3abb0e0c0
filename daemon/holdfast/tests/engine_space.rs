//! A disk that fills up, a clock that is wrong, and what reaches the flash: nodes on real file systems, with a real Kubernetes.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, ensure};
use engine_support::{PATIENCE, app, broker::Hub, config_map, namespace, node::Node};
use holdfast::{codes, settings::ByteSize};
use holdfast_harness::{Kubectl, paths, wait};
use holdfast_protocol::{codes as protocol_codes, report::Health};
use nix::{
    mount::{MsFlags, mount, umount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// A file system of its own, as small as it says.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, size: &str) -> Result<Self> {
        fs::create_dir_all(path)?;
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(format!("size={size},mode=0700").as_str()),
        )
        .context("mount a small file system: run as root")?;
        Ok(Self(path.to_owned()))
    }

    /// Writes until nothing goes any more.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("somebody-elses");
        let mut file = fs::File::create(&path)?;
        let mut block = 1 << 20;
        while block > 0 {
            if file.write_all(&vec![1; block]).is_err() {
                block /= 2;
            }
        }
        Ok(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

#[tokio::test]
async fn pain_11_the_node_lives_and_reports_on_a_full_disk_and_recovers() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = Node::enrolled(&hub, "full").await?;
    // The identity moves to the small disk with the rest.
    let state = node.settings.state_dir.clone();
    let beside = node.path("identity-kept");
    fs::rename(&state, &beside)?;
    let small = Small::mount(&state, "32m")?;
    for entry in fs::read_dir(&beside)? {
        let entry = entry?;
        copy(&entry.path(), &state.join(entry.file_name()))?;
    }
    node.settings.disk_reserve = ByteSize(4 << 20);
    node.run().await?;
    let objects = |value: &str| [namespace("full"), config_map("settings", value)];
    node.publish(&hub, 1, &[app("hello", "full", &objects("1"))])
        .await?;
    node.until_proven(1).await?;
    let reserve = state.join("reserve");
    wait::until("room is kept", PATIENCE, async || {
        Ok(fs::metadata(&reserve)
            .ok()
            .filter(|it| it.blocks() * 512 >= 4 << 20)
            .map(drop))
    })
    .await?;

    // What can be done without: a download that was not finished, and a store that was set aside.
    fs::create_dir_all(state.join("store/blobs/partial"))?;
    let partial = state.join("store/blobs/partial").join("0".repeat(64));
    fs::write(&partial, vec![1; 1 << 20])?;
    let damaged = state.join("store/node.db.damaged-20200101T000000000Z");
    fs::write(&damaged, vec![1; 1 << 20])?;
    let filler = small.fill()?;
    let count = std::cell::Cell::new(1);
    wait::until(
        "the node says that the disk is nearly full",
        PATIENCE,
        async || {
            // Each one that is stored takes a little more of what is left.
            count.set(count.get() + 1);
            node.publish(
                &hub,
                count.get(),
                &[app("hello", "full", &objects(&"x".repeat(4096)))],
            )
            .await?;
            let status = node.status()?;
            let is_low = |code: &str| {
                status
                    .conditions
                    .iter()
                    .any(|condition| condition.problem.code == code)
            };
            Ok(is_low(codes::DISK_LOW).then_some(()))
        },
    )
    .await?;
    ensure!(!reserve.exists() && !partial.exists() && !damaged.exists());
    // It stores, applies and proves what comes now, and the hub hears of all of it.
    let count = count.get() + 1;
    node.publish(&hub, count, &[app("hello", "full", &objects("2"))])
        .await?;
    node.until_proven(count).await?;
    hub.hear("the hub is told", |heard| {
        heard.reports.last().is_some_and(|report| {
            report
                .conditions
                .iter()
                .any(|condition| condition.problem.code == codes::DISK_LOW)
        })
    })
    .await?;

    fs::remove_file(filler)?;
    node.until("the disk is no longer low", |status| {
        status.conditions.iter().all(|condition| {
            condition.problem.code != codes::DISK_LOW && condition.problem.code != protocol_codes::DISK_FULL
        })
    })
    .await?;
    ensure!(reserve.exists(), "no room is kept again");
    node.stop().await
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let metadata = fs::metadata(from)?;
    if metadata.is_dir() {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, metadata.permissions())?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// A node that supervises a Kubernetes of its own.
async fn supervised(hub: &Hub, name: &str) -> Result<Node> {
    let mut node = Node::enrolled(hub, name).await?;
    let data = node.path("kubernetes");
    let kubernetes = &mut node.settings.kubernetes;
    kubernetes.supervise = true;
    kubernetes.binary = paths::k3s()?.display().to_string();
    kubernetes.data_dir = data.join("data");
    kubernetes.kubeconfig = data.join("k3s.yaml");
    kubernetes.https_port = holdfast_harness::port::reserve()?;
    kubernetes.log_file = Some(data.join("log"));
    kubernetes.cni_state_dir = data.join("cni");
    node.kubectl = Kubectl {
        kubeconfig: kubernetes.kubeconfig.clone(),
        ..node.kubectl
    };
    Ok(node)
}

fn recorded(node: &Node) -> Result<Pid> {
    let record: Value = serde_json::from_str(&fs::read_to_string(node.settings.kubernetes_pid_file())?)?;
    let pid = record["pid"].as_i64().context("the record has a process id")?;
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

struct EndsWithTest(PathBuf);

impl Drop for EndsWithTest {
    fn drop(&mut self) {
        let pid = fs::read_to_string(&self.0)
            .ok()
            .and_then(|text| serde_json::from_str::<Value>(&text).ok())
            .and_then(|record| i32::try_from(record["pid"].as_i64()?).ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[tokio::test]
async fn pain_05_a_k3s_that_refuses_a_wrong_clock_is_started_until_it_comes_up() -> Result<()> {
    let hub = Hub::start().await?;
    let mut node = supervised(&hub, "clock").await?;
    let _end = EndsWithTest(node.settings.kubernetes_pid_file());
    // Refuses as k3s does with a clock in 1970, more often than any service manager's limit, and then is itself.
    let (script, tries) = (node.path("k3s"), node.path("tries"));
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = server ] || exec {1} \"$@\"\necho x >> {0}\nif [ $(wc -l < {0}) -lt 13 ]; then\n  echo 'level=fatal msg=\"x509: certificate has expired or is not yet valid: current time 1970-01-01T00:01:00Z\"' >&2\n  exit 1\nfi\nexec {1} \"$@\"\n",
        tries.display(),
        paths::k3s()?.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    node.settings.kubernetes.binary = script.display().to_string();
    node.settings.kubernetes.restart_min = Duration::from_millis(10);
    node.settings.kubernetes.restart_max = Duration::from_millis(200);
    node.run().await?;
    node.publish(
        &hub,
        1,
        &[app("hello", "default", &[config_map("settings", "1")])],
    )
    .await?;
    node.until_proven(1).await?;
    assert_eq!(fs::read_to_string(&tries)?.lines().count(), 13);
    // What k3s said was no sign of damage.
    assert_eq!(
        holdfast::kubernetes::heal::quarantine::all(
            &node.settings.kubernetes.data_dir.join("server/db/state.db")
        ),
        []
    );
    node.stop().await
}

/// Bytes that a process has handed to the block layer, as the kernel counts them.
fn written(pid: Pid) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text
        .lines()
        .find(|line| line.starts_with("write_bytes:"))
        .context("write_bytes")?;
    Ok(line.trim_start_matches("write_bytes:").trim().parse()?)
}

/// Bytes of k3s and of snapshots for the same work, with the datastore in one mode.
async fn bytes_of(hub: &Hub, mode: &str) -> Result<u64> {
    let mut node = supervised(hub, &format!("flash-{mode}")).await?;
    let _end = EndsWithTest(node.settings.kubernetes_pid_file());
    let memory = tempfile::Builder::new()
        .prefix("datastore-")
        .tempdir_in("/dev/shm")?;
    node.settings.kubernetes.datastore = mode.into();
    node.settings.kubernetes.datastore_ram_dir = memory.path().join("db");
    node.run().await?;
    node.until("Kubernetes is ready", |status| {
        status.kubernetes.health == Health::Healthy
    })
    .await?;
    let pid = recorded(&node)?;
    let before = written(pid)?;
    // What an idle Kubernetes writes in hours, in seconds: leases that are renewed.
    for round in 0..150 {
        let name = format!("lease-{}", round % 3);
        let patch = format!(
            r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"name":"{name}"}},"spec":{{"holderIdentity":"{round}"}}}}"#
        );
        let file = node.path("lease.json");
        fs::write(&file, patch)?;
        node.kubectl
            .run(&[
                "apply",
                "--server-side",
                "--force-conflicts",
                "-n",
                "default",
                "-f",
                &file.display().to_string(),
            ])
            .await?;
    }
    let of_k3s = written(pid)? - before;
    let facts = node.status()?.machine.flash.context("the flash is reported")?;
    ensure!(
        facts.by_kubernetes.context("k3s is counted")?.bytes >= of_k3s,
        "{facts:?}"
    );
    let snapshots: u64 = fs::read_dir(holdfast::kubernetes::care::snapshot_directory(&node.settings))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum();
    node.stop().await?;
    Ok(of_k3s + snapshots)
}

#[tokio::test]
async fn pain_06_a_datastore_in_memory_spares_the_flash_nineteen_twentieths() -> Result<()> {
    let hub = Hub::start().await?;
    let persistent = bytes_of(&hub, "persistent").await?;
    let ram = bytes_of(&hub, "ram").await?;
    println!("persistent {persistent} bytes, ram {ram} bytes");
    ensure!(
        persistent > 0,
        "nothing was counted: is the temporary directory on a disk?"
    );
    ensure!(
        ram * 20 <= persistent,
        "ram wrote {ram} bytes, persistent {persistent}"
    );
    Ok(())
}
