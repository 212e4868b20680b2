//! Reading, splitting and encoding files that the tests write themselves.

mod bytes;
mod errors;
mod many_files;
mod reader;
mod splits;
mod support;
