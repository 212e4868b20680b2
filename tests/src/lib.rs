//! Golden cases, the op matrix, end-to-end tests, faults.

pub mod golden;
pub mod small_models;

use std::sync::atomic::{AtomicUsize, Ordering};

/// Checks every item, as many at a time as there are cores.
///
/// # Panics
/// When a check does.
pub fn on_all_cores<T: Sync>(items: Vec<T>, check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(item);
                }
            });
        }
    });
}
