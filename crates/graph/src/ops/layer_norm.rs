//! `y = γ ⊙ (x − mean) / sqrt(var + ε) + β`, over the columns of each row.
//!
//! x, y `[batch, n]` (or a row an id of a list), γ, β `[n, 1]`. J. L. Ba, J. R. Kiros, G. E. Hinton, *Layer
//! Normalization*, 2016.
//!
//! Backward, x̂ the normalised row, σ its deviation, g = dy ⊙ γ: `dγ = Σ dy ⊙ x̂`, `dβ = Σ dy`,
//! `dx = (g − mean(g) − x̂ mean(g ⊙ x̂)) / σ`.

use crate::check::Case;
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;

/// Normalised rows, see the [module](self). Inputs: x, γ, β.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    epsilon: f32,
}

impl LayerNorm {
    /// Adds `epsilon` to the variance.
    pub fn new(epsilon: f32) -> LayerNorm {
        LayerNorm { epsilon }
    }

    /// Mean and 1/σ of a row.
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let n = x.len() as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        (mean as f32, (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32)
    }
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, gamma, beta]
                if x.space != Space::Once
                    && x.cols > 0
                    && *gamma == Shape::once(x.cols, 1)
                    && beta == gamma =>
            {
                Ok(*x)
            }
            _ => Err(format!("x, gamma and beta [n, 1] are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b111, output: false }
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reached.fill(true),
            _ => reach::same(output, reached),
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        let (gamma, beta) = (tile.input(1).contiguous(), tile.input(2).contiguous());
        for r in 0..x.rows() {
            let (mean, inverse) = self.moments(x.row(r));
            let scaled = x.row(r).iter().zip(gamma).zip(beta).map(|((x, g), b)| g * (x - mean) * inverse + b);
            y.row_mut(r).iter_mut().zip(scaled).for_each(|(y, v)| *y = v);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, gamma, dy) = (tile.input(0), tile.input(1).contiguous(), tile.take_output_gradient());
        let mut dx = tile.take_gradient(0);
        let [mut d_gamma, mut d_beta] = [1, 2].map(|i| tile.take_gradient(i));
        for gradient in [&mut d_gamma, &mut d_beta].into_iter().flatten().filter(|g| !g.accumulate) {
            gradient.to.fill(0.0);
        }
        let n = x.cols();
        for r in 0..x.rows() {
            let (row, dy, (mean, inverse)) = (x.row(r), dy.row(r), self.moments(x.row(r)));
            let normal = |c: usize| (row[c] - mean) * inverse;
            if let Some(to) = &mut d_gamma {
                (0..n).for_each(|c| to.to.row_mut(c)[0] += dy[c] * normal(c));
            }
            if let Some(to) = &mut d_beta {
                (0..n).for_each(|c| to.to.row_mut(c)[0] += dy[c]);
            }
            if let Some(dx) = &mut dx {
                let mean_g = (0..n).map(|c| dy[c] * gamma[c]).sum::<f32>() / n as f32;
                let mean_gx = (0..n).map(|c| dy[c] * gamma[c] * normal(c)).sum::<f32>() / n as f32;
                dx.put(r, (0..n).map(|c| (dy[c] * gamma[c] - mean_g - normal(c) * mean_gx) * inverse));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        let n = y.cols as f64;
        for row in y.data.chunks_exact_mut(inputs[0].cols) {
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            for (c, v) in row.iter_mut().enumerate() {
                let normal = (*v - mean) / (variance + f64::from(self.epsilon)).sqrt();
                *v = inputs[1].data[c] * normal + inputs[2].data[c];
            }
        }
        y
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let op = || LayerNorm::new(1e-2);
    vec![
        Case::new("layer_norm/one", move |g, x| g.add("op", op(), x)).rows(1).once(1, 1).once(1, 1),
        Case::new("layer_norm/wide", move |g, x| g.add("op", op(), x)).rows(17).once(17, 1).once(17, 1),
        Case::new("layer_norm/positions", move |g, x| g.add("op", op(), x))
            .positions(0, 5)
            .once(5, 1)
            .once(5, 1),
    ]
}
