//! The loops around the register tile: `out = finish(start + left right)` for a packed right operand.

use super::microkernel::{self, LastStep, Rows, TILE_ROWS, Tile};
use super::pack::{PANEL, Packed};
use crate::activation::Activation;
use crate::dispatch;
use crate::lanes::{load_chunk, store_chunk};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Longest piece of the inner index: 64 columns of B then take 128 KiB, which stay in the second-level cache while
/// every row of the block passes.
const INNER_BLOCK: usize = 512;

/// Most rows of a block: its piece of A is read once for each 64 columns, so it should stay in the second-level cache
/// too. A tile of 256 rows is one block.
const ROW_BLOCK: usize = 44 * TILE_ROWS;

/// Widest register tile of any instruction set, in columns.
const MAX_TILE_COLS: usize = 64;

static ZEROS: [f32; MAX_TILE_COLS] = [0.0; MAX_TILE_COLS];

/// The left operand `[rows, inner]`.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// As it stands.
    Rows(Mat<'a>),
    /// As [`pack_left`] wrote it.
    Packed { data: &'a [f32], rows: usize, inner: usize },
}

impl Left<'_> {
    fn rows(&self) -> usize {
        match *self {
            Left::Rows(m) => m.rows(),
            Left::Packed { rows, .. } => rows,
        }
    }

    fn inner(&self) -> usize {
        match *self {
            Left::Rows(m) => m.cols(),
            Left::Packed { inner, .. } => inner,
        }
    }

    /// Rows that are cut into tiles of nearly equal height; packed tiles have their height already.
    fn run(&self) -> usize {
        match self {
            Left::Rows(_) => ROW_BLOCK,
            Left::Packed { .. } => TILE_ROWS,
        }
    }

    /// A tile of `count` rows from the inner index `k` on.
    #[inline(always)]
    fn tile(&self, row: usize, count: usize, k: usize) -> Rows {
        match *self {
            Left::Rows(m) => Rows::Apart(m.as_ptr().wrapping_add(row * m.stride() + k), m.stride()),
            Left::Packed { data, inner, .. } => {
                Rows::Together(data.as_ptr().wrapping_add(row * inner + k * count))
            }
        }
    }
}

dispatch! {
    /// Packs the transpose of `from` `[inner, rows]` as a left operand: [`TILE_ROWS`] rows after the other, in each such tile
    /// the values of its rows side by side for every inner index. `to` has `inner * rows` values.
    #[allow(unreachable_pub, reason = "`dispatch!` makes public functions; the module is private")]
    pub fn pack_left(from: Mat<'_>, to: &mut [f32]) = pack_left_body;
}

#[inline(always)]
fn pack_left_body<S: Simd>(_: S, from: Mat<'_>, to: &mut [f32]) {
    let (inner, rows) = (from.rows(), from.cols());
    assert_eq!(to.len(), inner * rows, "pack_left [{inner}, {rows}]");
    if inner == 0 {
        return;
    }
    let (tiles, last) = to.split_at_mut(rows / TILE_ROWS * TILE_ROWS * inner);
    for k in 0..inner {
        let (whole, rest) = from.row(k).as_chunks::<TILE_ROWS>();
        for (from, tile) in whole.iter().zip(tiles.chunks_exact_mut(TILE_ROWS * inner)) {
            tile.as_chunks_mut::<TILE_ROWS>().0[k] = *from;
        }
        for (from, to) in rest.iter().zip(&mut last[k * rest.len()..]) {
            *to = *from;
        }
    }
}

/// What the sums start from.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Zero.
    Zero,
    /// One value a column.
    Bias(&'a [f32]),
    /// What the output holds.
    Output,
}

/// What happens to the finished sums.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    /// Nothing.
    Keep,
    /// The activation of each.
    Activate(Activation),
    /// Each times the derivative of the activation whose output is the element of the same place.
    Mask(Activation, Mat<'a>),
}

dispatch! {
    /// `out = finish(start + left right)`.
    #[allow(unreachable_pub, reason = "`dispatch!` makes public functions; the module is private")]
    pub fn product(left: Left<'_>, right: Packed<'_>, start: Start<'_>, finish: Finish<'_>, out: MatMut<'_>)
        = product_body;
}

#[inline(always)]
fn product_body<S: Simd>(
    s: S,
    left: Left<'_>,
    right: Packed<'_>,
    start: Start<'_>,
    finish: Finish<'_>,
    out: MatMut<'_>,
) {
    let (rows, cols, inner) = (out.rows(), out.cols(), right.inner());
    assert_eq!(left.rows(), rows, "product: rows of the left operand and of the output");
    assert_eq!(left.inner(), inner, "product: inner index of the two operands");
    assert_eq!(right.cols(), cols, "product: columns of the right operand and of the output");
    if let Left::Packed { data, rows, inner } = left {
        assert_eq!(data.len(), rows * inner, "product: a packed left operand");
    }
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), cols, "product: one bias a column");
    }
    if let Finish::Mask(_, y) = finish {
        assert_eq!((y.rows(), y.cols()), (rows, cols), "product: shape of the mask");
    }
    let mut job = Job { left, right, start, finish, out };
    for rows in pieces(0, rows, ROW_BLOCK, TILE_ROWS) {
        // Without an inner index there is still one pass, for the start and the finish.
        for k in pieces(0, inner, INNER_BLOCK, 1).chain((inner == 0).then_some((0, 0))) {
            job.block(s, rows, k);
        }
    }
}

/// A product whose shapes agree.
struct Job<'a> {
    left: Left<'a>,
    right: Packed<'a>,
    start: Start<'a>,
    finish: Finish<'a>,
    out: MatMut<'a>,
}

