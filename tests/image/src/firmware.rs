//! UEFI firmware for boxes, and the variables that each box keeps.

use crate::Architecture;
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
    /// Firmware without Secure Boot, whose variables are kept below `directory` and made where there are none yet.
    pub fn plain(architecture: Architecture, directory: &Path) -> Result<Self> {
        let (code, variables) = match architecture {
            Architecture::Amd64 => (
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.fd",
            ),
            Architecture::Arm64 => ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        };
        Self::of(code, Path::new(variables), directory, false)
    }

    /// Firmware that enforces Secure Boot with the keys in this store of variables.
    pub fn secure(variables: &Path, directory: &Path) -> Result<Self> {
        Self::of(
            "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
            variables,
            directory,
            true,
        )
    }

    fn of(code: &str, variables: &Path, directory: &Path, secure: bool) -> Result<Self> {
        let code = PathBuf::from(code);
        code.metadata().with_context(|| {
            format!(
                "no firmware at {}: run `cargo xtask prerequisites --for image`",
                code.display()
            )
        })?;
        let own = directory.join("firmware.fd");
        if !own.exists() {
            fs::copy(variables, &own).with_context(|| variables.display().to_string())?;
        }
        Ok(Self {
            code,
            variables: own,
            secure,
        })
    }
}
