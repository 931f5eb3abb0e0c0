//! The heap: Doug Lea's allocator, and a way to give its holes back.
//!
//! In: the requests of the whole program. Out: memory. It guarantees, beside what every allocator does, that [`give_back`] gives the kernel
//! nearly all whole pages of free memory.
//!
//! Why not the C library's: musl's has pages for each size of thing, keeps them all as long as one thing of a group is in use, and never
//! gives a part back. After the first thousand objects it held more than twice of what was in use. Doug Lea's joins neighbours that are free,
//! so that what is free is in few and large pieces.

use dlmalloc::{Allocator, Dlmalloc};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ptr::{null_mut, without_provenance_mut},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The heap grows by this many bytes. What is not touched yet costs nothing.
const STEP: usize = 256 << 10;
/// Alignment of whatever is asked for without one, in bytes; sizes are told apart in this grain.
const GRAIN: usize = 16;
/// Holes of fewer bytes are left alone: they seldom have a whole page in them.
const SMALLEST_HOLE: usize = 4 << 10;
/// No hole is larger, in bytes.
const LARGEST_HOLE: usize = 1 << 40;

/// The allocator of a program: `#[global_allocator] static HEAP: Heap = Heap;`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

type Inner = Dlmalloc<Pages>;

static INNER: Mutex<Inner> = Mutex::new(
    const {
        let mut inner = Dlmalloc::new_with_allocator(Pages {
            closed: Cell::new(false),
        });
        assert!(inner.set_granularity(STEP));
        inner
    },
);

fn locked() -> MutexGuard<'static, Inner> {
    // Neither the lock of the standard library on Linux (a futex) nor anything behind it allocates.
    INNER.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY: all calls go to one allocator that keeps this contract itself, under one lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is passed on.
        unsafe { locked().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is passed on.
        unsafe { locked().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the contract is passed on.
        unsafe { locked().free(memory, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the contract is passed on.
        unsafe { locked().realloc(memory, layout.size(), layout.align(), size) }
    }
}

/// Where the heap gets its memory.
struct Pages {
    /// Whether it may not grow now.
    closed: Cell<bool>,
}

// SAFETY: what is given out is fresh memory that nobody else has, and it is never taken away.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        const NOTHING: (*mut u8, usize, u32) = (null_mut(), 0, 0);
        if self.closed.get() {
            return NOTHING;
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory that is in use.
        match unsafe { mmap_anonymous(null_mut(), size, access, MapFlags::PRIVATE) } {
            Ok(memory) => {
                // A huge page would make 2 MiB resident for the first byte. A kernel without them refuses, and that is as good.
                // SAFETY: advice about huge pages changes no content, and the memory is ours.
                let _ = unsafe { madvise(memory, size, Advice::LinuxNoHugepage) };
                (memory.cast(), size, 0)
            }
            Err(_) => NOTHING,
        }
    }

    // A part that is free is given back where it is. So nothing is ever moved, cut or unmapped.

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        rustix::param::page_size()
    }
}

/// A hole, written into its own first bytes.
struct Hole {
    size: usize,
    next: *mut Hole,
}

/// Gives the holes back; answers with their bytes.
///
/// It works by the public contract of the allocator alone: while the heap may not grow, everything that can be asked for is a hole. Each is
/// asked for, largest first, then belongs to us like any other memory, is emptied by the kernel, and freed again.
pub(crate) fn give_back() -> usize {
    let mut heap = locked();
    heap.allocator().closed.set(true);
    let mut given = 0;
    let mut holes: *mut Hole = null_mut();
    let mut limit = LARGEST_HOLE;
    while let Some((memory, size)) = largest(&mut heap, limit) {
        limit = size;
        given += discard(memory, size);
        #[expect(
            clippy::cast_ptr_alignment,
            reason = "a grain is larger than a hole's alignment"
        )]
        let hole = memory.cast::<Hole>();
        // SAFETY: the memory is ours, large enough and aligned for it.
        unsafe { hole.write(Hole { size, next: holes }) };
        holes = hole;
    }
    while !holes.is_null() {
        // SAFETY: it was written above and is still ours; it is read before it is freed.
        let Hole { size, next } = unsafe { holes.read() };
        // SAFETY: it came from this allocator with this size and alignment.
        unsafe { heap.free(holes.cast(), size, GRAIN) };
        holes = next;
    }
    heap.allocator().closed.set(false);
    given
}

/// The largest memory that can be had without growing, of at most `limit` bytes; none where it is smaller than [`SMALLEST_HOLE`].
fn largest(heap: &mut Inner, limit: usize) -> Option<(*mut u8, usize)> {
    let ask = |heap: &mut Inner, size: usize| {
        // SAFETY: the size is not zero and the alignment is a power of two.
        let memory = unsafe { heap.malloc(size, GRAIN) };
        (!memory.is_null()).then_some(memory)
    };
    // In grains: what can be had, and what can not.
    let (mut can, mut cannot) = (SMALLEST_HOLE / GRAIN, limit / GRAIN + 1);
    let mut best = ask(heap, can * GRAIN)?;
    // Doubling first: most holes are far smaller than the limit.
    let mut step = can;
    while cannot - can > 1 {
        let next = if step > 0 {
            can + step
        } else {
            can + (cannot - can) / 2
        };
        if next >= cannot {
            step = 0;
            continue;
        }
        // SAFETY: it came from this allocator with this size and alignment.
        unsafe { heap.free(best, can * GRAIN, GRAIN) };
        if let Some(memory) = ask(heap, next * GRAIN) {
            (best, can) = (memory, next);
            step *= 2;
        } else {
            cannot = next;
            step = 0;
            best = ask(heap, can * GRAIN)?;
        }
    }
    Some((best, can * GRAIN))
}

/// Empties the whole pages of a hole but for its first bytes; answers with their bytes.
fn discard(memory: *mut u8, size: usize) -> usize {
    let page = rustix::param::page_size();
    let begin = (memory.addr() + size_of::<Hole>()).next_multiple_of(page);
    let end = (memory.addr() + size) / page * page;
    if begin >= end {
        return 0;
    }
    let address = without_provenance_mut(begin);
    // SAFETY: these pages are whole within memory that belongs to the caller, who expects nothing in it.
    match unsafe { madvise(address, end - begin, Advice::LinuxDontNeed) } {
        Ok(()) => end - begin,
        Err(_) => 0,
    }
}
