//! The products as plain loops in double precision: what the fast versions are tested against, here and in the crates
//! above.

use crate::activation::Activation;
use crate::view::{Mat, MatMut};

/// [`linear`](super::linear) with `weight` `[out, in]` as it stands.
pub fn linear(x: Mat<'_>, weight: Mat<'_>, bias: &[f32], act: Activation, mut y: MatMut<'_>) {
    assert_eq!((weight.rows(), weight.cols()), (y.cols(), x.cols()), "weight: [out, in]");
    for r in 0..y.rows() {
        for (o, y) in y.row_mut(r).iter_mut().enumerate() {
            let bias = bias.get(o).map_or(0.0, |&b| f64::from(b));
            *y = activate(act, bias + dot(x.row(r), weight.row(o))) as f32;
        }
    }
}

/// [`linear_dx`](super::linear_dx) with `weight` `[out, in]` as it stands.
pub fn linear_dx(
    dy: Mat<'_>,
    weight: Mat<'_>,
    accumulate: bool,
    mask: Option<(Activation, Mat<'_>)>,
    mut dx: MatMut<'_>,
) {
    assert_eq!((weight.rows(), weight.cols()), (dy.cols(), dx.cols()), "weight: [out, in]");
    for r in 0..dx.rows() {
        for (i, dx) in dx.row_mut(r).iter_mut().enumerate() {
            let before = if accumulate { f64::from(*dx) } else { 0.0 };
            let column =
                dy.row(r).iter().enumerate().map(|(o, &d)| f64::from(d) * f64::from(weight.row(o)[i]));
            let slope = mask.map_or(1.0, |(act, y)| slope_from_output(act, f64::from(y.row(r)[i])));
            *dx = ((before + column.sum::<f64>()) * slope) as f32;
        }
    }
}

/// [`linear_dw`](super::linear_dw).
pub fn linear_dw(dy: Mat<'_>, x: Mat<'_>, accumulate: bool, mut dw: MatMut<'_>) {
    assert_eq!((dw.rows(), dw.cols(), dy.rows()), (dy.cols(), x.cols(), x.rows()), "dw: [out, in]");
    for o in 0..dw.rows() {
        for (i, dw) in dw.row_mut(o).iter_mut().enumerate() {
            let before = if accumulate { f64::from(*dw) } else { 0.0 };
            let column = (0..x.rows()).map(|r| f64::from(dy.row(r)[o]) * f64::from(x.row(r)[i]));
            *dw = (before + column.sum::<f64>()) as f32;
        }
    }
}

/// [`column_sums`](super::column_sums).
pub fn column_sums(dy: Mat<'_>, accumulate: bool, db: &mut [f32]) {
    assert_eq!(db.len(), dy.cols(), "one sum a column");
    for (o, db) in db.iter_mut().enumerate() {
        let before = if accumulate { f64::from(*db) } else { 0.0 };
        *db = (before + (0..dy.rows()).map(|r| f64::from(dy.row(r)[o])).sum::<f64>()) as f32;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn activate(act: Activation, v: f64) -> f64 {
    match act {
        Activation::Identity => v,
        Activation::Relu => v.max(0.0),
        Activation::LeakyRelu(_) if v > 0.0 => v,
        Activation::LeakyRelu(slope) => v * f64::from(slope),
        Activation::Tanh => v.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-v).exp()),
    }
}

fn slope_from_output(act: Activation, y: f64) -> f64 {
    match act {
        Activation::Identity => 1.0,
        Activation::Relu => f64::from(u8::from(y > 0.0)),
        Activation::LeakyRelu(_) if y > 0.0 => 1.0,
        Activation::LeakyRelu(slope) => f64::from(slope),
        Activation::Tanh => 1.0 - y * y,
        Activation::Sigmoid => y * (1.0 - y),
    }
}
