//! Memory of the device, and memory of the host that it copies to and from.

use super::Shared;
use super::driver::free_and_total;
use super::error::DeviceError;
use super::stream::Stream;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUevent_flags, CUresult};
use cudarc::driver::{CudaEvent, CudaStream};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A value that device memory holds: a number, of which any bits are one.
pub trait Value: Number + Copy + Send + Sync + 'static {}

use sealed::Number;
mod sealed {
    pub trait Number {}
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Number for $number {}
        impl Value for $number {})*
    };
}
numbers!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

/// Values in device memory. Kernels and copies write to it while it is borrowed; in what order they do is for streams
/// and events to say, not for the borrow checker.
///
/// Dropping it waits until the device is done with everything that was put on any stream, so that nothing can be using
/// it.
pub struct DeviceBuffer<T: Value> {
    device: Arc<Shared>,
    address: u64,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Value> DeviceBuffer<T> {
    pub(super) fn allocate(device: &Arc<Shared>, len: usize) -> Result<DeviceBuffer<T>, DeviceError> {
        let address = match len.checked_mul(size_of::<T>()) {
            // A buffer without values has an address of its own too, and the driver allocates no less than a byte.
            Some(bytes) => allocate(device, bytes.max(1)),
            None => Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)),
        };
        let wanted = (len as u64).saturating_mul(size_of::<T>() as u64);
        let address = address.map_err(|error| cannot_allocate(device, wanted, error))?;
        Ok(DeviceBuffer { device: device.clone(), address, len, values: PhantomData })
    }

    /// Address of the first value, a multiple of 256.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets values to 0, in the stream's order.
    ///
    /// # Errors
    /// When the range is not inside, a kernel failed, or the driver refuses.
    pub fn fill_zeros(&self, stream: &Stream, range: Range<usize>) -> Result<(), DeviceError> {
        let Some(at) = self.part(stream, range.start, range.len())? else { return Ok(()) };
        // SAFETY: the range is inside the buffer.
        let filled = unsafe {
            result::memset_d8_async(at, 0, range.len() * size_of::<T>(), stream.stream.cu_stream())
        };
        self.device.check("fill memory", filled)
    }

    /// Copies `values` to those from `at` on, in the stream's order, and waits for it.
    ///
    /// # Errors
    /// When the range is not inside, a kernel failed, the stream records, or the driver refuses.
    pub fn upload(&self, stream: &Stream, at: usize, values: &[T]) -> Result<(), DeviceError> {
        stream.check_runs("copy from memory that is not pinned")?;
        let Some(to) = self.part(stream, at, values.len())? else { return Ok(()) };
        // SAFETY: the range is inside the buffer, and `values` is borrowed until the copy is done.
        let copied = unsafe { result::memcpy_htod_async(to, values, stream.stream.cu_stream()) };
        self.device.check("copy to the device", copied.and_then(|()| stream.stream.synchronize()))
    }

    /// Copies the values from `from` on into `into`, in the stream's order, and waits for it.
    ///
    /// # Errors
    /// When the range is not inside, a kernel failed, the stream records, or the driver refuses.
    pub fn download(&self, stream: &Stream, from: usize, into: &mut [T]) -> Result<(), DeviceError> {
        stream.check_runs("copy to memory that is not pinned")?;
        let Some(from) = self.part(stream, from, into.len())? else { return Ok(()) };
        // SAFETY: the range is inside the buffer, `into` is borrowed until the copy is done, and any bits are a number.
        let copied = unsafe { result::memcpy_dtoh_async(into, from, stream.stream.cu_stream()) };
        self.device.check("copy from the device", copied.and_then(|()| stream.stream.synchronize()))
    }

    /// Puts a copy of a part of `from`, to the values from `at` on, on the stream; returns before it has run. The host
    /// gets to write to `from` when it has.
    ///
    /// # Errors
    /// When a range is not inside, a kernel failed, or the driver refuses.
    pub fn upload_pinned(
        &self,
        stream: &Stream,
        at: usize,
        from: &PinnedBuffer<T>,
        range: Range<usize>,
    ) -> Result<(), DeviceError> {
        let host = from.part(range.start, range.len())?;
        let Some(to) = self.part(stream, at, range.len())? else { return Ok(()) };
        from.copying(stream, |stream| {
            // SAFETY: both ranges are inside, and `from` gives nobody write access before the copy is done.
            unsafe {
                let values = slice::from_raw_parts(host.as_ptr(), range.len());
                result::memcpy_htod_async(to, values, stream.cu_stream())
            }
        })
    }

    /// Puts a copy of a range of values, to those of `into` from `at` on, on the stream; returns before it has run. The
    /// host gets to see `into` when it has.
    ///
    /// # Errors
    /// When a range is not inside, a kernel failed, or the driver refuses.
    pub fn download_pinned(
        &self,
        stream: &Stream,
        range: Range<usize>,
        into: &mut PinnedBuffer<T>,
        at: usize,
    ) -> Result<(), DeviceError> {
        let host = into.part(at, range.len())?;
        let Some(from) = self.part(stream, range.start, range.len())? else { return Ok(()) };
        into.copying(stream, |stream| {
            // SAFETY: both ranges are inside, and `into` gives nobody access before the copy is done.
            unsafe {
                let values = slice::from_raw_parts_mut(host.as_ptr(), range.len());
                result::memcpy_dtoh_async(values, from, stream.cu_stream())
            }
        })
    }

    /// Puts a copy of a range of `from`, to the values from `at` on, on the stream; returns before it has run. Within
    /// one buffer the ranges must not overlap, or what is there afterwards is not defined.
    ///
    /// # Errors
    /// When a range is not inside, a kernel failed, or the driver refuses.
    pub fn copy_from(
        &self,
        stream: &Stream,
        at: usize,
        from: &DeviceBuffer<T>,
        range: Range<usize>,
    ) -> Result<(), DeviceError> {
        let (to, from) = (self.part(stream, at, range.len())?, from.part(stream, range.start, range.len())?);
        let (Some(to), Some(from)) = (to, from) else { return Ok(()) };
        // SAFETY: both ranges are inside their buffers.
        let copied = unsafe {
            result::memcpy_dtod_async(to, from, range.len() * size_of::<T>(), stream.stream.cu_stream())
        };
        self.device.check("copy on the device", copied)
    }

    /// Address of `len` values from `from` on, for the stream to use; [`None`] of no values.
    fn part(&self, stream: &Stream, from: usize, len: usize) -> Result<Option<u64>, DeviceError> {
        if !Arc::ptr_eq(&self.device, &stream.device) {
            return Err(DeviceError::OtherDevice);
        }
        check_inside(from, len, self.len)?;
        self.device.check("use the device", self.device.context.bind_to_thread())?;
        Ok((len > 0).then_some(self.address + (from * size_of::<T>()) as u64))
    }
}

