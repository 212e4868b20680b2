//! `y = act(x Wᵀ + b)`, one product for several heads of the same input.
//!
//! x `[batch, in]` (or a row an id of a list, or a matrix that exists once), W `[out, in]`, b `[biased]`, y `[batch, out]`. The columns of y are divided into segments, each
//! with its own activation and with or without a bias: the first layer of all experts (activated, with bias) and all
//! gates (bare) is one product over one pass of x.
//!
//! By scenario, W is `[scenarios · out, in]` and b `[scenarios · biased]`, and a row is multiplied by the weight of its
//! scenario: one product a row, however many scenarios there are.
//!
//! Over groups, x is `[batch, groups · in]` and y `[batch, groups · out]`: every group is multiplied by the same weight,
//! as the fields of a sample are.
//!
//! Behind pruned units, tiles of few rows skip the inputs that are 0 in all of their rows, weights and all.
//!
//! Backward: `dz = dy ⊙ act'`, `dW = dzᵀ x`, `db = Σ dz`, `dx = dz W`.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves, copy_bytes, layers_refused};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Pack, Reads, Rowset, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation as activate;
use manygate_cuda::gemm::{BiasGradient, Head, Heads, MOST_HEADS};
use manygate_cuda::gemm_by_scenario::{Layers, linear_by_scenario, linear_dw_by_scenario_scratch};
use manygate_kernels::activation::{self, Activation};
use manygate_kernels::gemm::{self, Packed};
use std::ops::Range;

/// Adjacent output columns of [`Linear`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Number of columns.
    pub out: usize,
    /// Whether they have a bias. Segments with one come first.
    pub bias: bool,
    /// What they end in.
    pub activation: Activation,
}

/// A fully connected layer, see the [module](self). Inputs: x, W, and b where a segment has a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    segments: Vec<Segment>,
    scenarios: Option<usize>,
    groups: usize,
    skips_zeros: bool,
}

impl Linear {
    /// One segment.
    pub fn new(out: usize, bias: bool, activation: Activation) -> Linear {
        Linear::segmented(vec![Segment { out, bias, activation }])
    }

    /// Several heads side by side.
    pub fn segmented(segments: Vec<Segment>) -> Linear {
        Linear { segments, scenarios: None, groups: 1, skips_zeros: false }
    }

    /// With a weight for each of `scenarios` scenarios.
    pub fn by_scenario(self, scenarios: usize) -> Linear {
        Linear { scenarios: Some(scenarios), ..self }
    }

    /// With the same weight for each of `groups` equal parts of a row. One segment is needed.
    pub fn over_groups(self, groups: usize) -> Linear {
        Linear { groups, ..self }
    }

    /// Of an input in which many values are 0: in tiles of at most [`gemm::SKIPPING_ROWS`] rows they are skipped. That is
    /// slower where few are.
    pub fn skipping_zeros(self) -> Linear {
        Linear { skips_zeros: true, ..self }
    }

    fn weights(&self) -> usize {
        self.scenarios.unwrap_or(1)
    }

    /// Which of the weights the rows of a tile are multiplied by.
    fn selected(&self, at: &Rowset<'_>) -> usize {
        self.scenarios.map_or(0, |_| at.scenario())
    }

    fn out(&self) -> usize {
        self.segments.iter().map(|s| s.out).sum()
    }

    fn biased(&self) -> usize {
        self.segments.iter().filter(|s| s.bias).map(|s| s.out).sum()
    }

