//! A box: QEMU in software emulation, its console, its power.

use crate::{Console, Disk, firmware::Firmware, qmp};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

/// How long the memory of a box may take to or from a file.
const TRANSFER: Duration = Duration::from_secs(300);
/// When the power button is pressed again. A box that is on its way down takes no notice.
const PRESSED_AGAIN: Duration = Duration::from_secs(20);

/// How a box's processor is called where k3s and images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `x86_64`
    Amd64,
    /// `aarch64`
    Arm64,
}

impl Architecture {
    /// As documents and k3s name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As directories of built images name it.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

/// What a box is made of.
pub struct Setup {
    /// Its processor.
    pub architecture: Architecture,
    /// Its memory in MiB.
    pub memory: u32,
    /// Whether it has a network card; the cable can be pulled while it runs.
    pub network: bool,
    /// A public key for SSH that the machine it runs on hands to it as a credential, as virtual machines can. Its port for SSH can then be
    /// reached, see [`Machine::ssh_port`].
    pub ssh_key: Option<String>,
    /// Whether it has a screen, see [`Machine::photograph`].
    pub screen: bool,
    /// Whether its firmware can enforce Secure Boot. It comes without keys, as new hardware in setup mode: systemd-boot enrols those on
    /// the ESP, and from then on they are enforced.
    pub secure_boot: bool,
    /// Whether it has a hardware watchdog. Its minute is one of hardware, and emulation on a busy machine can need longer for what takes a second there: only
    /// for scenarios of the watchdog itself.
    pub watchdog: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            architecture: Architecture::Amd64,
            memory: 3072,
            network: true,
            ssh_key: None,
            screen: false,
            secure_boot: false,
            watchdog: false,
        }
    }
}

/// A running box; dropped, its power is cut.
pub struct Machine {
    /// What it writes on its serial console.
    pub console: Console,
    qmp: qmp::Qmp,
    child: Child,
    log: PathBuf,
}

impl Machine {
    /// Switches a box on. Its firmware's variables and its log are kept in `directory`.
    pub async fn switch_on(directory: &Path, disk: &Disk, setup: &Setup) -> Result<Self> {
        Self::start(directory, disk, setup, false).await
    }

    /// Lets a box go on where [`Machine::hold`] stopped it; its disk and its firmware's variables are copies of what they were then.
    pub async fn go_on(directory: &Path, disk: &Disk, setup: &Setup, memory: &Path) -> Result<Self> {
        let mut machine = Self::start(directory, disk, setup, true).await?;
        let from = format!("exec:cat {}", memory.display());
        machine.transfer("migrate-incoming", &from).await?;
        machine.qmp.command("cont", json!({})).await?;
        Ok(machine)
    }

