//! Cross-entropy of a sample's scenario: `ℓ = ln Σ e^z − z_s`.
//!
//! z `[batch, scenarios]`, s the row's scenario. Backward: `dz = scale (softmax(z) − onehot(s))`.
//! [`ScenarioResidual`] gives `softmax(z) − onehot(s)` as a value, for what differentiates it once more.

use super::softmax::{softmax, softmax_f64};
use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, copy_bytes};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::loss::LossSum;
use manygate_cuda::{DeviceMat, elementwise, row as cuda};

fn check_logits(scenarios: usize, inputs: &[Shape]) -> Result<Shape, String> {
    match inputs {
        [z] if z.space == Space::Batch && z.cols == scenarios && scenarios > 0 => Ok(*z),
        _ => Err(format!("{scenarios} logits a row are needed, not {inputs:?}")),
    }
}

/// The loss of telling the scenario, see the [module](self). Input: the logits.
#[derive(Clone, Debug)]
pub struct ScenarioCrossEntropy {
    loss: LossId,
    scenarios: usize,
}

impl ScenarioCrossEntropy {
    /// Adds to the part `loss`, over all rows.
    pub fn new(loss: LossId, scenarios: usize) -> ScenarioCrossEntropy {
        ScenarioCrossEntropy { loss, scenarios }
    }
}

impl Op for ScenarioCrossEntropy {
    fn name(&self) -> &'static str {
        "scenario_cross_entropy"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        check_logits(self.scenarios, inputs).map(|_| Shape::batch(0))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.scenarios), ..Reads::default() }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn scratch(&self, _rows: usize, _inputs: &[Shape]) -> usize {
        self.scenarios
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, loss) = (tile.input(0), tile.take_loss(self.loss.index()));
        for (r, &s) in tile.at.batch.scenario[tile.at.range()].iter().enumerate() {
            let largest = z.row(r).iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = z.row(r).iter().map(|z| (z - largest).exp()).sum();
            *loss += f64::from(largest + sum.ln() - z.row(r)[s as usize]);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (z, scale) = (tile.input(0), tile.at.scale(self.loss));
        let scenario = &tile.at.batch.scenario[tile.at.range()];
        let q = &mut tile.take_scratch()[..self.scenarios];
        let Some(mut dz) = tile.take_gradient(0) else { return };
        for (r, &s) in scenario.iter().enumerate() {
            softmax(z.row(r), q);
            q[s as usize] -= 1.0;
            dz.put(r, q.iter().map(|v| scale * v));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let q = softmax_f64(&inputs[0]);
        let mut terms = Matrix::zeros(q.rows, 1);
        (0..q.rows).for_each(|r| terms.set(r, 0, -q.at(r, batch.scenario[r] as usize).ln()));
        terms
    }
}

/// The gradient of the cross-entropy at its logits as a value, see the [module](self). Input: the logits.
#[derive(Clone, Debug)]
pub struct ScenarioResidual {
    scenarios: usize,
}

impl ScenarioResidual {
    /// For `scenarios` scenarios.
    pub fn new(scenarios: usize) -> ScenarioResidual {
        ScenarioResidual { scenarios }
    }
}

impl Op for ScenarioResidual {
    fn name(&self) -> &'static str {
        "scenario_residual"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        check_logits(self.scenarios, inputs)
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.scenarios), ..Reads::default() }
    }

    fn scratch(&self, _rows: usize, _inputs: &[Shape]) -> usize {
        self.scenarios
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, mut y) = (tile.input(0), tile.take_output());
        for (r, &s) in tile.at.batch.scenario[tile.at.range()].iter().enumerate() {
            softmax(z.row(r), y.row_mut(r));
            y.row_mut(r)[s as usize] -= 1.0;
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (z, dy) = (tile.input(0), tile.take_output_gradient());
        let q = &mut tile.take_scratch()[..self.scenarios];
        let Some(mut dz) = tile.take_gradient(0) else { return };
        for r in 0..z.rows() {
            softmax(z.row(r), q);
            let mean: f32 = q.iter().zip(dy.row(r)).map(|(q, d)| q * d).sum();
            dz.put(r, q.iter().zip(dy.row(r)).map(|(q, d)| q * (d - mean)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut y = softmax_f64(&inputs[0]);
        (0..y.rows).for_each(|r| y.data[r * self.scenarios + batch.scenario[r] as usize] -= 1.0);
        y
    }
}

impl DeviceOp for ScenarioCrossEntropy {
    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        cuda::partials_bytes(capacity.rows as u32, inputs[0].cols as u32)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let sum = LossSum { sum: step.loss_sum(self.loss), partials: step.scratch() };
        let (ids, scale) = (step.batch().scenario, step.scale(self.loss).factors);
        step.launch_all(cuda::cross_entropy(step.input(0), ids, scale, None, Some(sum)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(dz) = step.take_gradient(0) {
            let (ids, scale, to) =
                (step.batch().scenario, step.scale(self.loss).factors, (dz.to, dz.accumulate));
            step.launch_all(cuda::cross_entropy(step.input(0), ids, scale, Some(to), None));
        }
    }
}

impl DeviceOp for ScenarioResidual {
    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        copy_bytes(capacity.rows, inputs[0].cols)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (z, y) = (step.input(0), step.output());
        let ones = own(z, step.scratch());
        step.launch(cuda::softmax(z, y));
        step.launch(elementwise::one_hot(step.batch().scenario, ones));
        step.launch(elementwise::add_scaled(y, -1.0, ones, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (z, dy) = (step.input(0), step.output_gradient());
        if let Some(dz) = step.take_gradient(0) {
            let q = own(z, step.scratch());
            step.launch(cuda::softmax(z, q));
            step.launch(cuda::softmax_dz(q, dy, dz.accumulate, dz.to));
        }
    }
}

/// A matrix like `mat` at `scratch`.
fn own(mat: DeviceMat, scratch: u64) -> DeviceMat {
    DeviceMat { address: scratch, stride: mat.cols, ..mat }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let loss = |name: &str, scenarios: usize| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("scenario", 0.7, Over::Rows))?;
            g.add("op", ScenarioCrossEntropy::new(loss, scenarios), x)
        };
        Case::new(name, declare).rows(scenarios)
    };
    let residual = Case::new("scenario_residual", |g, x| g.add("op", ScenarioResidual::new(5), x));
    vec![loss("scenario_cross_entropy/one", 1), loss("scenario_cross_entropy/five", 5), residual.rows(5)]
}
