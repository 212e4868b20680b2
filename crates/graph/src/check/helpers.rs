//! Ops that surround the op under test.

use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::graph::LossId;
use crate::op::{Backward, Forward, Matrix, Op, Rowset, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation::activation_dx;
use manygate_cuda::{DeviceMat, Element, elementwise};
use manygate_kernels::activation;
use manygate_kernels::{Mat, MatMut};
use std::sync::Arc;

/// Given values, `[batch, cols]`, one row for each of the batch.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) values: Arc<[f32]>,
    pub(super) cols: usize,
    /// The list with whose ids it has rows, instead of the batch.
    pub(super) bag: Option<usize>,
}

impl Op for Source {
    fn name(&self) -> &'static str {
        "source"
    }

    fn output(&self, _inputs: &[Shape]) -> Result<Shape, String> {
        Ok(self.bag.map_or(Shape::batch(self.cols), |bag| Shape::position(bag, self.cols)))
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let rows = self.bag.map_or(tile.at.range(), |bag| tile.at.positions(bag));
        let from = Mat::new(&self.values[rows.start * self.cols..], rows.len(), self.cols);
        combine(from, tile.take_output(), |_, v| v);
    }

    fn backward(&self, _tile: &mut Backward<'_>) {}

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn reference(&self, _inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let data = self.values.iter().copied().map(f64::from).collect();
        let rows = self.bag.map_or(batch.rows, |bag| batch.bags[bag].ids.len());
        Matrix { rows, cols: self.cols, data }
    }
}

impl DeviceOp for Source {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let to = step.output();
        let values = constant(step, &self.values, to);
        step.launch(elementwise::copy_columns(values, false, to));
    }

    fn backward(&self, _step: &mut DeviceStep<'_>) {}
}

/// Values in device memory, as a matrix with the rows and columns of `like`.
fn constant(step: &mut DeviceStep<'_>, values: &[f32], like: DeviceMat) -> DeviceMat {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    DeviceMat { address: step.constant(&bytes), stride: like.cols, element: Element::F32, ..like }
}

/// The loss `Σ w · y` of a value with a row a sample, or of a matrix that exists once.
#[derive(Clone, Debug)]
pub(super) struct Weigh {
    pub(super) loss: LossId,
    /// As many as y has values, row-major.
    pub(super) weights: Arc<[f32]>,
    pub(super) shape: Shape,
    /// Whether it multiplies by an activation's slope in passing.
    pub(super) masks: bool,
}

impl Weigh {
    /// The weights of the rows of a tile. A matrix that exists once is weighed by the tile with the first row; for the
    /// others its weights are zero.
    fn tile(&self, at: Rowset<'_>) -> (Mat<'_>, f32) {
        let cols = self.shape.cols;
        match self.shape.space {
            Space::Batch => (Mat::new(&self.weights[at.first_row * cols..], at.rows, cols), 1.0),
            Space::Position(bag) => {
                let rows = at.positions(bag);
                (Mat::new(&self.weights[rows.start * cols..], rows.len(), cols), 1.0)
            }
            Space::Once => {
                let share = if at.first_row == 0 { 1.0 } else { 0.0 };
                (Mat::new(&self.weights, self.shape.rows, cols), share)
            }
        }
    }
}

impl Op for Weigh {
    fn name(&self) -> &'static str {
        "weigh"
    }

    fn output(&self, _inputs: &[Shape]) -> Result<Shape, String> {
        Ok(Shape::batch(0))
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn masks(&self, _input: usize) -> bool {
        self.masks
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (y, (weights, share)) = (tile.input(0), self.tile(tile.at));
        let loss = tile.take_loss(self.loss.index());
        for r in 0..y.rows() {
            let products = y.row(r).iter().zip(weights.row(r)).map(|(&y, &w)| f64::from(y) * f64::from(w));
            *loss += f64::from(share) * products.sum::<f64>();
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (weights, share) = self.tile(tile.at);
        let scale = share * tile.at.scale(self.loss);
        if let Some(mut dy) = tile.take_gradient(0) {
            combine(
                weights,
                dy.to.reborrow(),
                |old, w| if dy.accumulate { old + scale * w } else { scale * w },
            );
            if let Some((activation, y)) = dy.mask {
                activation::activation_dx(tile.at.isa, activation, y, dy.to);
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut terms = Matrix::zeros(batch.rows, 1);
        let products = inputs[0].data.iter().zip(&*self.weights).map(|(y, &w)| y * f64::from(w));
        terms.set(0, 0, products.sum());
        terms
    }
}

/// Its factor is 1 in every check, and its sum is none of what a device is asked for.
impl DeviceOp for Weigh {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, _step: &mut DeviceStep<'_>) {}

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let Some(dy) = step.take_gradient(0) else { return };
        let weights = constant(step, &self.weights, dy.to);
        step.launch(elementwise::copy_columns(weights, dy.accumulate, dy.to));
        if let Some((activation, y)) = dy.mask {
            step.launch(activation_dx(activation, y, dy.to));
        }
    }
}

/// Writes `f(old, new)` for each element of `from`.
fn combine(from: Mat<'_>, mut to: MatMut<'_>, f: impl Fn(f32, f32) -> f32) {
    for r in 0..from.rows() {
        for (to, &v) in to.row_mut(r).iter_mut().zip(from.row(r)) {
            *to = f(*to, v);
        }
    }
}
