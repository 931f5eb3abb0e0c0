//! UEFI firmware for boxes, and the variables that each box keeps.

use crate::{Architecture, Setup};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Firmware with its own variables.
pub struct Firmware {
    /// The program, shared and never written.
    pub code: PathBuf,
    /// The variables of one box.
    pub variables: PathBuf,
    /// Whether it is one that can enforce Secure Boot.
    pub secure: bool,
}

impl Firmware {
    /// Firmware as `setup` wants it, whose variables are kept below `directory` and made where there are none yet.
    pub fn of(setup: &Setup, directory: &Path) -> Result<Self> {
        let (code, variables) = match (setup.architecture, setup.secure_boot) {
            (Architecture::Amd64, false) => (
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.fd",
            ),
            (Architecture::Amd64, true) => (
                "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.fd",
            ),
            (Architecture::Arm64, _) => ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        };
        let own = directory.join("firmware.fd");
        for needed in [code, variables] {
            fs::metadata(needed).with_context(|| {
                format!("no firmware at {needed}: run `cargo xtask prerequisites --for image`")
            })?;
        }
        if !own.exists() {
            fs::copy(variables, &own)?;
        }
        Ok(Self {
            code: code.into(),
            variables: own,
            secure: setup.secure_boot,
        })
    }
}
