//! Runs a scenario, once more where the emulation itself failed.

use crate::{console, site};
use anyhow::Result;
use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Instant,
};
use tokio::sync::Mutex;

/// How often a scenario is tried whose guest's kernel faulted.
const TRIES: u32 = 3;

/// One machine at a time: emulation takes all processors, and deadlines count on that.
static EMULATION: Mutex<()> = Mutex::const_new(());

/// Runs `scenario` in a directory of its own. Where it fails and its box's console shows a fault of the guest's kernel, it is run again,
/// which the output says; any other failure counts.
pub async fn run<T, F>(name: &str, scenario: impl Fn(PathBuf) -> F) -> Result<T>
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

fn fault_below(directory: &Path) -> Option<String> {
    console::guest_fault(&directory.join("console.log"))
}