    /// Moves the memory of the box to or from a file, to its end.
    async fn transfer(&mut self, command: &str, uri: &str) -> Result<()> {
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        self.qmp.command("migrate-set-capabilities", events).await?;
        // As fast as the file takes it.
        let limits = json!({"max-bandwidth": 0});
        self.qmp.command("migrate-set-parameters", limits).await?;
        self.qmp.command(command, json!({"uri": uri})).await?;
        loop {
            let event = self.qmp.event("MIGRATION", TRANSFER).await?;
            match event.pointer("/data/status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed") => bail!("{command}: QEMU could not do this: {uri}"),
                _ => {}
            }
        }
    }

    async fn start(directory: &Path, disk: &Disk, setup: &Setup, wait: bool) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let firmware = Firmware::of(setup, directory)?;
        // Paths of sockets may not be longer than about 100 bytes; a temporary directory's is short.
        let sockets = tempfile::Builder::new().prefix("hf-qmp-").tempdir()?;
        let socket = sockets.path().join("qmp");
        let listener = qmp::Listener::at(&socket)?;
        let mut command = command(setup, disk, &firmware, &socket);
        if wait {
            command.args(["-incoming", "defer"]);
        }
        let errors = directory.join("qemu.log");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&errors)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "start {:?}: run `cargo xtask prerequisites --for image`",
                    command.as_std().get_program()
                )
            })?;
        let log = directory.join("console.log");
        let output = child.stdout.take().context("QEMU's output")?;
        let console = Console::read(output, &log)?;
        let qmp = tokio::select! {
            qmp = listener.accept() => qmp?,
            status = child.wait() => bail!("QEMU ended with {}: {}", status?, fs::read_to_string(&errors).unwrap_or_default()),
        };
        Ok(Self {
            console,
            qmp,
            child,
            log,
        })
    }

    /// Waits for `awaited`, which something outside the box tells; the error of a wait shows the console's end, and a fault of the guest's
    /// kernel ends it early.
    pub async fn meanwhile<T>(&self, awaited: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = awaited => result.with_context(|| format!("the console ends:\n{}", self.console.tail())),
            trouble = self.console.trouble() => bail!(trouble),
        }
    }

    /// The file that its console is copied to, over all its boots.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Cuts the power: QEMU is killed, what the guest did not flush is gone.
    pub async fn cut_power(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Stops the box between two instructions, writes its memory to a file, and ends QEMU. All that the box wrote is on its disk then.
    pub async fn hold(mut self, memory: &Path) -> Result<()> {
        self.qmp.command("stop", json!({})).await?;
        let to = format!("exec:cat > {}", memory.display());
        self.transfer("migrate", &to).await?;
        self.qmp.command("quit", json!({})).await?;
        self.child.wait().await?;
        Ok(())
    }

    /// Presses the reset button.
    pub async fn reset(&mut self) -> Result<()> {
        self.qmp.command("system_reset", json!({})).await?;
        Ok(())
    }

    /// Presses the power button and waits until the box has switched itself off. A press that comes before systemd-logind listens is heard by
    /// nobody, on hardware too; so, as a person would, the button is pressed again where nothing comes of it.
    pub async fn shut_down(mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let pressed = self.qmp.command("system_powerdown", json!({})).await;
            let again = deadline.min(Instant::now() + PRESSED_AGAIN);
            match tokio::time::timeout_at(again, self.child.wait()).await {
                Ok(status) => {
                    status?;
                    return Ok(());
                }
                // Where even QEMU does not answer, pressing again is of no use.
                Err(_) if again < deadline => pressed.map(drop)?,
                Err(_) => bail!(
                    "the box did not switch itself off within {within:?}:\n{}",
                    self.console.tail()
                ),
            }
        }
    }

    /// Waits until the box restarts itself.
    pub async fn restarts(&mut self, within: Duration) -> Result<()> {
        match self.qmp.event("RESET", within).await {
            Ok(_) => Ok(()),
            Err(error) => bail!("{error:#}; the console ends:\n{}", self.console.tail()),
        }
    }

    /// Forgets restarts that happened before this.
    pub async fn forget_restarts(&mut self) -> Result<()> {
        self.qmp.forget_events().await
    }

    /// What QEMU says of the connections over the box's cable, one a line.
    async fn connections(&mut self) -> Result<String> {
        let request = json!({"command-line": "info usernet"});
        let said = self.qmp.command("human-monitor-command", request).await?;
        Ok(said.as_str().unwrap_or_default().to_owned())
    }

    /// The port of this machine, on the loopback, behind which is the box's port for SSH.
    pub async fn ssh_port(&mut self) -> Result<u16> {
        let said = self.connections().await?;
        // Protocol[State], descriptor, source and its port, destination and its port: "TCP[HOST_FORWARD]  12  127.0.0.1 40541  10.0.2.15  22".
        said.lines()
            .find(|line| line.contains("HOST_FORWARD"))
            .and_then(|line| line.split_whitespace().nth(3))
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("no port is forwarded to the box: {said}"))
    }

    /// Addresses that connections come from which the box has opened.
    pub async fn own_addresses(&mut self) -> Result<Vec<String>> {
        let said = self.connections().await?;
        // As above: "TCP[ESTABLISHED]  14  10.0.2.15  51312  10.0.2.2  41873".
        Ok(said
            .lines()
            .filter(|line| line.contains("ESTABLISHED"))
            .filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned))
            .collect())
    }

    /// Writes what its screen shows to a PNG file.
    pub async fn photograph(&mut self, file: &Path) -> Result<()> {
        let request = json!({"filename": file, "format": "png"});
        self.qmp.command("screendump", request).await.map(drop)
    }

    /// As [`Machine::photograph`], once the screen shows something else than the file does. Nothing tells of that; it is looked at again and again.
    pub async fn photograph_another(&mut self, file: &Path, within: Duration) -> Result<()> {
        let before = fs::read(file)?;
        let mut looks = tokio::time::interval(Duration::from_millis(500));
        let changed = async {
            while fs::read(file)? == before {
                looks.tick().await;
                self.photograph(file).await?;
            }
            Ok(())
        };
        tokio::time::timeout(within, changed)
            .await
            .context("the screen does not change")?
    }

    /// Presses and releases keys of the keyboard, one after the other, each named as QEMU names it.
    pub async fn press(&mut self, keys: &[&str]) -> Result<()> {
        for key in keys {
            // The press and release of one key end before the next begins: that is when QEMU answers the next command.
            let arguments = json!({"keys": [{"type": "qcode", "data": key}], "hold-time": 100});
            self.qmp.command("send-key", arguments).await?;
        }
        Ok(())
    }

    /// Whether the box restarted itself since restarts were forgotten.
    pub async fn restarted(&mut self) -> Result<bool> {
        self.qmp.seen("RESET").await
    }

    /// Plugs the network cable in, or pulls it.
    pub async fn set_cable(&mut self, plugged: bool) -> Result<()> {
        self.qmp
            .command("set_link", json!({"name": "card", "up": plugged}))
            .await?;
        Ok(())
    }
}

