//! Recordings that run again.

use super::give;
use crate::process::{on_current, on_handle};
use crate::refusal::answer;
use crate::work::Work;
use cudarc::driver::sys::CUresult;
use std::ffi::c_ulonglong;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut usize,
    graph: usize,
    _flags: c_ulonglong,
) -> CUresult {
    answer(|| {
        let made = on_current(|device| {
            let graph = device.graphs.get(graph)?.clone();
            Ok(device.executables.insert(graph))
        })?;
        // SAFETY: see `driver`.
        unsafe { give(executable, made) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: usize) -> CUresult {
    answer(|| on_handle(graph, |device| device.graphs.remove(graph).map(drop)))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: usize) -> CUresult {
    answer(|| on_handle(executable, |device| device.executables.remove(executable).map(drop)))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(executable: usize, stream: usize) -> CUresult {
    answer(|| {
        on_current(|device| {
            device.executables.get(executable)?;
            device.forbid_on_recording(stream, "preparing a recording on a stream that records")
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: usize, stream: usize) -> CUresult {
    answer(|| {
        on_current(|device| {
            let graph = device.executables.get(executable)?.clone();
            device.put(stream, Work::Replay(graph))
        })
    })
}
