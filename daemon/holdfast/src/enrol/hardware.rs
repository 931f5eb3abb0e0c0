//! What machine this is, as far as an unprivileged look at `/proc` and `/sys` says. Nothing here is proof of anything.

use holdfast_protocol::enrol::HardwareFacts;
use std::{env, fs, thread};

/// Facts of this machine for the enrolment request.
pub fn facts() -> HardwareFacts {
    HardwareFacts {
        serial: first_of(&[
            "/sys/class/dmi/id/product_serial",
            "/sys/firmware/devicetree/base/serial-number",
        ]),
        model: first_of(&[
            "/sys/firmware/devicetree/base/model",
            "/sys/class/dmi/id/product_name",
        ]),
        architecture: env::consts::ARCH.to_owned(),
        operating_system: operating_system(),
        cpus: thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_bytes().unwrap_or_default(),
    }
}

/// Name and version of the operating system, from os-release(5).
pub fn operating_system() -> String {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(
            || env::consts::OS.to_owned(),
            |name| name.trim_matches(['"', '\'']).to_owned(),
        )
}

/// Memory in all, from `/proc/meminfo`.
pub fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Host name of the machine.
pub fn hostname() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

fn first_of(paths: &[&str]) -> Option<String> {
    paths
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        // Firmware without a serial number says so in many words.
        .map(|text| text.trim_matches(['\0', ' ', '\n']).to_owned())
        .find(|text| !text.is_empty() && !text.eq_ignore_ascii_case("to be filled by o.e.m.") && text != "0")
}
