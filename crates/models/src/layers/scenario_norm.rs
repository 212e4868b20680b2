//! Statistics of a sample's scenario: means and variances over its rows in the batch, in evaluation their moving
//! averages, which are state: `P.mean` and `P.var`, both `[scenarios, width]`.

use manygate_core::{Error, Result};
use manygate_graph::ops::{BatchMoments, Running};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use serde::{Deserialize, Serialize};

/// Which variance the moving average takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// That of the rows.
    Biased,
    /// That of the population.
    Unbiased,
}

/// How statistics move.
#[derive(Clone, Copy, Debug)]
pub struct Moving {
    /// Weight of the new value.
    pub momentum: f64,
    /// What the average of variances takes in.
    pub variance: Variance,
}

/// That ε and the momentum, `model.epsilon` and `model.momentum`, are such that a scenario of one row can be normalised.
///
/// # Errors
/// [`Error::Config`] where they are not.
pub fn check(epsilon: f64, momentum: f64) -> Result<()> {
    let wrong = |key: &str, message: String| Err(Error::config(format!("model.{key}"), message));
    if !(epsilon.is_finite() && epsilon > 0.0) {
        return wrong("epsilon", format!("{epsilon} is not above 0: one row has no variance"));
    }
    if !(0.0..=1.0).contains(&momentum) {
        return wrong("momentum", format!("{momentum} is no weight of a new value; give one in [0, 1]"));
    }
    Ok(())
}

/// The moments of `x` that [`Normalise`](manygate_graph::ops::Normalise) by scenario reads: `[2 · scenarios, width]`.
///
/// # Errors
/// When a name is taken.
pub fn moments(g: &mut Graph, prefix: &str, scenarios: usize, x: Value, moving: Moving) -> Result<Value> {
    let width = g.cols(x);
    let own = |name: &str, start| {
        Block::weight(format!("{prefix}.{name}"), scenarios, width, Init::Constant(start))
    };
    let (running, state) = g.state(ParamSpec::new(vec![own("mean", 0.0), own("var", 1.0)])?)?;
    if !g.is_training() {
        return Ok(running);
    }
    let unbiased = moving.variance == Variance::Unbiased;
    let running = Running { state, momentum: moving.momentum as f32, unbiased };
    g.add(format!("{prefix}.moments"), BatchMoments::new(Some(running)).by_scenario(scenarios), &[x])
}
