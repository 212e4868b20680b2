//! Products of vectors with matrices of their samples: each matrix serves a vector or a few, and is read once.
//!
//! What a product takes is reading the matrix, 4 bytes for 2 operations, and the gradient of a matrix is written as it is
//! computed. Vectors of one sample (groups side by side, ids of a list) are taken up to four at a time, so that one
//! reading serves them. A value is one chain of multiply-adds over the inner index, or the sum of a vector of such chains
//! where the inner index lies along the rows of the matrix; its bits depend on its own sample alone.

use crate::dispatch;
use crate::lanes::{load_chunk, load_row, load_span, spans, store_row, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};
use std::ops::Range;

/// The vectors of samples: each row of a value holds `groups` of them side by side.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    /// Vectors in a row.
    pub groups: usize,
    /// Where the rows of each sample begin and those of the last one end, counted from any start; a row each where there
    /// are none.
    pub offsets: Option<&'a [u32]>,
}

impl Vectors<'_> {
    /// Rows of the value of one sample.
    #[inline(always)]
    pub fn rows_of(&self, sample: usize) -> Range<usize> {
        match self.offsets {
            Some(offsets) => {
                let at = |sample: usize| (offsets[sample] - offsets[0]) as usize;
                at(sample)..at(sample + 1)
            }
            None => sample..sample + 1,
        }
    }

    /// Rows of a value whose samples are `samples`.
    #[inline(always)]
    pub fn rows(&self, samples: usize) -> usize {
        if samples == 0 { 0 } else { self.rows_of(samples - 1).end }
    }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// Nothing.
    Zero,
    /// A vector of each sample.
    Bias(Mat<'a>),
    /// What is there.
    Output,
}

/// The place of a vector: its row, and its group there.
type Place = (usize, usize);

dispatch! {
    /// `y = start + M x` for every vector of `x` and the matrix of its sample: a row of `weight`, `[out, in]` row-major, or,
    /// `transposed`, `[in, out]`, of which the product is `Mᵀ x`. x is `[rows, groups · in]`, y `[rows, groups · out]`.
    ///
    /// # Panics
    /// When shapes disagree.
    pub fn row_product(
        x: Mat<'_>, weight: Mat<'_>, of: Vectors<'_>, transposed: bool, start: Start<'_>, y: MatMut<'_>,
    ) = row_product_body;
}

#[inline(always)]
fn row_product_body<S: Simd>(
    s: S,
    x: Mat<'_>,
    weight: Mat<'_>,
    of: Vectors<'_>,
    transposed: bool,
    start: Start<'_>,
    mut y: MatMut<'_>,
) {
    let (samples, inner, out) = (weight.rows(), x.cols() / of.groups, y.cols() / of.groups);
    assert_eq!((x.cols(), y.cols()), (inner * of.groups, out * of.groups), "row_product: groups");
    assert_eq!((x.rows(), y.rows()), (of.rows(samples), of.rows(samples)), "row_product: rows");
    assert_eq!(weight.cols(), inner * out, "row_product: weights of [{out}, {inner}]");
    if out == 0 {
        return;
    }
    let mut turned = [0.0; TURNED];
    for sample in 0..samples {
        let (matrix, rows) = (weight.row(sample), of.rows_of(sample));
        for row in rows.clone() {
            match start {
                Start::Output => {}
                Start::Zero => y.row_mut(row).fill(0.0),
                Start::Bias(bias) => {
                    let bias = bias.row(sample);
                    y.row_mut(row).chunks_exact_mut(out).for_each(|y| y.copy_from_slice(bias));
                }
            }
        }
        if inner == 0 {
            continue;
        }
        let (mut next, mut left) = ((rows.start, 0), rows.len() * of.groups);
        // A matrix of one row is one of one column; for several vectors, the way round whose lanes need not be summed.
        let (matrix, transposed) = if out == 1 {
            (matrix, false)
        } else if !transposed && left >= TURNED_FOR && matrix.len() <= TURNED {
            turn(matrix, (out, inner), &mut turned);
            (&turned[..matrix.len()], true)
        } else {
            (matrix, transposed)
        };
        let mut product = Product { matrix, x, transposed, inner, out, y: y.reborrow() };
        while left > 0 {
            let taken = match left {
                4.. => product.take::<S, 4>(s, &mut next, of.groups),
                2.. => product.take::<S, 2>(s, &mut next, of.groups),
                _ => product.take::<S, 1>(s, &mut next, of.groups),
            };
            left -= taken;
        }
    }
}

