//! The façade that other Rust programs depend on.
