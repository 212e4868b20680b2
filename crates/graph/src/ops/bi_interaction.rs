//! `y = ½ [(Σ_f e_f)² − Σ_f e_f²]`, element by element: all products of two fields, summed.
//!
//! e `[batch, fields · n]`, y `[batch, n]`. X. He, T.-S. Chua, *Neural Factorization Machines for Sparse Predictive
//! Analytics*, SIGIR 2017. Backward: `de_f = dy ⊙ (Σ_g e_g − e_f)`.

use crate::check::Case;
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;

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

/// Σ_f e_f at position `i` of the fields, each of width `n`.
fn total(e: &[f32], n: usize, i: usize) -> f32 {
    e.iter().skip(i).step_by(n).sum()
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

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[0].cols
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::at_same_place(output, reached, output.len());
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (e, mut y) = (tile.input(0), tile.take_output());
        let n = y.cols();
        for r in 0..e.rows() {
            for (i, y) in y.row_mut(r).iter_mut().enumerate() {
                let squares: f32 = e.row(r).iter().skip(i).step_by(n).map(|e| e * e).sum();
                *y = 0.5 * (total(e.row(r), n, i).powi(2) - squares);
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (e, dy) = (tile.input(0), tile.take_output_gradient());
        let Some(mut de) = tile.take_gradient(0) else { return };
        let n = dy.cols();
        for r in 0..e.rows() {
            let (e, dy) = (e.row(r), dy.row(r));
            de.put(r, e.iter().enumerate().map(|(at, v)| dy[at % n] * (total(e, n, at % n) - v)));
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

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, fields: usize, n: usize| {
        Case::new(name, move |g, x| g.add("op", BiInteraction::new(fields), x)).rows(fields * n)
    };
    vec![case("bi_interaction/one", 1, 3), case("bi_interaction/five", 5, 9)]
}
