//! One vector for the ids of each sample: their sum or mean, zero for a sample without ids.
//!
//! x `[ids of the list, n]`, y `[batch, n]`. Backward: `dx_i = dy`, or `dy / ids` for the mean.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::sequence as cuda;
use manygate_kernels::embedding::Pooling;

/// Pools a list, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct SequencePool {
    bag: usize,
    pooling: Pooling,
}

impl SequencePool {
    /// Of list `bag`.
    pub fn new(bag: usize, pooling: Pooling) -> SequencePool {
        SequencePool { bag, pooling }
    }

    fn scale(&self, ids: usize) -> f32 {
        if self.pooling == Pooling::Mean { 1.0 / ids.max(1) as f32 } else { 1.0 }
    }
}

impl Op for SequencePool {
    fn name(&self) -> &'static str {
        "sequence_pool"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space == Space::Position(self.bag) => Ok(Shape::batch(x.cols)),
            _ => Err(format!("ids of list {} are needed, not {inputs:?}", self.bag)),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        for r in 0..tile.at.rows {
            let positions = tile.at.positions_of(self.bag, r);
            let (scale, y) = (self.scale(positions.len()), y.row_mut(r));
            y.fill(0.0);
            for at in positions {
                y.iter_mut().zip(x.row(at)).for_each(|(y, x)| *y += x);
            }
            y.iter_mut().for_each(|y| *y *= scale);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let Some(mut dx) = tile.take_gradient(0) else { return };
        for r in 0..tile.at.rows {
            let positions = tile.at.positions_of(self.bag, r);
            let scale = self.scale(positions.len());
            for at in positions {
                for (to, &d) in dx.to.row_mut(at).iter_mut().zip(dy.row(r)) {
                    *to = if dx.accumulate { *to + scale * d } else { scale * d };
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let x = &inputs[0];
        let mut y = Matrix::zeros(batch.rows, x.cols);
        for (r, ends) in batch.bags[self.bag].offsets.windows(2).enumerate() {
            let positions = ends[0] as usize..ends[1] as usize;
            let scale = if self.pooling == Pooling::Mean { positions.len().max(1) as f64 } else { 1.0 };
            (0..x.cols)
                .for_each(|c| y.set(r, c, positions.clone().map(|at| x.at(at, c)).sum::<f64>() / scale));
        }
        y
    }
}

impl DeviceOp for SequencePool {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::sequence_pool(step.lists(self.bag), self.pooling, step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (lists, dy) = (step.lists(self.bag), step.output_gradient());
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::sequence_pool_dx(lists, self.pooling, dy, dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize, pooling: Pooling| {
        Case::new(name, move |g, x| g.add("op", SequencePool::new(0, pooling), x)).positions(0, cols)
    };
    vec![case("sequence_pool/mean", 5, Pooling::Mean), case("sequence_pool/sum", 17, Pooling::Sum)]
}
