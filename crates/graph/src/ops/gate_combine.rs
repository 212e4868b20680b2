//! Softmax gates over one bank of experts, and the mixtures: `h_t = Σ_e softmax(logits_t)_e · expert_e`.
//!
//! logits `[batch, gates · experts]`, bank `[batch, experts · width]`, output `[batch, gates · width]`. All gates read
//! a row of the bank in one pass. J. Ma et al., *Modeling Task Relationships in Multi-task Learning with Multi-gate
//! Mixture-of-Experts*, KDD 2018, equations 6 and 7.
//!
//! A gate may weigh its best k experts alone ([`GateCombine::best`]), and its weights may be dropped in training
//! ([`GateCombine::dropping`]): the logits of the other experts count as −∞.
//!
//! Backward: `d expert_e = Σ_t w_te dh_t`, `dw_te = dh_t · expert_e`, `d logit = w ⊙ (dw − Σ_e w dw)`.

use super::gate_selection::GateSelection;
use crate::check::Case;
use crate::device::{Capacity, DeviceGradient, DeviceOp, DeviceStep, Halves};
use crate::draws::Draws;
use crate::graph::{Graph, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{DeviceMat, gate as cuda};
use manygate_kernels::{Mat, MatMut, activation, gate};

/// Gates and mixtures, see the [module](self). Inputs: logits, bank.
#[derive(Clone, Debug)]
pub struct GateCombine {
    gates: usize,
    experts: usize,
    selection: GateSelection,
}

impl GateCombine {
    /// `gates` gates over `experts` experts.
    pub fn new(gates: usize, experts: usize) -> GateCombine {
        GateCombine { gates, experts, selection: GateSelection::default() }
    }

    /// Each gate weighs the experts with its `k` largest logits alone, of equal ones the first (N. Shazeer et al.,
    /// *Outrageously Large Neural Networks*, ICLR 2017, without noise).
    pub fn best(mut self, k: usize) -> GateCombine {
        self.selection.top_k = Some(k);
        self
    }

    /// Drops each weight of a gate with the probability `rate` and renormalises the rest; where all of a gate would be
    /// dropped, all stay (Z. Zhao et al., *Recommending What Video to Watch Next*, RecSys 2019). Draws by `name`, see
    /// [`Dropout::new`](super::Dropout::new); for training.
    pub fn dropping(mut self, name: &str, rate: f64) -> GateCombine {
        self.selection.drop_by(name, rate);
        self
    }
}

impl Op for GateCombine {
    fn name(&self) -> &'static str {
        "gate_combine"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let [logits, bank] = inputs else {
            return Err(format!("{} inputs, 2 are needed", inputs.len()));
        };
        if self.gates * self.experts == 0 || logits != &Shape::batch(self.gates * self.experts) {
            return Err(format!(
                "{} gates over {} experts need that many logits, not {logits}",
                self.gates, self.experts
            ));
        }
        self.selection.check(self.experts)?;
        if bank.space != Space::Batch || !bank.cols.is_multiple_of(self.experts) {
            return Err(format!("the bank {bank} does not divide into {} experts", self.experts));
        }
        Ok(Shape::batch(bank.cols / self.experts * self.gates))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b10, output: false }
    }

    fn extra(&self, _inputs: &[Shape]) -> usize {
        self.gates * self.experts
    }

    fn scratch(&self, rows: usize, inputs: &[Shape]) -> usize {
        let forward = if self.selection.is_all() { 0 } else { 2 * inputs[0].cols };
        rows * forward.max(inputs[0].cols + inputs[1].cols)
    }

    fn draws(&self) -> Option<u64> {
        self.selection.dropout.map(|(key, _)| key)
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        self.gates * inputs[1].cols
    }

    fn masks(&self, input: usize) -> bool {
        input == 1
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        if i == 0 {
            reach::by_group(output, reached, self.gates);
        } else {
            reach::at_same_place(output, reached, inputs[1].cols / self.experts);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (mut logits, bank) = (tile.input(0), tile.input(1));
        if !self.selection.is_all() {
            let (rows, cols) = (logits.rows(), logits.cols());
            let (ones, selected) = tile.take_scratch()[..2 * rows * cols].split_at_mut(rows * cols);
            let to = MatMut::new(selected, rows, cols);
            self.selection.select(&tile.at, self.experts, logits, ones, to);
            logits = Mat::new(selected, rows, cols);
        }
        let (weights, mixed) = (tile.take_extra(), tile.take_output());
        gate::gate_combine(tile.at.isa, self.gates, logits, bank, weights, mixed);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let bank = tile.input(1);
        let (weights, d_mixed) = (tile.take_extra(), tile.take_output_gradient());
        let (logits, experts) = (tile.take_gradient(0), tile.take_gradient(1));
        let mask = experts.as_ref().and_then(|gradient| gradient.mask);
        // The kernel gives both gradients in one pass; one that nobody wants goes to scratch.
        let (rows, gates_cols) = (tile.at.rows, self.gates * self.experts);
        let (spare_logits, spare_bank) = tile.take_scratch().split_at_mut(rows * gates_cols);
        let (add_logits, d_logits) = match logits {
            Some(g) => (g.accumulate, g.to),
            None => (false, MatMut::new(spare_logits, rows, gates_cols)),
        };
        let (add_bank, mut d_bank) = match experts {
            Some(g) => (g.accumulate, g.to),
            None => (false, MatMut::new(spare_bank, rows, bank.cols())),
        };
        let (weights, d_mixed) = (weights.as_mat(), d_mixed.as_mat());
        gate::gate_combine_dx(
            tile.at.isa,
            self.gates,
            weights,
            bank,
            d_mixed,
            add_logits,
            d_logits,
            add_bank,
            d_bank.reborrow(),
        );
        if let Some((act, bank)) = mask {
            activation::activation_dx(tile.at.isa, act, bank, d_bank);
        }
    }

    fn reference(&self, inputs: &[Matrix], tables: &[Matrix], batch: &Batch) -> Matrix {
        self.reference_drawn(inputs, tables, batch, &Draws::default())
    }

    fn reference_drawn(
        &self,
        inputs: &[Matrix],
        _tables: &[Matrix],
        _batch: &Batch,
        draws: &Draws<'_>,
    ) -> Matrix {
        let (logits, bank) = (&inputs[0], &inputs[1]);
        let width = bank.cols / self.experts;
        let mut y = Matrix::zeros(bank.rows, self.gates * width);
        for (r, t) in (0..bank.rows).flat_map(|r| (0..self.gates).map(move |t| (r, t))) {
            let mut terms: Vec<f64> = (0..self.experts).map(|e| logits.at(r, t * self.experts + e)).collect();
            self.selection.select_reference(draws, draws.caller_row(r), t, &mut terms);
            terms.iter_mut().for_each(|term| *term = term.exp());
            let sum: f64 = terms.iter().sum();
            for c in 0..width {
                let mixed = (0..self.experts).map(|e| terms[e] / sum * bank.at(r, e * width + c)).sum();
                y.set(r, t * width + c, mixed);
            }
        }
        y
    }
}