impl Job<'_> {
    /// A range of rows and of the inner index: 64 columns of B (16 with AVX2) at a time, which every row passes.
    #[inline(always)]
    fn block<S: Simd>(&mut self, s: S, (row_from, row_to): (usize, usize), k: (usize, usize)) {
        let (rows, cols) = (self.out.rows(), self.out.cols());
        let tile_cols = microkernel::tile_vectors(S::ISA, rows) * S::LANES;
        debug_assert!(tile_cols.is_multiple_of(PANEL) || PANEL.is_multiple_of(tile_cols));
        for col in (0..cols).step_by(tile_cols) {
            let width = tile_cols.min(cols - col);
            for run in (row_from..row_to).step_by(self.left.run()) {
                for (row, end) in pieces(run, row_to.min(run + self.left.run()), TILE_ROWS, 1) {
                    let passed = (row - row_from, row_to - row_from);
                    let tile = self.tile((row, end), (col, width), k, passed);
                    if tile.start_row > 0 {
                        // The tile after this one starts from the output too.
                        let (row, col) = if end < row_to { (end, col) } else { (row_from, col + width) };
                        let (next, height) = (self.output_at(row, col), TILE_ROWS.min(row_to - row));
                        microkernel::prefetch(next, tile.c_row, height, tile_cols.min(cols - col));
                    }
                    // SAFETY: the shapes agree, so rows `row .. end` and columns `col .. col + width` exist in the
                    // views, and the panels of these columns in `right`; `out` is borrowed exclusively, so nothing
                    // else refers to what is written.
                    unsafe { microkernel::run(s, end - row, &tile) };
                    if k.1 == self.right.inner() {
                        for r in row..end {
                            finish_row(s, self.finish, r, col, &mut self.out.row_mut(r)[col..col + width]);
                        }
                    }
                }
            }
        }
    }

    /// The register tile of rows `row .. end` and `width` columns from `col`, for a range of the inner index, when so many
    /// rows of so many have passed these columns.
    #[inline(always)]
    fn tile(
        &mut self,
        (row, end): (usize, usize),
        (col, width): (usize, usize),
        (k_from, k_to): (usize, usize),
        (passed, rows): (usize, usize),
    ) -> Tile {
        let (c, c_row) = (self.output_at(row, col), self.out.stride());
        let (start, start_row) = match self.start {
            Start::Zero if k_from == 0 => (ZEROS.as_ptr(), 0),
            Start::Bias(bias) if k_from == 0 => (bias[col..].as_ptr(), 0),
            _ => (c.cast_const(), c_row),
        };
        let inner = self.right.inner();
        let last_step = if k_to == inner { self.last_step(row, col, width) } else { LastStep::Keep };
        let b = self.right.at(k_from, col);
        // Each tile asks for its share of the next panel.
        let share = passed * (k_to - k_from) / rows;
        Tile {
            inner: k_to - k_from,
            a: self.left.tile(row, end - row, k_from),
            b,
            b_panel: inner * PANEL,
            b_next: b.wrapping_add((inner + share) * PANEL),
            start,
            start_row,
            c,
            c_row,
            cols: width,
            last_step,
        }
    }

    #[inline(always)]
    fn output_at(&mut self, row: usize, col: usize) -> *mut f32 {
        self.out.as_mut_ptr().wrapping_add(row * self.out.stride() + col)
    }

    /// The part of `finish` that the register tile at `row`, `col` does.
    #[inline(always)]
    fn last_step(&self, row: usize, col: usize, width: usize) -> LastStep {
        match self.finish {
            Finish::Activate(Activation::Relu) => LastStep::Relu,
            Finish::Mask(Activation::Relu, y) => {
                let first = y.as_ptr().wrapping_add(row * y.stride() + col);
                microkernel::prefetch(first, y.stride(), TILE_ROWS.min(y.rows() - row), width);
                LastStep::ReluMask(first, y.stride())
            }
            _ => LastStep::Keep,
        }
    }
}

/// The part of `finish` that register tiles leave, for one row of a tile.
#[inline(always)]
fn finish_row<S: Simd>(s: S, finish: Finish<'_>, row: usize, col: usize, out: &mut [f32]) {
    match finish {
        Finish::Keep
        | Finish::Activate(Activation::Identity | Activation::Relu)
        | Finish::Mask(Activation::Identity | Activation::Relu, _) => {}
        Finish::Activate(act) => {
            for out in out.chunks_mut(S::LANES) {
                store_chunk(s, out, act.apply(s, load_chunk(s, out)));
            }
        }
        Finish::Mask(act, y) => {
            let y = &y.row(row)[col..col + out.len()];
            for (out, y) in out.chunks_mut(S::LANES).zip(y.chunks(S::LANES)) {
                let slope = act.slope_from_output(s, load_chunk(s, y));
                store_chunk(s, out, s.mul(load_chunk(s, out), slope));
            }
        }
    }
}

/// `from .. to` cut into as few pieces of at most `most` as possible, of nearly equal length (a last piece of a row or
/// two would leave registers idle), each but the last a multiple of `unit`, which divides `most`.
#[inline(always)]
fn pieces(from: usize, to: usize, most: usize, unit: usize) -> impl Iterator<Item = (usize, usize)> {
    let units = (to - from).div_ceil(unit);
    let count = units.div_ceil(most / unit);
    let (each, longer) = (units / count.max(1), units % count.max(1));
    let mut next = from;
    (0..count).map(move |i| {
        let from = next;
        next = to.min(from + (each + usize::from(i < longer)) * unit);
        (from, next)
    })
}
