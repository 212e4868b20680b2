//! Batch normalisation, see `manygate_kernels::norm` and the ops `batch_moments` and `normalise`.
//!
//! Matrices hold f32 or bf16 each; what exists once is f32: moments, `cols` means and then as many variances, their
//! gradients, gamma and beta. Of several [groups](Groups) of rows those of one stand behind those of the other, means of
//! all before variances of all. σ is the root of a variance plus epsilon, x̂ the normalised value. The rows that are
//! there are those of `x`, or those that groups have.
//!
//! Sums over rows are those of `column_sums.rs`.

use crate::activation;
use crate::column_sums::{self, ROWS, THREADS, across, chunks, gradient_bytes, sums_bytes, tiles};
use crate::launch::{Arguments, Launch, blocks};
use crate::module::NORM;
use crate::share::assert_alike;
use crate::view::DeviceMat;
use manygate_kernels::activation::Activation;

/// Rows that have statistics in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    starts: u64,
    count: u32,
}

impl Groups {
    /// All rows of a matrix.
    pub const ONE: Groups = Groups { starts: 0, count: 1 };

    /// Most groups: what a grid takes in its third direction.
    pub const MOST: usize = 65535;

    /// `count` groups whose rows stand together; at the address `starts` are the first of each and the one behind the last,
    /// u32 `[count + 1]`.
    ///
    /// # Panics
    /// When there are more than [`MOST`](Groups::MOST).
    pub fn of(starts: u64, count: usize) -> Groups {
        assert!(count <= Groups::MOST, "norm: {count} groups");
        Groups { starts, count: count as u32 }
    }

    /// What kernels take first.
    fn of_matrix(self, x: DeviceMat) -> Arguments {
        Arguments::new().with_mat(x).with_u64(self.starts)
    }
}

/// A launch of a kernel that sums over chunks of the rows of `x`.
fn sum(kernel: &'static str, groups: Groups, x: DeviceMat, arguments: Arguments) -> Launch {
    column_sums::sum(&NORM, kernel, [chunks(x.rows, x.cols), groups.count], x, arguments)
}

/// A launch of a kernel that adds chunks.
fn finish(kernel: &'static str, groups: Groups, x: DeviceMat, arguments: Arguments) -> Launch {
    column_sums::finish(&NORM, kernel, groups.count, x, arguments)
}

/// A launch of a kernel that takes each value of `x` once.
fn each(kernel: &'static str, groups: Groups, x: DeviceMat, arguments: Arguments) -> Launch {
    let grid = [blocks(x.rows.into(), ROWS * (THREADS / across(x.cols))), tiles(x.cols), groups.count];
    Launch { grid, ..Launch::new(&NORM, kernel, 0, THREADS, arguments) }
}

/// Bytes that [`batch_moments`] of so many groups of a matrix of these rows and columns works in.
pub fn batch_moments_scratch(groups: usize, rows: u32, cols: u32) -> u64 {
    sums_bytes(groups, chunks(rows, cols), cols)
}

/// Mean and biased variance of each column of `x`, at `moments`; zeros where there are no rows.
///
/// `scratch` is the address of [`batch_moments_scratch`] bytes, a multiple of 8.
pub fn batch_moments(groups: Groups, x: DeviceMat, moments: u64, scratch: u64) -> Vec<Launch> {
    let arguments = groups.of_matrix(x).with_u32(across(x.cols));
    let sums = sum("column_moments", groups, x, arguments.clone().with_u64(scratch));
    let arguments = arguments.with_u32(chunks(x.rows, x.cols)).with_u64(scratch).with_u64(moments);
    vec![sums, finish("finish_moments", groups, x, arguments)]
}

/// `y = act(gamma ⊙ (x − mean) / σ + beta)`. `x` may be `y`.
///
/// # Panics
/// When the shapes differ.
pub fn normalise(
    groups: Groups,
    x: DeviceMat,
    moments: u64,
    gamma: u64,
    beta: u64,
    epsilon: f32,
    act: Activation,
    y: DeviceMat,
) -> Launch {
    assert_alike("normalise", &[x, y]);
    let arguments = groups.of_matrix(x).with_u64(moments).with_u64(gamma).with_u64(beta);
    let arguments = arguments.with_f32(epsilon).with_bytes(&activation::to_bytes(act), 4);
    each("normalise", groups, x, arguments.with_u32(across(x.cols)).with_mat(y))
}

/// Bytes that [`normalise_sums`] of so many groups of a matrix of these rows and columns works in.
pub fn normalise_sums_scratch(groups: usize, rows: u32, cols: u32) -> u64 {
    sums_bytes(groups, chunks(rows, cols), cols)
}