impl DeviceOp for GateCombine {
    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        let (gates, experts) = (self.gates, self.experts);
        let why =
            || format!("{gates} gates over {experts} experts do not fit the shared memory of a CUDA device");
        (!cuda::gates_fit(gates, experts)).then(why)
    }

    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        4 * (capacity.rows * inputs[0].cols.max(inputs[1].cols)) as u64
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (mut logits, bank) = (step.input(0), step.input(1));
        if !self.selection.is_all() {
            let selected = DeviceMat {
                live_rows: logits.live_rows,
                ..DeviceMat::new(step.scratch(), logits.rows, logits.cols)
            };
            step.launch(self.selection.select_on_device(step, self.experts, logits, selected));
            logits = selected;
        }
        step.launch(cuda::gate_combine(self.gates as u32, logits, bank, step.extra(), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (weights, bank, d_mixed) = (step.extra(), step.input(1), step.output_gradient());
        // The kernel gives both gradients in one pass; one that nobody wants goes to scratch.
        let spare = |like: DeviceMat| DeviceMat { address: step.scratch(), stride: like.cols, ..like };
        let (spare_logits, spare_bank) = (spare(weights), spare(bank));
        let place = |gradient: Option<DeviceGradient>, spare| {
            gradient.map_or((false, spare), |gradient| (gradient.accumulate, gradient.to))
        };
        let (add_logits, d_logits) = place(step.take_gradient(0), spare_logits);
        let experts = step.take_gradient(1);
        let activation =
            experts.as_ref().and_then(|gradient| gradient.mask).map(|(activation, _)| activation);
        let (add_bank, d_bank) = place(experts, spare_bank);
        let gates = self.gates as u32;
        step.launch(cuda::gate_combine_dx(
            gates, weights, bank, d_mixed, add_logits, d_logits, add_bank, activation, d_bank,
        ));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let selecting = |name: &str, gates: usize, experts: usize, width: usize, k, rate| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let mut op = GateCombine::new(gates, experts);
            op.selection.top_k = k;
            let op = if rate > 0.0 { op.dropping("op", rate) } else { op };
            g.add("op", op, x)
        };
        Case::new(name, declare).rows(gates * experts).rows(experts * width)
    };
    let case = |name: &str, gates, experts, width| selecting(name, gates, experts, width, None, 0.0);
    vec![
        case("gate_combine/one_gate", 1, 3, 5),
        case("gate_combine/one_expert", 2, 1, 3),
        case("gate_combine/five_gates", 5, 4, 17),
        selecting("gate_combine/best", 3, 5, 4, Some(2), 0.0),
        selecting("gate_combine/best_one_narrow", 5, 4, 1, Some(1), 0.0),
        selecting("gate_combine/dropping", 3, 5, 4, None, 0.4),
        selecting("gate_combine/dropping_most", 2, 3, 9, None, 0.9),
        selecting("gate_combine/dropping_the_best", 2, 5, 3, Some(3), 0.5),
    ]
}
