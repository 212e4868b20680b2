//! Names and texts of codes.

use super::give;
use crate::refusal;
use cudarc::driver::sys::CUresult;
use std::ffi::{CStr, c_char, c_uint};

/// Gives a text about a code. Asking for one is no call that another text would be about, so it leaves no refusal.
///
/// # Safety
/// See `driver`.
unsafe fn tell(code: c_uint, to: *mut *const c_char, text: fn(CUresult) -> &'static CStr) -> CUresult {
    let Some(code) = refusal::code(code) else { return CUresult::CUDA_ERROR_INVALID_VALUE };
    // SAFETY: a place for a pointer.
    match unsafe { give(to, text(code).as_ptr()) } {
        Ok(()) => CUresult::CUDA_SUCCESS,
        Err(refusal) => refusal.code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorName(code: c_uint, name: *mut *const c_char) -> CUresult {
    // SAFETY: see `driver`.
    unsafe { tell(code, name, refusal::name) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGetErrorString(code: c_uint, text: *mut *const c_char) -> CUresult {
    // SAFETY: see `driver`.
    unsafe { tell(code, text, refusal::text) }
}
