//! Mean and biased variance of every column over the batch: the first half of batch normalisation, and a join.
//!
//! x `[batch, n]`, output `[2n, 1]`: n means, then n variances. Sums are f64, in lane order. With `momentum` the
//! running statistics move after each training step: `E ← E + m (mean − E)`, `V ← V + m (var · B/(B−1) − V)`; a batch
//! of one row leaves V as it is.
//!
//! Backward: `dx = d_mean / B + d_var · 2 (x − mean) / B`.

use crate::check::Case;
use crate::op::{Backward, Forward, Matrix, Op, Reduction, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_kernels::norm;

/// Statistics of the batch, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct BatchMoments {
    running: Option<(usize, f32)>,
}

impl BatchMoments {
    /// Statistics that also move the state `running.0` (`[2n]`: means, variances) with momentum `running.1`.
    pub fn new(running: Option<(usize, f32)>) -> BatchMoments {
        BatchMoments { running }
    }
}

impl Op for BatchMoments {
    fn name(&self) -> &'static str {
        "batch_moments"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space == Space::Batch => Ok(Shape::once(2 * x.cols, 1)),
            _ => Err(format!("one input with rows is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: true }
    }

    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }

    fn forward(&self, _tile: &mut Forward<'_>) {}

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, moments, gradient) =
            (tile.input(0), tile.output().contiguous(), tile.once_gradient().contiguous());
        let Some(mut dx) = tile.take_gradient(0) else { return };
        let n = x.cols();
        let scale = 1.0 / tile.at.facts.rows as f32;
        for r in 0..x.rows() {
            let (x, dx_row) = (x.row(r), dx.to.row_mut(r));
            for c in 0..n {
                let add = scale * (gradient[c] + 2.0 * gradient[n + c] * (x[c] - moments[c]));
                dx_row[c] = if dx.accumulate { dx_row[c] + add } else { add };
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let x = &inputs[0];
        let mut out = Matrix::zeros(2 * x.cols, 1);
        let rows = x.rows as f64;
        for c in 0..x.cols {
            let mean = (0..x.rows).map(|r| x.at(r, c)).sum::<f64>() / rows;
            let variance = (0..x.rows).map(|r| (x.at(r, c) - mean).powi(2)).sum::<f64>() / rows;
            out.set(c, 0, mean);
            out.set(x.cols + c, 0, variance);
        }
        out
    }
}

impl Reduction for BatchMoments {
    fn partial_len(&self, inputs: &[Shape]) -> usize {
        2 * inputs[0].cols
    }

    fn accumulate(&self, tile: &Forward<'_>, partial: &mut [f64]) {
        let x = tile.input(0);
        let (sums, squares) = partial.split_at_mut(x.cols());
        norm::column_moments(tile.at.isa, x, sums, squares);
    }

    fn finish(&self, rows: usize, sums: &[f64], output: &mut [f32]) {
        let n = sums.len() / 2;
        let rows = rows.max(1) as f64;
        for c in 0..n {
            let mean = sums[c] / rows;
            output[c] = mean as f32;
            output[n + c] = (sums[n + c] / rows - mean * mean).max(0.0) as f32;
        }
    }

    fn state(&self) -> Option<usize> {
        self.running.map(|(state, _)| state)
    }

    fn update_state(&self, rows: usize, output: &[f32], state: &mut [f32]) {
        let Some((_, momentum)) = self.running else { return };
        let n = output.len() / 2;
        for c in 0..n {
            state[c] += momentum * (output[c] - state[c]);
            if rows > 1 {
                let unbiased = output[n + c] * rows as f32 / (rows - 1) as f32;
                state[n + c] += momentum * (unbiased - state[n + c]);
            }
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols| Case::new(name, |g, x| g.add("op", BatchMoments::new(None), x)).rows(cols);
    vec![case("batch_moments/one", 1), case("batch_moments/wide", 19)]
}
