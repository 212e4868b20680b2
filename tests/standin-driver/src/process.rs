//! The devices of this process, and each thread's current one.

use crate::device::Device;
use crate::knobs::Knobs;
use crate::refusal::{Answer, refuse};
use crate::table::{Kind, handle, ordinal_of};
use cudarc::driver::sys::CUresult;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

static INITIALISED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Handle of the current context; 0 for none.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

type Devices = Vec<Arc<Mutex<Device>>>;

fn devices() -> MutexGuard<'static, Devices> {
    static DEVICES: OnceLock<Mutex<Devices>> = OnceLock::new();
    let knobs = Knobs::get();
    let all = || (0..knobs.devices).map(|ordinal| new_device(ordinal, knobs.capability)).collect();
    let devices = DEVICES.get_or_init(|| Mutex::new(all()));
    devices.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_device(ordinal: usize, capability: (u32, u32)) -> Arc<Mutex<Device>> {
    Arc::new(Mutex::new(Device::new(ordinal, capability)))
}

/// Starts the driver.
pub(crate) fn initialise() -> Answer {
    if devices().is_empty() {
        return refuse(CUresult::CUDA_ERROR_NO_DEVICE, "MANYGATE_STANDIN_DEVICES=0");
    }
    INITIALISED.store(true, Ordering::Relaxed);
    Ok(())
}

/// How many devices there are, of a driver that was started.
pub(crate) fn device_count() -> Answer<usize> {
    if !INITIALISED.load(Ordering::Relaxed) {
        return refuse(CUresult::CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    }
    Ok(devices().len())
}

/// One device more, of a compute capability; gives its number.
pub(crate) fn add_device(capability: (u32, u32)) -> usize {
    let mut devices = devices();
    let ordinal = devices.len();
    devices.push(new_device(ordinal, capability));
    ordinal
}

/// Asks a device something.
pub(crate) fn on_device<T>(ordinal: usize, call: impl FnOnce(&mut Device) -> Answer<T>) -> Answer<T> {
    let count = device_count()?;
    let device = devices().get(ordinal).cloned();
    match device {
        Some(device) => call(&mut device.lock().unwrap_or_else(PoisonError::into_inner)),
        None => refuse(CUresult::CUDA_ERROR_INVALID_DEVICE, format!("device {ordinal} of {count}")),
    }
}

/// Asks the current device something, unless a kernel failed there.
pub(crate) fn on_current<T>(call: impl FnOnce(&mut Device) -> Answer<T>) -> Answer<T> {
    on_handle(CURRENT.get(), call)
}

/// Asks the device that a handle is of something, unless a kernel failed there.
pub(crate) fn on_handle<T>(handle: usize, call: impl FnOnce(&mut Device) -> Answer<T>) -> Answer<T> {
    let Some(ordinal) = ordinal_of(handle) else {
        let why =
            if handle == CURRENT.get() { "no context is current".into() } else { format!("{handle:#x}") };
        return refuse(CUresult::CUDA_ERROR_INVALID_CONTEXT, why);
    };
    on_device(ordinal, |device| {
        device.check_fault()?;
        call(device)
    })
}

/// The context of a device.
pub(crate) fn context_of(ordinal: usize) -> usize {
    handle(ordinal, Kind::Context, 1)
}

/// The context that is current for this thread; 0 for none.
pub(crate) fn current() -> usize {
    CURRENT.get()
}

/// Makes a context current for this thread; 0 for none.
pub(crate) fn set_current(context: usize) -> Answer {
    if context != 0 {
        let ordinal = ordinal_of(context).filter(|&ordinal| context == context_of(ordinal));
        let Some(ordinal) = ordinal else {
            return refuse(CUresult::CUDA_ERROR_INVALID_CONTEXT, format!("{context:#x} is no context"));
        };
        on_device(ordinal, |device| device.check_in_use())?;
    }
    CURRENT.set(context);
    Ok(())
}
