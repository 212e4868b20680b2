//! Inner products of all pairs of fields of a row, in the order (0,1), (0,2) … (1,2) …
//!
//! Forward, a field stands against four others at a time, whose sums over lanes are taken together. Backward, a few fields
//! keep their gradients in registers while all others pass. Both are bound by arithmetic: a row is in the first cache.

use crate::dispatch;
use crate::lanes::{load_chunk, load_row, store_row};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Fields that are taken together.
const BLOCK: usize = 4;

/// Place of the pair (f, f + 1) among the pairs of `fields` fields.
const fn first_pair(fields: usize, f: usize) -> usize {
    f * (2 * fields - f - 1) / 2
}

/// Checks the shapes of values and pairs, and gives the width of a field.
#[inline(always)]
fn check(e: Mat<'_>, fields: usize, pairs: Mat<'_>) -> usize {
    assert!(fields > 0, "pair products: no fields");
    let n = e.cols() / fields;
    let shape = (e.rows(), fields * (fields - 1) / 2);
    assert_eq!(
        (e.cols(), pairs.rows(), pairs.cols()),
        (n * fields, shape.0, shape.1),
        "pair products: shapes"
    );
    n
}

dispatch! {
    /// `y = (e_f · e_g for f < g)`, of e `[rows, fields · n]`: y is `[rows, fields (fields − 1) / 2]`.
    ///
    /// # Panics
    /// When shapes disagree.
    pub fn pair_products(e: Mat<'_>, fields: usize, y: MatMut<'_>) = pair_products_body;
}

#[inline(always)]
fn pair_products_body<S: Simd>(s: S, e: Mat<'_>, fields: usize, mut y: MatMut<'_>) {
    let n = check(e, fields, y.as_mat());
    if n == 0 {
        return y.fill(0.0);
    }
    for r in 0..e.rows() {
        let (row, y) = (e.row(r), y.row_mut(r));
        let mut at = 0;
        for f in 0..fields {
            let (field, behind) = row[f * n..].split_at(n);
            let y = &mut y[at..at + fields - 1 - f];
            at += y.len();
            let (fours, rest) = y.as_chunks_mut::<BLOCK>();
            let (of_fours, of_rest) = behind.split_at(fours.len() * BLOCK * n);
            for (y, others) in fours.iter_mut().zip(of_fours.chunks_exact(BLOCK * n)) {
                *y = s.sums(dots::<S, BLOCK>(s, field, others));
            }
            for (y, other) in rest.iter_mut().zip(of_rest.chunks_exact(n)) {
                *y = s.sum(dots::<S, 1>(s, field, other)[0]);
            }
        }
    }
}

/// Inner products of a field with `J` others, one behind the other, before the sums over lanes.
#[inline(always)]
fn dots<S: Simd, const J: usize>(s: S, field: &[f32], others: &[f32]) -> [S::V; J] {
    let n = field.len();
    let others = &others[..J * n];
    let mut sums = [s.splat(0.0); J];
    let mut from = 0;
    while from + S::LANES <= n {
        let left = s.load(&field[from..]);
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = s.mul_add(left, s.load(&others[j * n + from..]), *sum);
        }
        from += S::LANES;
    }
    if from < n {
        let left = load_chunk(s, &field[from..]);
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = s.mul_add(left, load_chunk(s, &others[j * n + from..(j + 1) * n]), *sum);
        }
    }
    sums
}

dispatch! {
    /// The gradient of [`pair_products`]: `de_f = Σ_g dy_fg e_g` over the other fields g, written or, with `accumulate`, added.
    ///
    /// # Panics
    /// When shapes disagree.
    pub fn pair_products_de(e: Mat<'_>, fields: usize, dy: Mat<'_>, accumulate: bool, de: MatMut<'_>)
        = pair_products_de_body;
}

#[inline(always)]
fn pair_products_de_body<S: Simd>(
    s: S,
    e: Mat<'_>,
    fields: usize,
    dy: Mat<'_>,
    accumulate: bool,
    mut de: MatMut<'_>,
) {
    let n = check(e, fields, dy);
    assert_eq!((de.rows(), de.cols()), (e.rows(), e.cols()), "pair_products_de: shapes");
    for r in 0..e.rows() {
        let row = Row { e: e.row(r), dy: dy.row(r), fields, n, accumulate };
        let (mut f, de) = (0, de.row_mut(r));
        while f + BLOCK <= fields {
            row.gradients::<S, BLOCK>(s, f, de);
            f += BLOCK;
        }
        for f in f..fields {
            row.gradients::<S, 1>(s, f, de);
        }
    }
}

/// What the gradients of a row are computed from.
struct Row<'a> {
    e: &'a [f32],
    dy: &'a [f32],
    fields: usize,
    n: usize,
    accumulate: bool,
}

