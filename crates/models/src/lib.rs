//! Layers, architectures and their registry.

pub mod apg;
pub mod causalint;
pub mod cgc;
pub mod config;
pub mod dffm;
pub mod esmm;
pub mod hamur;
pub mod inputs;
pub mod layers;
pub mod m2m;
pub mod mmoe;
pub mod moe;
pub mod mtms;
pub mod ple;
pub mod registry;
pub mod shared_bottom;
pub mod single_scenario;
pub mod single_task;
pub mod star;
pub mod taxonomy;

pub use inputs::{BagField, Field, Inputs, Table, Task, TaskKind};
pub use registry::{Architecture, Entry, MODELS, build, find, from_table};
