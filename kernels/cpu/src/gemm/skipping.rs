//! A linear layer over few rows, of whose inputs many are 0: the weights of a pruned unit are not read.
//!
//! The panels of a packed weight have a cache line for each input, so that what is skipped costs neither arithmetic nor
//! memory. Places of inputs that are not 0 in some row are listed first, then the register tiles walk the list in its
//! order: the sums are those of [`linear`](super::linear), without the terms that are 0.

use super::linear;
use super::microkernel::tile_vectors;
use super::pack::{PANEL, Packed};
use crate::activation::Activation;
use crate::dispatch;
use crate::isa::Isa;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Most rows that [`linear_skipping`] takes: of more, hardly an input is 0 in all.
pub const SKIPPING_ROWS: usize = 8;

/// Rows of the largest register tile.
const TILE_ROWS: usize = 4;

/// Inputs that are listed at a time, as in other products.
const BLOCK: usize = 512;

/// [`linear`](super::linear) over at most [`SKIPPING_ROWS`] rows, without the inputs that are 0 in all of them: the same
/// values, to the sign of a 0. A weight that is not finite shows only where its input counts.
///
/// # Panics
/// When the shapes disagree, or there are more rows.
pub fn linear_skipping(
    isa: Isa,
    x: Mat<'_>,
    weight: Packed<'_>,
    bias: &[f32],
    act: Activation,
    y: MatMut<'_>,
) {
    // A row without a 0 has nothing to skip, and is read faster in order.
    if (0..x.rows()).any(|r| has_no_zero(x.row(r))) {
        linear(isa, x, weight, bias, act, y);
    } else {
        linear_listed(isa, x, weight, bias, act, y);
    }
}

/// Whether no value is 0, asked of several at a time.
fn has_no_zero(x: &[f32]) -> bool {
    x.chunks(64).all(|x| !x.iter().fold(false, |any, &x| any | (x == 0.0)))
}

dispatch! {
    /// [`linear_skipping`] by a list of what counts.
    #[allow(unreachable_pub, reason = "`dispatch!` makes public functions; this one is a part")]
    pub fn linear_listed(x: Mat<'_>, weight: Packed<'_>, bias: &[f32], act: Activation, y: MatMut<'_>)
        = skipping_body;
}

#[inline(always)]
fn skipping_body<S: Simd>(
    s: S,
    x: Mat<'_>,
    weight: Packed<'_>,
    bias: &[f32],
    act: Activation,
    mut y: MatMut<'_>,
) {
    let (rows, inner, cols) = (x.rows(), weight.inner(), weight.cols());
    assert!(rows <= SKIPPING_ROWS, "linear_skipping: {rows} rows");
    assert_eq!((y.rows(), x.cols(), y.cols()), (rows, inner, cols), "linear_skipping: shapes");
    assert!(bias.is_empty() || bias.len() == cols, "linear_skipping: one bias a column");
    for r in 0..rows {
        match bias {
            [] => y.row_mut(r).fill(0.0),
            bias => y.row_mut(r).copy_from_slice(bias),
        }
    }
    let mut places = [0u16; BLOCK];
    for from in (0..inner).step_by(BLOCK) {
        let x = x.columns(from, BLOCK.min(inner - from));
        let count = list_places(x, &mut places);
        product(s, x, &places[..count], weight, from, &mut y);
    }
    if act == Activation::Identity {
        return;
    }
    for r in 0..rows {
        let y = y.row_mut(r);
        for span in spans(s, cols) {
            let v = act.apply(s, load_span(s, y, span));
            store_span(s, y, span, v);
        }
    }
}

/// Lists the columns of `x`, at most [`BLOCK`], that are not 0 in some row; NaN is not. Returns how many there are.
#[inline(always)]
fn list_places(x: Mat<'_>, places: &mut [u16; BLOCK]) -> usize {
    let mut counts = [false; BLOCK];
    let counts = &mut counts[..x.cols()];
    for r in 0..x.rows() {
        for (counts, &x) in counts.iter_mut().zip(x.row(r)) {
            *counts |= x != 0.0;
        }
    }
    let mut count = 0;
    for (k, &counts) in counts.iter().enumerate() {
        // Written in any case, so that the loop does not branch on what may be half of the inputs.
        places[count] = k as u16;
        count += usize::from(counts);
    }
    count
}

/// Adds to `y` the terms of the inputs `from + places`, of which `x` has the values from `from` on.
#[inline(always)]
fn product<S: Simd>(s: S, x: Mat<'_>, places: &[u16], weight: Packed<'_>, from: usize, y: &mut MatMut<'_>) {
    let (rows, cols) = (y.rows(), y.cols());
    let tile_cols = tile_vectors(S::ISA, rows) * S::LANES;
    let height = if rows > TILE_ROWS { rows.div_ceil(2) } else { rows.max(1) };
    for col in (0..cols).step_by(tile_cols) {
        for row in (0..rows).step_by(height) {
            let (rows, cols) = (height.min(rows - row), tile_cols.min(cols - col));
            let mut y = y.row_range(row, rows);
            let mut y = y.columns(col, cols);
            let tile = Tile {
                x: x.row_range(row, rows),
                places,
                b: weight.at(from, col),
                b_panel: weight.inner() * PANEL,
                y: y.as_mut_ptr(),
                y_row: y.stride(),
                cols,
            };
            // SAFETY: the shapes agree: `places` are columns of `x`, so that they and the panels of these columns of y are
            // in `weight`; y is borrowed exclusively.
            unsafe { run(s, &tile) };
        }
    }
}

/// One tile: `y += x b` over listed inner places.
struct Tile<'a> {
    x: Mat<'a>,
    places: &'a [u16],
    /// First value of the tile in its panel, at the inner index that `x` begins with.
    b: *const f32,
    /// Distance between two panels.
    b_panel: usize,
    y: *mut f32,
    y_row: usize,
    cols: usize,
}