/// Gradients of [`normalise`] that are sums over rows, of the gradient `dz` before the activation: `d_mean = −γ/σ Σ dz`
/// and `d_var = −½ γ/σ² Σ dz x̂`, at `d_moments`, `dγ = Σ dz x̂` and `dβ = Σ dz`. Each is written, or added to what is
/// there where the bool says so; no launches where none is asked for.
///
/// `scratch` is the address of [`normalise_sums_scratch`] bytes, a multiple of 8.
///
/// # Panics
/// When the shapes differ.
pub fn normalise_sums(
    groups: Groups,
    x: DeviceMat,
    moments: u64,
    gamma: u64,
    epsilon: f32,
    dz: DeviceMat,
    d_moments: Option<(u64, bool)>,
    d_gamma: Option<(u64, bool)>,
    d_beta: Option<(u64, bool)>,
    scratch: u64,
) -> Vec<Launch> {
    assert_alike("normalise_sums", &[x, dz]);
    let gradients = [d_moments, d_gamma, d_beta];
    if gradients == [None; 3] {
        return Vec::new();
    }
    let arguments = groups.of_matrix(x).with_u64(moments).with_f32(epsilon).with_mat(dz);
    let sums = sum("norm_gradient_sums", groups, x, arguments.with_u32(across(x.cols)).with_u64(scratch));
    let arguments = groups.of_matrix(x).with_u64(moments).with_u64(gamma).with_f32(epsilon);
    let arguments = arguments.with_u32(across(x.cols)).with_u32(chunks(x.rows, x.cols)).with_u64(scratch);
    let arguments = gradients
        .into_iter()
        .fold(arguments, |arguments, gradient| arguments.with_bytes(&gradient_bytes(gradient), 8));
    vec![sums, finish("finish_gradients", groups, x, arguments)]
}

/// The gradient at the input of [`normalise`] that does not go through the moments: `dx = dz ⊙ γ/σ`, or `dx +=` it with
/// `accumulate`. `dz` may be `dx`; of `x` only the rows that are there count.
///
/// # Panics
/// When the shapes differ.
pub fn normalise_dx(
    groups: Groups,
    x: DeviceMat,
    moments: u64,
    gamma: u64,
    epsilon: f32,
    dz: DeviceMat,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    assert_alike("normalise_dx", &[x, dz, dx]);
    let arguments = groups.of_matrix(x).with_u64(moments).with_u64(gamma).with_f32(epsilon);
    let arguments = arguments.with_mat(dz).with_u32(across(x.cols)).with_u32(accumulate.into());
    each("normalise_dx", groups, x, arguments.with_mat(dx))
}

/// The gradient at the input of [`batch_moments`]: `dx = (d_mean + 2 d_var (x − mean)) / rows`, or `dx +=` it with
/// `accumulate`, with the rows that are there and the gradients at `d_moments`.
///
/// # Panics
/// When the shapes differ.
pub fn batch_moments_dx(
    groups: Groups,
    x: DeviceMat,
    moments: u64,
    d_moments: u64,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    assert_alike("batch_moments_dx", &[x, dx]);
    let arguments = groups.of_matrix(x).with_u64(moments).with_u64(d_moments);
    let arguments = arguments.with_u32(across(x.cols)).with_u32(accumulate.into());
    each("batch_moments_dx", groups, x, arguments.with_mat(dx))
}

/// Moves running moments at `state` towards those of a batch: `E += m (mean − E)`, `V += m (v − V)` with the momentum
/// m.
///
/// `groups` is not [`Groups::ONE`], which does not say where the number of rows is. Where `unbiased`, v is the variance times
/// `rows / (rows − 1)`, and a single row leaves V as it is. Nothing moves of a group without rows, or where the u32 at
/// `go_on` is 0.
pub fn move_running(
    go_on: u64,
    groups: Groups,
    cols: u32,
    moments: u64,
    momentum: f32,
    unbiased: bool,
    state: u64,
) -> Launch {
    let arguments = Arguments::new().with_u64(go_on).with_u64(groups.starts).with_u32(groups.count);
    let arguments = arguments.with_u32(cols).with_u64(moments).with_f32(momentum);
    let arguments = arguments.with_u32(unbiased.into()).with_u64(state);
    let values = 2 * u64::from(groups.count) * u64::from(cols);
    Launch::new(&NORM, "move_running", blocks(values, THREADS), THREADS, arguments)
}