impl Row<'_> {
    /// The gradients of fields `f .. f + J`, two vectors at a time.
    #[inline(always)]
    fn gradients<S: Simd, const J: usize>(&self, s: S, f: usize, de: &mut [f32]) {
        for from in (0..self.n).step_by(2 * S::LANES) {
            let columns = (from, (self.n - from).min(2 * S::LANES));
            match (columns.1 > S::LANES, columns.1.is_multiple_of(S::LANES)) {
                (true, true) => self.columns::<S, J, 2, true>(s, f, columns, de),
                (true, false) => self.columns::<S, J, 2, false>(s, f, columns, de),
                (false, true) => self.columns::<S, J, 1, true>(s, f, columns, de),
                (false, false) => self.columns::<S, J, 1, false>(s, f, columns, de),
            }
        }
    }

    /// The same of `lanes` columns from column `from` on: `V` vectors, all of them `WHOLE` or the last one in part.
    #[inline(always)]
    fn columns<S: Simd, const J: usize, const V: usize, const WHOLE: bool>(
        &self,
        s: S,
        f: usize,
        (from, lanes): (usize, usize),
        de: &mut [f32],
    ) {
        let (fields, n) = (self.fields, self.n);
        let mut sums = [[s.splat(0.0); V]; J];
        if self.accumulate {
            for (j, sums) in sums.iter_mut().enumerate() {
                *sums = load_row::<S, V, WHOLE>(s, &de[(f + j) * n + from..][..lanes]);
            }
        }
        let mut slopes = [0.0; J];
        // The pairs of a field before with the fields of the block stand side by side.
        for (g, other) in self.e.chunks_exact(n).take(f).enumerate() {
            slopes.copy_from_slice(&self.dy[first_pair(fields, g) + f - g - 1..][..J]);
            add_field(s, load_row::<S, V, WHOLE>(s, &other[from..from + lanes]), slopes, &mut sums);
        }
        for g in f..f + J {
            for (j, slope) in slopes.iter_mut().enumerate() {
                let (low, high) = if f + j < g { (f + j, g) } else { (g, f + j) };
                *slope = if low < high { self.dy[first_pair(fields, low) + high - low - 1] } else { 0.0 };
            }
            let own = load_row::<S, V, WHOLE>(s, &self.e[g * n + from..][..lanes]);
            add_field(s, own, slopes, &mut sums);
        }
        let mut behind: [&[f32]; J] = [&[]; J];
        for (j, behind) in behind.iter_mut().enumerate() {
            let first = first_pair(fields, f + j) + J - 1 - j;
            *behind = &self.dy[first..first + fields - f - J];
        }
        for (k, other) in self.e[(f + J) * n..].chunks_exact(n).enumerate() {
            for (slope, behind) in slopes.iter_mut().zip(behind) {
                *slope = behind[k];
            }
            add_field(s, load_row::<S, V, WHOLE>(s, &other[from..from + lanes]), slopes, &mut sums);
        }
        for (j, sums) in sums.into_iter().enumerate() {
            store_row::<S, V, WHOLE>(s, &mut de[(f + j) * n + from..][..lanes], sums);
        }
    }
}

/// Adds `slopes ⊗ other` to the sums of a block.
#[inline(always)]
fn add_field<S: Simd, const J: usize, const V: usize>(
    s: S,
    other: [S::V; V],
    slopes: [f32; J],
    sums: &mut [[S::V; V]; J],
) {
    for (sums, slope) in sums.iter_mut().zip(slopes) {
        for (sum, other) in sums.iter_mut().zip(other) {
            *sum = s.mul_add(s.splat(slope), other, *sum);
        }
    }
}
