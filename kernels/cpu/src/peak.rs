//! What one core of this machine can do at most: the measures behind the floors of benchmarks.
//!
//! Memory comes from the caller, and each measure runs on the calling thread; for several cores, call it on several
//! threads at once and add. A figure is that of the best run within its budget, because other work on the machine can
//! only make a run slower.

use crate::embedding::{Rows, gather};
use crate::simd::Simd;
use crate::view::MatMut;
use crate::{Isa, dispatch};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Twelve chains keep two units of four cycles latency busy, and fit the 16 registers of AVX2.
const CHAINS: usize = 12;
/// Values of a row in [`random_rows`]: one cache line.
pub const ROW: usize = 16;
/// Rows of a look-up in [`random_rows`]; what it writes stays in the caches.
const LOOKUP: usize = 1024;

/// Fused multiply-adds, two operations each, in 10^9 operations a second.
pub fn fma_gflops(isa: Isa, budget: Duration) -> f64 {
    let lanes = isa.or_below().lanes();
    let runs = 50_000;
    let seconds = best_of(budget, || timed(|| black_box(fma_chains(isa, black_box(runs)))));
    (2 * lanes * CHAINS * runs) as f64 / seconds * 1e-9
}

/// Reading `from`, which decides by its size from which cache or from memory: 10^9 bytes a second.
pub fn read_gbs(isa: Isa, from: &[f32], budget: Duration) -> f64 {
    let seconds = best_of(budget, || timed(|| black_box(sum_of(isa, black_box(from)))));
    size_of_val(from) as f64 / seconds * 1e-9
}

/// Copying `from` to `to`, which should be larger than the caches: bytes read and bytes written, 10^9 a second.
///
/// # Panics
/// When their lengths differ.
pub fn copy_gbs(from: &[f32], to: &mut [f32], budget: Duration) -> f64 {
    let bytes = 2 * size_of_val(from);
    let seconds = best_of(budget, || timed(|| black_box(&mut *to).copy_from_slice(black_box(from))));
    bytes as f64 / seconds * 1e-9
}

/// Reading random rows of [`ROW`] values out of `table`, asked for ahead of their use: 10^6 rows a second. The table
/// should start on a cache line, be larger than the caches, and have been written to.
///
/// # Panics
/// When the table is shorter than a row.
pub fn random_rows(isa: Isa, table: &[f32], budget: Duration) -> f64 {
    const LOOKUPS: usize = 32;
    let rows = table.len() / ROW;
    assert!(rows > 0, "a table of less than one row");
    let table = Rows::new(table, rows, ROW, ROW);
    let mut out = [0.0; LOOKUP * ROW];
    let mut ids = [0; LOOKUP];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let seconds = best_of(budget, || {
        let mut seconds = 0.0;
        for _ in 0..LOOKUPS {
            for id in &mut ids {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *id = (((state >> 32) * rows as u64) >> 32) as u32;
            }
            seconds += timed(|| gather(isa, table, black_box(&ids), MatMut::new(&mut out, LOOKUP, ROW)));
            black_box(&out);
        }
        seconds
    });
    (LOOKUPS * LOOKUP) as f64 / seconds * 1e-6
}

dispatch! {
    /// Steps a dozen independent chains of multiply-adds `runs` times: nothing but arithmetic.
    pub fn fma_chains(runs: usize) -> f32 = fma_chains_body;
}

#[inline(always)]
fn fma_chains_body<S: Simd>(s: S, runs: usize) -> f32 {
    let (x, y) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
    let mut sums = [s.splat(1.0); CHAINS];
    for _ in 0..runs {
        for sum in &mut sums {
            *sum = s.mul_add(*sum, x, y);
        }
    }
    s.sum(sums.into_iter().reduce(|a, b| s.add(a, b)).unwrap_or(x))
}

dispatch! {
    /// Adds all values, a dozen sums at a time: nothing but reading.
    pub fn sum_of(from: &[f32]) -> f32 = sum_of_body;
}

#[inline(always)]
fn sum_of_body<S: Simd>(s: S, from: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); CHAINS];
    let (whole, rest) = from.split_at(from.len() - from.len() % (CHAINS * S::LANES));
    for values in whole.chunks_exact(CHAINS * S::LANES) {
        for (sum, values) in sums.iter_mut().zip(values.chunks_exact(S::LANES)) {
            *sum = s.add(*sum, s.load(values));
        }
    }
    let total = s.sum(sums.into_iter().reduce(|a, b| s.add(a, b)).unwrap_or(s.splat(0.0)));
    total + rest.iter().sum::<f32>()
}

fn timed<R>(f: impl FnOnce() -> R) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_secs_f64()
}

/// The shortest of the runs of `f` that fit in `budget`, at least one, in the seconds that it returns.
fn best_of(budget: Duration, mut f: impl FnMut() -> f64) -> f64 {
    let begin = Instant::now();
    let mut best = f();
    while begin.elapsed() < budget {
        best = best.min(f());
    }
    best
}
