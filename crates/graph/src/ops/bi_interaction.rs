//! `y = ½ [(Σ_f e_f)² − Σ_f e_f²]`, element by element: all products of two fields, summed as `Σ_g e_g ⊙ Σ_{f<g} e_f`,
//! which takes as long, and where nothing cancels.
//!
//! e `[batch, fields · n]`, y `[batch, n]`. X. He, T.-S. Chua, *Neural Factorization Machines for Sparse Predictive
//! Analytics*, SIGIR 2017. Backward: `de_f = dy ⊙ (Σ_g e_g − e_f)`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::interaction as cuda;

/// Bi-interaction pooling, see the [module](self). Input: e.
#[derive(Clone, Debug)]
pub struct BiInteraction {
    fields: usize,
}

impl BiInteraction {
    /// Of `fields` fields.
    pub fn new(fields: usize) -> BiInteraction {
        BiInteraction { fields }
    }
}

impl Op for BiInteraction {
    fn name(&self) -> &'static str {
        "bi_interaction"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [e] if e.space == Space::Batch && self.fields > 0 && e.cols.is_multiple_of(self.fields) => {
                Ok(Shape::batch(e.cols / self.fields))
            }
            _ => Err(format!("{} fields are needed, not {inputs:?}", self.fields)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn scratch(&self, _rows: usize, inputs: &[Shape]) -> usize {
        inputs[0].cols / self.fields
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[0].cols
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::at_same_place(output, reached, output.len());
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.zero((Axis::Columns(0), 0), inputs[0].cols);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (e, mut y) = (tile.input(0), tile.take_output());
        let n = y.cols();
        let before = &mut tile.take_scratch()[..n];
        for r in 0..e.rows() {
            let y = y.row_mut(r);
            before.fill(0.0);
            y.fill(0.0);
            for field in e.row(r).chunks_exact(n) {
                for ((y, before), v) in y.iter_mut().zip(&mut *before).zip(field) {
                    *y += v * *before;
                    *before += v;
                }
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (e, dy) = (tile.input(0), tile.take_output_gradient());
        let Some(mut de) = tile.take_gradient(0) else { return };
        let n = dy.cols();
        let total = &mut tile.take_scratch()[..n];
        for r in 0..e.rows() {
            let (e, dy) = (e.row(r), dy.row(r));
            total.fill(0.0);
            e.chunks_exact(n).for_each(|field| total.iter_mut().zip(field).for_each(|(sum, v)| *sum += v));
            let fields = de.to.row_mut(r).chunks_exact_mut(n).zip(e.chunks_exact(n));
            for (to, field) in fields {
                for (((to, v), d), sum) in to.iter_mut().zip(field).zip(dy).zip(&*total) {
                    let gradient = d * (sum - v);
                    *to = if de.accumulate { *to + gradient } else { gradient };
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let e = &inputs[0];
        let n = e.cols / self.fields;
        let mut y = Matrix::zeros(e.rows, n);
        for (r, i) in (0..e.rows).flat_map(|r| (0..n).map(move |i| (r, i))) {
            let values = || (0..self.fields).map(|f| e.at(r, f * n + i));
            y.set(r, i, 0.5 * (values().sum::<f64>().powi(2) - values().map(|v| v * v).sum::<f64>()));
        }
        y
    }
}

impl DeviceOp for BiInteraction {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::bi_interaction(self.fields as u32, step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(de) = step.take_gradient(0) {
            let (fields, e, dy) = (self.fields as u32, step.input(0), step.output_gradient());
            step.launch(cuda::bi_interaction_de(fields, e, dy, de.accumulate, de.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, fields: usize, n: usize| {
        Case::new(name, move |g, x| g.add("op", BiInteraction::new(fields), x)).rows(fields * n)
    };
    vec![case("bi_interaction/one", 1, 3), case("bi_interaction/five", 5, 9)]
}
