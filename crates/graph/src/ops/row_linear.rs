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
use crate::growth::{Axis, Growth, Span};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Rowset, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_kernels::activation::{self, Activation};
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

    /// The rows of h, within the tile, that sample `r` of it has.
    fn rows_of(&self, at: &Rowset<'_>, r: usize) -> Range<usize> {
        self.bag.map_or(r..r + 1, |bag| at.positions_of(bag, r))
    }

    /// Adds `M v` to `to`, M `[to, v]` row-major, or `Mᵀ v` of M `[v, to]`.
    fn product(m: &[f32], transposed: bool, v: &[f32], to: &mut [f32]) {
        if transposed {
            for (row, &v) in m.chunks_exact(to.len()).zip(v) {
                to.iter_mut().zip(row).for_each(|(to, m)| *to += v * m);
            }
        } else {
            for (to, row) in to.iter_mut().zip(m.chunks_exact(v.len())) {
                *to += row.iter().zip(v).map(|(m, v)| m * v).sum::<f32>();
            }
        }
    }

    /// Adds `rows ⊗ cols` to `to`.
    fn outer(rows: &[f32], cols: &[f32], to: &mut [f32]) {
        for (to, &row) in to.chunks_exact_mut(cols.len()).zip(rows) {
            to.iter_mut().zip(cols).for_each(|(to, col)| *to += row * col);
        }
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

    fn forward(&self, tile: &mut Forward<'_>) {
        let (h, w, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        let inner = h.cols() / self.groups;
        for (r, row) in (0..tile.at.rows).flat_map(|r| self.rows_of(&tile.at, r).map(move |row| (r, row))) {
            for (h, to) in h.row(row).chunks_exact(inner).zip(y.row_mut(row).chunks_exact_mut(self.out)) {
                if self.bias {
                    to.copy_from_slice(tile.input(2).row(r));
                } else {
                    to.fill(0.0);
                }
                Self::product(w.row(r), self.transposed, h, to);
            }
        }
        activation::activate(tile.at.isa, self.activation, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (h, w, mut dy) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        if !tile.activation_done && self.activation != Activation::Identity {
            activation::activation_dx(tile.at.isa, self.activation, tile.output(), dy.reborrow());
        }
        let inner = h.cols() / self.groups;
        let at = tile.at;
        let groups = |row: usize| h.row(row).chunks_exact(inner).zip(dy.row(row).chunks_exact(self.out));
        if let Some(mut dh) = tile.take_gradient(0) {
            for (r, row) in (0..at.rows).flat_map(|r| self.rows_of(&at, r).map(move |row| (r, row))) {
                let to = dh.to.row_mut(row);
                if !dh.accumulate {
                    to.fill(0.0);
                }
                for (to, dz) in to.chunks_exact_mut(inner).zip(dy.row(row).chunks_exact(self.out)) {
                    Self::product(w.row(r), !self.transposed, dz, to);
                }
            }
        }
        if let Some(mut dw) = tile.take_gradient(1) {
            for r in 0..at.rows {
                let to = dw.to.row_mut(r);
                if !dw.accumulate {
                    to.fill(0.0);
                }
                for (h, dz) in self.rows_of(&at, r).flat_map(groups) {
                    let (rows, cols) = if self.transposed { (h, dz) } else { (dz, h) };
                    Self::outer(rows, cols, to);
                }
            }
        }
        if self.bias
            && let Some(mut db) = tile.take_gradient(2)
        {
            for r in 0..at.rows {
                let of_row = |row: usize, o: usize| dy.row(row).iter().skip(o).step_by(self.out).sum::<f32>();
                let sum = |o: usize| self.rows_of(&at, r).map(|row| of_row(row, o)).sum();
                db.put(r, (0..self.out).map(sum));
            }
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