/// Values of the largest matrix that is transposed for a sample of several vectors.
const TURNED: usize = 2048;

/// From how many vectors on that is faster.
const TURNED_FOR: usize = 24;

/// Writes the transpose of `matrix`, of `rows` and `cols`.
#[inline(always)]
fn turn(matrix: &[f32], (rows, cols): (usize, usize), to: &mut [f32]) {
    let to = &mut to[..matrix.len()];
    for (r, row) in matrix.chunks_exact(cols).enumerate() {
        for (c, &value) in row.iter().enumerate() {
            to[c * rows + r] = value;
        }
    }
}

/// A sample's matrix and the values that it is multiplied by.
struct Product<'a> {
    matrix: &'a [f32],
    x: Mat<'a>,
    transposed: bool,
    inner: usize,
    out: usize,
    y: MatMut<'a>,
}

impl Product<'_> {
    /// Multiplies `J` vectors from place `next` on, which moves behind them. Returns `J`.
    #[inline(always)]
    fn take<S: Simd, const J: usize>(&mut self, s: S, next: &mut Place, groups: usize) -> usize {
        let mut places = [*next; J];
        for place in &mut places {
            *place = *next;
            *next = if next.1 + 1 < groups { (next.0, next.1 + 1) } else { (next.0 + 1, 0) };
        }
        let mut vectors: [&[f32]; J] = [&[]; J];
        for (vector, (row, group)) in vectors.iter_mut().zip(places) {
            *vector = &self.x.row(row)[group * self.inner..(group + 1) * self.inner];
        }
        if self.transposed {
            self.by_columns(s, vectors, places);
        } else {
            self.by_rows(s, vectors, places);
        }
        J
    }

    #[inline(always)]
    fn output(&mut self, (row, group): Place) -> &mut [f32] {
        &mut self.y.row_mut(row)[group * self.out..(group + 1) * self.out]
    }

    /// `y += Mᵀ x`: the columns are lanes, as many vectors of them as registers hold.
    #[inline(always)]
    fn by_columns<S: Simd, const J: usize>(&mut self, s: S, x: [&[f32]; J], places: [Place; J]) {
        let mut from = 0;
        while from < self.out {
            let lanes = (self.out - from).min(8 / J * S::LANES);
            macro_rules! sizes {
                ($($v:literal)*) => {
                    match (lanes.div_ceil(S::LANES), lanes.is_multiple_of(S::LANES)) {
                        $(
                            ($v, true) if $v * J <= 8 => self.columns::<S, J, $v, true>(s, x, places, from, lanes),
                            ($v, false) if $v * J <= 8 => self.columns::<S, J, $v, false>(s, x, places, from, lanes),
                        )*
                        (vectors, _) => unreachable!("{vectors} vectors of columns"),
                    }
                };
            }
            sizes!(1 2 3 4 5 6 7 8);
            from += lanes;
        }
    }

    /// `lanes` columns from column `from` on: `V` vectors, all of them `WHOLE` or the last one in part.
    #[inline(always)]
    fn columns<S: Simd, const J: usize, const V: usize, const WHOLE: bool>(
        &mut self,
        s: S,
        x: [&[f32]; J],
        places: [Place; J],
        from: usize,
        lanes: usize,
    ) {
        let mut sums = [[s.splat(0.0); V]; J];
        for (sums, place) in sums.iter_mut().zip(places) {
            *sums = load_row::<S, V, WHOLE>(s, &self.output(place)[from..from + lanes]);
        }
        for (i, row) in self.matrix.chunks_exact(self.out).enumerate() {
            let row = load_row::<S, V, WHOLE>(s, &row[from..from + lanes]);
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = s.splat(x[i]);
                for (sum, m) in sums.iter_mut().zip(row) {
                    *sum = s.mul_add(x, m, *sum);
                }
            }
        }
        for (sums, place) in sums.into_iter().zip(places) {
            store_row::<S, V, WHOLE>(s, &mut self.output(place)[from..from + lanes], sums);
        }
    }

    /// `y += M x`: the inner index is lanes, and four rows of the matrix are summed side by side.
    #[inline(always)]
    fn by_rows<S: Simd, const J: usize>(&mut self, s: S, x: [&[f32]; J], places: [Place; J]) {
        let mut row = 0;
        while row + ROWS <= self.out {
            self.rows::<S, J, ROWS>(s, x, places, row);
            row += ROWS;
        }
        for row in row..self.out {
            self.rows::<S, J, 1>(s, x, places, row);
        }
    }

    /// `R` rows of the matrix from row `from` on.
    #[inline(always)]
    fn rows<S: Simd, const J: usize, const R: usize>(
        &mut self,
        s: S,
        x: [&[f32]; J],
        places: [Place; J],
        from: usize,
    ) {
        let mut matrix: [&[f32]; R] = [&[]; R];
        for (r, row) in matrix.iter_mut().enumerate() {
            *row = &self.matrix[(from + r) * self.inner..(from + r + 1) * self.inner];
        }
        let mut sums = [[s.splat(0.0); R]; J];
        let mut at = 0;
        while at + S::LANES <= self.inner {
            multiply::<S, J, R>(s, x, matrix, at, S::LANES, &mut sums);
            at += S::LANES;
        }
        if at < self.inner {
            multiply::<S, J, R>(s, x, matrix, at, self.inner - at, &mut sums);
        }
        for (sums, place) in sums.into_iter().zip(places) {
            let y = &mut self.output(place)[from..from + R];
            if let Ok(sums) = <[S::V; 4]>::try_from(&sums[..]) {
                y.iter_mut().zip(s.sums(sums)).for_each(|(y, sum)| *y += sum);
            } else {
                y.iter_mut().zip(sums).for_each(|(y, sum)| *y += s.sum(sum));
            }
        }
    }
}

