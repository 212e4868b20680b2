//! `y_g = act(W_b h_g + b_b)`: every sample has a weight of its own, computed by the model.
//!
//! h `[batch, groups · in]`, W `[batch, out · in]` (row-major `[out, in]`), b `[batch, out]` where there is a bias, y
//! `[batch, groups · out]`: all groups of a sample share its weight. Over a list, h and y have a row an id, and the ids of
//! a sample share its weight. Transposed, W is `[in, out]` and `y_g = W_bᵀ h_g`.
//! Meta units (Q. Zhang et al., *Leaving No One Behind*, WSDM 2022), low-rank attention maps and transfer matrices are
//! such products.
//!
//! Backward, dz = dy ⊙ act': `dh_g = Wᵀ dz_g`, `dW = Σ_g dz_g ⊗ h_g`, `db = Σ_g dz_g`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth, Span};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Rowset, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation as activate;
use manygate_cuda::row_product as cuda;
use manygate_kernels::activation::{self, Activation};
use manygate_kernels::row_product::{Start, Vectors, row_outer, row_product, row_sums};
use std::ops::Range;

/// A product with weights by sample, see the [module](self). Inputs: h, W and, with `bias`, b.
#[derive(Clone, Debug)]
pub struct RowLinear {
    groups: usize,
    out: usize,
    bias: bool,
    transposed: bool,
    activation: Activation,
    /// The list with whose ids h and y have rows.
    bag: Option<usize>,
}

impl RowLinear {
    /// `out` units for each of `groups` groups.
    pub fn new(groups: usize, out: usize, bias: bool, activation: Activation) -> RowLinear {
        RowLinear { groups, out, bias, transposed: false, activation, bag: None }
    }

    /// With the weight the other way round.
    pub fn transposed(self) -> RowLinear {
        RowLinear { transposed: true, ..self }
    }

    /// Over the ids of list `bag`.
    pub fn over_list(self, bag: usize) -> RowLinear {
        RowLinear { bag: Some(bag), ..self }
    }

    fn cols(&self) -> usize {
        self.groups * self.out
    }

    /// The vectors of h and of y in a tile.
    fn vectors<'a>(&self, at: &Rowset<'a>) -> Vectors<'a> {
        let offsets = |bag: usize| &at.batch.bags[bag].offsets[at.first_row..=at.first_row + at.rows];
        Vectors { groups: self.groups, offsets: self.bag.map(offsets) }
    }
}

