//! Optimisers of dense parameters. They read the gradient of each lane of rows once and sum here, in lane order, so
//! that no summed gradient is written; [`sum_lanes`] is for those who have to look at it first.

mod adagrad;
mod adam;
mod descent;
mod gradient;

pub use adagrad::{AdagradStep, adagrad};
pub use adam::{AdamStep, adam};
pub use descent::{MomentumStep, SgdStep, momentum, sgd};
pub use gradient::{clamp, scale, sum_lanes, sum_squares};
