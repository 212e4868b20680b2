//! The register tile: a few rows of the output by a few vectors, held in registers over the inner index.

use super::pack::PANEL;
use crate::activation::Activation;
use crate::isa::Isa;
use crate::simd::Simd;

/// Rows of the largest register tile.
pub(super) const TILE_ROWS: usize = 6;

/// Vectors a row of the largest register tile for a product of `rows` rows.
///
/// With [`TILE_ROWS`] they fill, beside a row of B and one broadcast, the 32 registers of AVX-512 and of 64-bit ARM (24 +
/// 4 + 1) and the 16 of AVX2 and SSE2 (12 + 2 + 1). Of one or two rows a tile that narrow has too few sums to hide the
/// latency of a multiply-add, and is wider. The columns make up whole panels or divide one, or a tile would begin inside
/// a panel and end in the next.
pub(super) const fn tile_vectors(isa: Isa, rows: usize) -> usize {
    let many = match isa {
        Isa::Scalar | Isa::Avx512 => 4,
        Isa::Portable if cfg!(target_arch = "aarch64") => 4,
        Isa::Portable | Isa::Avx2 => 2,
    };
    match (isa, rows) {
        (Isa::Scalar | Isa::Avx512, _) => many,
        (_, 0 | 1) => 8,
        (_, 2) => 4,
        _ => many,
    }
}

/// One tile of a product: `c = start + a b`, where `start` may be `c` itself.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Length of the inner index.
    pub(super) inner: usize,
    pub(super) a: Rows,
    /// First value of the tile in its panel.
    pub(super) b: *const f32,
    /// Distance between two panels.
    pub(super) b_panel: usize,
    /// From where on the tile asks for the panel after its own, a cache line a round.
    pub(super) b_next: *const f32,
    /// What the sums start from; a row step of 0 gives every row the same.
    pub(super) start: *const f32,
    pub(super) start_row: usize,
    /// The output.
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    /// Columns of the output; in 1 ..= [`tile_vectors`]` * LANES`.
    pub(super) cols: usize,
    pub(super) last_step: LastStep,
}

/// The rows of the left operand.
#[derive(Clone, Copy)]
pub(super) enum Rows {
    /// Each at a distance of its own from the one before: element (row, k) lies at `row * stride + k`.
    Apart(*const f32, usize),
    /// Those of a tile together: element (row, k) lies at `k * rows + row`.
    Together(*const f32),
}

/// What is done to the sums while they are in registers. The rectifier alone: it costs an instruction or two, where
/// other functions would be written out for every register of every size of tile.
#[derive(Clone, Copy)]
pub(super) enum LastStep {
    Keep,
    Relu,
    /// Zero where the output of the rectifier, at this pointer and row step, is not positive.
    ReluMask(*const f32, usize),
}

/// Computes a tile of `rows` (1 ..= [`TILE_ROWS`]) rows.
///
/// # Safety
/// The pointers of `tile` are valid for what its documentation says is read and written, and the panels are whole
/// (padded to [`PANEL`] columns).
#[inline(always)]
pub(super) unsafe fn run<S: Simd>(s: S, rows: usize, tile: &Tile) {
    macro_rules! sizes {
        ($($r:literal: $($v:literal)*;)*) => {
            match (rows, tile.cols.div_ceil(S::LANES)) {
                $($(
                    // SAFETY: the caller's contract.
                    ($r, $v) if $v <= tile_vectors(S::ISA, $r) => unsafe { fixed::<S, $r, $v>(s, tile) },
                )*)*
                (rows, vectors) => unreachable!("a tile of {rows} rows and {vectors} vectors"),
            }
        };
    }
    sizes! {
        1: 1 2 3 4 5 6 7 8;
        2: 1 2 3 4;
        3: 1 2 3 4;
        4: 1 2 3 4;
        5: 1 2 3 4;
        6: 1 2 3 4;
    }
}

