//! `y = γ ⊙ (x − mean) / sqrt(var + ε) + β`, over the columns of each row.
//!
//! x, y `[batch, n]` (or a row an id of a list), γ, β `[n, 1]`. J. L. Ba, J. R. Kiros, G. E. Hinton, *Layer
//! Normalization*, 2016. In groups, x is `[batch, groups · n]`, γ and β `[groups · n, 1]`: parts of a row side by side
//! are normalised by themselves.
//!
//! Backward, x̂ the normalised row, σ its deviation, g = dy ⊙ γ: `dγ = Σ dy ⊙ x̂`, `dβ = Σ dy`,
//! `dx = (g − mean(g) − x̂ mean(g ⊙ x̂)) / σ`.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::layer_norm as cuda;

/// Normalised rows, see the [module](self). Inputs: x, γ, β.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    epsilon: f32,
    groups: usize,
}

impl LayerNorm {
    /// Adds `epsilon` to the variance.
    pub fn new(epsilon: f32) -> LayerNorm {
        LayerNorm { epsilon, groups: 1 }
    }

    /// Of `groups` equal parts of a row, each by itself.
    pub fn in_groups(self, groups: usize) -> LayerNorm {
        LayerNorm { groups, ..self }
    }

    /// Mean and 1/σ of a row.
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let n = x.len() as f64;
        let mean = sum(x, |v| v) / n;
        let variance = sum(x, |v| (v - mean) * (v - mean)) / n;
        (mean as f32, (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32)
    }
}

/// Σ f(v), in four sums side by side, none of which waits for another.
fn sum(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let (fours, rest) = x.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        sums.iter_mut().zip(four).for_each(|(sum, &v)| *sum += f(f64::from(v)));
    }
    rest.iter().map(|&v| f(f64::from(v))).chain(sums).sum()
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
                    && self.groups > 0
                    && x.cols.is_multiple_of(self.groups)
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
            0 => reach::by_group(output, reached, self.groups),
            _ => reach::same(output, reached),
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
        [1, 2]
            .into_iter()
            .for_each(|i| growth.tie((Axis::Rows(i), 0), (Axis::OutColumns, 0), inputs[0].cols));
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        let (gamma, beta) = (tile.input(1).contiguous(), tile.input(2).contiguous());
        let n = x.cols() / self.groups;
        for r in 0..x.rows() {
            let (x, y) = (x.row(r), y.row_mut(r));
            let groups = x.chunks_exact(n).zip(y.chunks_exact_mut(n));
            for ((x, y), (gamma, beta)) in groups.zip(gamma.chunks_exact(n).zip(beta.chunks_exact(n))) {
                let (mean, inverse) = self.moments(x);
                for c in 0..n {
                    y[c] = gamma[c] * (x[c] - mean) * inverse + beta[c];
                }
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, gamma, dy) = (tile.input(0), tile.input(1).contiguous(), tile.take_output_gradient());
        let mut dx = tile.take_gradient(0);
        let [mut d_gamma, mut d_beta] = [1, 2].map(|i| {
            let Gradient { to, accumulate, .. } = tile.take_gradient(i)?;
            let sums = to.into_contiguous();
            if !accumulate {
                sums.fill(0.0);
            }
            Some(sums)
        });
        let n = x.cols() / self.groups;
        for (r, from) in (0..x.rows()).flat_map(|r| (0..x.cols()).step_by(n).map(move |from| (r, from))) {
            let part = from..from + n;
            let (row, dy, gamma) = (&x.row(r)[part.clone()], &dy.row(r)[part.clone()], &gamma[part.clone()]);
            let (mean, inverse) = self.moments(row);
            let normal = |c: usize| (row[c] - mean) * inverse;
            if let Some(sums) = &mut d_gamma {
                sums[part.clone()].iter_mut().enumerate().for_each(|(c, sum)| *sum += dy[c] * normal(c));
            }
            if let Some(sums) = &mut d_beta {
                sums[part.clone()].iter_mut().zip(dy).for_each(|(sum, d)| *sum += d);
            }
            if let Some(dx) = &mut dx {
                let mean_g = (0..n).map(|c| dy[c] * gamma[c]).sum::<f32>() / n as f32;
                let mean_gx = (0..n).map(|c| dy[c] * gamma[c] * normal(c)).sum::<f32>() / n as f32;
                for (c, to) in dx.to.row_mut(r)[part].iter_mut().enumerate() {
                    let add = (dy[c] * gamma[c] - mean_g - normal(c) * mean_gx) * inverse;
                    *to = if dx.accumulate { *to + add } else { add };
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        let width = y.cols / self.groups;
        let n = width as f64;
        for (at, part) in y.data.chunks_exact_mut(width).enumerate() {
            let mean = part.iter().sum::<f64>() / n;
            let variance = part.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            for (v, c) in part.iter_mut().zip(at % self.groups * width..) {
                let normal = (*v - mean) / (variance + f64::from(self.epsilon)).sqrt();
                *v = inputs[1].data[c] * normal + inputs[2].data[c];
            }
        }
        y
    }
}

impl DeviceOp for LayerNorm {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let rows = capacity.rows_in(inputs[0]) as u32;
        cuda::layer_norm_scratch(rows, inputs[0].cols as u32, self.groups as u32)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, beta, y) = (step.input(0), step.input(2).address, step.output());
        step.launch(cuda::layer_norm(self.normal(step), x, beta, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, dy, normal, scratch) =
            (step.input(0), step.output_gradient(), self.normal(step), step.scratch());
        let dx = step.take_gradient(0).map(|dx| (dx.to, dx.accumulate));
        let [d_gamma, d_beta] =
            [1, 2].map(|i| step.take_gradient(i).map(|to| (to.to.address, to.accumulate)));
        step.launch_all(cuda::layer_norm_backward(normal, x, dy, dx, d_gamma, d_beta, scratch));
    }
}

impl LayerNorm {
    fn normal(&self, step: &DeviceStep<'_>) -> cuda::Normal {
        let gamma = step.input(1).address;
        cuda::Normal { groups: self.groups as u32, epsilon: self.epsilon, gamma }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let op = || LayerNorm::new(1e-2);
    vec![
        Case::new("layer_norm/one", move |g, x| g.add("op", op(), x)).rows(1).once(1, 1).once(1, 1),
        Case::new("layer_norm/wide", move |g, x| g.add("op", op(), x)).rows(17).once(17, 1).once(17, 1),
        Case::new("layer_norm/groups", move |g, x| g.add("op", op().in_groups(3), x))
            .rows(21)
            .once(21, 1)
            .once(21, 1),
        Case::new("layer_norm/positions", move |g, x| g.add("op", op(), x))
            .positions(0, 5)
            .once(5, 1)
            .once(5, 1),
    ]
}
