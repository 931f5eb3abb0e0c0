//! Ports for programs that have to be told theirs before they start.
//!
//! In: nothing. Out: a TCP port of this machine. It guarantees that no other test that asks here, of this process or another, is given it for as
//! long as this process lives, and that no outgoing connection takes it, as happens to a port that the kernel chose and that was let go of again:
//! it lies below those which the kernel chooses from.

use anyhow::{Context as _, Result, bail};
use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    sync::{Mutex, PoisonError},
};

/// Above what services of a machine have, below the ports of Kubernetes' services (30000 and up) and the kernel's own choice (from 32768 on).
const PORTS: Range<u16> = 20_000..29_000;

/// Held until the process ends, however it ends: the kernel lets go of a lock with its process.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port on which nothing listens and which nobody else is given.
pub fn reserve() -> Result<u16> {
    let directory = std::env::temp_dir().join("holdfast-test-ports");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    // Processes that run beside each other begin at different places.
    let count = PORTS.len();
    let first = usize::try_from(std::process::id())?.wrapping_mul(61) % count;
    for port in PORTS.skip(first).chain(PORTS.take(first)) {
        let path = directory.join(port.to_string());
        // Another user's file is another user's port.
        let Ok(file) = File::options().create(true).append(true).open(&path) else {
            continue;
        };
        // What outlived its test, or is no test at all, listens without a lock.
        if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(file);
            return Ok(port);
        }
    }
    bail!("all of {count} ports are taken")
}

/// The same, as an address of the loopback.
pub fn reserve_address() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, reserve()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_port_is_given_once_and_can_be_bound() {
        let ports: Vec<_> = (0..20).map(|_| reserve().unwrap()).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        for port in ports {
            drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        }
    }
}
