//! The functions that programs find in the library, with the driver's own names and arguments.
//!
//! Handles are numbers here and pointers for programs, which do not look into them.
//!
//! # Safety
//! All of them trust the pointers that they are given, as a driver does: to a place for what they give back, or to as
//! many bytes as they are told. A null pointer is refused.
#![allow(non_snake_case)]

mod context;
mod error;
mod event;
mod extra;
mod graph;
mod memory;
mod module;
mod stream;

use crate::refusal::{Answer, invalid};
use std::ffi::{CStr, c_char};

/// Gives something back through a pointer.
///
/// # Safety
/// `to` is null, or a place for a `T`.
unsafe fn give<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return invalid("a null pointer");
    }
    // SAFETY: not null, so a place for a `T`.
    unsafe { to.write(value) };
    Ok(())
}

/// A text that a program hands over.
///
/// # Safety
/// `text` is null, or ends with a zero.
unsafe fn text<'a>(text: *const c_char) -> Answer<&'a str> {
    if text.is_null() {
        return invalid("a null pointer");
    }
    // SAFETY: not null, so it ends with a zero.
    match unsafe { CStr::from_ptr(text) }.to_str() {
        Ok(text) => Ok(text),
        Err(_) => invalid("a text that is no UTF-8"),
    }
}
