//! Groups of linear layers side by side: group `g` reads and writes its own range of columns.

use super::pack::split;
use super::{GroupedPacked, linear, linear_dw, linear_dx};
use crate::activation::Activation;
use crate::isa::Isa;
use crate::view::{Mat, MatMut};

/// [`linear`] for each group: `x` is `[rows, groups * in]`, `weights` hold the packed transposes of `[out, in]`, `bias`
/// has `groups * out` values or none, `y` is `[rows, groups * out]`.
///
/// # Panics
/// When the shapes disagree.
pub fn grouped_linear(
    isa: Isa,
    x: Mat<'_>,
    weights: GroupedPacked<'_>,
    bias: &[f32],
    act: Activation,
    mut y: MatMut<'_>,
) {
    let (groups, inputs, outputs) = (weights.groups(), weights.inner(), weights.cols());
    assert_eq!((x.cols(), y.cols()), (groups * inputs, groups * outputs), "grouped_linear: columns");
    assert!(bias.is_empty() || bias.len() == groups * outputs, "grouped_linear: bias");
    for g in 0..groups {
        let bias = if bias.is_empty() { bias } else { &bias[g * outputs..][..outputs] };
        let y = y.columns(g * outputs, outputs);
        linear(isa, x.columns(g * inputs, inputs), weights.group(g), bias, act, y);
    }
}

/// [`linear_dx`] for each group: `dy` is `[rows, groups * out]`, `weights` hold the packed `[out, in]`, `dx` and the
/// output in `mask` are `[rows, groups * in]`.
///
/// # Panics
/// When the shapes disagree.
pub fn grouped_linear_dx(
    isa: Isa,
    dy: Mat<'_>,
    weights: GroupedPacked<'_>,
    accumulate: bool,
    mask: Option<(Activation, Mat<'_>)>,
    mut dx: MatMut<'_>,
) {
    let (groups, inputs, outputs) = (weights.groups(), weights.cols(), weights.inner());
    assert_eq!((dy.cols(), dx.cols()), (groups * outputs, groups * inputs), "grouped_linear_dx: columns");
    for g in 0..groups {
        let mask = mask.map(|(act, y)| (act, y.columns(g * inputs, inputs)));
        let dx = dx.columns(g * inputs, inputs);
        linear_dx(isa, dy.columns(g * outputs, outputs), weights.group(g), accumulate, mask, dx);
    }
}

/// [`linear_dw`] for each of `groups` groups: `dy` is `[rows, groups * out]`, `x` `[rows, groups * in]`, `dw`
/// `[groups * out, in]`; `scratch` is that of one group, [`linear_dw_scratch`](super::linear_dw_scratch)`(rows, in)`.
///
/// # Panics
/// When the shapes disagree or `scratch` is too short.
pub fn grouped_linear_dw(
    isa: Isa,
    groups: usize,
    dy: Mat<'_>,
    x: Mat<'_>,
    accumulate: bool,
    mut dw: MatMut<'_>,
    scratch: &mut [f32],
) {
    let (outputs, inputs) = (split(groups, dy.cols()), split(groups, x.cols()));
    assert_eq!((dw.rows(), dw.cols()), (groups * outputs, inputs), "grouped_linear_dw: dw");
    for g in 0..groups {
        let (dy, x) = (dy.columns(g * outputs, outputs), x.columns(g * inputs, inputs));
        linear_dw(isa, dy, x, accumulate, dw.row_range(g * outputs, outputs), scratch);
    }
}
