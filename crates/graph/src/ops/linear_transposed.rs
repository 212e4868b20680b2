//! `y = x W`: a linear layer's weight used the other way round, as its backward pass does.
//!
//! x `[batch, out]` or a matrix that exists once, W `[out, in]`, y `[batch, in]`. Backward: `dW = xᵀ dy`, `dx = dy Wᵀ`.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves, copy_bytes};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Pack, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::gemm::{self as cuda, Heads};
use manygate_kernels::activation::Activation;
use manygate_kernels::gemm::{self, Packed};

/// A product with a transposed weight, see the [module](self). Inputs: x, W.
#[derive(Clone, Debug)]
pub struct LinearTransposed {
    out: usize,
}

impl LinearTransposed {
    /// Of a weight with `out` rows.
    pub fn new(out: usize) -> LinearTransposed {
        LinearTransposed { out }
    }
}

impl Op for LinearTransposed {
    fn name(&self) -> &'static str {
        "linear_transposed"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, w] if w.space == Space::Once && x.cols == self.out && w.rows == self.out => {
                Ok(x.with_cols(w.cols))
            }
            _ => {
                Err(format!("{} columns and a weight with as many rows are needed, not {inputs:?}", self.out))
            }
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn packs(&self) -> Vec<Pack> {
        let pack = |transposed, backward| Pack { input: 1, groups: vec![self.out], transposed, backward };
        vec![pack(false, false), pack(true, true)]
    }

    fn scratch(&self, rows: usize, inputs: &[Shape]) -> usize {
        gemm::linear_dw_scratch(rows, inputs[1].cols)
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[1].len()
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match (inputs[0].space, i) {
            (Space::Once, 0) => reach::same(output, reached),
            _ => reached.fill(true),
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let [x, w] = [inputs[0], inputs[1]];
        growth.tie((Axis::Columns(0), 0), (Axis::Rows(1), 0), w.rows);
        growth.same_columns(inputs, [1]);
        growth.zero((Axis::Rows(1), 0), w.rows);
        growth.vanish((Axis::OutColumns, 0), (Axis::Columns(1), 0), w.cols);
        if x.space == Space::Once {
            growth.tie((Axis::Rows(0), 0), (Axis::OutRows, 0), x.rows);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, w, y) = (tile.input(0), tile.input(1), tile.take_output());
        let weight = Packed::new(tile.packed(0), self.out, w.cols());
        gemm::linear_dx(tile.at.isa, x, weight, false, None, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let isa = tile.at.isa;
        let (x, w, dy) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        if let Some(dw) = tile.take_gradient(1) {
            gemm::linear_dw(isa, x, dy.as_mat(), dw.accumulate, dw.to, tile.take_scratch());
        }
        if let Some(dx) = tile.take_gradient(0) {
            // The product of x's gradient reads Wᵀ as that of an input's gradient reads a weight.
            let weight = Packed::new(tile.packed(1), w.cols(), self.out);
            gemm::linear_dx(isa, dy.as_mat(), weight, dx.accumulate, None, dx.to);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (x, w) = (&inputs[0], &inputs[1]);
        let mut y = Matrix::zeros(x.rows, w.cols);
        for (r, c) in (0..x.rows).flat_map(|r| (0..w.cols).map(move |c| (r, c))) {
            y.set(r, c, (0..w.rows).map(|o| x.at(r, o) * w.at(o, c)).sum());
        }
        y
    }
}

impl DeviceOp for LinearTransposed {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let [x, w] = [inputs[0], inputs[1]];
        let rows = capacity.rows_in(x);
        let dw = cuda::linear_dw_scratch(rows as u32, w.cols as u32, w.rows as u32, 1);
        let own = copy_bytes(rows, x.cols).max(4 * dw as u64);
        copies(rows, w.rows, w.cols) + own
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, y) = (step.input(0), step.output());
        let precision = step.precision(x.element);
        let weight = step.weight(1, x.element, step.scratch());
        step.launch(cuda::linear_dx(precision, x, weight, false, None, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, dy) = (step.input(0), step.output_gradient());
        // Behind a copy of the weight, or of dy, whichever a product needs.
        let scratch = step.scratch() + copies(x.rows as usize, self.out, dy.cols as usize);
        if let Some(dx) = step.take_gradient(0) {
            let precision = step.precision(dy.element);
            let weight = step.weight(1, dy.element, step.scratch());
            let heads = Heads::one(self.out as u32, 0, Activation::Identity);
            step.put_gradient(dx, scratch, |step, to| {
                step.launch(cuda::linear(precision, dy, weight, &heads, to));
            });
        }
        if let Some(dw) = step.take_gradient(1) {
            let (precision, dy) = (step.precision(x.element), step.stored_as(x.element, dy));
            step.launch_all(cuda::linear_dw(precision, x, dy, dw.accumulate, dw.to, None, scratch));
        }
    }
}

/// Bytes of a copy of the weight `[out, cols]`, or of the gradient of the output.
fn copies(rows: usize, out: usize, cols: usize) -> u64 {
    copy_bytes(rows.max(out), cols)
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, out: usize, cols: usize| {
        Case::new(name, move |g, x| g.add("op", LinearTransposed::new(out), x)).rows(out).once(out, cols)
    };
    let once = Case::new("linear_transposed/once", |g, x| g.add("op", LinearTransposed::new(7), x));
    vec![
        case("linear_transposed/one", 1, 5),
        case("linear_transposed/wide", 18, 33),
        once.once(5, 7).once(7, 19),
    ]
}
