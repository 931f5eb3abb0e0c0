//! Memory that an idle node does not need goes back to the kernel.
//!
//! In: nothing but the call [`give_back`], made when the node has become quiet. Out: less resident memory, and how much less.
//! It guarantees that nothing that is used is lost: of the heap only free memory is given back, and of the program only pages that are
//! exactly as in its file, which the kernel brings back when they are touched.
//!
//! This is the one crate of the workspace with `unsafe` code; each place says why it is sound.

mod heap;
mod program;
mod session;

pub use heap::Heap;
pub use session::in_own_session;

/// What was given back, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenBack {
    /// Free memory between what the heap keeps. What was not resident any more is counted again.
    pub heap: usize,
    /// Resident pages of the program's code and constants.
    pub program: usize,
}

/// Gives back what an idle process does not need: holes of the heap, and the pages of the program.
///
/// It takes some milliseconds, and the program then comes back page by page from the kernel's cache of its file as far as it runs, so this is
/// for a process that has become quiet. On a heap that is not [`Heap`], nothing of the heap is given back.
pub fn give_back() -> GivenBack {
    let heap = heap::give_back();
    GivenBack {
        heap,
        program: program::give_back(),
    }
}
