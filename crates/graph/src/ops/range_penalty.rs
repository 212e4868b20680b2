//! `ℓ = (1/L) Σ_l λ(f_l) |s_l − m|`: a loss that draws numbers into a range, m = (low + high) / 2, with
//! λ(f) = 0 for low ≤ f ≤ high, else λ̂ |f − m|.
//!
//! s, f `[L, 1]`, which exist once. A model whose λ is a coefficient, and no function to differentiate, hands in s once
//! more, without gradient, as f.
//! Backward: `ds_l = scale λ(f_l) sign(s_l − m) / L`, `df_l = scale λ'(f_l) |s_l − m| / L`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::loss as cuda;

/// The penalty of a range, see the [module](self). Inputs: s, f.
#[derive(Clone, Debug)]
pub struct RangePenalty {
    loss: LossId,
    low: f64,
    high: f64,
    factor: f64,
}

impl RangePenalty {
    /// Adds to the part `loss`, which is taken [as it is](Over::Once); `factor` is λ̂.
    pub fn new(loss: LossId, low: f64, high: f64, factor: f64) -> RangePenalty {
        RangePenalty { loss, low, high, factor }
    }

    fn middle(&self) -> f64 {
        (self.low + self.high) / 2.0
    }

    /// λ at `f` and its derivative.
    fn coefficient(&self, f: f64) -> (f64, f64) {
        if (self.low..=self.high).contains(&f) {
            return (0.0, 0.0);
        }
        let distance = f - self.middle();
        (self.factor * distance.abs(), self.factor * distance.signum())
    }
}

impl Op for RangePenalty {
    fn name(&self) -> &'static str {
        "range_penalty"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [s, f] if s.space == Space::Once && s.cols == 1 && !s.is_empty() && s == f => {
                Ok(Shape::once(0, 0))
            }
            _ => Err(format!("two vectors [n, 1] that exist once are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (s, f) = (tile.input(0).contiguous(), tile.input(1).contiguous());
        let distance = |s: f32| (f64::from(s) - self.middle()).abs();
        let terms = s.iter().zip(f).map(|(&s, &f)| self.coefficient(f64::from(f)).0 * distance(s));
        *tile.take_loss(self.loss.index()) += terms.sum::<f64>() / s.len() as f64;
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (s, f) = (tile.input(0).contiguous(), tile.input(1).contiguous());
        let scale = f64::from(tile.at.scale(self.loss)) / s.len() as f64;
        let terms =
            || s.iter().zip(f).map(|(&s, &f)| (f64::from(s) - self.middle(), self.coefficient(f64::from(f))));
        if let Some(mut ds) = tile.take_gradient(0) {
            for (r, (distance, (coefficient, _))) in terms().enumerate() {
                ds.put(r, std::iter::once((scale * coefficient * distance.signum()) as f32));
            }
        }
        if let Some(mut df) = tile.take_gradient(1) {
            for (r, (distance, (_, slope))) in terms().enumerate() {
                df.put(r, std::iter::once((scale * slope * distance.abs()) as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut terms = Matrix::zeros(batch.rows, 1);
        let pairs = inputs[0].data.iter().zip(&inputs[1].data);
        let sum: f64 = pairs.map(|(s, &f)| self.coefficient(f).0 * (s - self.middle()).abs()).sum();
        terms.data[0] = sum / inputs[0].data.len() as f64;
        terms
    }
}

impl DeviceOp for RangePenalty {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (s, f, sum) = (step.input(0), step.input(1), step.loss_sum(self.loss));
        let (range, scale) = (self.range(), step.scale(self.loss).factors);
        step.launch(cuda::range_penalty(range, s.address, f.address, s.rows, scale, None, None, Some(sum)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (s, f, scale) = (step.input(0), step.input(1), step.scale(self.loss).factors);
        let [ds, df] = [0, 1].map(|i| {
            let gradient = step.take_gradient(i);
            gradient.map(|gradient| (gradient.to.address, gradient.accumulate))
        });
        step.launch(cuda::range_penalty(self.range(), s.address, f.address, s.rows, scale, ds, df, None));
    }
}

impl RangePenalty {
    fn range(&self) -> cuda::Range {
        cuda::Range { low: self.low, high: self.high, factor: self.factor }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let declare = |g: &mut Graph, x: &[Value]| {
        let loss = g.loss(LossPart::new("range", 0.7, Over::Once))?;
        g.add("op", RangePenalty::new(loss, -0.3, 0.2, 1.5), x)
    };
    let case = |name: &str, n: usize| Case::new(name, declare).once(n, 1).once(n, 1);
    vec![case("range_penalty/one", 1), case("range_penalty/several", 6)]
}