/// Rows of a matrix that are summed side by side.
const ROWS: usize = 4;

/// Adds the terms of `lanes` inner places from place `at` on.
#[inline(always)]
fn multiply<S: Simd, const J: usize, const R: usize>(
    s: S,
    x: [&[f32]; J],
    matrix: [&[f32]; R],
    at: usize,
    lanes: usize,
    sums: &mut [[S::V; R]; J],
) {
    let mut rows = [s.splat(0.0); R];
    for (to, row) in rows.iter_mut().zip(matrix) {
        *to = load_chunk(s, &row[at..at + lanes]);
    }
    for (sums, x) in sums.iter_mut().zip(x) {
        let x = load_chunk(s, &x[at..at + lanes]);
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = s.mul_add(row, x, *sum);
        }
    }
}

dispatch! {
    /// The gradient of the matrices of [`row_product`]: `to = Σ a ⊗ b` over the vectors of a sample, written or, with
    /// `accumulate`, added. a is `[rows, groups · n]`, b `[rows, groups · m]`, and row `r` of `to` `[n, m]` row-major.
    ///
    /// # Panics
    /// When shapes disagree.
    pub fn row_outer(a: Mat<'_>, b: Mat<'_>, of: Vectors<'_>, accumulate: bool, to: MatMut<'_>) = row_outer_body;
}

