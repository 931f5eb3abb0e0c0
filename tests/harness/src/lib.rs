//! Starts the real parts of Holdfast for tests, the demo and the benchmarks: hub, node, Kubernetes, and a link that can be cut.
//!
//! What comes in: the built binaries and a directory. What goes out: running processes with free ports, each in its own
//! directory, all ended when their handle is dropped. Nothing here stands in for a part of the product.

pub mod appliance_root;
pub mod hub;
pub mod images;
pub mod kubectl;
pub mod link;
pub mod mosquitto;
pub mod node;
pub mod paths;
pub mod port;
pub mod process;
pub mod site;
pub mod wait;

pub use hub::Hub;
pub use kubectl::Kubectl;
pub use link::Link;
pub use mosquitto::Mosquitto;
pub use node::Node;
pub use process::Process;
pub use site::Site;

/// Installs ring as the process's TLS provider; harmless when called again.
pub fn install_tls_provider() {
    // An error only says that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}
