//! What a machine can do at the most: arithmetic in registers, large copies, random rows.

use manygate_core::Buffer;
use manygate_kernels::{Isa, peak};
use serde::Serialize;
use std::sync::Barrier;
use std::time::Duration;

/// What this machine can do, all threads together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Machine {
    /// Multiply-adds in registers, two operations each, 10^9 operations a second.
    pub fma_gflops: f64,
    /// Large copies, read and written bytes counted, 10^9 bytes a second.
    pub copy_gbs: f64,
    /// Random rows of 64 bytes out of memory, 10^6 rows a second.
    pub random_mrows: f64,
}

/// Measures each peak on `threads` threads at once.
pub fn measure_machine(isa: Isa, threads: usize) -> Machine {
    /// Values of the rows that all threads visit, far beyond the caches.
    const TABLE: usize = 64 << 20;
    /// Values that all threads together copy.
    const COPIED: usize = 32 << 20;
    let mut table = Buffer::zeroed(TABLE);
    // Untouched pages would all be the same page of zeros.
    table.fill(1.0);
    let mut copies = Buffer::zeroed(COPIED);
    let together = Barrier::new(threads);
    let part = COPIED / threads;
    let peaks: Vec<Machine> = std::thread::scope(|scope| {
        let (table, together) = (&table[..], &together);
        let parts = copies.chunks_exact_mut(part).zip(table.chunks_exact(part)).take(threads);
        let workers: Vec<_> = parts
            .map(|(to, from)| {
                scope.spawn(move || {
                    together.wait();
                    let fma_gflops = peak::fma_gflops(isa, Duration::from_millis(200));
                    together.wait();
                    let copy_gbs = peak::copy_gbs(from, to, Duration::from_millis(400));
                    together.wait();
                    let random_mrows = peak::random_rows(isa, table, Duration::from_millis(300));
                    Machine { fma_gflops, copy_gbs, random_mrows }
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let sum = |of: fn(&Machine) -> f64| peaks.iter().map(of).sum();
    Machine {
        fma_gflops: sum(|m| m.fma_gflops),
        copy_gbs: sum(|m| m.copy_gbs),
        random_mrows: sum(|m| m.random_mrows),
    }
}
