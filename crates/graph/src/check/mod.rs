//! How to test an op: forward against its reference, backward against finite differences, on every path of a plan.
//!
//! A [`Case`] is an op with the shapes of its inputs. [`check`] builds graphs around it and compares the output with
//! [`Op::reference`](crate::Op::reference), and each gradient with central differences of the reference in f64, for the
//! loss `Σ w · y` with fixed random w (or the op's own, if it is a loss):
//!
//! - 1, 2, 7 and 130 rows; whole tiles and tiles of five rows; one lane and several;
//! - inputs whose gradient it overwrites, and inputs whose gradient another op has begun or goes on with;
//! - inputs that end in an activation, whose slope it multiplies by in passing where it says that it can;
//! - an output whose slope the op above multiplies by;
//! - inputs that are columns of a wider value;
//! - each input as the only one that wants a gradient;
//! - memory that holds NaN wherever nothing was written, and a second run that must give the same bits;
//! - an evaluation plan.
//!
//! A channel of an input that moves one of the output must be in [`Op::reach`](crate::Op::reach).
//!
//! [`check_on_device`] leads an op along the same paths as launches on a device, where it has them. [`check_plan`] does
//! the same as [`check`] for a whole model.
//!
//! A gradient that the op drops, or an input that it reads backward without having saved it, stops the plan itself.
//!
//! ```
//! use manygate_graph::check::{Case, check};
//! use manygate_graph::ops::Linear;
//! use manygate_kernels::{Isa, activation::Activation};
//!
//! let case = Case::new("five units with tanh", |g, x| g.add("op", Linear::new(5, true, Activation::Tanh), x))
//!     .rows(3) // x [batch, 3]
//!     .once(5, 3) // W
//!     .once(5, 1); // b
//! check(&case, &Isa::available()).unwrap();
//! ```

mod expected;
mod found;
mod helpers;
mod on_cpu;
mod on_device;
mod plan;
mod reach;
mod setting;

pub use on_device::{CheckedOnDevice, DeviceRunner, check_on_device};
pub use plan::{PlanReference, check_plan};

use crate::graph::{Graph, Value};
use crate::plan::op_of;
use manygate_core::Result;
use manygate_kernels::Isa;
use std::fmt;

/// Numbers of rows that a case is checked with.
pub const ROWS: [usize; 4] = [1, 2, 7, 130];

/// The one at which [`Op::reach`](crate::Op::reach) is checked: a few rows of every scenario.
const ROWS_OF_REACH: usize = ROWS[2];

/// Most ids a sample of a list.
pub const LONGEST: usize = 4;

type Declare = Box<dyn Fn(&mut Graph, &[Value]) -> Result<Value> + Send + Sync>;

/// An op and its inputs.
pub struct Case {
    name: String,
    inputs: Vec<InputSpec>,
    declare: Declare,
}

/// An input of a case.
#[derive(Clone, Copy, Debug)]
struct InputSpec {
    /// Rows of a matrix that exists once; [`None`] for one row a sample or an id.
    once: Option<usize>,
    /// The list with whose ids it has rows.
    bag: Option<usize>,
    cols: usize,
    range: (f32, f32),
}

impl Case {
    /// A case in which `declare` adds the op to a graph, given the values of the inputs, and returns its output. It also
    /// declares the tables and the loss part that the op names; columns of the batch are made up from what the op says
    /// that it reads.
    pub fn new(
        name: impl Into<String>,
        declare: impl Fn(&mut Graph, &[Value]) -> Result<Value> + Send + Sync + 'static,
    ) -> Case {
        Case { name: name.into(), inputs: Vec::new(), declare: Box::new(declare) }
    }

    /// The next input is `[batch, cols]`.
    pub fn rows(mut self, cols: usize) -> Case {
        self.inputs.push(InputSpec { once: None, bag: None, cols, range: (-1.0, 1.0) });
        self
    }

    /// The next input is a matrix `[rows, cols]` that exists once.
    pub fn once(mut self, rows: usize, cols: usize) -> Case {
        self.inputs.push(InputSpec { once: Some(rows), bag: None, cols, range: (-1.0, 1.0) });
        self
    }

    /// The next input is `[ids of list bag, cols]`. A sample has at most [`LONGEST`] ids.
    pub fn positions(mut self, bag: usize, cols: usize) -> Case {
        self.inputs.push(InputSpec { once: None, bag: Some(bag), cols, range: (-1.0, 1.0) });
        self
    }

    /// Values of the last input lie between `from` and `to`, instead of -1 and 1.
    pub fn between(mut self, from: f32, to: f32) -> Case {
        if let Some(last) = self.inputs.last_mut() {
            last.range = (from, to);
        }
        self
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its op; [`None`] where it cannot be declared.
    pub fn op_name(&self) -> Option<&'static str> {
        self.on_device().map(|(op, _)| op)
    }

    /// The name of its op, and whether a CUDA device can run it; [`None`] where it cannot be declared.
    pub(crate) fn on_device(&self) -> Option<(&'static str, bool)> {
        let (graph, output) = expected::alone(self).ok()?;
        let (op, _) = op_of(&graph, graph.root(output).0.index());
        Some((op.name(), op.on_device().is_some()))
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

fn declare_sequences(g: &mut Graph, inputs: &[InputSpec]) -> Result<()> {
    inputs.iter().filter_map(|input| input.bag).try_for_each(|bag| g.sequence(bag, LONGEST))
}

/// Checks a case on these instruction sets.
///
/// # Errors
/// A message with the first value that is wrong: instruction set, setting, tensor, index, both values.
///
/// # Panics
/// When the op drops a gradient or reads what it did not save.
pub fn check(case: &Case, isas: &[Isa]) -> std::result::Result<(), String> {
    let told = |what: &dyn fmt::Display, message: String| format!("{}, {what}: {message}", case.name);
    for rows in ROWS {
        for activated in [false, true] {
            // What is expected takes most of the time, and depends on no instruction set.
            let data = expected::Data::new(case, rows, activated, true, false).map_err(|m| told(&rows, m))?;
            if rows == ROWS_OF_REACH {
                reach::check(case, &data).map_err(|m| told(&"reach", m))?;
            }
            for &isa in isas {
                for setting in setting::settings(case, &data, isa, activated) {
                    on_cpu::run(case, &data, &setting).map_err(|m| told(&format!("{isa}, {setting}"), m))?;
                }
            }
        }
    }
    Ok(())
}
