//! Static node binaries for both architectures; the work is done by the scripts in `cross/`.

use crate::{prerequisites, shell};
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub struct Options {
    /// Target triple; may be given more than once [default: both targets]
    #[arg(long, value_name = "TRIPLE")]
    target: Vec<String>,
    /// Only build, do not run the result
    #[arg(long)]
    no_smoke: bool,
}

pub fn run(options: &Options) -> Result<()> {
    prerequisites::install(&[prerequisites::Purpose::Cross], false)?;
    let built = shell::output(shell::command("bash").arg("cross/build.sh").args(&options.target))?;
    print!("{built}");
    if options.no_smoke {
        return Ok(());
    }
    shell::run(shell::command("bash").arg("cross/smoke.sh").args(built.lines()))
}
