//! The list of needs that a distribution fulfils.

use super::{Purpose, System, tools};
use crate::{cluster, shell};

/// Something the machine must have.
pub struct Need {
    /// What it is.
    pub name: &'static str,
    /// What it is needed for, in one line.
    pub why: &'static str,
    /// Whether it is here.
    pub present: fn() -> bool,
    purposes: &'static [Purpose],
    /// Packages; with `/backports`, Debian 12 has one that is new enough only there.
    debian: &'static [&'static str],
    /// Where Ubuntu's packages are other ones; empty: none fit.
    ubuntu: Option<&'static [&'static str]>,
    /// How to get it where no package fits.
    pub by_hand: &'static str,
}

impl Need {
    /// Whether one of the purposes needs it.
    pub fn serves(&self, purposes: &[Purpose]) -> bool {
        let of_ci = |purpose: &Purpose| {
            !matches!(
                purpose,
                Purpose::Image | Purpose::ForeignImage | Purpose::ImageTest | Purpose::Personalise
            )
        };
        self.purposes
            .iter()
            .any(|purpose| purposes.contains(purpose) || (purposes.contains(&Purpose::Ci) && of_ci(purpose)))
    }

    /// The packages that bring it on this distribution; empty where none does.
    pub fn packages(&self, system: &System) -> &'static [&'static str] {
        match (system.id.as_str(), self.ubuntu) {
            ("ubuntu", Some(packages)) => packages,
            ("debian" | "ubuntu", _) => self.debian,
            _ => &[],
        }
    }
}