/// # Safety
/// `places` are columns of `x` and rows of the panels at `b`, which are whole; `cols` values of each row at `y` may be read and
/// written.
#[inline(always)]
unsafe fn run<S: Simd>(s: S, tile: &Tile<'_>) {
    macro_rules! sizes {
        ($($r:literal: $($v:literal)*;)*) => {
            match (tile.x.rows(), tile.cols.div_ceil(S::LANES)) {
                $($(
                    // SAFETY: the caller's contract.
                    ($r, $v) => unsafe { fixed::<S, $r, $v>(s, tile) },
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
    }
}

/// A tile of `ROWS` rows and `VECTORS` vectors, of which the last may be partial.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn fixed<S: Simd, const ROWS: usize, const VECTORS: usize>(s: S, t: &Tile<'_>) {
    let last = t.cols - (VECTORS - 1) * S::LANES;
    let whole = last == S::LANES;
    let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `cols` values of each row of y may be read.
            *sum = unsafe {
                let from = t.y.add(r * t.y_row + v * S::LANES);
                if whole || v + 1 < VECTORS { s.load_ptr(from) } else { s.load_part_ptr(from, last) }
            };
        }
    }
    let (x, x_row) = (t.x.as_ptr(), t.x.stride());
    for &k in t.places {
        let k = usize::from(k);
        let mut right = [s.splat(0.0); VECTORS];
        for (v, right) in right.iter_mut().enumerate() {
            let column = v * S::LANES;
            let place = column / PANEL * t.b_panel + k * PANEL + column % PANEL;
            // SAFETY: panels are whole, so a full vector lies inside for every column below `cols`.
            *right = unsafe { s.load_ptr(t.b.add(place)) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: row `r` and column `k` of x are in range.
            let left = s.splat(unsafe { *x.add(r * x_row + k) });
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = s.mul_add(left, right, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: `cols` values of each row of y may be written.
            unsafe {
                let to = t.y.add(r * t.y_row + v * S::LANES);
                if whole || v + 1 < VECTORS {
                    s.store_ptr(to, *sum)
                } else {
                    s.store_part_ptr(to, *sum, last)
                }
            }
        }
    }
}
