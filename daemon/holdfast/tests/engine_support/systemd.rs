//! A real systemd with a real system bus, as the first process of namespaces of its own: what it does reaches nothing of this machine but
//! the files it is told of.

use super::PATIENCE;
use anyhow::{Context as _, Result, ensure};
use holdfast_harness::{Process, wait};
use std::{fs, path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::process::Command;

/// Runs as root in new namespaces; `$1` becomes `/run`. Control groups are of a hierarchy that carries no controllers.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$1" /run
umount -l /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
exec env -i container=test PATH="$PATH" /lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=no
"#;

/// What makes the bus start with systemd, and nothing else.
const UNITS: [(&str, &str); 3] = [
    (
        "test.target",
        "[Unit]\nDefaultDependencies=no\nWants=dbus.socket\n",
    ),
    (
        "dbus.socket",
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    ),
    (
        "dbus.service",
        "[Unit]\nDefaultDependencies=no\n[Service]\n\
         ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n",
    ),
];

/// A running systemd.
pub struct Systemd {
    run: TempDir,
    _process: Process,
}

impl Systemd {
    /// Boots one with this unit besides its own.
    pub async fn boot(unit: &str, text: &str) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "namespaces with a systemd in them need root"
        );
        for (program, package) in [
            ("/lib/systemd/systemd", "systemd"),
            ("/usr/bin/dbus-daemon", "dbus"),
        ] {
            ensure!(PathBuf::from(program).exists(), "apt-get install {package}");
        }
        let run = TempDir::with_prefix("systemd-")?;
        fs::set_permissions(run.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let units = run.path().join("systemd/system");
        fs::create_dir_all(&units)?;
        fs::create_dir_all(run.path().join("dbus"))?;
        for (name, text) in UNITS.into_iter().chain([(unit, text)]) {
            fs::write(units.join(name), text)?;
        }
        let mut command = Command::new("unshare");
        command
            .args([
                "--pid",
                "--mount",
                "--cgroup",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
            ])
            .args(["sh", "-c", BOOT, "boot"])
            .arg(run.path());
        let process = Process::start("systemd", command, &run.path().join("boot.log"))?;
        let systemd = Self {
            run,
            _process: process,
        };
        wait::until("systemd answers on its bus", PATIENCE, async || {
            let asked = tokio::time::timeout(
                Duration::from_secs(5),
                systemd.property(unit, "Unit", "LoadState"),
            );
            Ok((asked.await?? == "loaded").then_some(()))
        })
        .await?;
        Ok(systemd)
    }

    /// Its bus.
    pub fn address(&self) -> String {
        format!(
            "unix:path={}",
            self.run.path().join("dbus/system_bus_socket").display()
        )
    }

    /// A property of a unit, as `busctl` prints it, without type and quotes.
    pub async fn property(&self, unit: &str, interface: &str, name: &str) -> Result<String> {
        let path = format!(
            "/org/freedesktop/systemd1/unit/{}",
            unit.replace('-', "_2d").replace('.', "_2e")
        );
        let mut command = self.busctl("get-property");
        command
            .arg(path)
            .arg(format!("org.freedesktop.systemd1.{interface}"))
            .arg(name);
        let text = holdfast_harness::process::run(command).await?;
        let (_, value) = text.trim().split_once(' ').context("a type and a value")?;
        Ok(value.trim_matches('"').to_owned())
    }

    /// Calls a method of the manager.
    pub async fn manager(&self, method: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.busctl("call");
        command
            .args([
                "/org/freedesktop/systemd1",
                "org.freedesktop.systemd1.Manager",
                method,
            ])
            .args(arguments);
        holdfast_harness::process::run(command).await.map(drop)
    }

    fn busctl(&self, verb: &str) -> Command {
        let mut command = Command::new("busctl");
        command
            .arg(format!("--address={}", self.address()))
            .args([verb, "org.freedesktop.systemd1"])
            .kill_on_drop(true);
        command
    }
}
