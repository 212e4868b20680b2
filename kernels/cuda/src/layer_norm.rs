//! Layer normalisation, see the op `layer_norm`. Matrices hold f32 or bf16 each, γ and β f32, one number a column. `groups`
//! equal parts of a row are normalised each by itself. The rows that are there are those of `x`.

use crate::column_sums::{self, across, chunks, gradient_bytes, sum, sums_bytes};
use crate::launch::{Arguments, Launch, blocks};
use crate::module::LAYER_NORM;
use crate::share;
use crate::view::DeviceMat;

/// Threads of a block.
const THREADS: u32 = column_sums::THREADS;
const WARP: u32 = 32;

/// What rows are normalised with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normal {
    /// Equal parts of a row.
    pub groups: u32,
    /// What is added to a variance.
    pub epsilon: f32,
    /// Address of γ.
    pub gamma: u64,
}

impl Normal {
    /// A launch in which a segment of lanes takes a part of a row of `x`.
    fn by_parts(
        self,
        kernel: &'static str,
        x: DeviceMat,
        with_more: impl FnOnce(Arguments) -> Arguments,
    ) -> Launch {
        let Normal { groups, epsilon, gamma } = self;
        assert!(
            groups > 0 && x.cols.is_multiple_of(groups),
            "{kernel}: {} columns in {groups} parts",
            x.cols
        );
        let segment = (x.cols / groups).div_ceil(4).next_power_of_two().clamp(1, WARP);
        let threads = u64::from(x.rows) * u64::from(groups) * u64::from(segment);
        assert!(threads <= u64::from(u32::MAX / 2), "{kernel}: [{}, {}] is too large", x.rows, x.cols);
        let arguments = Arguments::new().with_u32(segment).with_u32(groups).with_f32(epsilon);
        let arguments = with_more(arguments.with_mat(x).with_u64(gamma));
        Launch::new(&LAYER_NORM, kernel, blocks(threads, THREADS), THREADS, arguments)
    }
}

/// `y = γ ⊙ (x − mean) / σ + β`, mean and σ those of each part of a row; `beta` is the address of β.
///
/// # Panics
/// When the shapes differ, or parts are not equal.
pub fn layer_norm(normal: Normal, x: DeviceMat, beta: u64, y: DeviceMat) -> Launch {
    share::assert_alike("layer_norm", &[x, y]);
    normal.by_parts("layer_norm", x, |arguments| arguments.with_u64(beta).with_mat(y))
}

/// Bytes of scratch that [`layer_norm_backward`] works in.
pub fn layer_norm_scratch(rows: u32, cols: u32, groups: u32) -> u64 {
    moments_bytes(rows, groups) + sums_bytes(1, chunks(rows, cols), cols)
}

/// Bytes of mean and inverse deviation of each part of each row.
fn moments_bytes(rows: u32, groups: u32) -> u64 {
    8 * u64::from(rows) * u64::from(groups)
}

/// The gradients of [`layer_norm`]: with g = dy ⊙ γ and x̂ the normalised row,
/// `dx = (g − mean(g) − x̂ mean(g ⊙ x̂)) / σ`, and over all rows `dγ = Σ dy ⊙ x̂`, `dβ = Σ dy`. Each is written, or added
/// where the bool says so; no launches where none is asked for.
///
/// `scratch` is the address of [`layer_norm_scratch`] bytes, a multiple of 8.
///
/// # Panics
/// When the shapes differ, or parts are not equal.
pub fn layer_norm_backward(
    normal: Normal,
    x: DeviceMat,
    dy: DeviceMat,
    dx: Option<(DeviceMat, bool)>,
    d_gamma: Option<(u64, bool)>,
    d_beta: Option<(u64, bool)>,
    scratch: u64,
) -> Vec<Launch> {
    let has_sums = (d_gamma, d_beta) != (None, None);
    if dx.is_none() && !has_sums {
        return Vec::new();
    }
    let (dx, accumulate) = dx.unwrap_or((DeviceMat { address: 0, ..x }, false));
    share::assert_alike("layer_norm_dx", &[x, dy, dx]);
    let rows = normal.by_parts("layer_norm_dx", x, |arguments| {
        arguments.with_mat(dy).with_u32(accumulate.into()).with_mat(dx).with_u64(scratch)
    });
    if !has_sums {
        return vec![rows];
    }
    let partials = scratch + moments_bytes(x.rows, normal.groups);
    let arguments = Arguments::new().with_u32(normal.groups).with_mat(x).with_u64(scratch).with_mat(dy);
    let arguments = arguments.with_u32(across(x.cols)).with_u64(partials);
    let sums = sum(&LAYER_NORM, "layer_norm_sums", [chunks(x.rows, x.cols), 1], x, arguments);
    let arguments = Arguments::new().with_mat(x).with_u32(across(x.cols)).with_u32(chunks(x.rows, x.cols));
    let arguments = arguments.with_u64(partials).with_bytes(&gradient_bytes(d_gamma), 8);
    let arguments = arguments.with_bytes(&gradient_bytes(d_beta), 8);
    vec![rows, sums, column_sums::finish(&LAYER_NORM, "finish_layer_norm_sums", 1, x, arguments)]
}
