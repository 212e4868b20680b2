//! A mixture of a few vectors of a row, each of which scores itself: `y = Σ_u w_u v_u` with
//! `w = softmax(<k_u, q_u> · scale)`.
//!
//! Input `[batch, sources · 3 · width]`: k_u, q_u and v_u of one vector after the other; y `[batch, width]`. The adaptive
//! information transfer of D. Xi et al., *Modeling the Sequential Dependence among Audience Multi-step Conversions with
//! Multi-task Learning in Targeted Display Advertising*, KDD 2021, equations 4 to 6: of two sources, what the step before
//! hands over and what a step found by itself. In ordinary attention one query would score all of them.
//!
//! Backward: `dv_u = w_u dy`, `ds_u = w_u (<dy, v_u> − Σ w <dy, v>)`, `dk_u = scale ds_u q_u`, `dq_u = scale ds_u k_u`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::graph::{Graph, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::gate as cuda;
use manygate_kernels::gate::{self, MAX_SOURCES};

/// Vectors that score themselves, see the [module](self). Input: keys, queries and values.
#[derive(Clone, Debug)]
pub struct SelfScored {
    sources: usize,
    scale: f32,
}

impl SelfScored {
    /// Of `sources` vectors; scores are multiplied by `scale`.
    pub fn new(sources: usize, scale: f32) -> SelfScored {
        SelfScored { sources, scale }
    }
}

impl Op for SelfScored {
    fn name(&self) -> &'static str {
        "self_scored"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if self.sources == 0 || self.sources > MAX_SOURCES {
            return Err(format!("1 to {MAX_SOURCES} vectors can be mixed, not {}", self.sources));
        }
        match inputs {
            [x] if x.space == Space::Batch && x.cols > 0 && x.cols.is_multiple_of(3 * self.sources) => {
                Ok(Shape::batch(x.cols / (3 * self.sources)))
            }
            _ => Err(format!("keys, queries and values of {} vectors, not {inputs:?}", self.sources)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn extra(&self, _inputs: &[Shape]) -> usize {
        self.sources
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[0].cols / 3 * 2
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, weights, y) = (tile.input(0), tile.take_extra(), tile.take_output());
        gate::self_scored(tile.at.isa, self.sources, self.scale, x, weights, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, weights, dy) = (tile.input(0), tile.take_extra(), tile.take_output_gradient());
        let Some(dx) = tile.take_gradient(0) else { return };
        let (weights, dy) = (weights.as_mat(), dy.as_mat());
        gate::self_scored_dx(tile.at.isa, self.sources, self.scale, x, weights, dy, dx.accumulate, dx.to);
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let x = &inputs[0];
        let width = x.cols / (3 * self.sources);
        let mut y = Matrix::zeros(x.rows, width);
        for r in 0..x.rows {
            let at = |u: usize, part: usize, c: usize| x.at(r, (3 * u + part) * width + c);
            let score = |u: usize| -> f64 { (0..width).map(|c| at(u, 0, c) * at(u, 1, c)).sum() };
            let terms: Vec<f64> =
                (0..self.sources).map(|u| (f64::from(self.scale) * score(u)).exp()).collect();
            let total: f64 = terms.iter().sum();
            for c in 0..width {
                y.set(r, c, (0..self.sources).map(|u| terms[u] / total * at(u, 2, c)).sum());
            }
        }
        y
    }
}

impl DeviceOp for SelfScored {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, weights, y) = (step.input(0), step.extra(), step.output());
        step.launch(cuda::self_scored(self.sources as u32, self.scale, x, weights, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, weights, dy) = (step.input(0), step.extra(), step.output_gradient());
        let Some(dx) = step.take_gradient(0) else { return };
        let (sources, accumulate) = (self.sources as u32, dx.accumulate);
        step.launch(cuda::self_scored_dx(sources, self.scale, x, weights, dy, accumulate, dx.to));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, sources: usize, width: usize| {
        let scale = 1.0 / (width as f32).sqrt();
        let declare = move |g: &mut Graph, x: &[Value]| g.add("op", SelfScored::new(sources, scale), x);
        Case::new(name, declare).rows(3 * sources * width).between(-2.0, 2.0)
    };
    vec![case("self_scored/two", 2, 17), case("self_scored/one", 1, 3), case("self_scored/four", 4, 2)]
}
