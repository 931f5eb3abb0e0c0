//! The heap and the program's pages on a real process: this test is one.

#![expect(clippy::unwrap_used, reason = "a test")]

use holdfast_memory::{Heap, give_back};
use std::{
    alloc::{GlobalAlloc as _, Layout},
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

#[global_allocator]
static HEAP: Heap = Heap;

/// The tests measure the process that they share.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A field of `/proc/self/smaps_rollup`, in bytes.
fn resident(field: &str) -> usize {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    value.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Small numbers that look random: xorshift with 64 bits.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[test]
fn holes_between_what_is_in_use_go_back_and_what_is_in_use_stays() {
    let _alone = alone();
    // What other tests left free would take a part of it.
    give_back();
    let before = resident("Anonymous:");
    // 48 MiB of things as a document has them; one of a hundred stays.
    let mut all: Vec<Vec<u8>> = (0..96 * 1024_usize).map(|n| vec![n as u8; 512]).collect();
    let full = resident("Anonymous:");
    assert!(full > before + (44 << 20), "{before} {full}");
    let mut place = 0;
    all.retain(|_| {
        place += 1;
        place % 100 == 0
    });
    all.shrink_to_fit();

    let given = give_back();
    let after = resident("Anonymous:");
    // Of a hundred things, 12.5 pages, one page stays.
    assert!(given.heap > 40 << 20, "{given:?}");
    assert!(after < before + (8 << 20), "{before} {full} {after}");
    for (place, thing) in (1_usize..).zip(&all) {
        assert_eq!(**thing, [(place * 100 - 1) as u8; 512]);
    }

    // And it is a heap as before.
    let again: Vec<Vec<u8>> = (0..96 * 1024_usize).map(|n| vec![n as u8; 512]).collect();
    assert!(
        again
            .iter()
            .zip(0_usize..)
            .all(|(thing, n)| **thing == [n as u8; 512])
    );
}

#[test]
fn nothing_is_lost_whatever_happens_at_the_same_time() {
    let _alone = alone();
    let worker = |seed: u64| {
        let mut random = Random(seed);
        let mut held: Vec<(Vec<u8>, u8)> = Vec::new();
        for round in 0..20_000_usize {
            match random.below(4) {
                0 | 1 => {
                    let size = 1 << random.below(17);
                    let size = size + random.below(size);
                    held.push((vec![round as u8; size], round as u8));
                }
                2 if !held.is_empty() => {
                    let place = random.below(held.len());
                    let (bytes, mark) = &mut held[place];
                    let size = random.below(20_000);
                    bytes.resize(size, *mark);
                    bytes.shrink_to_fit();
                }
                _ if !held.is_empty() => {
                    let (bytes, mark) = held.swap_remove(random.below(held.len()));
                    assert!(bytes.iter().all(|byte| *byte == mark));
                }
                _ => {}
            }
            if held.len() > 300 {
                held.truncate(20);
            }
        }
        assert!(
            held.iter()
                .all(|(bytes, mark)| bytes.iter().all(|byte| byte == mark))
        );
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (1..5)
            .map(|seed| scope.spawn(move || worker(seed * 0x9e37_79b9)))
            .collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            give_back();
        }
    });
}

#[test]
fn memory_is_aligned_and_zeroed_as_it_is_asked_for() {
    let _alone = alone();
    let mut random = Random(7);
    let mut held = Vec::new();
    for round in 0..4_000 {
        let layout = Layout::from_size_align(1 + random.below(70_000), 1 << random.below(14)).unwrap();
        // SAFETY: the size is not zero.
        let memory = unsafe { HEAP.alloc_zeroed(layout) };
        assert!(!memory.is_null());
        assert_eq!(memory.addr() % layout.align(), 0);
        // SAFETY: it was given out for so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory, layout.size()) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        bytes.fill(0xff);
        held.push((memory, layout));
        if held.len() > 100 {
            let (memory, layout) = held.swap_remove(random.below(held.len()));
            // SAFETY: it came from this heap with this layout.
            unsafe { HEAP.dealloc(memory, layout) };
        }
        if round % 500 == 0 {
            give_back();
        }
    }
    for (memory, layout) in held {
        // SAFETY: it came from this heap with this layout.
        unsafe { HEAP.dealloc(memory, layout) };
    }
}

#[test]
fn the_program_lets_go_of_its_pages_and_goes_on() {
    let _alone = alone();
    let program = fs::read_link("/proc/self/exe").unwrap();
    let code = || {
        let text = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = text.lines();
        lines
            .by_ref()
            .find(|line| line.contains(" r-xp ") && line.ends_with(program.to_str().unwrap()))
            .unwrap();
        let line = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    };
    // What a program has run through, it has mapped: here whatever sorting and printing need.
    let work = || {
        let mut words: Vec<String> = (0..1000).map(|n| format!("{:?}", f64::from(n).sqrt())).collect();
        words.sort_unstable();
        words.concat().len()
    };
    let result = work();
    let before = code();
    let given = give_back();
    let after = code();
    assert!(given.program >= before, "{given:?} {before}");
    assert!(after < before, "{before} {after}");
    assert_eq!(work(), result);
}