impl<T: Value> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        let Shared { context, memory, .. } = &*self.device;
        // Where this fails a kernel did, and the next call says so.
        context.record_err(self.device.wait());
        // SAFETY: allocated in `allocate` in the same way, and nothing that was put on a stream uses it any more.
        context.record_err(unsafe {
            if context.has_async_alloc() {
                result::free_async(self.address, memory.cu_stream())
            } else {
                result::free_sync(self.address)
            }
        });
    }
}

fn allocate(device: &Shared, bytes: usize) -> Result<u64, DriverError> {
    let Shared { context, memory, .. } = device;
    context.bind_to_thread()?;
    if !context.has_async_alloc() {
        // SAFETY: plain allocation; `DeviceBuffer` frees it.
        return unsafe { result::malloc_sync(bytes) };
    }
    // SAFETY: as above, on a stream that is alive.
    let address = unsafe { result::malloc_async(memory.cu_stream(), bytes) }?;
    // Other streams may use it once its own has come to it.
    memory.synchronize()?;
    Ok(address)
}

fn cannot_allocate(device: &Shared, wanted: u64, error: DriverError) -> DeviceError {
    match (error.0, free_and_total(&device.context)) {
        (CUresult::CUDA_ERROR_OUT_OF_MEMORY, Ok((free, total))) => {
            DeviceError::OutOfMemory { wanted, free, total }
        }
        _ => device.error("allocate memory", error),
    }
}

fn check_inside(from: usize, count: usize, len: usize) -> Result<(), DeviceError> {
    let to = from.saturating_add(count);
    if to <= len { Ok(()) } else { Err(DeviceError::OutOfBounds { from, to, len }) }
}

