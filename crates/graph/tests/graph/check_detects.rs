//! The check of ops finds what can be wrong with an op.

use manygate_core::Batch;
use manygate_graph::check::{Case, check};
use manygate_graph::op::{Backward, Forward, Matrix, Op, Saved};
use manygate_graph::{Shape, Space};
use manygate_kernels::Isa;
use manygate_kernels::activation::{Activation, activation_dx};
use std::ops::Range;

/// What is wrong with an op.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    Forward,
    ForwardOfLaterTiles,
    Gradient,
    Slope,
    WeightGradient,
    Overwrites,
    OverwritesWeight,
    Adds,
    IgnoresMask,
    IgnoresActivationDone,
    ReadsScratch,
    DropsInput,
    DropsWeight,
    ReadsUnsaved,
    DeniesReach,
}

/// `y = tanh(x ⊙ w)`, w `[cols, 1]`.
#[derive(Clone, Debug)]
struct Scale {
    fault: Fault,
    cols: usize,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, w] if x.space == Space::Batch && w.len() == x.cols => Ok(*x),
            _ => Err("x and a weight a column are needed".into()),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: if self.fault == Fault::ReadsUnsaved { 0 } else { 1 }, output: true }
    }

    fn activated(&self) -> Option<(Activation, Range<usize>)> {
        Some((Activation::Tanh, 0..self.cols))
    }

    fn masks(&self, input: usize) -> bool {
        input == 0
    }

    fn scratch(&self, rows: usize, _inputs: &[Shape]) -> usize {
        rows
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        reached.copy_from_slice(output);
        if self.fault == Fault::DeniesReach && i == 1 {
            reached[2] = false;
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, w, at) = (tile.input(0), tile.input(1).contiguous(), tile.at);
        let mut y = tile.take_output();
        let wrong =
            self.fault == Fault::Forward || self.fault == Fault::ForwardOfLaterTiles && at.first_row > 0;
        let scratch = tile.take_scratch();
        for r in 0..x.rows() {
            for c in 0..self.cols {
                y.row_mut(r)[c] = (x.row(r)[c] * w[c]).tanh() + if wrong { 1e-3 } else { 0.0 };
                if self.fault == Fault::ReadsScratch {
                    y.row_mut(r)[c] += 0.0 * scratch[r];
                }
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, w) = (tile.input(0), tile.input(1).contiguous());
        let mut dz = tile.take_output_gradient();
        if !tile.activation_done || self.fault == Fault::IgnoresActivationDone {
            activation_dx(tile.at.isa, Activation::Tanh, tile.output(), dz.reborrow());
        }
        if self.fault == Fault::Slope {
            activation_dx(tile.at.isa, Activation::Tanh, tile.output(), dz.reborrow());
        }
        if self.fault != Fault::DropsInput
            && let Some(mut dx) = tile.take_gradient(0)
        {
            for (r, c) in (0..x.rows()).flat_map(|r| (0..self.cols).map(move |c| (r, c))) {
                let to = &mut dx.to.row_mut(r)[c];
                let add = match self.fault {
                    Fault::Overwrites => false,
                    Fault::Adds => true,
                    _ => dx.accumulate,
                };
                let factor = if self.fault == Fault::Gradient { 1.001 } else { 1.0 };
                *to = dz.row(r)[c] * w[c] * factor + if add { *to } else { 0.0 };
                if let (Some((_, y)), true) = (dx.mask, self.fault != Fault::IgnoresMask) {
                    *to *= 1.0 - y.row(r)[c] * y.row(r)[c];
                }
            }
        }
        if self.fault != Fault::DropsWeight
            && let Some(dw) = tile.take_gradient(1)
        {
            let to = dw.to.into_contiguous();
            if !dw.accumulate || self.fault == Fault::OverwritesWeight {
                to.fill(0.0);
            }
            let factor = if self.fault == Fault::WeightGradient { -1.0 } else { 1.0 };
            for (r, c) in (0..x.rows()).flat_map(|r| (0..self.cols).map(move |c| (r, c))) {
                to[c] += factor * dz.row(r)[c] * x.row(r)[c];
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        for (i, v) in y.data.iter_mut().enumerate() {
            *v = (*v * inputs[1].data[i % self.cols]).tanh();
        }
        y
    }
}

fn checked(fault: Fault) -> Result<(), String> {
    let declare = move |g: &mut manygate_graph::Graph, x: &[manygate_graph::Value]| {
        g.add("op", Scale { fault, cols: 3 }, x)
    };
    let case = Case::new("scale", declare).rows(3).once(3, 1);
    check(&case, &[Isa::Scalar])
}

#[test]
fn a_sound_op_passes() {
    checked(Fault::Nothing).unwrap();
}

#[test]
fn every_wrong_number_is_found() {
    let told = |fault, what: &str| {
        let message = checked(fault).expect_err(&format!("{fault:?} was not found"));
        assert!(message.contains(what), "{fault:?}: {message}");
    };
    told(Fault::Forward, "the loss is");
    told(Fault::ForwardOfLaterTiles, "tiles of 5");
    told(Fault::Gradient, "gradient of input 0 at");
    told(Fault::Slope, "gradient of input 0 at");
    told(Fault::WeightGradient, "gradient of input 1 at");
    told(Fault::Overwrites, "another op adds first");
    told(Fault::OverwritesWeight, "gradient of input 1 at");
    told(Fault::Adds, "gradient of input 0 is NaN");
    told(Fault::IgnoresMask, "inputs activated");
    told(Fault::IgnoresActivationDone, "the op above multiplies by the slope");
    told(Fault::ReadsScratch, "the loss is NaN");
    told(Fault::DeniesReach, "channel 2 of input 1 moves channel 2 of the output, which `reach` denies");
}

#[test]
#[should_panic(expected = "op (scale): its backward pass drops the gradient of an input")]
fn a_dropped_gradient_is_found() {
    let _ = checked(Fault::DropsInput);
}

#[test]
#[should_panic(expected = "op (scale): its backward pass drops the gradient of an input")]
fn a_dropped_gradient_of_a_weight_is_found() {
    let _ = checked(Fault::DropsWeight);
}

#[test]
#[should_panic(expected = "op (scale) did not save an input for its backward pass")]
fn reading_what_was_not_saved_is_found() {
    let _ = checked(Fault::ReadsUnsaved);
}
