//! What no driver has: for tests.

use crate::process::{add_device, on_device};
use std::ffi::c_char;

/// Adds a device of a compute capability, with memory and faults of its own; gives its number.
#[unsafe(no_mangle)]
extern "C" fn manygate_standin_add_device(major: u32, minor: u32) -> usize {
    add_device((major, minor))
}

/// Sets the order of warps and streams of a device.
#[unsafe(no_mangle)]
extern "C" fn manygate_standin_set_seed(ordinal: usize, seed: u64) {
    // Before the driver starts there is no device to tell.
    let _ = on_device(ordinal, |device| {
        (device.seed, device.random) = (seed, seed);
        Ok(())
    });
}

/// Bytes that copies have brought from a device to the host.
#[unsafe(no_mangle)]
extern "C" fn manygate_standin_downloaded(ordinal: usize) -> u64 {
    on_device(ordinal, |device| Ok(device.downloaded)).unwrap_or_default()
}

/// Writes what a kernel did on a device into `len` bytes at `to`, cut where there are fewer; gives how many it would
/// be, 0 where no kernel failed.
///
/// # Safety
/// There are `len` bytes at `to`.
#[unsafe(no_mangle)]
unsafe extern "C" fn manygate_standin_last_fault(ordinal: usize, to: *mut c_char, len: usize) -> usize {
    let fault = on_device(ordinal, |device| Ok(device.fault().map(|fault| fault.why.clone())));
    let Ok(Some(why)) = fault else { return 0 };
    if !to.is_null() {
        // SAFETY: `len` bytes are there.
        unsafe { to.copy_from_nonoverlapping(why.as_ptr().cast(), why.len().min(len)) };
    }
    why.len()
}

/// Writes how much there is on a device: see `Live`.
///
/// # Safety
/// `live` is a place for the numbers.
#[unsafe(no_mangle)]
unsafe extern "C" fn manygate_standin_live(ordinal: usize, live: *mut [u64; 6]) {
    let counts = on_device(ordinal, |device| Ok(device.live())).unwrap_or_default();
    // SAFETY: a place for them.
    unsafe { live.write(counts) };
}
