//! Graphs of one's own: values, ops, plans, and the check that an op must pass.
//!
//! An op is a type with a forward pass, a backward pass and, beside them, the same function in plain f64, which
//! [`check`](mod@check) compares both with, on every path that a plan can take through an op. Everything here is safe to
//! call with anything; what does not fit is an error where a graph is built or run, and a panic with its name where the
//! code of an op breaks what it said of itself.
//!
//! An op that the engine does not have:
//!
//! ```
//! use manygate::Batch;
//! use manygate::graph::check::{Case, check};
//! use manygate::graph::op::{Backward, Forward, Matrix, Saved};
//! use manygate::graph::{Isa, Op, Shape, Space};
//!
//! /// y = x · σ(x), element by element.
//! #[derive(Debug)]
//! struct Swish;
//!
//! fn sigmoid(x: f32) -> f32 {
//!     1.0 / (1.0 + (-x).exp())
//! }
//!
//! impl Op for Swish {
//!     fn name(&self) -> &'static str {
//!         "swish"
//!     }
//!     fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
//!         match inputs {
//!             [x] if x.space == Space::Batch => Ok(*x),
//!             _ => Err(format!("one input with a row a sample is needed, not {inputs:?}")),
//!         }
//!     }
//!     /// The backward pass reads x again.
//!     fn saved(&self) -> Saved {
//!         Saved { inputs: 0b1, output: false }
//!     }
//!     fn forward(&self, tile: &mut Forward<'_>) {
//!         let (x, mut y) = (tile.input(0), tile.take_output());
//!         for r in 0..x.rows() {
//!             for (y, &x) in y.row_mut(r).iter_mut().zip(x.row(r)) {
//!                 *y = x * sigmoid(x);
//!             }
//!         }
//!     }
//!     /// dx = dy · (σ + x σ (1 − σ))
//!     fn backward(&self, tile: &mut Backward<'_>) {
//!         let (x, dy) = (tile.input(0), tile.take_output_gradient());
//!         let Some(mut dx) = tile.take_gradient(0) else { return };
//!         for r in 0..x.rows() {
//!             dx.put(r, x.row(r).iter().zip(dy.row(r)).map(|(&x, &dy)| {
//!                 let s = sigmoid(x);
//!                 dy * (s + x * s * (1.0 - s))
//!             }));
//!         }
//!     }
//!     fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
//!         let mut y = inputs[0].clone();
//!         y.data.iter_mut().for_each(|v| *v /= 1.0 + (-*v).exp());
//!         y
//!     }
//! }
//!
//! let case = Case::new("swish", |g, x| g.add("op", Swish, x)).rows(5).between(-4.0, 4.0);
//! check(&case, &[Isa::best()])?;
//! # Ok::<(), String>(())
//! ```
//!
//! and a graph, compiled and run by hand ([`models`](crate::models) has the way by an architecture, which a trainer
//! takes):
//!
//! ```
//! use manygate::graph::ops::{Linear, LookupTrunk, Piece};
//! use manygate::graph::{Activation, Block, Draws, Graph, Init, Input, Mode, ParamSpec, Parameters};
//! use manygate::graph::{Plan, PlanOptions, Rows, Workspace};
//! use manygate::{Batch, Serial};
//!
//! let mut g = Graph::new(Mode::Evaluation);
//! let x = g.add("numbers", LookupTrunk::new(vec![Piece::Dense { width: 2 }]), &[])?;
//! let w = g.param(ParamSpec::new(vec![Block::weight("w", 1, 2, Init::Constant(1.0))])?)?;
//! let y = g.add("sum", Linear::new(1, false, Activation::Relu), &[x, w])?;
//! g.output("y", y);
//!
//! let plan = Plan::compile(g, PlanOptions::default())?;
//! let [params, state] = [plan.layout(), plan.state_layout()].map(|l| Parameters::initial(l.clone(), 1));
//! let batch = Batch { rows: 2, dense: vec![1.0, 2.0, -3.0, 1.0], dense_width: 2, ..Batch::default() };
//! let tables: Vec<Rows<'_>> = Vec::new();
//! let mut memory = Workspace::new(&plan, 1, 2);
//! plan.pack(&Serial, &mut memory, &params);
//! let draws = Draws::default();
//! let input = Input { params: &params, state: &state, tables: &tables, batch: &batch, seeds: &[], draws };
//! plan.run(&Serial, &mut memory, &input)?;
//! assert_eq!([0, 1].map(|r| plan.output(&memory, "y").unwrap().row(r)[0]), [3.0, 0.0]);
//! # Ok::<(), manygate::Error>(())
//! ```

pub use manygate_graph::*;
pub use manygate_kernels::activation::Activation;
pub use manygate_kernels::embedding::{Pooling, Rows};
pub use manygate_kernels::{Isa, Mat, MatMut};