#[inline(always)]
fn row_outer_body<S: Simd>(
    s: S,
    a: Mat<'_>,
    b: Mat<'_>,
    of: Vectors<'_>,
    accumulate: bool,
    mut to: MatMut<'_>,
) {
    let (samples, n, m) = (to.rows(), a.cols() / of.groups, b.cols() / of.groups);
    assert_eq!((a.cols(), b.cols()), (n * of.groups, m * of.groups), "row_outer: groups");
    assert_eq!((a.rows(), b.rows()), (of.rows(samples), of.rows(samples)), "row_outer: rows");
    assert_eq!(to.cols(), n * m, "row_outer: gradients of [{n}, {m}]");
    for sample in 0..samples {
        let mut outer =
            Outer { a, b, rows: of.rows_of(sample), groups: of.groups, accumulate, to: to.row_mut(sample) };
        let mut row = 0;
        while row + ROWS <= n {
            outer.rows::<S, ROWS>(s, (n, m), row);
            row += ROWS;
        }
        for row in row..n {
            outer.rows::<S, 1>(s, (n, m), row);
        }
    }
}

/// The gradient of one matrix.
struct Outer<'a> {
    a: Mat<'a>,
    b: Mat<'a>,
    rows: Range<usize>,
    groups: usize,
    accumulate: bool,
    to: &'a mut [f32],
}

impl Outer<'_> {
    /// `R` rows of the gradient from row `first` on, two vectors of columns at a time.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, s: S, size: (usize, usize), first: usize) {
        let m = size.1;
        for from in (0..m).step_by(2 * S::LANES) {
            let lanes = (m - from).min(2 * S::LANES);
            match (lanes > S::LANES, lanes.is_multiple_of(S::LANES)) {
                (true, true) => self.tile::<S, R, 2, true>(s, size, (first, from), lanes),
                (true, false) => self.tile::<S, R, 2, false>(s, size, (first, from), lanes),
                (false, true) => self.tile::<S, R, 1, true>(s, size, (first, from), lanes),
                (false, false) => self.tile::<S, R, 1, false>(s, size, (first, from), lanes),
            }
        }
    }

    /// `R` rows and `lanes` columns: `V` vectors, all of them `WHOLE` or the last one in part.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize, const WHOLE: bool>(
        &mut self,
        s: S,
        (n, m): (usize, usize),
        (first, from): (usize, usize),
        lanes: usize,
    ) {
        let mut sums = [[s.splat(0.0); V]; R];
        if self.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = load_row::<S, V, WHOLE>(s, &self.to[(first + r) * m + from..][..lanes]);
            }
        }
        for row in self.rows.clone() {
            for group in 0..self.groups {
                let a = &self.a.row(row)[group * n + first..][..R];
                let b = load_row::<S, V, WHOLE>(s, &self.b.row(row)[group * m + from..][..lanes]);
                for (sums, a) in sums.iter_mut().zip(a) {
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = s.mul_add(s.splat(*a), b, *sum);
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            store_row::<S, V, WHOLE>(s, &mut self.to[(first + r) * m + from..][..lanes], sums);
        }
    }
}

dispatch! {
    /// The gradient of the bias of [`row_product`]: the sum of the vectors of a sample, written or, with `accumulate`, added.
    /// x is `[rows, groups · n]`, `to` `[samples, n]`.
    ///
    /// # Panics
    /// When shapes disagree.
    pub fn row_sums(x: Mat<'_>, of: Vectors<'_>, accumulate: bool, to: MatMut<'_>) = row_sums_body;
}

#[inline(always)]
fn row_sums_body<S: Simd>(s: S, x: Mat<'_>, of: Vectors<'_>, accumulate: bool, mut to: MatMut<'_>) {
    let (samples, n) = (to.rows(), to.cols());
    assert_eq!((x.rows(), x.cols()), (of.rows(samples), n * of.groups), "row_sums: shapes");
    for sample in 0..samples {
        let to = to.row_mut(sample);
        for span in spans(s, n) {
            let mut sum = if accumulate { load_span(s, to, span) } else { s.splat(0.0) };
            for row in of.rows_of(sample) {
                for group in 0..of.groups {
                    sum = s.add(sum, load_span(s, x.row(row), span.shifted(group * n)));
                }
            }
            store_span(s, to, span, sum);
        }
    }
}