impl Op for RowLinear {
    fn name(&self) -> &'static str {
        "row_linear"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let wanted = 2 + usize::from(self.bias);
        let space = self.bag.map_or(Space::Batch, Space::Position);
        let fits = |(i, x): (usize, &Shape)| x.space == if i == 0 { space } else { Space::Batch };
        if inputs.len() != wanted || !inputs.iter().enumerate().all(fits) {
            return Err(format!("{wanted} values with rows are needed, not {inputs:?}"));
        }
        let (h, w) = (inputs[0], inputs[1]);
        if self.groups == 0 || self.out == 0 || h.cols == 0 || !h.cols.is_multiple_of(self.groups) {
            return Err(format!("h {h} does not divide into {} groups", self.groups));
        }
        let len = h.cols / self.groups * self.out;
        if w.cols != len || (self.bias && inputs[2].cols != self.out) {
            return Err(format!(
                "weights of {len} values and {} biases are needed, not {inputs:?}",
                self.out
            ));
        }
        Ok(h.with_cols(self.cols()))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: self.activation != Activation::Identity }
    }

    fn reads(&self) -> Reads {
        Reads { bags: self.bag.map_or(0, |bag| bag + 1), ..Reads::default() }
    }

    fn activated(&self) -> Option<(Activation, Range<usize>)> {
        (self.activation != Activation::Identity).then_some((self.activation, 0..self.cols()))
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[0].cols * self.out
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let inner = inputs[0].cols / self.groups;
        let place = |o: usize, k: usize| if self.transposed { k * self.out + o } else { o * inner + k };
        let units = reach::marked(output).map(|column| column % self.out);
        match i {
            0 => reach::by_group(output, reached, self.groups),
            1 => units.for_each(|o| (0..inner).for_each(|k| reached[place(o, k)] = true)),
            _ => units.for_each(|o| reached[o] = true),
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let inner = inputs[0].cols / self.groups;
        if self.groups > 1 {
            return growth.by_groups(self.groups, inner, self.out);
        }
        let place = |o: usize, k: usize| if self.transposed { k * self.out + o } else { o * inner + k };
        let (out, input) = (Span::new(Axis::OutColumns, 0, self.out), Span::new(Axis::Columns(0), 0, inner));
        growth.matrix(Axis::Columns(1), place, out, input, |_, column| column.is_new());
        if self.bias {
            growth.tie((Axis::Columns(2), 0), (Axis::OutColumns, 0), self.out);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (h, w, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        let start = if self.bias { Start::Bias(tile.input(2)) } else { Start::Zero };
        row_product(tile.at.isa, h, w, self.vectors(&tile.at), self.transposed, start, y.reborrow());
        activation::activate(tile.at.isa, self.activation, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (h, w, mut dy) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        let (isa, vectors) = (tile.at.isa, self.vectors(&tile.at));
        if !tile.activation_done && self.activation != Activation::Identity {
            activation::activation_dx(isa, self.activation, tile.output(), dy.reborrow());
        }
        let dy = dy.as_mat();
        if let Some(dh) = tile.take_gradient(0) {
            let start = if dh.accumulate { Start::Output } else { Start::Zero };
            row_product(isa, dy, w, vectors, !self.transposed, start, dh.to);
        }
        if let Some(dw) = tile.take_gradient(1) {
            let (rows, cols) = if self.transposed { (h, dy) } else { (dy, h) };
            row_outer(isa, rows, cols, vectors, dw.accumulate, dw.to);
        }
        if self.bias
            && let Some(db) = tile.take_gradient(2)
        {
            row_sums(isa, dy, vectors, db.accumulate, db.to);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (h, w) = (&inputs[0], &inputs[1]);
        let inner = h.cols / self.groups;
        let owner = |row: usize| {
            let ends = self.bag.map(|bag| &batch.bags[bag].offsets);
            ends.map_or(row, |ends| ends.partition_point(|&end| end as usize <= row) - 1)
        };
        let mut y = Matrix::zeros(h.rows, self.cols());
        for (row, c) in (0..h.rows).flat_map(|row| (0..self.cols()).map(move |c| (row, c))) {
            let r = owner(row);
            let (group, o) = (c / self.out, c % self.out);
            let at = |i: usize| if self.transposed { i * self.out + o } else { o * inner + i };
            let bias = if self.bias { inputs[2].at(r, o) } else { 0.0 };
            let z = bias + (0..inner).map(|i| w.at(r, at(i)) * h.at(row, group * inner + i)).sum::<f64>();
            y.set(row, c, activate_f64(self.activation, z));
        }
        y
    }
}

impl DeviceOp for RowLinear {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (h, w, y) = (step.input(0), step.input(1), step.output());
        let start = if self.bias { cuda::Start::Bias(step.input(2)) } else { cuda::Start::Zero };
        let vectors = self.vectors_on_device(step);
        step.launch(cuda::row_product(h, w, vectors, self.transposed, start, self.activation, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (h, w, dy) = (step.input(0), step.input(1), step.output_gradient());
        let vectors = self.vectors_on_device(step);
        if !step.activation_done() && self.activation != Activation::Identity {
            step.launch(activate::activation_dx(self.activation, step.output(), dy));
        }
        if let Some(dh) = step.take_gradient(0) {
            let start = if dh.accumulate { cuda::Start::Output } else { cuda::Start::Zero };
            let act = Activation::Identity;
            step.launch(cuda::row_product(dy, w, vectors, !self.transposed, start, act, dh.to));
        }
        if let Some(dw) = step.take_gradient(1) {
            let (rows, cols) = if self.transposed { (h, dy) } else { (dy, h) };
            step.launch(cuda::row_outer(rows, cols, vectors, dw.accumulate, dw.to));
        }
        if self.bias
            && let Some(db) = step.take_gradient(2)
        {
            step.launch(cuda::row_sums(dy, vectors, db.accumulate, db.to));
        }
    }
}

impl RowLinear {
    /// The vectors of h and of y in a batch.
    fn vectors_on_device(&self, step: &DeviceStep<'_>) -> cuda::Vectors {
        let offsets = self.bag.map(|bag| step.batch().bags[bag].offsets);
        cuda::Vectors { groups: self.groups as u32, offsets }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, op: RowLinear, inner: usize| {
        let (groups, out, bias, bag) = (op.groups, op.out, op.bias, op.bag);
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        let case = match bag {
            Some(bag) => case.positions(bag, groups * inner),
            None => case.rows(groups * inner),
        };
        let case = case.rows(out * inner);
        if bias { case.rows(out) } else { case }
    };
    vec![
        case("row_linear/one", RowLinear::new(1, 1, false, Activation::Identity), 1),
        case("row_linear/groups", RowLinear::new(3, 5, true, Activation::LeakyRelu(0.01)), 7),
        case("row_linear/list", RowLinear::new(2, 3, true, Activation::Tanh).over_list(0), 5),
        case("row_linear/transposed", RowLinear::new(2, 4, false, Activation::Tanh).transposed(), 3),
    ]
}
