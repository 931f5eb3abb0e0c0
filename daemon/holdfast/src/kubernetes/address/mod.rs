//! The address of the node on an interface of its own, `holdfast0`: no network can take it away, and none has to be there.
//!
//! In: the wanted address and the networks of Kubernetes services. Out: an interface with exactly that address, up, and a route to each of
//! those networks; or no interface where no address is wanted. It guarantees that it can be done again at any time: what is there
//! already is left as it is, and an interface of that name that somebody else made is never touched.
//!
//! The route is what a box without a default route lacks: the kernel looks for a way to a service's address before kube-proxy's rules
//! lead it to a pod, and without any way it gives up there.

mod netlink;

use super::k3s_config::NodeAddress;
use crate::codes;
use holdfast_protocol::Problem;
use netlink::Netlink;
use std::{io, net::IpAddr};

/// Name of the interface.
pub const INTERFACE: &str = "holdfast0";

/// Why the address cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The kernel refuses.
    #[error("cannot {action} {INTERFACE}: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// Its words.
        source: io::Error,
    },
    /// Somebody else's interface has the name.
    #[error(
        "{INTERFACE} exists and is neither a dummy nor a bridge; holdfast did not make it and leaves it alone"
    )]
    Foreign,
    /// A network of services cannot be read.
    #[error("{0:?} is no network of services, such as 10.43.0.0/16")]
    Network(String),
}

impl AddressError {
    /// The form in which people see it.
    pub fn problem(&self) -> Problem {
        let action = match self {
            Self::Kernel { source, .. } => match source.raw_os_error() {
                Some(nix::libc::EPERM | nix::libc::EACCES) => {
                    "run holdfast as root with CAP_NET_ADMIN (the shipped systemd unit does), or leave kubernetes.node_address and the document's nodeAddress out"
                }
                Some(nix::libc::EOPNOTSUPP) => "load the kernel module dummy or bridge: modprobe dummy",
                _ => "see the log of the kernel; it is tried again with the next start of Kubernetes",
            },
            Self::Foreign => "give that interface another name",
            Self::Network(_) => "correct the key service-cidr of the k3s configuration",
        };
        Problem::new(codes::NODE_ADDRESS_FAILED, self.to_string(), action)
    }
}

fn cannot(action: &'static str) -> impl FnOnce(io::Error) -> AddressError {
    move |source| AddressError::Kernel { action, source }
}

/// Makes the interface be as wanted, in the network namespace of the calling thread.
pub fn ensure(wanted: Option<&NodeAddress>) -> Result<(), AddressError> {
    let Some(wanted) = wanted else {
        return remove();
    };
    let networks = wanted
        .services
        .iter()
        .map(|text| network(text).ok_or_else(|| AddressError::Network(text.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    let mut kernel = Netlink::open().map_err(cannot("ask the kernel about"))?;
    let mut link = kernel.link(INTERFACE).map_err(cannot("look at"))?;
    if link.is_none() {
        kernel.add_link(INTERFACE).map_err(cannot("make"))?;
        link = kernel.link(INTERFACE).map_err(cannot("look at"))?;
    }
    let Some(link) = link else {
        return Err(cannot("make")(io::ErrorKind::NotFound.into()));
    };
    if !link.own_kind {
        return Err(AddressError::Foreign);
    }
    if !link.up {
        kernel.bring_up(link.index).map_err(cannot("bring up"))?;
    }
    let own = (wanted.address, if wanted.address.is_ipv4() { 32 } else { 128 });
    let there = kernel
        .addresses(link.index)
        .map_err(cannot("look at the addresses of"))?;
    if !there.contains(&own) {
        kernel
            .add_address(link.index, own.0, own.1)
            .map_err(cannot("give the address of the node to"))?;
    }
    for (address, prefix) in there.into_iter().filter(|address| *address != own) {
        kernel
            .remove_address(link.index, address, prefix)
            .map_err(cannot("take an earlier address from"))?;
    }
    for (address, prefix) in networks {
        // A box may well have no addresses of the other family; then there is no way to such services, and nobody asks for one.
        if address.is_ipv4() == wanted.address.is_ipv4() {
            kernel
                .add_route(link.index, address, prefix)
                .map_err(cannot("lead the services' network to"))?;
        }
    }
    Ok(())
}

fn remove() -> Result<(), AddressError> {
    // Where the kernel cannot be asked, there was never an interface of ours.
    let Ok(mut kernel) = Netlink::open() else {
        return Ok(());
    };
    match kernel.link(INTERFACE).map_err(cannot("look at"))? {
        Some(link) if link.own_kind => kernel.remove_link(link.index).map_err(cannot("remove")),
        _ => Ok(()),
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= longest).then_some((address, prefix))
}