/// Values in the host's memory that the device reads and writes by itself, at the full speed of the bus and while the
/// host does something else. Reading them is as fast as of any memory.
///
/// The host gets to see or change them only when copies that were put on streams are done, and dropping it waits for
/// the device.
pub struct PinnedBuffer<T: Value> {
    device: Arc<Shared>,
    values: NonNull<T>,
    len: usize,
    /// Marks the last copy. Copies of several streams wait for each other.
    copied: Mutex<CudaEvent>,
}

// SAFETY: it owns its memory, as a `Vec<T>` does, and copies that others put on streams are waited for.
unsafe impl<T: Value> Send for PinnedBuffer<T> {}
// SAFETY: as above.
unsafe impl<T: Value> Sync for PinnedBuffer<T> {}

impl<T: Value> PinnedBuffer<T> {
    pub(super) fn allocate(device: &Arc<Shared>, len: usize) -> Result<PinnedBuffer<T>, DeviceError> {
        let wanted = (len as u64).saturating_mul(size_of::<T>() as u64);
        let cannot = |error: DriverError| {
            device.fault(error).unwrap_or_else(|| DeviceError::OutOfPinned { wanted, error: error.into() })
        };
        let copied =
            device.context.new_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING)).map_err(cannot)?;
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
        let out_of_memory = DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let bytes = bytes.ok_or(out_of_memory).map_err(cannot)?.max(1);
        // SAFETY: plain allocation, without flags: cached, unlike what is only for writing. `drop` frees it.
        let memory = unsafe { result::malloc_host(bytes, 0) }.map_err(cannot)?;
        let values = NonNull::new(memory.cast::<T>()).ok_or(out_of_memory).map_err(cannot)?;
        // SAFETY: `bytes` bytes are there, aligned to a page, and zeros are a number.
        unsafe { values.cast::<u8>().write_bytes(0, bytes) };
        Ok(PinnedBuffer { device: device.clone(), values, len, copied: Mutex::new(copied) })
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, when copies are done.
    ///
    /// # Errors
    /// When a kernel failed.
    pub fn as_slice(&self) -> Result<&[T], DeviceError> {
        self.wait()?;
        // SAFETY: `len` numbers, set at the start; who writes to them has them borrowed exclusively, to copy or to
        // change them, and was waited for.
        Ok(unsafe { slice::from_raw_parts(self.values.as_ptr(), self.len) })
    }

    /// The values, to change them, when copies are done.
    ///
    /// # Errors
    /// When a kernel failed.
    pub fn as_mut_slice(&mut self) -> Result<&mut [T], DeviceError> {
        self.wait()?;
        // SAFETY: as above, borrowed exclusively.
        Ok(unsafe { slice::from_raw_parts_mut(self.values.as_ptr(), self.len) })
    }

    fn wait(&self) -> Result<(), DeviceError> {
        self.device.check("wait for a copy", self.copied().synchronize())
    }

    fn copied(&self) -> MutexGuard<'_, CudaEvent> {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, from: usize, len: usize) -> Result<NonNull<T>, DeviceError> {
        check_inside(from, len, self.len)?;
        // SAFETY: inside of the allocation, or right behind it.
        Ok(unsafe { self.values.add(from) })
    }

    /// Puts a copy on a stream, behind those before, and marks it. What a recording copies is left to who replays it.
    fn copying(
        &self,
        stream: &Stream,
        copy: impl FnOnce(&CudaStream) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        if stream.is_recording()? {
            return self.device.check("record a copy", copy(&stream.stream));
        }
        let (copied, stream) = (self.copied(), &*stream.stream);
        let result = stream.wait(&copied).and_then(|()| copy(stream));
        // Where the copy cannot be marked it is waited for: the host must not come in between.
        let result = result.and_then(|()| copied.record(stream).or_else(|_| stream.synchronize()));
        self.device.check("copy pinned memory", result)
    }
}

impl<T: Value> Drop for PinnedBuffer<T> {
    fn drop(&mut self) {
        let context = &self.device.context;
        // Where this fails a kernel did, and the next call says so.
        context.record_err(self.device.wait());
        // SAFETY: allocated in `allocate`, and no copy uses it any more.
        context.record_err(unsafe { result::free_host(self.values.as_ptr().cast()) });
    }
}
