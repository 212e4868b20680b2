//! The driver, devices and contexts.

use super::give;
use crate::kernel::max_shared_of_block;
use crate::knobs::Knobs;
use crate::process::{self, context_of, on_current, on_device};
use crate::refusal::{Answer, answer, invalid};
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUresult};
use std::ffi::{c_char, c_int, c_uint};

const NAME: &[u8] = b"PTX interpreter (stand-in for a CUDA device)";

fn ordinal(device: c_int) -> Answer<usize> {
    let ordinal = usize::try_from(device).unwrap_or(usize::MAX);
    on_device(ordinal, |device| Ok(device.ordinal))
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> CUresult {
    answer(process::initialise)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> CUresult {
    let (major, minor) = Knobs::get().driver;
    // SAFETY: see `driver`.
    answer(|| unsafe { give(version, (major * 1000 + minor * 10) as c_int) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> CUresult {
    // SAFETY: see `driver`.
    answer(|| unsafe { give(count, process::device_count()? as c_int) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGet(device: *mut c_int, number: c_int) -> CUresult {
    // SAFETY: see `driver`.
    answer(|| unsafe { give(device, ordinal(number)? as c_int) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> CUresult {
    answer(|| {
        ordinal(device)?;
        let len = usize::try_from(len).unwrap_or(0);
        if name.is_null() || len == 0 {
            return invalid("no place for a name");
        }
        let count = NAME.len().min(len - 1);
        // SAFETY: `len` bytes are there, of which the last is for the zero.
        unsafe {
            name.copy_from_nonoverlapping(NAME.as_ptr().cast(), count);
            name.add(count).write(0);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> CUresult {
    answer(|| {
        ordinal(device)?;
        // SAFETY: see `driver`.
        unsafe { give(bytes, Knobs::get().memory as usize) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) -> CUresult {
    const MAX_THREADS: c_uint = Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK as c_uint;
    const SHARED: c_uint = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK as c_uint;
    const MAX_SHARED: c_uint = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as c_uint;
    const WARP: c_uint = Attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE as c_uint;
    const MULTIPROCESSORS: c_uint = Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as c_uint;
    const MAJOR: c_uint = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as c_uint;
    const MINOR: c_uint = Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as c_uint;
    const POOLS: c_uint = Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED as c_uint;
    answer(|| {
        let capability = on_device(ordinal(device)?, |device| Ok(device.capability))?;
        let number = match attribute {
            MAX_THREADS => 1024,
            SHARED => 48 << 10,
            MAX_SHARED => max_shared_of_block(capability) as c_int,
            WARP => 32,
            MULTIPROCESSORS => 4,
            MAJOR => capability.0 as c_int,
            MINOR => capability.1 as c_int,
            POOLS => c_int::from(Knobs::get().pools),
            _ => return invalid(format!("the stand-in does not know the device attribute {attribute}")),
        };
        // SAFETY: see `driver`.
        unsafe { give(value, number) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> CUresult {
    answer(|| {
        let ordinal = ordinal(device)?;
        on_device(ordinal, |device| {
            device.retain();
            Ok(())
        })?;
        // SAFETY: see `driver`.
        unsafe { give(context, context_of(ordinal)) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> CUresult {
    answer(|| on_device(ordinal(device)?, |device| device.release()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> CUresult {
    answer(|| process::set_current(context))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuCtxGetCurrent(context: *mut usize) -> CUresult {
    // SAFETY: see `driver`.
    answer(|| unsafe { give(context, process::current()) })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> CUresult {
    answer(|| {
        on_current(|device| {
            device.forbid_device_wait()?;
            device.run_all()
        })
    })
}
