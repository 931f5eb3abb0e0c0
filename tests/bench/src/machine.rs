//! What the kernel says of a process and of the machine.

use anyhow::{Context as _, Result};
use std::{fs, time::Duration};

/// Memory of a process from `/proc/PID/smaps_rollup`, in KiB.
pub struct Memory {
    /// Proportional set size.
    pub pss: u64,
    /// Proportional share of anonymous memory.
    pub anonymous: u64,
    /// Proportional share of files: the program.
    pub file: u64,
}

/// Memory of a process now.
pub fn memory(process: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("no {name} in smaps_rollup"))?;
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .context("a number of KiB")
    };
    Ok(Memory {
        pss: field("Pss:")?,
        anonymous: field("Pss_Anon:")?,
        file: field("Pss_File:")?,
    })
}

/// How often a process touched a page that was not mapped, and how often that page had to be read from the disk first.
pub fn faults(process: u32) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which may contain anything, in parentheses; see proc_pid_stat(5).
    let (_, rest) = text.rsplit_once(')').context("a name in parentheses")?;
    let field = |place: usize| {
        let value = rest.split_whitespace().nth(place).context("a field of stat")?;
        value.parse::<u64>().context("a number")
    };
    Ok((field(7)?, field(9)?))
}

/// The most resident memory that a process ever had, in KiB.
pub fn peak_memory(process: u32) -> Result<u64> {
    status_field(process, "VmHWM:")
}

/// Its resident memory now, in KiB.
pub fn resident_memory(process: u32) -> Result<u64> {
    status_field(process, "VmRSS:")
}

/// Its resident memory that is of no file, now, in KiB.
pub fn anonymous_memory(process: u32) -> Result<u64> {
    status_field(process, "RssAnon:")
}

fn status_field(process: u32, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("no {name}"))?;
    Ok(value.parse()?)
}

/// Time on a processor of all threads of a process, from `schedstat` (nanoseconds; `stat` counts only 10 ms steps).
pub fn processor_time(process: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the listing and the look.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text
            .split_whitespace()
            .next()
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or_default();
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Bytes that a process caused to be written to storage, from `/proc/PID/io`.
pub fn written_bytes(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/io"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"))
        .context("no write_bytes")?;
    Ok(line.trim().parse()?)
}

/// Processor, cores, memory and kernel in one line.
pub fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let information = read("/proc/cpuinfo");
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": unknown processor");
    let cores = information
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = read("/proc/meminfo");
    let memory = memory
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse::<u64>().ok())
        .unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    format!(
        "{}, {cores} cores, {} GiB, Linux {kernel}",
        model.trim_start_matches([':', '\t', ' ']),
        memory / (1 << 20)
    )
}