fn command(setup: &Setup, disk: &Disk, firmware: &Firmware, qmp: &Path) -> Command {
    let qemu = |architecture: &str| {
        let program = format!("qemu-system-{architecture}");
        // Another QEMU than the system's, with its data beside it, e.g. to compare versions.
        match std::env::var_os("HOLDFAST_QEMU") {
            Some(root) => {
                let mut command = Command::new(Path::new(&root).join("bin").join(program));
                command.arg("-L").arg(Path::new(&root).join("share/qemu"));
                command
            }
            None => Command::new(program),
        }
    };
    let mut command = match setup.architecture {
        Architecture::Amd64 => {
            let mut command = qemu("x86_64");
            // Firmware that enforces Secure Boot guards its variables with the system management mode.
            let machine = if firmware.secure {
                "q35,smm=on"
            } else {
                "q35,smm=off"
            };
            command.args(["-machine", machine, "-cpu", "max"]);
            if firmware.secure {
                command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            }
            command
        }
        Architecture::Arm64 => {
            let mut command = qemu("aarch64");
            // Real pointer authentication costs most of the time in software.
            command.args(["-machine", "virt", "-cpu", "max,pauth-impdef=on"]);
            command
        }
    };
    command
        .args([
            "-accel",
            "tcg,thread=multi",
            "-smp",
            "2",
            "-m",
            &setup.memory.to_string(),
        ])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args([
            "-chardev",
            "stdio,id=console,signal=off",
            "-serial",
            "chardev:console",
        ])
        .args([
            "-chardev",
            &format!("socket,id=qmp,path={}", qmp.display()),
            "-mon",
            "chardev=qmp,mode=control",
        ])
        .args([
            "-object",
            "rng-random,id=rng,filename=/dev/urandom",
            "-device",
            "virtio-rng-pci,rng=rng",
        ])
        .args([
            "-drive",
            &format!(
                "if=pflash,format=raw,unit=0,readonly=on,file={}",
                firmware.code.display()
            ),
        ])
        .args([
            "-drive",
            &format!(
                "if=pflash,format=raw,unit=1,file={}",
                firmware.variables.display()
            ),
        ])
        .args([
            "-drive",
            &format!(
                "if=none,id=disk,format=qcow2,cache=writeback,discard=unmap,file={}",
                disk.path().display()
            ),
        ])
        .args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
    // Port 0: one that is free.
    let forwarded = match &setup.ssh_key {
        Some(_) => ",hostfwd=tcp:127.0.0.1:0-:22",
        None => "",
    };
    if let Some(key) = &setup.ssh_key {
        let name = "opt/io.systemd.credentials/ssh.authorized_keys.root";
        command.args(["-fw_cfg", &format!("name={name},string={}", key.trim())]);
    }
    if setup.screen {
        command.args(["-device", "VGA"]);
    }
    if setup.watchdog {
        // One that tells after its reset that it was it.
        command.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
    }
    if setup.network {
        command.args([
            "-netdev",
            &format!("user,id=cable{forwarded}"),
            "-device",
            "virtio-net-pci,id=card,netdev=cable,romfile=",
        ]);
    } else {
        command.args(["-nic", "none"]);
    }
    command
}
