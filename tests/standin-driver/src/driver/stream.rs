//! Streams, and what they record.

use super::give;
use crate::capture::{Mode, exchange_mode};
use crate::process::{on_current, on_handle};
use crate::refusal::{Answer, answer, invalid, refuse};
use crate::work::{LEGACY, Stream};
use cudarc::driver::sys::{CUresult, CUstream_flags, CUstreamCaptureStatus};
use std::ffi::{c_int, c_uint};

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreate(stream: *mut usize, flags: c_uint) -> CUresult {
    answer(|| {
        let is_blocking = flags & CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint == 0;
        let made = on_current(|device| Ok(device.streams.insert(Stream::new(is_blocking))))?;
        // SAFETY: see `driver`.
        unsafe { give(stream, made) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut usize,
    flags: c_uint,
    _priority: c_int,
) -> CUresult {
    // SAFETY: see `driver`.
    unsafe { cuStreamCreate(stream, flags) }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: usize) -> CUresult {
    answer(|| {
        on_handle(stream, |device| {
            device.forbid_on_recording(stream, "destroying a stream that records")?;
            // What is on it still runs.
            device.run(stream)?;
            device.streams.remove(stream).map(drop)
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: usize) -> CUresult {
    answer(|| {
        on_current(|device| {
            if stream == LEGACY {
                device.forbid_legacy()?;
                return device.run_all();
            }
            device.forbid_on_recording(stream, "waiting for a stream that records")?;
            device.forbid_while_recording("waiting for a stream")?;
            device.run(stream)
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) -> CUresult {
    answer(|| on_current(|device| device.wait_event(stream, event)))
}

fn mode(number: c_uint) -> Answer<Mode> {
    match number {
        0 => Ok(Mode::Global),
        1 => Ok(Mode::ThreadLocal),
        2 => Ok(Mode::Relaxed),
        _ => invalid(format!("{number} is no mode of recording")),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: usize, number: c_uint) -> CUresult {
    answer(|| on_current(|device| device.begin_capture(stream, mode(number)?)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> CUresult {
    answer(|| {
        let recorded = on_current(|device| {
            if stream == LEGACY {
                return refuse(CUresult::CUDA_ERROR_ILLEGAL_STATE, "the legacy stream does not record");
            }
            device.end_capture(stream)
        })?;
        // SAFETY: see `driver`.
        unsafe { give(graph, recorded) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuStreamIsCapturing(stream: usize, status: *mut CUstreamCaptureStatus) -> CUresult {
    answer(|| {
        let now = match on_current(|device| device.capture_status(stream))? {
            None => CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE,
            Some(false) => CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE,
            Some(true) => CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED,
        };
        // SAFETY: see `driver`.
        unsafe { give(status, now) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuThreadExchangeStreamCaptureMode(number: *mut c_uint) -> CUresult {
    answer(|| {
        if number.is_null() {
            return invalid("a null pointer");
        }
        // SAFETY: not null, so a mode.
        let before = exchange_mode(mode(unsafe { number.read() })?);
        // SAFETY: as above.
        unsafe { give(number, before as c_uint) }
    })
}
