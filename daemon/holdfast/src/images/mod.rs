//! Keeps the images that this box needs: imported from their archives, pinned against the kubelet's garbage collection, and back when they are gone.
//!
//! In: the documents of the store, containerd. Out: their images in containerd, pinned; those that nothing needs, unpinned. It guarantees
//! that what came in an archive starts without a registry, also after containerd's state was lost, and that a rollback finds its images. Nothing
//! is polled: it looks when documents change, when Kubernetes gets ready, and when an image cannot be pulled.

pub mod archive;
pub mod ctr;
mod first_start;
mod keep;
mod needs;
pub mod reference;

pub use keep::{Keeper, Kept, Looks};
pub use needs::Needs;
