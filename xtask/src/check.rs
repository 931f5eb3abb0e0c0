//! `cargo xtask check`: rules of the repository that no compiler holds. Each is also a test of this crate.

mod codes;
mod crates;

use anyhow::{Result, bail};

pub fn run() -> Result<()> {
    let metadata = crates::metadata()?;
    let mut faults = codes::faults()?;
    faults.extend(crates::direction_faults(&metadata));
    faults.extend(crates::record_faults(&metadata)?);
    if faults.is_empty() {
        eprintln!("codes, dependencies and their records: all in order");
        return Ok(());
    }
    for fault in &faults {
        eprintln!("  {fault}");
    }
    bail!("{} faults, listed above", faults.len());
}
