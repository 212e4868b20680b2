//! Fitting, encoding, saving and configuration errors through the public interface.

mod config_errors;
mod encode;
mod only_in;
mod store;
mod support;