/// A tile of `ROWS` rows and `VECTORS` vectors, of which the last may be partial.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn fixed<S: Simd, const ROWS: usize, const VECTORS: usize>(s: S, t: &Tile) {
    let last = t.cols - (VECTORS - 1) * S::LANES;
    let whole = last == S::LANES;
    let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `cols` values of each row of `start` may be read.
            *sum = unsafe {
                let from = t.start.add(r * t.start_row + v * S::LANES);
                if whole || v + 1 < VECTORS { s.load_ptr(from) } else { s.load_part_ptr(from, last) }
            };
        }
    }
    match t.a {
        Rows::Apart(a, stride) => {
            let rows: [*const f32; ROWS] = std::array::from_fn(|r| a.wrapping_add(r * stride));
            // Or the compiler would find each row from the one before in every round, an addition after another.
            let rows = std::hint::black_box(rows);
            // SAFETY: the caller's contract; row `r` begins at `rows[r]`.
            unsafe { add_products::<S, ROWS, VECTORS, false>(s, t, &rows, &mut sums) }
        }
        // SAFETY: the caller's contract.
        Rows::Together(a) => unsafe { add_products::<S, ROWS, VECTORS, true>(s, t, &[a; ROWS], &mut sums) },
    }
    // A copy: what follows may stay a loop over memory, and the sums above would be stored in every round for it.
    let mut sums = sums.map(|sums| sums.map(|sum| sum));
    match t.last_step {
        LastStep::Keep => {}
        LastStep::Relu => {
            for sum in sums.as_flattened_mut() {
                *sum = Activation::Relu.apply(s, *sum);
            }
        }
        LastStep::ReluMask(y, y_row) => {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: `cols` values of each row of the mask may be read.
                    let y = unsafe {
                        let from = y.add(r * y_row + v * S::LANES);
                        if whole || v + 1 < VECTORS { s.load_ptr(from) } else { s.load_part_ptr(from, last) }
                    };
                    *sum = s.mul(*sum, Activation::Relu.slope_from_output(s, y));
                }
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: `cols` values of each row of `c` may be written.
            unsafe {
                let to = t.c.add(r * t.c_row + v * S::LANES);
                if whole || v + 1 < VECTORS {
                    s.store_ptr(to, *sum)
                } else {
                    s.store_part_ptr(to, *sum, last)
                }
            }
        }
    }
}

/// Steps of the inner index in a round of the loop. A round of AVX2 is 20 instructions of loads and multiply-adds: with the
/// counters of every step in it, what the processor can take in a cycle bounds it.
const fn unrolled(isa: Isa) -> usize {
    match isa {
        Isa::Avx2 => 4,
        Isa::Scalar | Isa::Portable | Isa::Avx512 => 1,
    }
}

/// Whether a tile of so many rows asks for B before it is read. For one or two, which take it as fast as it comes, there is
/// nothing to gain.
const fn asks_ahead(isa: Isa, rows: usize) -> bool {
    matches!(isa, Isa::Avx2) && rows > 2
}

/// Adds the products of a tile to `sums`. `rows` are the rows of the left operand, or, where these lie `TOGETHER`, all the
/// first one.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn add_products<S: Simd, const ROWS: usize, const VECTORS: usize, const TOGETHER: bool>(
    s: S,
    tile: &Tile,
    rows: &[*const f32; ROWS],
    sums: &mut [[S::V; VECTORS]; ROWS],
) {
    let unrolled = const { unrolled(S::ISA) };
    let whole = tile.inner - tile.inner % unrolled;
    for from in (0..whole).step_by(unrolled) {
        if const { asks_ahead(S::ISA, ROWS) } {
            ask_for(tile.b_next.wrapping_add(from / unrolled * PANEL));
        }
        for k in from..from + unrolled {
            // SAFETY: the caller's contract, and `k` is in range.
            unsafe { add_product::<S, ROWS, VECTORS, TOGETHER>(s, tile, rows, k, sums) }
        }
    }
    for k in whole..tile.inner {
        // SAFETY: as above.
        unsafe { add_product::<S, ROWS, VECTORS, TOGETHER>(s, tile, rows, k, sums) }
    }
}

/// The same for the inner index `k`.
///
/// # Safety
/// As [`run`], and `k` is in range.
#[inline(always)]
unsafe fn add_product<S: Simd, const ROWS: usize, const VECTORS: usize, const TOGETHER: bool>(
    s: S,
    tile: &Tile,
    rows: &[*const f32; ROWS],
    k: usize,
    sums: &mut [[S::V; VECTORS]; ROWS],
) {
    let mut right = [s.splat(0.0); VECTORS];
    for (v, right) in right.iter_mut().enumerate() {
        let column = v * S::LANES;
        // SAFETY: panels are whole, so a full vector lies inside for every column below `cols`.
        *right =
            unsafe { s.load_ptr(tile.b.add(column / PANEL * tile.b_panel + k * PANEL + column % PANEL)) };
    }
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: row `r` and inner index `k` are in range.
        let left = s.splat(unsafe { if TOGETHER { *rows[0].add(k * ROWS + r) } else { *rows[r].add(k) } });
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = s.mul_add(left, right, *sum);
        }
    }
}

/// Asks for `rows` rows of `cols` values, so that they are there when the tile before them is done: outputs and
/// masks are often too large for the second-level cache, and a tile reads its own all at once.
#[inline(always)]
pub(super) fn prefetch(from: *const f32, stride: usize, rows: usize, cols: usize) {
    for r in 0..rows {
        let row = from.wrapping_add(r * stride);
        // The last column too: a row that does not start on a cache line ends in one more.
        for line in 0..=cols.div_ceil(PANEL) {
            ask_for(row.wrapping_add((line * PANEL).min(cols.saturating_sub(1))));
        }
    }
}

/// Asks for a cache line, which need not exist.
#[inline(always)]
fn ask_for(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may name any address; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
