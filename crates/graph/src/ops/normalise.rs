//! `y = act(γ ⊙ (x − mean) / sqrt(var + ε) + β)`: the second half of batch normalisation.
//!
//! x `[batch, n]`, moments `[2n, 1]` (of the batch in training, running in evaluation), γ and β `[n]`.
//! S. Ioffe, C. Szegedy, *Batch Normalization*, ICML 2015.
//!
//! Backward, with x̂ the normalised value and dz = dy ⊙ act': `dβ = Σ dz`, `dγ = Σ dz x̂`, `dx = dz γ / σ`,
//! `d_mean = −γ/σ Σ dz`, `d_var = −½ γ/σ² Σ dz x̂`. What flows through the moments is their op's part.

use crate::check::Case;
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Saved, activate_f64};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_kernels::activation::{self, Activation};
use manygate_kernels::{Mat, norm};
use std::ops::Range;

/// Normalisation by given moments, see the [module](self). Inputs: x, moments, γ, β.
#[derive(Clone, Debug)]
pub struct Normalise {
    epsilon: f32,
    activation: Activation,
}

/// Columns that are treated together: their f64 sums stand on the stack.
const BLOCK: usize = 64;

impl Normalise {
    /// Adds `epsilon` to the variance and ends in `activation`.
    pub fn new(epsilon: f32, activation: Activation) -> Normalise {
        Normalise { epsilon, activation }
    }

    fn inverse_deviation(&self, variance: &[f32]) -> [f32; BLOCK] {
        let mut inverse = [0.0; BLOCK];
        for (to, v) in inverse.iter_mut().zip(variance) {
            *to = 1.0 / (v + self.epsilon).sqrt();
        }
        inverse
    }
}

fn blocks(cols: usize) -> impl Iterator<Item = Range<usize>> {
    (0..cols).step_by(BLOCK).map(move |from| from..cols.min(from + BLOCK))
}

/// Adds to or overwrites part of a gradient that is a column of values.
fn give(gradient: &mut Option<Gradient<'_>>, first: usize, values: impl Iterator<Item = f32>) {
    if let Some(g) = gradient {
        for (i, value) in values.enumerate() {
            let to = &mut g.to.row_mut(first + i)[0];
            *to = if g.accumulate { *to + value } else { value };
        }
    }
}

impl Op for Normalise {
    fn name(&self) -> &'static str {
        "normalise"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, moments, gamma, beta]
                if x.space == Space::Batch
                    && *moments == Shape::once(2 * x.cols, 1)
                    && *gamma == Shape::once(x.cols, 1)
                    && *beta == *gamma =>
            {
                Ok(*x)
            }
            _ => Err(format!("x, moments [2n, 1], gamma and beta [n, 1] are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1111, output: self.activation != Activation::Identity }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let x = tile.input(0);
        let (mean, variance) = tile.input(1).contiguous().split_at(x.cols());
        let (gamma, beta) = (tile.input(2).contiguous(), tile.input(3).contiguous());
        let mut y = tile.take_output();
        for b in blocks(x.cols()) {
            let inverse = self.inverse_deviation(&variance[b.clone()]);
            norm::normalise(
                tile.at.isa,
                x.columns(b.start, b.len()),
                &mean[b.clone()],
                &inverse[..b.len()],
                &gamma[b.clone()],
                &beta[b.clone()],
                self.activation,
                y.columns(b.start, b.len()),
            );
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let isa = tile.at.isa;
        let x = tile.input(0);
        let (mean, variance) = tile.input(1).contiguous().split_at(x.cols());
        let gamma = tile.input(2).contiguous();
        let mut dz = tile.take_output_gradient();
        if self.activation != Activation::Identity {
            activation::activation_dx(isa, self.activation, tile.output(), dz.reborrow());
        }
        let dz: Mat<'_> = dz.as_mat();
        let mut dx = tile.take_gradient(0);
        let (mut d_moments, mut d_gamma, mut d_beta) =
            (tile.take_gradient(1), tile.take_gradient(2), tile.take_gradient(3));
        for b in blocks(x.cols()) {
            let (dz, x) = (dz.columns(b.start, b.len()), x.columns(b.start, b.len()));
            let inverse = self.inverse_deviation(&variance[b.clone()]);
            let inverse = &inverse[..b.len()];
            let (mut sum, mut sum_xhat) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
            let (sum, sum_xhat) = (&mut sum[..b.len()], &mut sum_xhat[..b.len()]);
            norm::norm_gradient_sums(isa, dz, x, &mean[b.clone()], inverse, sum, sum_xhat);
            give(&mut d_beta, b.start, sum.iter().map(|&s| s as f32));
            give(&mut d_gamma, b.start, sum_xhat.iter().map(|&s| s as f32));
            let scale = |i: usize| f64::from(gamma[b.start + i] * inverse[i]);
            give(&mut d_moments, b.start, (0..b.len()).map(|i| (-scale(i) * sum[i]) as f32));
            let d_variance = |i: usize| (-0.5 * scale(i) * f64::from(inverse[i]) * sum_xhat[i]) as f32;
            give(&mut d_moments, mean.len() + b.start, (0..b.len()).map(d_variance));
            if let Some(g) = &mut dx {
                let zeros = [0.0; BLOCK];
                let zeros = &zeros[..b.len()];
                let to = g.to.columns(b.start, b.len());
                norm::norm_dx(
                    isa,
                    dz,
                    x,
                    &mean[b.clone()],
                    inverse,
                    &gamma[b.clone()],
                    zeros,
                    zeros,
                    g.accumulate,
                    to,
                );
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (x, moments) = (&inputs[0], &inputs[1]);
        let mut y = x.clone();
        for (r, c) in (0..x.rows).flat_map(|r| (0..x.cols).map(move |c| (r, c))) {
            let normal =
                (x.at(r, c) - moments.data[c]) / (moments.data[x.cols + c] + f64::from(self.epsilon)).sqrt();
            y.set(r, c, activate_f64(self.activation, inputs[2].data[c] * normal + inputs[3].data[c]));
        }
        y
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize, activation: Activation| {
        let case = Case::new(name, move |g, x| g.add("op", Normalise::new(1e-3, activation), x));
        // Variances are positive.
        case.rows(cols).once(2 * cols, 1).between(0.3, 1.5).once(cols, 1).once(cols, 1)
    };
    vec![
        case("normalise/one", 1, Activation::Identity),
        case("normalise/relu", 7, Activation::Relu),
        case("normalise/several_blocks", BLOCK + 5, Activation::Tanh),
    ]
}
