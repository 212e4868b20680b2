//! `y = (e_f · e_g for f < g)`, in the order (0,1), (0,2) … (1,2) …: the inner products of fields.
//!
//! e `[batch, fields · n]`, y `[batch, fields (fields − 1) / 2]`. Y. Qu et al., *Product-based Neural Networks for User
//! Response Prediction*, ICDM 2016. Backward: `de_f += dy_fg e_g`, `de_g += dy_fg e_f`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::interaction as cuda;
use manygate_kernels::pair_products::{pair_products, pair_products_de};

/// Inner products of fields, see the [module](self). Input: e.
#[derive(Clone, Debug)]
pub struct PairProducts {
    fields: usize,
}

impl PairProducts {
    /// Of `fields` fields.
    pub fn new(fields: usize) -> PairProducts {
        PairProducts { fields }
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let fields = self.fields;
        (0..fields).flat_map(move |f| (f + 1..fields).map(move |g| (f, g)))
    }
}

impl Op for PairProducts {
    fn name(&self) -> &'static str {
        "pair_products"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [e] if e.space == Space::Batch && self.fields > 1 && e.cols.is_multiple_of(self.fields) => {
                Ok(Shape::batch(self.fields * (self.fields - 1) / 2))
            }
            _ => Err(format!("{} fields, at least 2, are needed, not {inputs:?}", self.fields)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[0].cols * (self.fields - 1) / 2
    }

    fn reach(&self, inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        let n = inputs[0].cols / self.fields;
        for (f, g) in self.pairs().zip(output).filter(|(_, marked)| **marked).map(|(pair, _)| pair) {
            [f, g].iter().for_each(|field| reached[field * n..(field + 1) * n].fill(true));
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let n = inputs[0].cols / self.fields;
        for (at, (f, g)) in self.pairs().enumerate() {
            let new = [f, g].map(|field| growth.is_new(Axis::Columns(0), field * n));
            growth.mark(Axis::OutColumns, at, new[0].zip(new[1]).map(|(f, g)| f || g));
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        pair_products(tile.at.isa, tile.input(0), self.fields, tile.take_output());
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (e, dy) = (tile.input(0), tile.take_output_gradient());
        if let Some(Gradient { to, accumulate, .. }) = tile.take_gradient(0) {
            pair_products_de(tile.at.isa, e, self.fields, dy.as_mat(), accumulate, to);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let e = &inputs[0];
        let n = e.cols / self.fields;
        let mut y = Matrix::zeros(e.rows, self.pairs().count());
        for (r, (c, (f, g))) in (0..e.rows).flat_map(|r| self.pairs().enumerate().map(move |p| (r, p))) {
            y.set(r, c, (0..n).map(|i| e.at(r, f * n + i) * e.at(r, g * n + i)).sum());
        }
        y
    }
}

impl DeviceOp for PairProducts {
    fn refuses(&self, inputs: &[Shape]) -> Option<String> {
        let cols = inputs[0].cols;
        let why = || {
            format!("{} fields in {cols} columns do not fit the shared memory of a CUDA device", self.fields)
        };
        (!cuda::pair_products_fit(self.fields as u32, cols as u32)).then(why)
    }

    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::pair_products(step.input(0), self.fields as u32, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(de) = step.take_gradient(0) {
            let (e, fields, dy) = (step.input(0), self.fields as u32, step.output_gradient());
            step.launch(cuda::pair_products_de(e, fields, dy, de.accumulate, de.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, fields: usize, n: usize| {
        Case::new(name, move |g, x| g.add("op", PairProducts::new(fields), x)).rows(fields * n)
    };
    vec![case("pair_products/two", 2, 1), case("pair_products/five", 5, 9)]
}
