//! A weight for each scenario, made of a shared one and the scenario's own: `W*_s = W ⊗ W_s`, `b*_s = b + b_s`.
//!
//! shared `[rows, cols]`, own: as many values for each scenario, output `[scenarios · rows, cols]`. It is computed once
//! a step, for the scenarios that have rows in the batch; what is left of the others nobody reads. Where it is not the
//! scenario that chooses a weight ([`Fold::of_all`]), all are computed.
//! X.-R. Sheng et al., *One Model to Serve All: Star Topology Adaptive Recommender*, CIKM 2021.
//!
//! Backward, over the scenarios with rows: `dW = Σ_s dW*_s ⊗ W_s`, `dW_s = dW*_s ⊗ W`; `db = Σ_s db*_s`, `db_s =
//! db*_s`. A scenario without rows gets zeros.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::growth::{Axis, Growth, Place, Span};
use crate::op::{Backward, Facts, Forward, Matrix, Op, Reads, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::elementwise as cuda;

/// How the two become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Product,
    Sum,
}

/// Weights by scenario, see the [module](self). Inputs: shared, own.
#[derive(Clone, Debug)]
pub struct Fold {
    kind: Kind,
    scenarios: usize,
    all: bool,
}

impl Fold {
    /// Element by element, shared times own.
    pub fn product(scenarios: usize) -> Fold {
        Fold { kind: Kind::Product, scenarios, all: false }
    }

    /// Element by element, shared plus own.
    pub fn sum(scenarios: usize) -> Fold {
        Fold { kind: Kind::Sum, scenarios, all: false }
    }

    /// Of all parts, whatever scenarios the rows of a batch have: the parts belong to something else.
    pub fn of_all(self) -> Fold {
        Fold { all: true, ..self }
    }

    fn present(&self, facts: &Facts) -> impl Iterator<Item = usize> {
        (0..self.scenarios).filter(|&s| self.all || facts.scenario_rows[s] > 0)
    }
}

impl Op for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [shared, own]
                if shared.space == Space::Once
                    && own.space == Space::Once
                    && own.len() == self.scenarios * shared.len() =>
            {
                Ok(Shape::once(self.scenarios * shared.rows, shared.cols))
            }
            _ => Err(format!(
                "two weights, the second for {} scenarios, are needed, not {inputs:?}",
                self.scenarios
            )),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: if self.kind == Kind::Product { 0b11 } else { 0 }, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: (!self.all).then_some(self.scenarios), ..Reads::default() }
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let [shared, own] = [inputs[0], inputs[1]];
        if i == 0 {
            reach::at_same_place(output, reached, shared.rows);
        } else {
            let values = reach::marked(output).flat_map(|row| row * shared.cols..(row + 1) * shared.cols);
            reach::rows_of(values, own.cols, reached);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let Shape { rows, cols, .. } = inputs[0];
        growth.same_columns(inputs, [0]);
        growth.vanish((Axis::OutColumns, 0), (Axis::Columns(0), 0), cols);
        (0..self.scenarios).for_each(|s| growth.tie((Axis::Rows(0), 0), (Axis::OutRows, s * rows), rows));
        if inputs[1].rows == self.scenarios {
            // A product needs one factor that is 0, and learns by the other.
            let zero = |_, column: Place| column.starts_at_zero() && matches!(self.kind, Kind::Sum);
            let (rows, columns) = (Span::new(Axis::Rows(0), 0, rows), Span::new(Axis::Columns(0), 0, cols));
            growth.matrix(Axis::Columns(1), |r, c| r * cols + c, rows, columns, zero);
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (shared, own) = (tile.input(0).contiguous(), tile.input(1).contiguous());
        let output = tile.take_output().into_contiguous();
        let len = shared.len();
        for s in self.present(tile.at.facts) {
            let (own, to) = (&own[s * len..][..len], &mut output[s * len..][..len]);
            for ((to, a), b) in to.iter_mut().zip(shared).zip(own) {
                *to = if self.kind == Kind::Product { a * b } else { a + b };
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (shared, own) = (tile.input(0).contiguous(), tile.input(1).contiguous());
        let dy = tile.take_output_gradient().into_contiguous();
        let len = shared.len();
        let factor = |w: f32| if self.kind == Kind::Product { w } else { 1.0 };
        if let Some(d_shared) = tile.take_gradient(0) {
            let to = d_shared.to.into_contiguous();
            if !d_shared.accumulate {
                to.fill(0.0);
            }
            for s in self.present(tile.at.facts) {
                let (own, dy) = (&own[s * len..][..len], &dy[s * len..][..len]);
                to.iter_mut().zip(own).zip(dy).for_each(|((to, &w), d)| *to += d * factor(w));
            }
        }
        if let Some(d_own) = tile.take_gradient(1) {
            let to = d_own.to.into_contiguous();
            if !d_own.accumulate {
                to.fill(0.0);
            }
            for s in self.present(tile.at.facts) {
                let (to, dy) = (&mut to[s * len..][..len], &dy[s * len..][..len]);
                to.iter_mut().zip(shared).zip(dy).for_each(|((to, &w), d)| *to += d * factor(w));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (shared, own) = (&inputs[0], &inputs[1]);
        let mut out = Matrix::zeros(self.scenarios * shared.rows, shared.cols);
        let len = shared.data.len();
        for s in (0..self.scenarios).filter(|&s| self.all || batch.scenario.contains(&(s as u32))) {
            for i in 0..len {
                let (a, b) = (shared.data[i], own.data[s * len + i]);
                out.data[s * len + i] = if self.kind == Kind::Product { a * b } else { a + b };
            }
        }
        out
    }
}

impl Fold {
    /// Where a device finds which scenarios have rows.
    fn starts(&self, step: &DeviceStep<'_>) -> Option<u64> {
        (!self.all).then_some(step.batch().scenario_starts)
    }
}

impl DeviceOp for Fold {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (shared, own, to) = (step.input(0), step.input(1), step.output());
        let (is_product, scenarios) = (self.kind == Kind::Product, self.scenarios as u32);
        let len = shared.rows * shared.cols;
        let (shared, own, to, starts) = (shared.address, own.address, to.address, self.starts(step));
        step.launch(cuda::fold(shared, own, is_product, starts, scenarios, len, to));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (is_product, scenarios) = (self.kind == Kind::Product, self.scenarios as u32);
        let dy = step.output_gradient();
        let len = dy.rows * dy.cols / scenarios;
        let [shared, own] = [0, 1].map(|i| if is_product { step.input(i).address } else { 0 });
        let [d_shared, d_own] = [0, 1].map(|i| {
            let gradient = step.take_gradient(i);
            gradient.map(|gradient| (gradient.to.address, gradient.accumulate))
        });
        let (dy, starts) = (dy.address, self.starts(step));
        step.launch(cuda::fold_dx(shared, own, dy, is_product, starts, scenarios, len, d_shared, d_own));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, op: Fold, rows: usize, cols: usize| {
        let scenarios = op.scenarios;
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        case.once(rows, cols).once(scenarios, rows * cols)
    };
    vec![
        case("fold/weights", Fold::product(3), 5, 7),
        case("fold/biases", Fold::sum(2), 6, 1),
        case("fold/all", Fold::product(2).of_all(), 3, 4),
    ]
}
