//! Sessions share the weights of their model: another session costs its own working memory alone.
//!
//! The allocator counts the bytes that every thread asks for, so this file holds one test.

use manygate::ndarray::array;
use manygate::{Columns, Model, Options, Schema, Session, Threads, Trainer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a count of the bytes that were asked for.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn is_shared<T: Send + Sync>(_: &T) {}
fn is_sent<T: Send + 'static>(_: &T) {}

#[test]
fn another_session_costs_no_weights() {
    // Packed weights (mmoe), folded and packed ones by scenario (star), and a table.
    for (name, keys) in [
        ("mmoe", "experts = 8\nexpert_units = [512, 256]"),
        ("star", "units = [1024, 512]\nauxiliary_units = [8]"),
    ] {
        let schema = Schema::default().field("item", 20_000).scenarios("tab", ["a", "b", "c"]).task("click");
        let options = Options { batch_size: 1, threads: Threads::Number(1), ..Options::default() };
        let model = Arc::new(Trainer::new(name, keys, schema.clone(), options).unwrap().model().unwrap());
        assert!(model.bytes() > 4 << 20, "{name}: {}", model.bytes());
        is_shared::<Model>(&model);
        let columns = Columns::new(&schema).ids(array![[7_u32]].view());
        let batch = columns.and_then(|c| c.scenario(&[1])).and_then(Columns::finish).unwrap();
        let mut first = Session::new(Arc::clone(&model), 16).unwrap();
        let expected = first.predict(&batch).unwrap().to_owned();

        let before = BYTES.load(Ordering::Relaxed);
        let mut second = Session::new(Arc::clone(&model), 16).unwrap();
        is_sent(&second);
        let outputs = std::thread::spawn(move || second.predict(&batch).unwrap().to_owned()).join().unwrap();
        let bytes = BYTES.load(Ordering::Relaxed) - before;
        assert!(
            bytes < model.bytes() / 2,
            "{name}: a session of {bytes} bytes over {} of weights",
            model.bytes()
        );
        assert_eq!(outputs, expected);
    }
}
