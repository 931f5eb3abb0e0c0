//! Runs a scenario, once more where the emulation itself failed.

use crate::{console, site};
use anyhow::Result;
use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    time::Instant,
};
use tokio::sync::Mutex;

/// How often a scenario is tried whose guest's kernel faulted.
const TRIES: u32 = 3;

/// One machine at a time: emulation takes all processors, and deadlines count on that.
static EMULATION: Mutex<()> = Mutex::const_new(());

/// As [`keep`], for a scenario that nothing goes on from: where it ended well, its disks are removed, and only its logs stay.
pub async fn run<F>(name: &str, scenario: impl Fn(PathBuf) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    keep(name, scenario).await?;
    remove_disks(&site::place(name))
}

/// Runs `scenario` in a directory of its own. Where it fails and its box's console shows a fault of the guest's kernel, it is run again,
/// which the output says; any other failure counts.
pub async fn keep<T, F>(name: &str, scenario: impl Fn(PathBuf) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let _alone = EMULATION.lock().await;
    for attempt in 1.. {
        let directory = site::directory(name)?;
        let started = Instant::now();
        let result = scenario(directory.clone()).await;
        let took = started.elapsed().as_secs();
        match result {
            Ok(value) => {
                println!("{name}: {took} s");
                return Ok(value);
            }
            Err(error) => match fault_below(&directory) {
                Some(fault) if attempt < TRIES => {
                    println!(
                        "{name}: after {took} s the guest's kernel faulted, which the emulation does and the product cannot; run again: {fault}\n{error:#}"
                    );
                }
                _ => return Err(error),
            },
        }
    }
    unreachable!("the last attempt returns")
}

/// Removes the large files below a directory: disks and memories of boxes.
fn remove_disks(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let large = path
            .extension()
            .is_some_and(|kind| kind == "qcow2" || kind == "raw")
            || path.file_name().is_some_and(|name| name == site::MEMORY);
        if path.is_dir() {
            remove_disks(&path)?;
        } else if large {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn fault_below(directory: &Path) -> Option<String> {
    console::guest_fault(&directory.join("console.log"))
}
