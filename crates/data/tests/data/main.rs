//! Reading, splitting and encoding files that the tests write themselves.

mod bytes;
mod describe;
mod errors;
mod many_files;
mod reader;
mod splits;
mod support;
mod synth;
