//! `y_g = act(x_g W_gᵀ + b_g)` for groups side by side: the further layers of all experts, the layers of all towers.
//!
//! x `[batch, groups · in]`, W `[groups · out, in]`, b `[groups · out]`, y `[batch, groups · out]`.
//!
//! By scenario, W is `[scenarios · groups · out, in]` and b `[scenarios · groups · out]`, and a row is multiplied by
//! the weights of its scenario.
//!
//! Backward: as [`linear`](super::linear), group by group.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves, copy_bytes, layers_refused};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Pack, Reads, Rowset, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation as activate;
use manygate_cuda::gemm::{BiasGradient, Heads};
use manygate_cuda::gemm_by_scenario::{Layers, linear_by_scenario, linear_dw_by_scenario_scratch};
use manygate_kernels::activation::{self, Activation};
use manygate_kernels::gemm::{self, GroupedPacked};
use std::ops::Range;

/// Several fully connected layers of one shape, see the [module](self). Inputs: x, W and, with `bias`, b.
#[derive(Clone, Debug)]
pub struct GroupedLinear {
    groups: usize,
    out: usize,
    bias: bool,
    activation: Activation,
    scenarios: Option<usize>,
}

impl GroupedLinear {
    /// `groups` layers of `out` units each.
    pub fn new(groups: usize, out: usize, bias: bool, activation: Activation) -> GroupedLinear {
        GroupedLinear { groups, out, bias, activation, scenarios: None }
    }

    /// With weights for each of `scenarios` scenarios.
    pub fn by_scenario(self, scenarios: usize) -> GroupedLinear {
        GroupedLinear { scenarios: Some(scenarios), ..self }
    }

    fn weights(&self) -> usize {
        self.scenarios.unwrap_or(1)
    }

    /// Which of the weights the rows of a tile are multiplied by.
    fn selected(&self, at: &Rowset<'_>) -> usize {
        self.scenarios.map_or(0, |_| at.scenario())
    }

    fn cols(&self) -> usize {
        self.groups * self.out
    }

    /// The packed weights of one scenario.
    fn own<'a>(&self, packed: &'a [f32], selected: usize, inner: usize, outer: usize) -> GroupedPacked<'a> {
        let len = packed.len() / self.weights();
        GroupedPacked::new(&packed[selected * len..][..len], self.groups, inner, outer)
    }
}

