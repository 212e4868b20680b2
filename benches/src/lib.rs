//! Criterion benches, one file a kernel family, and what they share: the peaks of the machine and the share of them
//! that a kernel reaches.
//!
//! Criterion reports the usual statistics; [`case`] adds a line with the best single run as a share of the floor that
//! arithmetic and memory set, because other work on the machine can only make a run slower. A filter is given as
//! usual: `cargo bench -p manygate-benches --bench gemm -- linear`.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use manygate_kernels::{Isa, peak};
use std::time::{Duration, Instant};

/// What one core of this machine can do.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Fused multiply-adds, two operations each, in 10^9 operations a second.
    pub fma_gflops: f64,
    /// Copying between buffers larger than the caches, read and written bytes counted, in 10^9 bytes a second.
    pub copy_gbs: f64,
}

impl Machine {
    /// Measures the peaks with `isa` (a tenth of a second each) and prints them.
    pub fn measure(isa: Isa) -> Self {
        const COPIED: usize = 32 << 20;
        let copy = peak::copy_gbs(&vec![1.0; COPIED], &mut vec![0.0; COPIED], Duration::from_millis(200));
        let machine = Self { fma_gflops: peak::fma_gflops(isa, Duration::from_millis(100)), copy_gbs: copy };
        println!("one core, {isa}: FMA {:.1} GFLOP/s, copy {:.1} GB/s", machine.fma_gflops, machine.copy_gbs);
        machine
    }

    /// The least seconds that `work` can take.
    pub fn floor(&self, work: Work) -> f64 {
        (work.flops / self.fma_gflops).max(work.bytes / self.copy_gbs) * 1e-9
    }
}

/// What a kernel has to do at the least.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Floating-point operations, a multiply-add counted as two.
    pub flops: f64,
    /// Bytes that must come from or go to memory.
    pub bytes: f64,
}

/// Settings for short runs: a second or so a case.
pub fn quick() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .configure_from_args()
}

/// Benches `kernel` under `name`, and prints the best run: its rate and the share of the floor's.
///
/// Work bound by bytes that stay in the caches may pass the rate of a large copy.
pub fn case(
    group: &mut BenchmarkGroup<'_, WallTime>,
    machine: &Machine,
    name: &str,
    work: Work,
    kernel: impl FnMut(),
) {
    let Some(best) = best_run(group, name, work, kernel) else { return };
    let flops = work.flops > 0.0;
    let (rate, unit) = if flops { (work.flops, "GFLOP/s") } else { (work.bytes, "GB/s") };
    let bound = if work.flops / machine.fma_gflops > work.bytes / machine.copy_gbs {
        "the multiply-add peak"
    } else {
        "the rate of a large copy"
    };
    let share = 100.0 * machine.floor(work) / best;
    println!(
        "    {name}: best {:.1} us, {:.1} {unit}, {share:.0} % of {bound}",
        best * 1e6,
        rate / best * 1e-9
    );
}

/// Benches `kernel` under `name` and returns the seconds of the best run, none when a filter leaves it out.
///
/// Each run is timed by itself, which costs some 50 ns; a kernel should take microseconds.
pub fn best_run(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    work: Work,
    mut kernel: impl FnMut(),
) -> Option<f64> {
    let mut best = f64::INFINITY;
    group.throughput(if work.flops > 0.0 {
        Throughput::Elements(work.flops as u64)
    } else {
        Throughput::Bytes(work.bytes as u64)
    });
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|runs| {
            let mut total = Duration::ZERO;
            for _ in 0..runs {
                let start = Instant::now();
                kernel();
                let took = start.elapsed();
                best = best.min(took.as_secs_f64());
                total += took;
            }
            total
        });
    });
    best.is_finite().then_some(best)
}

/// `len` repeatable values in -1 ..= 1, on a cache line of their own.
pub fn values(len: usize) -> Aligned {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let mut aligned = Aligned::zeros(len);
    for value in aligned.as_mut() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *value = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
    }
    aligned
}

/// A buffer that starts on a cache line, as an arena's buffers do.
#[derive(Clone, Debug)]
pub struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; 16]); len.div_ceil(16)], len }
    }
}

impl AsRef<[f32]> for Aligned {
    fn as_ref(&self) -> &[f32] {
        // SAFETY: `Line` is sixteen f32 values without padding, and `len` of them lie inside the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl AsMut<[f32]> for Aligned {
    fn as_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
