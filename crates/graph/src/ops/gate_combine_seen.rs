//! Softmax gates that see a part of a bank of experts each: `h_t = Σ_{e seen by t} softmax(logits_t)_e · expert_e`.
//!
//! logits `[batch, Σ experts seen]`, gate after gate, bank `[batch, experts · width]`, output `[batch, gates · width]`.
//! H. Tang, J. Liu, M. Zhao, X. Gong, *Progressive Layered Extraction (PLE)*, RecSys 2020, equations 1 to 3: a task's
//! gate sees its own experts and the shared ones, never another task's.
//!
//! A gate may read some experts from another bank of the same shape. With a copy that stops gradients, it weighs them,
//! learns how much, and does not train them: the experts of other tasks in L. Su et al., *STEM: Unleashing the Power of
//! Embeddings for Multi-Task Recommendation*, AAAI 2024.
//!
//! Backward as [`gate_combine`](super::gate_combine), over what a gate sees.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::graph::{Graph, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::{Batch, Error};
use manygate_cuda::DeviceMat;
use manygate_cuda::gate::{self as cuda, DeviceSeen};
use manygate_kernels::MatMut;
use manygate_kernels::gate::{self, Seen};

/// Gates over parts of a bank and the mixtures, see the [module](self). Inputs: logits, bank and, where a gate reads
/// [apart](Seen::reading_apart), the other bank.
#[derive(Clone, Debug)]
pub struct GateCombineSeen {
    seen: Seen,
}

impl GateCombineSeen {
    /// Gates that see these experts.
    pub fn new(seen: Seen) -> GateCombineSeen {
        GateCombineSeen { seen }
    }

    /// The bank, and the one that is read apart: the same where there is one.
    fn banks<M>(&self, input: impl Fn(usize) -> M) -> [M; 2] {
        [input(1), input(if self.seen.has_apart() { 2 } else { 1 })]
    }

    /// Number, first logit and experts of each gate.
    fn gates(&self) -> impl Iterator<Item = (usize, usize, &[usize])> {
        (0..self.seen.gates()).map(|t| {
            let (from, own) = self.seen.of(t);
            (t, from, own)
        })
    }
}

impl Op for GateCombineSeen {
    fn name(&self) -> &'static str {
        "gate_combine_seen"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let (logits, bank) = match inputs {
            [logits, bank] if !self.seen.has_apart() => (logits, bank),
            [logits, bank, other] if self.seen.has_apart() && bank == other => (logits, bank),
            _ => return Err(format!("logits and one bank, or two alike, are needed, not {inputs:?}")),
        };
        if logits != &Shape::batch(self.seen.logits()) {
            return Err(format!("these gates have {} logits, not {logits}", self.seen.logits()));
        }
        if bank.space != Space::Batch || !bank.cols.is_multiple_of(self.seen.experts()) {
            return Err(format!("the bank {bank} does not divide into {} experts", self.seen.experts()));
        }
        Ok(Shape::batch(bank.cols / self.seen.experts() * self.seen.gates()))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b110, output: false }
    }

    fn extra(&self, _inputs: &[Shape]) -> usize {
        self.seen.logits()
    }

    fn scratch(&self, rows: usize, inputs: &[Shape]) -> usize {
        rows * inputs[0].cols
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        self.seen.logits() * (inputs[1].cols / self.seen.experts())
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let width = inputs[1].cols / self.seen.experts();
        for (t, from, own) in self.gates() {
            let mixed = &output[t * width..][..width];
            if i == 0 {
                reached[from..from + own.len()].fill(mixed.contains(&true));
                continue;
            }
            let here = own.iter().enumerate().filter(|(at, _)| self.seen.is_apart(from + at) == (i == 2));
            for (_, &e) in here {
                let expert = &mut reached[e * width..][..width];
                expert.iter_mut().zip(mixed).for_each(|(to, &marked)| *to |= marked);
            }
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (logits, banks) = (tile.input(0), self.banks(|i| tile.input(i)));
        let (weights, mixed) = (tile.take_extra(), tile.take_output());
        gate::gate_combine_seen(tile.at.isa, &self.seen, logits, banks, weights, mixed);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let banks = self.banks(|i| tile.input(i));
        let (weights, d_mixed) = (tile.take_extra(), tile.take_output_gradient());
        // The kernel always gives the gradient of the logits; where nobody wants it, it goes to scratch.
        let (add_logits, d_logits) = match tile.take_gradient(0) {
            Some(g) => (g.accumulate, g.to),
            None => (false, MatMut::new(tile.take_scratch(), tile.at.rows, self.seen.logits())),
        };
        let mut d_bank = |i| tile.take_gradient(i).map(|g| (g.accumulate, g.to));
        let d_banks = [d_bank(1), if self.seen.has_apart() { d_bank(2) } else { None }];
        let (weights, d_mixed) = (weights.as_mat(), d_mixed.as_mat());
        gate::gate_combine_seen_dx(
            tile.at.isa,
            &self.seen,
            weights,
            banks,
            d_mixed,
            add_logits,
            d_logits,
            d_banks,
        );
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (logits, bank) = (&inputs[0], &inputs[1]);
        let width = bank.cols / self.seen.experts();
        let mut y = Matrix::zeros(bank.rows, self.seen.gates() * width);
        for (r, (t, from, own)) in (0..bank.rows).flat_map(|r| self.gates().map(move |gate| (r, gate))) {
            let terms: Vec<f64> = (from..from + own.len()).map(|i| logits.at(r, i).exp()).collect();
            let sum: f64 = terms.iter().sum();
            for c in 0..width {
                let mixed = own.iter().zip(&terms).enumerate().map(|(at, (&e, term))| {
                    let bank = &inputs[1 + usize::from(self.seen.is_apart(from + at))];
                    term / sum * bank.at(r, e * width + c)
                });
                y.set(r, t * width + c, mixed.sum());
            }
        }
        y
    }
}

