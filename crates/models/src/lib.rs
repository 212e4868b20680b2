//! Layers, architectures and their registry.

pub mod adaptdhm;
pub mod adasparse;
pub mod aitm;
pub mod causalint;
pub mod cgc;
pub mod config;
pub mod cross_stitch;
pub mod dcn;
pub mod dcn_v2;
pub mod deepfm;
pub mod dffm;
pub mod epnet_dcn;
pub mod escm2;
pub mod esmm;
pub mod hinet;
pub mod inputs;
pub mod interactions;
pub mod layers;
pub mod lhuc;
pub mod m2m;
pub mod m3oe;
pub mod mmoe;
pub mod moe;
pub mod mtms;
pub mod pepnet;
pub mod ple;
pub mod registry;
pub mod shared_bottom;
pub mod single_task;
pub mod star;
pub mod stem;
pub mod taml;
pub mod taxonomy;

pub use inputs::{BagField, Field, Inputs, Table, Task, TaskKind};
pub use registry::{Architecture, Entry, MODELS, build, find, from_table};