    fn columns(&self) -> impl Iterator<Item = (Range<usize>, Segment)> {
        self.segments.iter().scan(0, |at, &s| {
            let from = *at;
            *at += s.out;
            Some((from..*at, s))
        })
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let wanted = 2 + usize::from(self.biased() > 0);
        if inputs.len() != wanted {
            return Err(format!("{} inputs, {wanted} are needed", inputs.len()));
        }
        let (x, w) = (inputs[0], inputs[1]);
        let (out, biased) = (self.weights() * self.out(), self.weights() * self.biased());
        if self.groups == 0 || (self.groups > 1 && self.segments.len() != 1) {
            return Err("groups need one segment".into());
        }
        if w != Shape::once(out, x.cols / self.groups) || !x.cols.is_multiple_of(self.groups) {
            let groups = if self.groups > 1 { format!(" for {} groups", self.groups) } else { String::new() };
            return Err(format!("x {x} needs a weight [{out}, {}]{groups}, not {w}", x.cols / self.groups));
        }
        if wanted == 3 && inputs[2].len() != biased {
            return Err(format!("the bias needs {biased} values, not {}", inputs[2].len()));
        }
        if !self.segments.is_sorted_by_key(|s| !s.bias) {
            return Err("segments with a bias come first".into());
        }
        Ok(x.with_cols(self.groups * self.out()))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: self.segments.iter().any(|s| s.activation != Activation::Identity) }
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: self.scenarios, by_scenario: self.scenarios.is_some(), ..Reads::default() }
    }

    fn activated(&self) -> Option<(Activation, Range<usize>)> {
        let mut active = self.columns().filter(|(_, s)| s.activation != Activation::Identity);
        let (columns, segment) = active.next()?;
        let columns = columns.start..columns.start + self.groups * columns.len();
        active.next().is_none().then_some((segment.activation, columns))
    }

    fn masks(&self, input: usize) -> bool {
        input == 0
    }

    fn packs(&self) -> Vec<Pack> {
        let groups: Vec<usize> = self.segments.iter().map(|s| s.out).collect();
        vec![
            Pack { input: 1, groups: groups.repeat(self.weights()), transposed: true, backward: false },
            Pack { input: 1, groups: vec![self.out(); self.weights()], transposed: false, backward: true },
        ]
    }

    fn scratch(&self, rows: usize, inputs: &[Shape]) -> usize {
        gemm::linear_dw_scratch(rows, inputs[0].cols / self.groups)
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        self.out() * inputs[0].cols
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        if inputs[0].space == Space::Once {
            match i {
                0 => reach::same(output, reached),
                _ => reached.fill(true),
            }
            return;
        }
        let (out, biased, weights) = (self.out(), self.biased(), self.weights());
        let units = || reach::marked(output).map(|column| column % out);
        match i {
            0 => reach::by_group(output, reached, self.groups),
            1 => units().for_each(|unit| (0..weights).for_each(|s| reached[s * out + unit] = true)),
            _ => {
                let units = units().filter(|&unit| unit < biased);
                let values = units.flat_map(|unit| (0..weights).map(move |s| s * biased + unit));
                reach::rows_of(values, inputs[2].cols, reached);
            }
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        if self.segments.len() <= MOST_HEADS { Some(self) } else { None }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let (out, biased, n) = (self.out(), self.biased(), inputs[1].cols);
        if self.groups > 1 {
            return growth.by_groups(self.groups, n, out);
        }
        growth.tie((Axis::Columns(0), 0), (Axis::Columns(1), 0), n);
        growth.zero((Axis::Columns(1), 0), n);
        for s in 0..self.weights() {
            growth.tie((Axis::Rows(1), s * out), (Axis::OutColumns, 0), out);
        }
        if let Some(&bias) = inputs.get(2) {
            growth.vectors(bias, 2, (Axis::OutColumns, 0), biased);
        }
        if inputs[0].space == Space::Once {
            growth.tie((Axis::Rows(0), 0), (Axis::OutRows, 0), inputs[0].rows);
        }
        // What it makes is 0 where a row of W and its bias are.
        let straight = self.columns().filter(|(_, segment)| segment.activation != Activation::Sigmoid);
        for (columns, segment) in straight {
            for s in 0..self.weights() {
                growth.vanish(
                    (Axis::OutColumns, columns.start),
                    (Axis::Rows(1), s * out + columns.start),
                    columns.len(),
                );
            }
            if segment.bias && inputs[2].cols == 1 && self.weights() == 1 {
                growth.vanish(
                    (Axis::OutColumns, columns.start),
                    (Axis::Rows(2), columns.start),
                    columns.len(),
                );
            }
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let x = tile.input(0);
        let inner = x.cols() / self.groups;
        let selected = self.selected(&tile.at);
        let bias =
            if self.biased() > 0 { &tile.input(2).contiguous()[selected * self.biased()..] } else { &[] };
        let packed = tile.packed(0);
        let mut packed = &packed[selected * packed.len() / self.weights()..];
        let mut y = tile.take_output();
        let skips = self.skips_zeros && x.rows() <= gemm::SKIPPING_ROWS;
        let linear = if skips { gemm::linear_skipping } else { gemm::linear };
        for (columns, segment) in self.columns() {
            let (this, rest) = packed.split_at(gemm::packed_len(inner, segment.out));
            let bias = if segment.bias { &bias[columns.clone()] } else { &[] };
            for group in 0..self.groups {
                let x = x.columns(group * inner, inner);
                let weight = Packed::new(this, inner, segment.out);
                let y = y.columns(group * segment.out + columns.start, segment.out);
                linear(tile.at.isa, x, weight, bias, segment.activation, y);
            }
            packed = rest;
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let isa = tile.at.isa;
        let x = tile.input(0);
        let mut dy = tile.take_output_gradient();
        if !tile.activation_done {
            for (columns, segment) in self.columns().filter(|(_, s)| s.activation != Activation::Identity) {
                let width = self.groups * segment.out;
                let y = tile.output().columns(columns.start, width);
                activation::activation_dx(isa, segment.activation, y, dy.columns(columns.start, width));
            }
        }
        let dy = dy.as_mat();
        let (inner, out) = (x.cols() / self.groups, self.out());
        let parts = || (0..self.groups).map(|group| dy.columns(group * out, out));
        let selected = self.selected(&tile.at);
        if let Some(dw) = tile.take_gradient(1) {
            let mut dw = dw.only_rows(selected * self.out(), self.out());
            let scratch = tile.take_scratch();
            for (group, dy) in parts().enumerate() {
                let accumulate = dw.accumulate || group > 0;
                gemm::linear_dw(
                    isa,
                    dy,
                    x.columns(group * inner, inner),
                    accumulate,
                    dw.to.reborrow(),
                    scratch,
                );
            }
        }
        if self.biased() > 0
            && let Some(db) = tile.take_gradient(2)
        {
            let db = db.only_rows(selected * self.biased(), self.biased());
            let sums = db.to.into_contiguous();
            for (group, dy) in parts().enumerate() {
                gemm::column_sums(isa, dy.columns(0, self.biased()), db.accumulate || group > 0, sums);
            }
        }
        if let Some(mut dx) = tile.take_gradient(0) {
            let len = gemm::packed_len(self.out(), inner);
            for (group, dy) in parts().enumerate() {
                let weight = Packed::new(&tile.packed(1)[selected * len..][..len], self.out(), inner);
                let mask = dx.mask.map(|(a, output)| (a, output.columns(group * inner, inner)));
                gemm::linear_dx(isa, dy, weight, dx.accumulate, mask, dx.to.columns(group * inner, inner));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (x, w) = (&inputs[0], &inputs[1]);
        let inner = x.cols / self.groups;
        let mut y = Matrix::zeros(x.rows, self.groups * self.out());
        let groups = (0..self.groups).flat_map(|group| self.columns().map(move |part| (group, part)));
        for (group, (columns, segment)) in groups {
            for (r, c) in (0..x.rows).flat_map(|r| columns.clone().map(move |c| (r, c))) {
                let selected = self.scenarios.map_or(0, |_| batch.scenario[r] as usize);
                let bias = if segment.bias { inputs[2].data[selected * self.biased() + c] } else { 0.0 };
                let unit = selected * self.out() + c;
                let product = |k: usize| x.at(r, group * inner + k) * w.at(unit, k);
                let z = bias + (0..inner).map(product).sum::<f64>();
                y.set(r, group * self.out() + c, activate_f64(segment.activation, z));
            }
        }
        y
    }
}

impl Linear {
    fn layers(&self, step: &DeviceStep<'_>) -> Layers {
        step.layers(self.scenarios, self.groups, true)
    }
}

impl DeviceOp for Linear {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn refuses(&self, inputs: &[Shape]) -> Option<String> {
        let one_for_all = self.scenarios.is_none() && self.groups == 1;
        if !one_for_all && inputs[0].space != Space::Batch {
            return Some("its kernels by scenario, and over groups, are for rows of the batch alone".into());
        }
        layers_refused(self.weights() * self.groups)
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let (rows, inner) = (capacity.rows_in(inputs[0]), inputs[0].cols / self.groups);
        let layers = Layers::new(0, self.weights(), self.groups, true);
        let dw = linear_dw_by_scenario_scratch(rows as u32, inner as u32, self.out() as u32, layers);
        copy_bytes(rows, self.groups * self.out())
            + copy_bytes(inputs[1].rows, inputs[1].cols).max(4 * dw as u64)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let head = |s: &Segment| Head { width: s.out as u32, bias: s.bias, activation: s.activation };
        let heads: Vec<Head> = self.segments.iter().map(head).collect();
        let bias = if self.biased() > 0 { step.input(2).address } else { 0 };
        let (x, y, heads) = (step.input(0), step.output(), Heads::new(bias, &heads));
        let (precision, weight) = (step.precision(x.element), step.weight(1, x.element, step.scratch()));
        step.launch(linear_by_scenario(precision, self.layers(step), x, weight, &heads, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, dy, layers) = (step.input(0), step.output_gradient(), self.layers(step));
        let scratch = step.scratch() + copy_bytes(x.rows as usize, self.groups * self.out());
        if !step.activation_done() {
            for (columns, segment) in self.columns().filter(|(_, s)| s.activation != Activation::Identity) {
                let (from, width) = (columns.start as u32, (self.groups * segment.out) as u32);
                let y = step.output().columns(from, width);
                step.launch(activate::activation_dx(segment.activation, y, dy.columns(from, width)));
            }
        }
        let db = if self.biased() > 0 { step.take_gradient(2) } else { None };
        let biased = dy.columns(0, (self.groups * self.biased()) as u32);
        let db = db.map(|db| BiasGradient { dy: biased, accumulate: db.accumulate, to: db.to.address });
        let dy = step.stored_as(x.element, dy);
        step.layer_gradients(layers, x.element, dy, db, scratch);
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let plain = |name: &str, out: usize, bias: bool, activation: Activation, inputs: usize| {
        let case = Case::new(name, move |g, x| g.add("op", Linear::new(out, bias, activation), x));
        let case = case.rows(inputs).once(out, inputs);
        if bias { case.once(out, 1) } else { case }
    };
    let of = |name: &str, op: Linear, inputs: usize| {
        let (out, biased) = (op.weights() * op.out(), op.weights() * op.biased());
        let groups = op.groups;
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        let case = case.rows(groups * inputs).once(out, inputs);
        if biased > 0 { case.once(biased, 1) } else { case }
    };
    let heads = |name: &str, segments, inputs| of(name, Linear::segmented(segments), inputs);
    let segment = |out, bias, activation| Segment { out, bias, activation };
    vec![
        plain("linear/bare", 3, false, Activation::Identity, 7),
        plain("linear/one_unit", 1, true, Activation::Identity, 5),
        plain("linear/relu", 17, true, Activation::Relu, 13),
        plain("linear/tanh", 5, false, Activation::Tanh, 1),
        plain("linear/leaky_relu", 33, true, Activation::LeakyRelu(0.1), 18),
        heads(
            "linear/experts_and_gates",
            vec![segment(18, true, Activation::Relu), segment(5, false, Activation::Identity)],
            9,
        ),
        heads(
            "linear/two_activations",
            vec![segment(4, true, Activation::Tanh), segment(3, true, Activation::Sigmoid)],
            6,
        ),
        Case::new("linear/once", |g, x| g.add("op", Linear::new(9, true, Activation::Tanh), x))
            .once(3, 5)
            .once(9, 5)
            .once(9, 1),
        Case::new("linear/positions", |g, x| g.add("op", Linear::new(9, true, Activation::Relu), x))
            .positions(1, 5)
            .once(9, 5)
            .once(9, 1),
        of("linear/skipping", Linear::new(19, true, Activation::Tanh).skipping_zeros(), 9),
        of("linear/groups", Linear::new(5, true, Activation::Relu).over_groups(3), 7),
        of(
            "linear/groups_by_scenario",
            Linear::new(4, true, Activation::Tanh).over_groups(2).by_scenario(3),
            6,
        ),
        of("linear/by_scenario", Linear::new(18, true, Activation::Relu).by_scenario(3), 5),
        of("linear/logit_by_scenario", Linear::new(1, false, Activation::Identity).by_scenario(2), 7),
    ]
}