impl DeviceOp for GateCombineSeen {
    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        let logits = self.seen.logits();
        let why = || format!("{logits} logits of gates do not fit the shared memory of a CUDA device");
        (!cuda::logits_fit(logits)).then(why)
    }

    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        4 * (capacity.rows * inputs[0].cols) as u64
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let seen = self.on(step);
        let (logits, banks) = (step.input(0), self.banks(|i| step.input(i)));
        step.launch(cuda::gate_combine_seen(seen, logits, banks, step.extra(), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (seen, has_apart) = (self.on(step), self.seen.has_apart());
        let (weights, banks, d_mixed) = (step.extra(), self.banks(|i| step.input(i)), step.output_gradient());
        // The kernel always gives the gradient of the logits; where nobody wants it, it goes to scratch.
        let spare = DeviceMat { address: step.scratch(), stride: weights.cols, ..weights };
        let (add_logits, d_logits) =
            step.take_gradient(0).map_or((false, spare), |gradient| (gradient.accumulate, gradient.to));
        let mut d_bank = |i| step.take_gradient(i).map(|gradient| (gradient.accumulate, gradient.to));
        let d_banks = [d_bank(1), if has_apart { d_bank(2) } else { None }];
        step.launch(cuda::gate_combine_seen_dx(
            seen, weights, banks, has_apart, d_mixed, add_logits, d_logits, d_banks,
        ));
    }
}

impl GateCombineSeen {
    /// What the gates see, in device memory.
    fn on(&self, step: &mut DeviceStep<'_>) -> DeviceSeen {
        DeviceSeen::new(&self.seen, step.constant(&cuda::seen_to_bytes(&self.seen)))
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    type Apart = fn(usize, usize) -> bool;
    let apart = |name: &str, experts: usize, width: usize, gates: &[&[usize]], apart: Apart| {
        let gates: Vec<Vec<usize>> = gates.iter().map(|own| own.to_vec()).collect();
        let logits = gates.iter().map(Vec::len).sum();
        let declare = move |g: &mut Graph, x: &[Value]| {
            let seen = Seen::reading_apart(experts, &gates, apart)
                .map_err(|message| Error::graph("gate_combine_seen", message))?;
            g.add("op", GateCombineSeen::new(seen), x)
        };
        Case::new(name, declare).rows(logits).rows(experts * width)
    };
    let case = |name: &str, experts: usize, width: usize, gates: &[&[usize]]| {
        apart(name, experts, width, gates, |_, _| false)
    };
    vec![
        case("gate_combine_seen/own_and_shared", 5, 17, &[&[0, 1, 4], &[2, 3, 4]]),
        case("gate_combine_seen/one_sees_all", 3, 5, &[&[0, 2], &[1, 2], &[0, 1, 2]]),
        case("gate_combine_seen/alone", 2, 3, &[&[1], &[0]]),
        apart("gate_combine_seen/apart", 3, 17, &[&[0, 1, 2], &[0, 1, 2]], |t, e| e < 2 && e != t)
            .rows(3 * 17),
    ]
}
