//! Fitting, encoding, saving and configuration errors through the public interface.

mod config_errors;
mod encode;
mod store;
mod support;
