//! Why a call is refused, in the driver's codes and in words.

use cudarc::driver::sys::CUresult;
use std::cell::Cell;
use std::ffi::{CStr, CString};

/// What a call comes to.
pub(crate) type Answer<T = ()> = Result<T, Refusal>;

/// A code of the driver, and what was wrong.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: CUresult,
    pub(crate) why: String,
}

/// The refusal of a call.
pub(crate) fn refuse<T>(code: CUresult, why: impl Into<String>) -> Answer<T> {
    Err(Refusal { code, why: why.into() })
}

/// Refuses a value.
pub(crate) fn invalid<T>(why: impl Into<String>) -> Answer<T> {
    refuse(CUresult::CUDA_ERROR_INVALID_VALUE, why)
}

thread_local! {
    /// What this thread's last refusal said, with the driver's own text before it.
    static LAST: Cell<Option<(CUresult, &'static CStr)>> = const { Cell::new(None) };
}

/// The code of what a call comes to.
pub(crate) fn answer(call: impl FnOnce() -> Answer) -> CUresult {
    match call() {
        Ok(()) => CUresult::CUDA_SUCCESS,
        Err(Refusal { code, why }) => {
            let text = format!("{}: {why}", plain_text(code).to_string_lossy()).replace('\0', " ");
            // The caller may keep what `text` gives, as a driver's texts are forever. Refusals are few.
            let text = CString::new(text).map_or(c"", |text| Box::leak(text.into_boxed_c_str()));
            LAST.set(Some((code, text)));
            code
        }
    }
}

/// What the driver says of a code, with what was wrong where this thread's last refusal had that code.
pub(crate) fn text(code: CUresult) -> &'static CStr {
    match LAST.get() {
        Some((last, text)) if last == code => text,
        _ => plain_text(code),
    }
}

macro_rules! codes {
    ($($code:ident $text:literal)*) => {
        /// Name of a code.
        pub(crate) fn name(code: CUresult) -> &'static CStr {
            match code {
                $(CUresult::$code => {
                    const NAME: &str = concat!(stringify!($code), "\0");
                    CStr::from_bytes_until_nul(NAME.as_bytes()).unwrap_or(c"")
                })*
                _ => c"CUDA_ERROR_UNKNOWN",
            }
        }

        /// A code from its number.
        pub(crate) fn code(number: u32) -> Option<CUresult> {
            [$(CUresult::$code),*].into_iter().find(|code| *code as u32 == number)
        }

        fn plain_text(code: CUresult) -> &'static CStr {
            match code {
                $(CUresult::$code => $text,)*
                _ => c"unknown error",
            }
        }
    };
}

codes! {
    CUDA_SUCCESS c"no error"
    CUDA_ERROR_INVALID_VALUE c"invalid argument"
    CUDA_ERROR_OUT_OF_MEMORY c"out of memory"
    CUDA_ERROR_NOT_INITIALIZED c"initialization error"
    CUDA_ERROR_NO_DEVICE c"no CUDA-capable device is detected"
    CUDA_ERROR_INVALID_DEVICE c"invalid device ordinal"
    CUDA_ERROR_INVALID_CONTEXT c"invalid device context"
    CUDA_ERROR_NO_BINARY_FOR_GPU c"no kernel image is available for execution on the device"
    CUDA_ERROR_INVALID_PTX c"a PTX JIT compilation failed"
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION c"the provided PTX was compiled with an unsupported toolchain."
    CUDA_ERROR_INVALID_HANDLE c"invalid resource handle"
    CUDA_ERROR_ILLEGAL_STATE c"the operation cannot be performed in the present state"
    CUDA_ERROR_NOT_FOUND c"named symbol not found"
    CUDA_ERROR_NOT_READY c"device not ready"
    CUDA_ERROR_ILLEGAL_ADDRESS c"an illegal memory access was encountered"
    CUDA_ERROR_LAUNCH_TIMEOUT c"the launch timed out and was terminated"
    CUDA_ERROR_MISALIGNED_ADDRESS c"misaligned address"
    CUDA_ERROR_LAUNCH_FAILED c"unspecified launch failure"
    CUDA_ERROR_NOT_SUPPORTED c"operation not supported"
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED c"operation not permitted when stream is capturing"
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED c"operation failed due to a previous error during capture"
    CUDA_ERROR_STREAM_CAPTURE_MERGE c"operation would result in a merge of separate capture sequences"
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED c"capture was not ended in the same stream as it began"
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED c"capturing stream has unjoined work"
    CUDA_ERROR_STREAM_CAPTURE_ISOLATION c"dependency created on uncaptured work in another stream"
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT c"operation would make the legacy stream depend on a capturing blocking stream"
    CUDA_ERROR_CAPTURED_EVENT c"operation not permitted on an event last recorded in a capturing stream"
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD c"attempt to terminate a thread-local capture sequence from another thread"
}