pub const NEEDS: &[Need] = &[
    Need {
        name: "C compiler",
        why: "SQLite and ring are compiled from C and assembler",
        present: || shell::find("gcc").is_some(),
        purposes: &[Purpose::Demo, Purpose::Test, Purpose::Cross],
        debian: &["gcc", "libc6-dev"],
        ubuntu: None,
        by_hand: "install gcc and the C library's headers",
    },
    Need {
        name: "Go",
        why: "builds the Kubernetes for tests and demo (not needed where a real k3s is given)",
        present: || cluster::is_given() || shell::find("go").is_some(),
        purposes: &[Purpose::Demo, Purpose::Test],
        debian: &["golang-go", "ca-certificates"],
        ubuntu: None,
        by_hand: "install Go 1.21 or newer: https://go.dev/dl",
    },
    Need {
        name: "Mosquitto",
        why: "the hub is tested with it as external MQTT broker",
        present: || shell::find("mosquitto").is_some(),
        purposes: &[Purpose::Test],
        debian: &["mosquitto"],
        ubuntu: None,
        by_hand: "install Mosquitto 2.0 or newer: https://mosquitto.org/download",
    },
    Need {
        name: "containerd",
        why: "images are kept and damage of its state is healed in tests with it",
        present: || shell::find("containerd").is_some(),
        purposes: &[Purpose::Test],
        debian: &["containerd"],
        ubuntu: None,
        by_hand: "install containerd 1.6 or newer, with its ctr: https://containerd.io",
    },
    Need {
        name: "A registry",
        why: "artifacts are fetched from it in tests",
        present: || shell::find("docker-registry").is_some(),
        purposes: &[Purpose::Test],
        debian: &["docker-registry"],
        ubuntu: None,
        by_hand: "install Distribution as docker-registry: https://distribution.github.io",
    },
    Need {
        name: "zstd",
        why: "archives of images are made with it in tests",
        present: || shell::find("zstd").is_some(),
        purposes: &[Purpose::Test],
        debian: &["zstd"],
        ubuntu: None,
        by_hand: "install zstd",
    },
    Need {
        name: "curl",
        why: "tests hold transfers against it",
        present: || shell::find("curl").is_some(),
        purposes: &[Purpose::Test],
        debian: &["curl"],
        ubuntu: None,
        by_hand: "install curl",
    },
    Need {
        name: "ip",
        why: "tests make networks of their own",
        present: || shell::find("ip").is_some(),
        purposes: &[Purpose::Test],
        debian: &["iproute2"],
        ubuntu: None,
        by_hand: "install iproute2",
    },
    Need {
        name: "unshare",
        why: "tests run in namespaces of their own",
        present: || shell::find("unshare").is_some(),
        purposes: &[Purpose::Test],
        debian: &["util-linux"],
        ubuntu: None,
        by_hand: "install util-linux",
    },
    Need {
        name: "systemd with D-Bus",
        why: "k3s as a unit is tested under a systemd of its own",
        present: || shell::find("busctl").is_some() && shell::find("dbus-daemon").is_some(),
        purposes: &[Purpose::Test],
        debian: &["systemd", "dbus"],
        ubuntu: None,
        by_hand: "install systemd and dbus",
    },
    Need {
        name: "libfaketime",
        why: "the node is tested with a clock that stands in 1970",
        present: libfaketime,
        purposes: &[Purpose::Test],
        debian: &["libfaketime"],
        ubuntu: None,
        by_hand: "install libfaketime: https://github.com/wolfcw/libfaketime",
    },
    Need {
        name: "Chromium and its driver",
        why: "the hub's web page is tested in it",
        present: || shell::find("chromedriver").is_some(),
        purposes: &[Purpose::Test],
        debian: &["chromium", "chromium-driver"],
        // Ubuntu's packages of these names only install snaps, which do not run everywhere.
        ubuntu: Some(&[]),
        by_hand: "install Chromium or Chrome and the chromedriver of the same version \
                  (https://googlechromelabs.github.io/chrome-for-testing), with chromedriver in PATH",
    },
    Need {
        name: "Rust with the source of its standard library, from the distribution",
        why: "builds the static binaries together with their standard library",
        present: || tools::has_rustup_targets() || tools::has_distribution_rust(),
        purposes: &[Purpose::Cross],
        debian: &["rustc-web", "cargo-web", "rust-web-src"],
        ubuntu: Some(&[]),
        by_hand: "rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl",
    },
    Need {
        name: "Python with venv",
        why: "installs zig and cargo-zigbuild",
        present: || tools::has_zigbuild() || tools::has_venv(),
        purposes: &[Purpose::Cross],
        debian: &["python3", "python3-venv"],
        ubuntu: None,
        by_hand: "install Python 3 with its venv module",
    },
    Need {
        name: "QEMU user emulation",
        why: "runs the aarch64 binary on this machine",
        present: || cfg!(target_arch = "aarch64") || shell::find("qemu-aarch64-static").is_some(),
        purposes: &[Purpose::Cross],
        debian: &["qemu-user-static"],
        ubuntu: None,
        by_hand: "install qemu-aarch64-static (package qemu-user-static)",
    },
    Need {
        name: "QEMU user emulation of the other architecture",
        why: "runs the programs that set up packages of an image",
        present: || {
            let other = if cfg!(target_arch = "aarch64") {
                "x86_64"
            } else {
                "aarch64"
            };
            shell::find(&format!("qemu-{other}-static")).is_some()
        },
        purposes: &[Purpose::ForeignImage],
        debian: &["qemu-user-static"],
        ubuntu: None,
        by_hand: "install QEMU's user emulation, statically linked, as qemu-aarch64-static or qemu-x86_64-static",
    },
    Need {
        name: "readelf",
        why: "proves that a binary is static",
        present: || shell::find("readelf").is_some(),
        purposes: &[Purpose::Cross],
        debian: &["binutils"],
        ubuntu: None,
        by_hand: "install binutils",
    },
    Need {
        name: "systemd-analyze",
        why: "checks the systemd units",
        present: || shell::find("systemd-analyze").is_some(),
        purposes: &[Purpose::Ci],
        debian: &["systemd"],
        ubuntu: None,
        by_hand: "install systemd",
    },
    Need {
        name: "bubblewrap",
        why: "the image's tools run apart from this machine",
        present: || shell::find("bwrap").is_some(),
        purposes: &[Purpose::Image],
        debian: &["bubblewrap"],
        ubuntu: None,
        by_hand: "install bubblewrap",
    },
    Need {
        name: "apt with Debian's keys",
        why: "the image is made of Debian's packages",
        present: || {
            shell::find("apt-get").is_some()
                && std::path::Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").is_file()
        },
        purposes: &[Purpose::Image],
        debian: &["apt", "debian-archive-keyring"],
        ubuntu: None,
        by_hand: "images are built on Debian or Ubuntu",
    },
    Need {
        name: "newuidmap",
        why: "users other than root build images with it",
        present: || shell::find("newuidmap").is_some(),
        purposes: &[Purpose::Image],
        debian: &["uidmap"],
        ubuntu: None,
        by_hand: "install uidmap",
    },
    Need {
        name: "Python 3",
        why: "mkosi is written in it",
        present: || std::path::Path::new("/usr/bin/python3").is_file(),
        purposes: &[Purpose::Image],
        debian: &["python3"],
        ubuntu: None,
        by_hand: "install Python 3.9 or newer as /usr/bin/python3",
    },
    Need {
        name: "OpenSSL's program",
        why: "makes the certificate for Secure Boot",
        present: || shell::find("openssl").is_some(),
        purposes: &[Purpose::Image, Purpose::Test],
        debian: &["openssl"],
        ubuntu: None,
        by_hand: "install openssl",
    },
    Need {
        name: "zstd",
        why: "compresses images",
        present: || shell::find("zstd").is_some(),
        purposes: &[Purpose::Image, Purpose::Test],
        debian: &["zstd"],
        ubuntu: None,
        by_hand: "install zstd",
    },
    Need {
        name: "mtools",
        why: "writes to the EFI system partition of an image without mounting it",
        present: || shell::find("mcopy").is_some(),
        purposes: &[
            Purpose::Image,
            Purpose::ImageTest,
            Purpose::Personalise,
            Purpose::Test,
        ],
        debian: &["mtools"],
        ubuntu: None,
        by_hand: "install mtools",
    },
    Need {
        name: "QEMU for 64-bit PCs, with its disk tools",
        why: "images are booted in it",
        present: || qemu_is_new("qemu-system-x86_64") && shell::find("qemu-io").is_some(),
        purposes: &[Purpose::ImageTest],
        debian: &["qemu-system-x86/backports", "qemu-utils/backports"],
        ubuntu: Some(&[]),
        by_hand: "install qemu-system-x86_64, qemu-img and qemu-io, version 10.0 or newer: https://www.qemu.org/download",
    },
    Need {
        name: "UEFI firmware for virtual PCs",
        why: "images are booted by it",
        present: || std::path::Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").is_file(),
        purposes: &[Purpose::ImageTest],
        debian: &["ovmf"],
        ubuntu: None,
        by_hand: "install OVMF as /usr/share/OVMF/OVMF_CODE_4M.fd, OVMF_CODE_4M.secboot.fd and OVMF_VARS_4M.fd",
    },
    Need {
        name: "QEMU for 64-bit Arm",
        why: "images are booted in it",
        present: || qemu_is_new("qemu-system-aarch64"),
        purposes: &[Purpose::ImageTest],
        debian: &["qemu-system-arm/backports"],
        ubuntu: Some(&[]),
        by_hand: "install qemu-system-aarch64, version 10.0 or newer: https://www.qemu.org/download",
    },
    Need {
        name: "UEFI firmware for virtual 64-bit Arm machines",
        why: "images are booted by it",
        present: || std::path::Path::new("/usr/share/AAVMF/AAVMF_CODE.fd").is_file(),
        purposes: &[Purpose::ImageTest],
        debian: &["qemu-efi-aarch64"],
        ubuntu: None,
        by_hand: "install AAVMF as /usr/share/AAVMF/AAVMF_CODE.fd and AAVMF_VARS.fd",
    },
    Need {
        name: "sgdisk",
        why: "makes and checks the partition tables that slots are written to in tests",
        present: || shell::find("sgdisk").is_some(),
        purposes: &[Purpose::Test],
        debian: &["gdisk"],
        ubuntu: None,
        by_hand: "install gdisk",
    },
    Need {
        name: "mkfs.vfat",
        why: "personal settings are written to an EFI system partition in tests",
        present: || shell::find("mkfs.vfat").is_some(),
        purposes: &[Purpose::Test],
        debian: &["dosfstools"],
        ubuntu: None,
        by_hand: "install dosfstools",
    },
];

/// Whether a QEMU is one that boots images in software emulation. Version 7.2 (Debian 12) does not: guests' kernels stall and fault in it.
fn qemu_is_new(program: &str) -> bool {
    let Some(path) = shell::find(program) else {
        return false;
    };
    let said = shell::output(shell::command(path).arg("--version")).unwrap_or_default();
    said.split_once("version ")
        .and_then(|(_, rest)| rest.split('.').next())
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major >= 10)
}

/// Whether the library is where distributions put it: below the directory of each architecture.
fn libfaketime() -> bool {
    std::fs::read_dir("/usr/lib").is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.path().join("faketime/libfaketime.so.1").exists())
    })
}