impl Op for GroupedLinear {
    fn name(&self) -> &'static str {
        "grouped_linear"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let wanted = 2 + usize::from(self.bias);
        if inputs.len() != wanted {
            return Err(format!("{} inputs, {wanted} are needed", inputs.len()));
        }
        let (x, w) = (inputs[0], inputs[1]);
        if self.groups == 0 || x.space != Space::Batch || !x.cols.is_multiple_of(self.groups) {
            return Err(format!("x {x} does not divide into {} groups", self.groups));
        }
        let units = self.weights() * self.cols();
        if w != Shape::once(units, x.cols / self.groups) {
            return Err(format!("x {x} needs a weight [{units}, {}], not {w}", x.cols / self.groups));
        }
        if self.bias && inputs[2].len() != units {
            return Err(format!("the bias needs {units} values, not {}", inputs[2].len()));
        }
        Ok(Shape::batch(self.cols()))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: self.activation != Activation::Identity }
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: self.scenarios, by_scenario: self.scenarios.is_some(), ..Reads::default() }
    }

    fn activated(&self) -> Option<(Activation, Range<usize>)> {
        (self.activation != Activation::Identity).then_some((self.activation, 0..self.cols()))
    }

    fn masks(&self, input: usize) -> bool {
        input == 0
    }

    fn packs(&self) -> Vec<Pack> {
        let groups = vec![self.out; self.weights() * self.groups];
        vec![
            Pack { input: 1, groups: groups.clone(), transposed: true, backward: false },
            Pack { input: 1, groups, transposed: false, backward: true },
        ]
    }

    fn scratch(&self, rows: usize, inputs: &[Shape]) -> usize {
        gemm::linear_dw_scratch(rows, inputs[0].cols / self.groups)
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        self.out * inputs[0].cols
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::by_group(output, reached, self.groups),
            1 => reached.chunks_exact_mut(output.len()).for_each(|own| own.copy_from_slice(output)),
            _ => {
                let units = reach::marked(output);
                let values = units.flat_map(|unit| (0..self.weights()).map(move |s| s * output.len() + unit));
                reach::rows_of(values, inputs[2].cols, reached);
            }
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let (cols, n) = (self.cols(), inputs[1].cols);
        growth.by_groups(self.groups, n, self.out);
        for group in 0..self.groups {
            growth.follow((Axis::Columns(1), 0), (Axis::Columns(0), group * n), n);
        }
        growth.zero((Axis::Columns(1), 0), n);
        for s in 0..self.weights() {
            growth.tie((Axis::Rows(1), s * cols), (Axis::OutColumns, 0), cols);
            growth.vanish((Axis::OutColumns, 0), (Axis::Rows(1), s * cols), cols);
        }
        if let Some(&bias) = inputs.get(2) {
            growth.vectors(bias, 2, (Axis::OutColumns, 0), cols);
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let x = tile.input(0);
        let selected = self.selected(&tile.at);
        let bias = if self.bias {
            &tile.input(2).contiguous()[selected * self.cols()..][..self.cols()]
        } else {
            &[]
        };
        let y = tile.take_output();
        let weights = self.own(tile.packed(0), selected, x.cols() / self.groups, self.out);
        gemm::grouped_linear(tile.at.isa, x, weights, bias, self.activation, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let isa = tile.at.isa;
        let x = tile.input(0);
        let mut dy = tile.take_output_gradient();
        if !tile.activation_done && self.activation != Activation::Identity {
            activation::activation_dx(isa, self.activation, tile.output(), dy.reborrow());
        }
        let (dy, selected) = (dy.as_mat(), self.selected(&tile.at));
        let from = selected * self.cols();
        if let Some(dw) = tile.take_gradient(1) {
            let dw = dw.only_rows(from, self.cols());
            gemm::grouped_linear_dw(isa, self.groups, dy, x, dw.accumulate, dw.to, tile.take_scratch());
        }
        if self.bias
            && let Some(db) = tile.take_gradient(2)
        {
            let db = db.only_rows(from, self.cols());
            gemm::column_sums(isa, dy, db.accumulate, db.to.into_contiguous());
        }
        if let Some(dx) = tile.take_gradient(0) {
            let weights = self.own(tile.packed(1), selected, self.out, x.cols() / self.groups);
            gemm::grouped_linear_dx(isa, dy, weights, dx.accumulate, dx.mask, dx.to);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (x, w) = (&inputs[0], &inputs[1]);
        let mut y = Matrix::zeros(x.rows, self.cols());
        for (r, c) in (0..x.rows).flat_map(|r| (0..self.cols()).map(move |c| (r, c))) {
            let start = c / self.out * w.cols;
            let unit = self.scenarios.map_or(0, |_| batch.scenario[r] as usize) * self.cols() + c;
            let bias = if self.bias { inputs[2].data[unit] } else { 0.0 };
            let z = bias + (0..w.cols).map(|k| x.at(r, start + k) * w.at(unit, k)).sum::<f64>();
            y.set(r, c, activate_f64(self.activation, z));
        }
        y
    }
}

impl GroupedLinear {
    fn layers(&self, step: &DeviceStep<'_>) -> Layers {
        step.layers(self.scenarios, self.groups, false)
    }
}

impl DeviceOp for GroupedLinear {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        layers_refused(self.weights() * self.groups)
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let (rows, inner) = (capacity.rows, inputs[0].cols / self.groups);
        let layers = Layers::new(0, self.weights(), self.groups, false);
        let dw = linear_dw_by_scenario_scratch(rows as u32, inner as u32, self.out as u32, layers);
        copy_bytes(rows, self.cols()) + copy_bytes(inputs[1].rows, inputs[1].cols).max(4 * dw as u64)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let bias = if self.bias { step.input(2).address } else { 0 };
        let (x, y, heads) =
            (step.input(0), step.output(), Heads::one(self.out as u32, bias, self.activation));
        let (precision, weights) = (step.precision(x.element), step.weight(1, x.element, step.scratch()));
        step.launch(linear_by_scenario(precision, self.layers(step), x, weights, &heads, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, dy, layers) = (step.input(0), step.output_gradient(), self.layers(step));
        let scratch = step.scratch() + copy_bytes(x.rows as usize, self.cols());
        if !step.activation_done() && self.activation != Activation::Identity {
            step.launch(activate::activation_dx(self.activation, step.output(), dy));
        }
        let db = if self.bias { step.take_gradient(2) } else { None };
        let db = db.map(|db| BiasGradient { dy, accumulate: db.accumulate, to: db.to.address });
        let dy = step.stored_as(x.element, dy);
        step.layer_gradients(layers, x.element, dy, db, scratch);
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let of = |name: &str, op: GroupedLinear, inputs: usize| {
        let (groups, bias, units) = (op.groups, op.bias, op.weights() * op.cols());
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        let case = case.rows(groups * inputs).once(units, inputs);
        if bias { case.once(units, 1) } else { case }
    };
    let case = |name: &str, groups: usize, inputs: usize, out: usize, bias: bool, activation: Activation| {
        of(name, GroupedLinear::new(groups, out, bias, activation), inputs)
    };
    let relu = |groups, out, bias| GroupedLinear::new(groups, out, bias, Activation::Relu);
    vec![
        case("grouped_linear/one_group", 1, 6, 5, true, Activation::Relu),
        case("grouped_linear/experts", 3, 5, 17, true, Activation::Relu),
        case("grouped_linear/logits", 4, 9, 1, true, Activation::Identity),
        case("grouped_linear/bare_sigmoid", 2, 3, 4, false, Activation::Sigmoid),
        of("grouped_linear/by_scenario", relu(2, 17, true).by_scenario(3), 5),
        of("grouped_linear/bare_by_scenario", relu(3, 1, false).by_scenario(2), 4),
    ]
}
