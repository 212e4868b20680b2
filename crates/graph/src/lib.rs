//! The graph of fused operations, its static plan, and the step that runs it over lanes and tiles.
//!
//! A model is declared once as a [`Graph`], compiled to a [`Plan`], and run over a [`Workspace`]. See the
//! repository's `ARCHITECTURE.md` for the reasons.

pub mod check;
pub mod device;
mod draws;
mod fit;
pub mod gate_view;
pub mod graph;
pub mod growth;
pub mod op;
pub mod ops;
pub mod param;
pub mod plan;
pub mod reach;
mod results;
pub mod row_order;
pub mod run;
pub mod shape;
mod tile;
pub mod workspace;

pub use draws::Draws;
pub use gate_view::{GateView, GateWeights};
pub use graph::{Graph, LossId, LossPart, Mode, Over, Value};
pub use growth::{Added, Inheritance, Inherited};
pub use op::{LookupSource, Op, TableSource};
pub use param::{Block, Init, Layout, ParamSpec, Parameters, TableSpec, name_hash};
pub use plan::{Description, Plan, PlanOptions, Reached, SparseSource};
pub use row_order::{Arranged, RowOrder};
pub use run::Input;
pub use shape::{Shape, Space};
pub use workspace::{Prepared, Workspace};
