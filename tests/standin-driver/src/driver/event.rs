//! Events.

use super::give;
use crate::process::{on_current, on_handle};
use crate::refusal::{answer, refuse};
use crate::work::{Event, Marks};
use cudarc::driver::sys::{CUevent_flags, CUresult};
use std::ffi::c_uint;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventCreate(event: *mut usize, flags: c_uint) -> CUresult {
    answer(|| {
        let has_time = flags & CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint == 0;
        let made = on_current(|device| Ok(device.events.insert(Event::new(has_time))))?;
        // SAFETY: see `driver`.
        unsafe { give(event, made) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventDestroy_v2(event: usize) -> CUresult {
    answer(|| on_handle(event, |device| device.events.remove(event).map(drop)))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventRecord(event: usize, stream: usize) -> CUresult {
    answer(|| on_current(|device| device.record_event(event, stream)))
}

#[unsafe(no_mangle)]
extern "C" fn cuEventSynchronize(event: usize) -> CUresult {
    answer(|| {
        on_current(|device| {
            device.forbid_on_recorded(event, "waiting for an event that is recorded")?;
            device.forbid_while_recording("waiting for an event")?;
            match device.events.get(event)?.marks {
                Marks::Place(mark) => device.run_to(mark),
                _ => Ok(()),
            }
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuEventQuery(event: usize) -> CUresult {
    answer(|| {
        on_current(|device| {
            device.forbid_on_recorded(event, "looking at an event that is recorded")?;
            device.forbid_while_recording("looking at an event")?;
            match device.events.get(event)?.marks {
                Marks::Place(mark) if !device.is_reached(mark) => {
                    // Whoever asks until it is reached must come to an end.
                    device.run_to(mark)?;
                    refuse(CUresult::CUDA_ERROR_NOT_READY, "not reached yet, but when asked again")
                }
                _ => Ok(()),
            }
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, from: usize, to: usize) -> CUresult {
    answer(|| {
        let elapsed = on_current(|device| device.elapsed(from, to))?;
        // SAFETY: see `driver`.
        unsafe { give(milliseconds, elapsed) }
    })
}
