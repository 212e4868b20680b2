//! Work that was recorded once and runs as often as one likes.

use super::error::DeviceError;
use super::stream::Stream;
use cudarc::driver::CudaGraph;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use std::sync::{Arc, PoisonError};

/// Launches and copies, recorded as a CUDA graph. The host's part of a replay is one call, however many they are; what
/// differs from one to the next is read from device memory.
pub struct Recorded {
    graph: CudaGraph,
    stream: Stream,
    /// What a fault during a replay names.
    name: Arc<str>,
}

// SAFETY: a graph may be used from any thread, by one at a time: `Recorded` is not `Sync`, being made of raw pointers.
unsafe impl Send for Recorded {}

impl Recorded {
    pub(super) fn new(
        stream: &Stream,
        work: impl FnOnce(&Stream) -> Result<(), DeviceError>,
    ) -> Result<Recorded, DeviceError> {
        // Calls of other threads are theirs: one that allocates does not disturb what this one records.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let _recording = stream.device.gate.record();
        stream.device.check("begin a recording", stream.stream.begin_capture(mode))?;
        let open = Open(stream);
        work(stream)?;
        let graph = stream.device.check("end a recording", open.end())?;
        stream.device.check("make a recording ready", graph.upload())?;
        let last = stream.device.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Recorded {
            graph,
            stream: stream.clone(),
            name: format!("a recording that ends with {last}").into(),
        })
    }

    /// Puts everything that was recorded on the stream that recorded it; returns before it has run.
    ///
    /// # Safety
    /// What [`Stream::launch`] asks for holds for every launch and every copy that was recorded: their buffers are
    /// alive, and nothing else uses them at the same time. [`PinnedBuffer`](super::PinnedBuffer)s among them must stay
    /// alive and the host must not look at them until this replay is done.
    ///
    /// # Errors
    /// When an earlier kernel failed, or the driver refuses.
    pub unsafe fn launch(&self) -> Result<(), DeviceError> {
        self.stream.device.check("replay a recording", self.graph.launch())?;
        self.stream.device.set_last(&self.name);
        Ok(())
    }
}

/// A recording that has begun; it ends even when its work fails or panics.
struct Open<'a>(&'a Stream);

impl Open<'_> {
    fn end(self) -> Result<CudaGraph, DriverError> {
        let graph = self.finish();
        std::mem::forget(self);
        graph?.ok_or(DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED))
    }

    fn finish(&self) -> Result<Option<CudaGraph>, DriverError> {
        self.0.stream.end_capture(CUgraphInstantiate_flags(0))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // What was recorded is of no use, nor is what the driver says of it.
        let _ = self.finish();
    }
}
