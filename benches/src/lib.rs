//! Criterion benches, one file a kernel family, and what they share: the peaks of the machine and the share of them
//! that a kernel reaches.
//!
//! Criterion reports the usual statistics; [`case`] adds a line with the best single run as a share of the floor that
//! arithmetic and memory set, because other work on the machine can only make a run slower. A filter is given as
//! usual: `cargo bench -p manygate-benches --bench gemm -- linear`.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use manygate_kernels::simd::Simd;
use manygate_kernels::{Isa, dispatch};
use std::hint::black_box;
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
        let machine = Self { fma_gflops: fma_gflops(isa), copy_gbs: copy_gbs() };
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
/// Each run is timed by itself, which costs some 50 ns; a kernel should take microseconds.
pub fn case(
    group: &mut BenchmarkGroup<'_, WallTime>,
    machine: &Machine,
    name: &str,
    work: Work,
    mut kernel: impl FnMut(),
) {
    let mut best = f64::INFINITY;
    let flops = work.flops > 0.0;
    group.throughput(if flops {
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
    if best.is_finite() {
        let (rate, unit) = if flops { (work.flops, "GFLOP/s") } else { (work.bytes, "GB/s") };
        let share = 100.0 * machine.floor(work) / best;
        println!(
            "    {name}: best {:.1} us, {:.1} {unit}, {share:.0} % of peak",
            best * 1e6,
            rate / best * 1e-9
        );
    }
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

dispatch! {
    /// Steps [`CHAINS`] independent chains of multiply-adds `runs` times.
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

/// Twelve chains keep two units of four cycles latency busy, and fit the 16 registers of AVX2.
const CHAINS: usize = 12;

fn fma_gflops(isa: Isa) -> f64 {
    let lanes = match isa {
        Isa::Scalar => 1,
        Isa::Avx2 => 8,
        Isa::Avx512 => 16,
    };
    let runs = 50_000;
    let seconds = best_of(Duration::from_millis(100), || {
        black_box(fma_chains(isa, black_box(runs)));
    });
    (2 * lanes * CHAINS * runs) as f64 / seconds * 1e-9
}

fn copy_gbs() -> f64 {
    const LEN: usize = 32 << 20;
    let from = vec![1.0_f32; LEN];
    let mut to = vec![0.0_f32; LEN];
    let seconds =
        best_of(Duration::from_millis(200), || black_box(&mut to).copy_from_slice(black_box(&from)));
    (2 * LEN * size_of::<f32>()) as f64 / seconds * 1e-9
}

/// The shortest of the runs of `f` that fit in `budget`, in seconds.
fn best_of(budget: Duration, mut f: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    while begin.elapsed() < budget {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
