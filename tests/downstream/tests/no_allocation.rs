//! A warm request allocates nothing: cells to a batch, prediction, ranking.
//!
//! The allocator counts what every thread asks for, so this file holds one test.

use manygate_downstream::{Ranker, Request, open};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a count of the blocks that were asked for.
struct Counting;

static BLOCKS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Blocks that warm requests ask for.
fn blocks() -> usize {
    let model = open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixture")).unwrap();
    let mut ranker = Ranker::new(model, 32).unwrap();
    let warm = Request { user: "7", history: "1|2|3|4", tab: "feed", items: &["3"; 32] };
    ranker.best(warm).unwrap();
    let before = BLOCKS.load(Ordering::Relaxed);
    for (user, history, tab) in [("0", "", "search"), ("19", "14", "feed"), ("3", "5|6|7", "search")] {
        for items in [&["4"][..], &["1", "2", "0"], &["9"; 32]] {
            ranker.best(Request { user, history, tab, items }).unwrap();
        }
    }
    BLOCKS.load(Ordering::Relaxed) - before
}

#[test]
fn a_warm_request_allocates_nothing() {
    // What a request asks for shows every time; what the harness's own thread asks for meanwhile does not.
    assert_eq!((0..3).map(|_| blocks()).min(), Some(0));
}
