//! The driver's functions that have no safe form in cudarc: those about the library, devices, memory pools and modules.

use cudarc::driver::CudaContext;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    self, CUdevice_attribute, CUfunction_attribute, CUjit_option, CUstreamCaptureMode,
};
use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::Arc;

/// Whether the driver's library is there. Without it cudarc panics in whatever it is asked.
pub(super) fn is_present() -> bool {
    // SAFETY: opens the library and closes it again; loading NVIDIA's driver has no effect of its own.
    unsafe { sys::is_culib_present() }
}

/// The newest CUDA that the driver knows, as it counts: 12000 for 12.0.
pub(super) fn version() -> Result<c_int, DriverError> {
    let mut version = 0;
    // SAFETY: the library is there, which `Device::open` asks first, and `version` lives through the call.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

/// What the driver says of a device; a device need not be in use for that.
pub(super) fn attribute(device: sys::CUdevice, attribute: CUdevice_attribute) -> Result<u32, DriverError> {
    // SAFETY: `device` came from the driver.
    let value = unsafe { result::device::get_attribute(device, attribute) }?;
    Ok(u32::try_from(value).unwrap_or(0))
}

/// Bytes of a device's memory.
pub(super) fn total_memory(device: sys::CUdevice) -> Result<u64, DriverError> {
    // SAFETY: `device` came from the driver.
    unsafe { result::device::total_mem(device) }.map(|bytes| bytes as u64)
}

/// Uses a device: cudarc does not follow who uses which memory, and what is freed stays with this process, to be
/// allocated again.
pub(super) fn use_device(ordinal: usize) -> Result<Arc<CudaContext>, DriverError> {
    let context = CudaContext::new(ordinal)?;
    // SAFETY: no `CudaSlice` is made here; `memory.rs` waits for the device before it frees anything.
    unsafe { context.disable_event_tracking() };
    if context.has_async_alloc() {
        let mut threshold = u64::MAX;
        // SAFETY: the device has pools, and this attribute is a u64, which lives through the call.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device())?;
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast::<c_void>())?;
        }
    }
    Ok(context)
}

/// Bytes that are free on a device, and bytes of the device. What was freed and kept is free too.
pub(super) fn free_and_total(context: &CudaContext) -> Result<(u64, u64), DriverError> {
    let (free, total) = context.mem_get_info()?;
    let kept = if context.has_async_alloc() { kept(context)? } else { 0 };
    Ok((free as u64 + kept, total as u64))
}

/// Bytes that were freed and kept, to be allocated again.
fn kept(context: &CudaContext) -> Result<u64, DriverError> {
    let [mut reserved, mut used] = [0u64; 2];
    // SAFETY: the device has pools, and these attributes are u64, which live through the calls.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let reserved_now = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
        let used_now = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
        result::mem_pool::get_attribute(pool, reserved_now, (&raw mut reserved).cast::<c_void>())?;
        result::mem_pool::get_attribute(pool, used_now, (&raw mut used).cast::<c_void>())?;
    }
    Ok(reserved.saturating_sub(used))
}

/// PTX that the driver compiled for a device.
pub(super) struct Module {
    handle: sys::CUmodule,
    context: Arc<CudaContext>,
}

// SAFETY: a module is a handle of the driver, which may be used from any thread and from several at once.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// A kernel of a module.
pub(super) struct Function {
    handle: sys::CUfunction,
    /// The function lives as long as its module.
    _module: Arc<Module>,
}

// SAFETY: as for `Module`.
unsafe impl Send for Function {}
// SAFETY: as for `Module`.
unsafe impl Sync for Function {}

const MAX_DYNAMIC_SHARED: CUfunction_attribute =
    CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;

/// Bytes for what the driver's compiler says.
const LOG_BYTES: usize = 16 << 10;

impl Module {
    /// Compiles `ptx`. While a stream records, a module can be loaded all the same: loading is no part of a recording.
    ///
    /// # Errors
    /// What the driver says, and what its compiler says.
    pub(super) fn load(context: &Arc<CudaContext>, ptx: &str) -> Result<Module, (DriverError, String)> {
        let plain = |error: DriverError| (error, String::new());
        let Ok(image) = CString::new(ptx) else {
            return Err(plain(DriverError(sys::CUresult::CUDA_ERROR_INVALID_PTX)));
        };
        context.bind_to_thread().map_err(plain)?;
        let relaxed = Relaxed::begin().map_err(plain)?;
        let mut handle = ptr::null_mut();
        let mut log = vec![0u8; LOG_BYTES];
        let mut options =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // The driver takes a size as the pointer itself.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG_BYTES)];
        // SAFETY: the image ends with a zero, both options have their values, and all of it lives through the call.
        let loaded = unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            sys::cuModuleLoadDataEx(&mut handle, image.as_ptr().cast(), 2, options, values)
        };
        drop(relaxed);
        loaded.result().map_err(|error| {
            let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
            (error, String::from_utf8_lossy(text).trim().to_owned())
        })?;
        Ok(Module { handle, context: context.clone() })
    }

    /// The kernel `name`, and how many bytes of dynamic shared memory its launches may have without asking.
    pub(super) fn function(self: &Arc<Module>, name: &str) -> Result<(Function, u32), DriverError> {
        let name = CString::new(name).map_err(|_| DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND))?;
        self.context.bind_to_thread()?;
        let _relaxed = Relaxed::begin()?;
        // SAFETY: the module is loaded. Asking for an attribute makes the driver load the kernel now and not in the
        // midst of a recording.
        let (handle, shared) = unsafe {
            let handle = result::module::get_function(self.handle, name)?;
            (handle, result::function::get_function_attribute(handle, MAX_DYNAMIC_SHARED)?)
        };
        Ok((Function { handle, _module: self.clone() }, u32::try_from(shared).unwrap_or(0)))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: loaded in `load` and unloaded once; functions keep the module.
        self.context.record_err(unsafe { result::module::unload(self.handle) });
    }
}

impl Function {
    /// Lets launches have `bytes` of dynamic shared memory; above 48 KiB with what the kernel itself declares, that
    /// must be asked for.
    pub(super) fn allow_shared(&self, bytes: u32) -> Result<(), DriverError> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: the function is alive.
        unsafe { result::function::set_function_attribute(self.handle, MAX_DYNAMIC_SHARED, bytes) }
    }

    /// Launches with parameters at `parameters`.
    ///
    /// # Safety
    /// There are as many parameters as the kernel has, each as large as the kernel's, and what the kernel does with
    /// them is allowed, as [`Stream::launch`](super::Stream::launch) says.
    pub(super) unsafe fn launch(
        &self,
        stream: &cudarc::driver::CudaStream,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        parameters: &mut [*mut c_void],
    ) -> Result<(), DriverError> {
        let grid = (grid[0], grid[1], grid[2]);
        // SAFETY: the function and the stream are alive, the rest is the caller's promise. The driver copies the
        // parameters before it returns, and writes to none of them.
        unsafe {
            result::launch_kernel(self.handle, grid, (threads, 1, 1), shared, stream.cu_stream(), parameters)
        }
    }
}

/// While it lives, this thread may do what a recording forbids on streams that record, as it does it elsewhere.
struct Relaxed(CUstreamCaptureMode);

impl Relaxed {
    fn begin() -> Result<Relaxed, DriverError> {
        let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: exchanges a value of this thread with `mode`.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result()?;
        Ok(Relaxed(mode))
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: as in `begin`. It can fail only as every later call of this thread does.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.0) };
    }
}
