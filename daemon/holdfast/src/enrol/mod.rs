//! How a box becomes a node, and stays one.
//!
//! ```text
//! token (argument, file, credential, kernel command line)
//!   → request with the device key's certificate request, over TLS pinned to the token's CA key
//!   → answer checked → identity on the disk → token wiped
//!   → renewal at two thirds of the certificate's life, for ever
//! ```
//!
//! Nothing here ever touches what runs: an expired certificate, a wrong clock or a hub that refuses only costs the link.

pub mod client;
pub(crate) mod hardware;
pub mod https;
pub mod renew;
pub mod tls;
pub mod token;
mod verify;

pub use hardware::facts;
