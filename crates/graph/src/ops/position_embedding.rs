//! `y_i = x_i + P[i]`: a learnt vector for each place in a list, counted from its first id.
//!
//! x `[ids of the list, n]`, P `[longest, n]`. Backward: `dx = dy`, `dP[i] = Σ dy_i` over the samples.

use crate::check::{Case, LONGEST};
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{elementwise, sequence as cuda};

/// Adds the vector of each place, see the [module](self). Inputs: x, P.
#[derive(Clone, Debug)]
pub struct PositionEmbedding {
    bag: usize,
}

impl PositionEmbedding {
    /// To values with a row an id of list `bag`.
    pub fn new(bag: usize) -> PositionEmbedding {
        PositionEmbedding { bag }
    }
}

impl Op for PositionEmbedding {
    fn name(&self) -> &'static str {
        "position_embedding"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, p] if x.space == Space::Position(self.bag) && p.space == Space::Once && p.cols == x.cols => {
                Ok(*x)
            }
            _ => Err(format!("ids of list {} and as wide a matrix are needed, not {inputs:?}", self.bag)),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::same(output, reached),
            _ => reached.fill(true),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, p, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        for r in 0..tile.at.rows {
            for (place, at) in tile.at.positions_of(self.bag, r).enumerate() {
                let sum = x.row(at).iter().zip(p.row(place)).map(|(x, p)| x + p);
                y.row_mut(at).iter_mut().zip(sum).for_each(|(y, sum)| *y = sum);
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        if let Some(mut dp) = tile.take_gradient(1) {
            if !dp.accumulate {
                dp.to.fill(0.0);
            }
            for r in 0..tile.at.rows {
                for (place, at) in tile.at.positions_of(self.bag, r).enumerate() {
                    dp.to.row_mut(place).iter_mut().zip(dy.row(at)).for_each(|(to, d)| *to += d);
                }
            }
        }
        if let Some(mut dx) = tile.take_gradient(0) {
            for r in 0..dy.rows() {
                for (to, &d) in dx.to.row_mut(r).iter_mut().zip(dy.row(r)) {
                    *to = if dx.accumulate { *to + d } else { d };
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (mut y, p) = (inputs[0].clone(), &inputs[1]);
        for ends in batch.bags[self.bag].offsets.windows(2) {
            for (place, at) in (ends[0] as usize..ends[1] as usize).enumerate() {
                (0..y.cols).for_each(|c| y.set(at, c, inputs[0].at(at, c) + p.at(place, c)));
            }
        }
        y
    }
}

impl DeviceOp for PositionEmbedding {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn refuses(&self, inputs: &[Shape]) -> Option<String> {
        let (places, most) = (inputs[1].rows, cuda::MOST_PLACES);
        (places > most).then(|| format!("{places} places of a list, and its kernels take {most}"))
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let [places, cols] = [inputs[1].rows, inputs[1].cols].map(|count| count as u32);
        cuda::position_sums_scratch(capacity.rows as u32, places, cols)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let lists = step.lists(self.bag);
        step.launch(cuda::position_embedding(lists, step.input(0), step.input(1), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (lists, dy, scratch) = (step.lists(self.bag), step.output_gradient(), step.scratch());
        if let Some(dp) = step.take_gradient(1) {
            step.launch_all(cuda::position_sums(lists, dy, dp.accumulate, dp.to, scratch));
        }
        if let Some(dx) = step.take_gradient(0) {
            step.launch(elementwise::copy_columns(dy, dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize| {
        let case = Case::new(name, |g, x| g.add("op", PositionEmbedding::new(0), x));
        case.positions(0, cols).once(LONGEST, cols)
    };
    vec![case("position_embedding/one", 1), case("position_embedding/wide", 19)]
}
