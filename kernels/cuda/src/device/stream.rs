//! Streams of work, and events that order them.

use super::error::DeviceError;
use super::{Recorded, Shared};
use crate::Launch;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::{CUevent_flags, CUstreamCaptureStatus};
use cudarc::driver::{CudaEvent, CudaStream};
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

/// Work in order, beside that of other streams. A clone is the same stream.
#[derive(Clone)]
pub struct Stream {
    pub(super) device: Arc<Shared>,
    pub(super) stream: Arc<CudaStream>,
}

impl Stream {
    pub(super) fn new(device: Arc<Shared>, stream: Arc<CudaStream>) -> Stream {
        Stream { device, stream }
    }

    /// Puts a launch on the stream; returns before it has run. The first launch of a family loads its kernels. While
    /// the stream records, the launch is recorded and does not run.
    ///
    /// # Safety
    /// - Every address among the arguments that the kernel reads or writes through is of a [`DeviceBuffer`] of this
    ///   device that is alive now, with room for all that the kernel reads and writes there. The buffer may be dropped
    ///   after this returns: that waits for the device.
    /// - Until the launch is done, nothing on another stream reads or writes what the kernel writes, or writes what it
    ///   reads, unless events put them in an order.
    ///
    /// For a launch that is recorded these are promises about each [`Recorded::launch`].
    ///
    /// [`DeviceBuffer`]: super::DeviceBuffer
    ///
    /// # Errors
    /// When the kernels do not load, the arguments do not fit the kernel's parameters, or the driver refuses; also when
    /// an earlier kernel failed. What this launch does wrong shows when the host waits for it.
    pub unsafe fn launch(&self, launch: &Launch) -> Result<(), DeviceError> {
        let launch = self.device.own(launch);
        let Launch { mut grid, threads, shared, in_turns, .. } = *launch;
        if grid.contains(&0) {
            return Ok(());
        }
        if in_turns {
            grid[0] = grid[0].min(self.device.description.multiprocessors);
        }
        self.device.check("use the device", self.device.context.bind_to_thread())?;
        let kernel = self.device.families.kernel(&self.device, launch)?;
        kernel.check_arguments(launch)?;
        let bytes = launch.arguments.bytes();
        let parameter = |(offset, _): &(usize, usize)| bytes[*offset..].as_ptr().cast_mut().cast::<c_void>();
        let mut parameters: Vec<_> = launch.arguments.places().iter().map(parameter).collect();
        let refused = |error: DriverError| {
            let kernel = kernel.name.to_string();
            let refused = || DeviceError::Launch { kernel, grid, threads, shared, error: error.into() };
            self.device.fault(error).unwrap_or_else(refused)
        };
        kernel.allow_shared(shared).map_err(refused)?;
        // SAFETY: number and sizes of the parameters were compared with the kernel's; addresses among them are the
        // caller's promise.
        let launched =
            unsafe { kernel.function.launch(&self.stream, grid, threads, shared, &mut parameters) };
        launched.map_err(refused)?;
        self.device.set_last(&kernel.name);
        Ok(())
    }

    /// Records what `work` puts on this stream, in place of running it.
    ///
    /// `work` may launch, copy between buffers and pinned memory, and order other streams by events, as long as they
    /// come together on this stream at its end. It cannot wait for the device, allocate, or drop what is allocated;
    /// other threads can, and those that wait for the device, as dropping memory does, wait until it is recorded.
    ///
    /// # Errors
    /// What `work` returns, or what the driver says of what `work` did.
    pub fn record(
        &self,
        work: impl FnOnce(&Stream) -> Result<(), DeviceError>,
    ) -> Result<Recorded, DeviceError> {
        Recorded::new(self, work)
    }

    /// Lets what is put on this stream from now on wait for what `event` marks.
    ///
    /// # Errors
    /// When a kernel failed, or the driver refuses.
    pub fn wait(&self, event: &Event) -> Result<(), DeviceError> {
        self.device.check("let a stream wait for an event", self.stream.wait(&event.event))
    }

    /// Waits until everything on the stream is done.
    ///
    /// # Errors
    /// When a kernel failed, or the stream records.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.check_runs("be waited for")?;
        self.device.check("wait for a stream", self.stream.synchronize())
    }

    /// Whether what is put on the stream is recorded and does not run.
    pub(super) fn is_recording(&self) -> Result<bool, DeviceError> {
        let status = self.device.check("ask a stream what it does", self.stream.capture_status())?;
        Ok(status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// Refuses what cannot be recorded.
    pub(super) fn check_runs(&self, what: &'static str) -> Result<(), DeviceError> {
        if self.is_recording()? { Err(DeviceError::WhileRecording(what)) } else { Ok(()) }
    }
}

/// A point in the work of a stream, for others to wait for.
pub struct Event {
    device: Arc<Shared>,
    event: CudaEvent,
}

impl Event {
    pub(super) fn new(device: Arc<Shared>) -> Result<Event, DeviceError> {
        let event = device.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        Ok(Event { event: device.check("make an event", event)?, device })
    }

    /// Marks what is on `stream` by now, in place of what the event marked before. Who waits already waits for that
    /// still.
    ///
    /// # Errors
    /// When a kernel failed, or the stream is another device's.
    pub fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        self.device.check("record an event", self.event.record(&stream.stream))
    }

    /// Waits until what the event marks is done; at once where it marks nothing yet.
    ///
    /// # Errors
    /// When a kernel failed, or what it marks is part of a recording.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.device.check("wait for an event", self.event.synchronize())
    }

    /// Whether what the event marks is done.
    ///
    /// # Errors
    /// When a kernel failed, or what it marks is part of a recording.
    pub fn is_done(&self) -> Result<bool, DeviceError> {
        let done = self.device.context.bind_to_thread().and_then(|()| self.event.try_is_complete());
        self.device.check("ask for an event", done)
    }

    /// The device's time from `earlier` to this event. Waits for both.
    ///
    /// # Errors
    /// When a kernel failed, or one of them marks nothing.
    pub fn since(&self, earlier: &Event) -> Result<Duration, DeviceError> {
        let milliseconds = self.device.check("measure time", earlier.event.elapsed_ms(&self.event))?;
        Ok(Duration::try_from_secs_f64(f64::from(milliseconds) / 1e3).unwrap_or_default())
    }
}
