//! Dropout, inverted: `y = x ⊙ m`, where m is 0 with the probability p, and 1/(1 − p) otherwise. For training; in
//! evaluation a model declares none.
//!
//! x, y `[batch, n]`. N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, *Dropout: A Simple Way to
//! Prevent Neural Networks from Overfitting*, JMLR 15, 2014.
//!
//! Which values are dropped is a function of names and numbers that do not depend on how a step is run, nor on what runs
//! it; this is the whole of it, for every device:
//!
//! - *Key.* k = mix(mix(mix(seed) ⊕ step) ⊕ op), 64 bits, with the finaliser of SplitMix64 as mix
//!   ([`Stream::new`](manygate_core::Stream::new)), the step of the run, counted from 1 through all stages, and the op's
//!   key: the XXH3 of the name it was made with.
//! - *Number.* The value in column c of the caller's row r has word `c mod 4` of the Philox 4x32-10 block with the counter
//!   `[r low, r high, ⌊c / 4⌋, 0]` and the key `[k low, k high]`: four columns side by side share a block.
//! - *Fate.* t = round(p · 2³²), at most 2³² − 1. The value is dropped where its number, an unsigned integer, is below t;
//!   otherwise its factor is the f32 nearest to 2³² / (2³² − t).
//!
//! Backward: `dx = dy ⊙ m`. The mask is drawn once more and nothing is kept for it: a number takes about half a
//! nanosecond, one product of a hidden layer some fifty times as long for each value it makes.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::draws::Draws;
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Rowset, Saved};
use crate::param::name_hash;
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{DeviceMat, random as cuda};
use manygate_kernels::random::{self, Dropping};
use manygate_kernels::{Mat, MatMut};

/// Dropout, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct Dropout {
    key: u64,
    rate: f64,
}

impl Dropout {
    /// Drops a value with the probability `rate`, 0 ≤ `rate` < 1; draws by `name`, which no other op of the graph may.
    pub fn new(name: &str, rate: f64) -> Dropout {
        Dropout { key: name_hash(name), rate }
    }

    fn apply(&self, at: &Rowset<'_>, accumulate: bool, x: Mat<'_>, y: MatMut<'_>) {
        let (key, first_row) = (at.draws.stream(self.key).key(), at.first_row as u64);
        let (rows, dropping) = (at.draws.caller_rows_of(at.range()), Dropping::new(self.rate));
        random::dropout(at.isa, key, first_row, rows, dropping, accumulate, x, y);
    }
}

/// That `rate` is a probability below 1.
pub(super) fn check_rate(rate: f64) -> Result<(), String> {
    if (0.0..1.0).contains(&rate) { Ok(()) } else { Err(format!("its rate, {rate}, is not in [0, 1)")) }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        check_rate(self.rate)?;
        match inputs {
            [x] if x.space == Space::Batch => Ok(*x),
            _ => Err(format!("one input with a row a sample is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn draws(&self) -> Option<u64> {
        Some(self.key)
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
        growth.vanish((Axis::OutColumns, 0), (Axis::Columns(0), 0), inputs[0].cols);
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, y) = (tile.input(0), tile.take_output());
        self.apply(&tile.at, false, x, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        if let Some(dx) = tile.take_gradient(0) {
            self.apply(&tile.at, dx.accumulate, dy.as_mat(), dx.to);
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
        let (mut y, stream, dropping) = (inputs[0].clone(), draws.stream(self.key), Dropping::new(self.rate));
        for (i, v) in y.data.iter_mut().enumerate() {
            let (row, column) = (draws.caller_row(i / y.cols), (i % y.cols) as u64);
            *v *= f64::from(dropping.factor_of(stream.block(row, column / 4)[i % y.cols % 4]));
        }
        y
    }
}

impl DeviceOp for Dropout {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, y) = (step.input(0), step.output());
        self.launch(step, false, x, y);
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(dx) = step.take_gradient(0) {
            self.launch(step, dx.accumulate, step.output_gradient(), dx.to);
        }
    }
}

impl Dropout {
    fn launch(&self, step: &mut DeviceStep<'_>, accumulate: bool, x: DeviceMat, y: DeviceMat) {
        let (key, dropping) = (step.draws(self.key), Dropping::new(self.rate));
        step.launch(cuda::dropout(key, 0, step.caller_rows(), dropping, accumulate, x, y));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize, rate: f64| {
        Case::new(name, move |g, x| g.add("op", Dropout::new("op", rate), x)).rows(cols)
    };
    vec![
        case("dropout/one", 1, 0.5),
        case("dropout/most", 7, 0.9),
        case("dropout/none", 6, 0.0),
        case("dropout/wide", 131, 0.3),
    ]
}
