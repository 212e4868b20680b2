//! Memory of devices and of the host, copies, and pools.

use super::give;
use crate::device::Pool;
use crate::process::{on_current, on_device};
use crate::refusal::{Answer, answer, invalid, refuse};
use crate::table::{Kind, handle, ordinal_of};
use crate::work::{LEGACY, Work};
use cudarc::driver::sys::{CUmemPool_attribute, CUresult};
use std::ffi::{c_int, c_uchar, c_uint, c_void};
use std::slice;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CUresult {
    answer(|| {
        let (free_bytes, total_bytes) = on_current(|device| Ok(device.free_and_total()))?;
        // SAFETY: see `driver`.
        unsafe {
            give(free, free_bytes as usize)?;
            give(total, total_bytes as usize)
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> CUresult {
    answer(|| {
        let allocated = on_current(|device| {
            device.forbid_while_recording("allocating memory")?;
            device.allocate(bytes, false)
        })?;
        // SAFETY: see `driver`.
        unsafe { give(address, allocated) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(address: u64) -> CUresult {
    answer(|| {
        on_current(|device| {
            device.forbid_while_recording("freeing memory")?;
            // The driver waits for the device.
            device.run_all()?;
            device.free(address)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: usize) -> CUresult {
    answer(|| {
        let allocated = on_current(|device| {
            // CUDA would record the allocation; its address would be good for nothing but the recording.
            if stream != LEGACY {
                device.forbid_on_recording(stream, "allocating on a stream that records")?;
            }
            device.allocate(bytes, true)
        })?;
        // SAFETY: see `driver`.
        unsafe { give(address, allocated) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeAsync(address: u64, stream: usize) -> CUresult {
    answer(|| {
        on_current(|device| {
            if stream == LEGACY {
                device.forbid_legacy()?;
            } else {
                device.forbid_on_recording(stream, "freeing on a stream that records")?;
                device.run(stream)?;
            }
            device.free(address)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, _flags: c_uint) -> CUresult {
    answer(|| {
        let allocated = on_current(|device| {
            device.forbid_while_recording("pinning memory")?;
            device.allocate_pinned(bytes)
        })?;
        // SAFETY: see `driver`.
        unsafe { give(address, std::ptr::with_exposed_provenance_mut(allocated)) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(address: *mut c_void) -> CUresult {
    answer(|| {
        on_current(|device| {
            device.forbid_while_recording("freeing pinned memory")?;
            device.run_all()?;
            device.free_pinned(address.addr())
        })
    })
}

/// Whether memory of the host may be read or written later than now.
fn is_pinned(host: *const c_void, len: usize, stream: usize) -> Answer<bool> {
    if host.is_null() {
        return invalid("a null pointer");
    }
    on_current(|device| {
        let is_pinned = device.is_pinned(host.addr(), len);
        if !is_pinned && stream != LEGACY {
            device.forbid_on_recording(stream, "a recorded copy of memory that is not pinned")?;
        }
        Ok(is_pinned)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const c_void,
    len: usize,
    stream: usize,
) -> CUresult {
    answer(|| {
        let work = if is_pinned(from, len, stream)? {
            Work::Upload { from: from.addr(), to, len }
        } else {
            // SAFETY: see `driver`.
            let bytes = unsafe { slice::from_raw_parts(from.cast::<u8>(), len) };
            Work::Store { bytes: bytes.into(), to }
        };
        on_current(|device| {
            device.check_range(to, len)?;
            device.put(stream, work)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, len: usize, stream: usize) -> CUresult {
    answer(|| {
        let is_pinned = is_pinned(to, len, stream)?;
        on_current(|device| {
            device.check_range(from, len)?;
            if is_pinned {
                return device.put(stream, Work::Download { from, to: to.addr(), len });
            }
            if stream == LEGACY {
                return refuse(
                    CUresult::CUDA_ERROR_NOT_SUPPORTED,
                    "the stand-in: a copy on the legacy stream",
                );
            }
            // The driver waits for the copy.
            device.run(stream)?;
            let Some(bytes) = device.memory.bytes(from, len) else { return invalid("memory that is freed") };
            // SAFETY: see `driver`.
            unsafe { slice::from_raw_parts_mut(to.cast::<u8>(), len) }.copy_from_slice(bytes);
            device.downloaded += len as u64;
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len: usize, stream: usize) -> CUresult {
    answer(|| {
        on_current(|device| {
            device.check_range(to, len)?;
            device.check_range(from, len)?;
            device.put(stream, Work::Copy { from, to, len })
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemsetD8Async(to: u64, byte: c_uchar, len: usize, stream: usize) -> CUresult {
    answer(|| {
        on_current(|device| {
            device.check_range(to, len)?;
            device.put(stream, Work::Fill { byte, to, len })
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut usize, device: c_int) -> CUresult {
    answer(|| {
        let ordinal = usize::try_from(device).unwrap_or(usize::MAX);
        on_device(ordinal, |_| Ok(()))?;
        // SAFETY: see `driver`.
        unsafe { give(pool, handle(ordinal, Kind::Pool, 1)) }
    })
}

const THRESHOLD: c_uint = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD as c_uint;
const RESERVED: c_uint = CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT as c_uint;
const USED: c_uint = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT as c_uint;

/// Asks a pool something.
fn on_pool<T>(pool: usize, call: impl FnOnce(&mut Pool) -> Answer<T>) -> Answer<T> {
    match ordinal_of(pool).filter(|&ordinal| pool == handle(ordinal, Kind::Pool, 1)) {
        Some(ordinal) => on_device(ordinal, |device| call(&mut device.pool)),
        None => invalid(format!("{pool:#x} is no pool")),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemPoolSetAttribute(pool: usize, attribute: c_uint, value: *const u64) -> CUresult {
    answer(|| {
        if value.is_null() || attribute != THRESHOLD {
            return invalid(format!(
                "the stand-in does not set the pool attribute {attribute}, or a null pointer"
            ));
        }
        // SAFETY: not null, so a value of the attribute.
        let threshold = unsafe { value.read() };
        on_pool(pool, |pool| {
            pool.threshold = threshold;
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemPoolGetAttribute(pool: usize, attribute: c_uint, value: *mut u64) -> CUresult {
    answer(|| {
        let number = on_pool(pool, |pool| match attribute {
            THRESHOLD => Ok(pool.threshold),
            RESERVED => Ok(pool.reserved),
            USED => Ok(pool.used),
            _ => invalid(format!("the stand-in does not know the pool attribute {attribute}")),
        })?;
        // SAFETY: see `driver`.
        unsafe { give(value, number) }
    })
}
