//! `y = p ⊙ x + (1 − p) ⊙ a ⊙ x` with `p = sigmoid((x − mean) / sqrt(var + ε))`: an activation whose bend follows the data.
//!
//! x, y `[batch, n]` (or a row an id of a list), moments `[2n, 1]` (of the batch in training, running in evaluation), a
//! `[n, 1]`. G. Zhou et al., *Deep Interest Network for Click-Through Rate Prediction*, KDD 2018.
//!
//! Backward, with s the standardised value, σ the deviation and g = dy x (1 − a) p (1 − p), the gradient at s:
//! `dx = dy (p + (1 − p) a) + g / σ`, `da = Σ dy x (1 − p)`, `d_mean = −Σ g / σ`, `d_var = −½ Σ g s / σ²`. What flows
//! through the moments is their op's part.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation::{self as cuda, Bend, BendGradients};

/// Dice, see the [module](self). Inputs: x, moments, a.
#[derive(Clone, Debug)]
pub struct Dice {
    epsilon: f32,
}

/// A unit's mean, 1/σ and slope.
#[derive(Clone, Copy)]
struct Unit {
    mean: f32,
    inverse: f32,
    slope: f32,
}

impl Unit {
    /// s and p.
    fn gate(self, x: f32) -> (f32, f32) {
        let s = (x - self.mean) * self.inverse;
        (s, 1.0 / (1.0 + (-s).exp()))
    }

    /// g / (dy), the slope of y along s.
    fn along_gate(self, x: f32, p: f32) -> f32 {
        x * (1.0 - self.slope) * p * (1.0 - p)
    }
}

impl Dice {
    /// Adds `epsilon` to the variance.
    pub fn new(epsilon: f32) -> Dice {
        Dice { epsilon }
    }

    fn unit(&self, moments: &[f32], slopes: &[f32], c: usize) -> Unit {
        let variance = moments[slopes.len() + c];
        Unit { mean: moments[c], inverse: 1.0 / (variance + self.epsilon).sqrt(), slope: slopes[c] }
    }
}

/// The sums of a gradient, ready to be added to.
fn sums(gradient: Option<Gradient<'_>>) -> Option<&mut [f32]> {
    let Gradient { to, accumulate, .. } = gradient?;
    let values = to.into_contiguous();
    if !accumulate {
        values.fill(0.0);
    }
    Some(values)
}

impl Op for Dice {
    fn name(&self) -> &'static str {
        "dice"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let once = |shape: &Shape, len| shape.space == Space::Once && shape.len() == len;
        match inputs {
            [x, moments, a]
                if x.space != Space::Once && once(moments, 2 * x.cols) && *a == Shape::once(x.cols, 1) =>
            {
                Ok(*x)
            }
            _ => {
                Err(format!("values with rows, their moments and a slope [n, 1] are needed, not {inputs:?}"))
            }
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b111, output: false }
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            1 => {
                let n = output.len();
                let values = reach::marked(output).flat_map(|c| [c, n + c]);
                reach::rows_of(values, inputs[1].cols, reached);
            }
            _ => reach::same(output, reached),
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let n = inputs[0].cols;
        growth.same_columns(inputs, [0]);
        growth.vectors(inputs[1], 1, (Axis::OutColumns, 0), n);
        growth.tie((Axis::Rows(2), 0), (Axis::OutColumns, 0), n);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        let (moments, slopes) = (tile.input(1).contiguous(), tile.input(2).contiguous());
        for c in 0..x.cols() {
            let unit = self.unit(moments, slopes, c);
            for r in 0..x.rows() {
                let (x, (_, p)) = (x.row(r)[c], unit.gate(x.row(r)[c]));
                y.row_mut(r)[c] = x * (p + (1.0 - p) * unit.slope);
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, dy) = (tile.input(0), tile.take_output_gradient());
        let (moments, slopes) = (tile.input(1).contiguous(), tile.input(2).contiguous());
        let mut dx = tile.take_gradient(0);
        let (mut d_moments, mut d_slopes) = (sums(tile.take_gradient(1)), sums(tile.take_gradient(2)));
        for c in 0..x.cols() {
            let unit = self.unit(moments, slopes, c);
            let (mut sum, mut along, mut slope) = (0.0f64, 0.0f64, 0.0f64);
            for r in 0..x.rows() {
                let (x, d) = (x.row(r)[c], dy.row(r)[c]);
                let (s, p) = unit.gate(x);
                let g = d * unit.along_gate(x, p);
                sum += f64::from(g);
                along += f64::from(g * s);
                slope += f64::from(d * x * (1.0 - p));
                if let Some(dx) = &mut dx {
                    let to = &mut dx.to.row_mut(r)[c];
                    let own = d * (p + (1.0 - p) * unit.slope) + g * unit.inverse;
                    *to = if dx.accumulate { *to + own } else { own };
                }
            }
            if let Some(to) = &mut d_moments {
                to[c] -= sum as f32 * unit.inverse;
                to[slopes.len() + c] -= 0.5 * along as f32 * unit.inverse * unit.inverse;
            }
            if let Some(to) = &mut d_slopes {
                to[c] += slope as f32;
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (mut y, n) = (inputs[0].clone(), inputs[0].cols);
        for (i, v) in y.data.iter_mut().enumerate() {
            let (mean, variance, slope) =
                (inputs[1].data[i % n], inputs[1].data[n + i % n], inputs[2].data[i % n]);
            let p = 1.0 / (1.0 + (-(*v - mean) / (variance + f64::from(self.epsilon)).sqrt()).exp());
            *v *= p + (1.0 - p) * slope;
        }
        y
    }
}

impl DeviceOp for Dice {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        cuda::dice_scratch(capacity.rows_in(inputs[0]) as u32, inputs[0].cols as u32)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::dice(step.input(0), self.bend(step), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, bend, dy) = (step.input(0), self.bend(step), step.output_gradient());
        let dx = step.take_gradient(0).map(|dx| (dx.to, dx.accumulate));
        let [moments, slopes] =
            [1, 2].map(|i| step.take_gradient(i).map(|sum| (sum.to.address, sum.accumulate)));
        let sums = BendGradients { moments, slopes, scratch: step.scratch() };
        step.launch_all(cuda::dice_backward(x, bend, dy, dx, sums));
    }
}

impl Dice {
    fn bend(&self, step: &DeviceStep<'_>) -> Bend {
        let [moments, slopes] = [1, 2].map(|i| step.input(i).address);
        Bend { moments: Some((moments, self.epsilon)), slopes }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let moments = |case: Case, n: usize| case.once(2 * n, 1).between(0.3, 1.5).once(n, 1);
    let declare = |name: &str| Case::new(name, |g, x| g.add("op", Dice::new(1e-8), x));
    vec![
        moments(declare("dice/one").rows(1), 1),
        moments(declare("dice/wide").rows(17), 17),
        moments(declare("dice/positions").positions(0, 5), 5),
    ]
}
