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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{pack_transposed, packed_len, reference};
    use crate::testing::values;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_skipped_changes_no_bit(
            rows in 0usize..=SKIPPING_ROWS, inner in prop_oneof![0usize..70, 500usize..530],
            cols in 0usize..140, pad in 0usize..3, biased: bool, zeros in 0usize..=10, seed: u64,
            act in prop::sample::select(vec![Activation::Identity, Activation::Relu, Activation::Tanh]),
        ) {
            let stride = inner + pad;
            let mut x = values(seed, rows * stride, 1.0);
            // Most zeros are in all rows, some in one alone.
            for (i, x) in x.iter_mut().enumerate() {
                let k = (i % stride.max(1)) as u64;
                let draw = |by: u64| (k.wrapping_mul(by) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
                if draw(3) < zeros as u64 || draw(5 + i as u64 / 3) == 0 {
                    *x = 0.0;
                }
            }
            let (w, bias) = (values(seed ^ 1, cols * inner, 1.0), values(seed ^ 2, cols, 1.0));
            let bias = if biased { &bias[..] } else { &[] };
            let (x, w) = (Mat::strided(&x, rows, inner, stride), Mat::new(&w, cols, inner));
            let mut expected = vec![0.0; rows * cols];
            reference::linear(x, w, bias, act, MatMut::new(&mut expected, rows, cols));
            for isa in Isa::available() {
                let mut packed = vec![f32::NAN; packed_len(inner, cols)];
                pack_transposed(isa, w, &mut packed);
                let weight = Packed::new(&packed, inner, cols);
                let (mut plain, mut y) = (vec![7.0; rows * cols], values(seed ^ 3, rows * (cols + pad), 1.0));
                let untouched = y.clone();
                linear(isa, x, weight, bias, act, MatMut::new(&mut plain, rows, cols));
                linear_skipping(isa, x, weight, bias, act, MatMut::strided(&mut y, rows, cols, cols + pad));
                for (i, (&got, &before)) in y.iter().zip(&untouched).enumerate() {
                    let (row, col) = (i / (cols + pad), i % (cols + pad));
                    if col >= cols {
                        prop_assert_eq!(got, before, "padding was written");
                        continue;
                    }
                    let (plain, exact) = (plain[row * cols + col], expected[row * cols + col]);
                    prop_assert_eq!(got, plain, "{} at {}, {}", isa, row, col);
                    prop_assert!((got - exact).abs() <= 4e-7 * (inner as f32 + 8.0) * exact.abs().max(1.0));
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_counts() {
        for isa in Isa::available() {
            let mut packed = vec![0.0; packed_len(3, 2)];
            pack_transposed(isa, Mat::new(&[1.0; 6], 2, 3), &mut packed);
            let mut y = [0.0; 2];
            let x = [0.0, f32::NAN, 1.0];
            let (weight, y_mat) = (Packed::new(&packed, 3, 2), MatMut::new(&mut y, 1, 2));
            linear_skipping(isa, Mat::new(&x, 1, 3), weight, &[], Activation::Identity, y_mat);
            assert!(y.iter().all(|y| y.is_nan()), "{isa}: {y:?}");
        }
    }
}
