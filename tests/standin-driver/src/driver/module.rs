//! Modules, kernels and launches.

use super::{give, text};
use crate::kernel::Loaded;
use crate::process::{on_current, on_handle};
use crate::refusal::{Answer, answer, invalid};
use crate::work::Work;
use cudarc::driver::sys::{CUfunction_attribute as Attribute, CUjit_option, CUresult};
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::slice;

const MAX_THREADS: c_uint = Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK as c_uint;
const STATIC_SHARED: c_uint = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES as c_uint;
const MAX_DYNAMIC_SHARED: c_uint = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as c_uint;

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_char) -> CUresult {
    // SAFETY: see `driver`; no options.
    unsafe { cuModuleLoadDataEx(module, image, 0, std::ptr::null(), std::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    image: *const c_char,
    count: c_uint,
    options: *const c_uint,
    values: *mut *mut c_void,
) -> CUresult {
    answer(|| {
        // SAFETY: see `driver`.
        let image = unsafe { text(image) }?;
        let loaded = on_current(|device| {
            device.forbid_while_recording("loading a module")?;
            Ok(device.modules.insert(Loaded::parse(image, device.capability)?))
        });
        if let Err(refusal) = &loaded {
            // SAFETY: see `driver`; `count` options and values.
            unsafe { write_log(&refusal.why, count, options, values) };
        }
        // SAFETY: see `driver`.
        unsafe { give(module, loaded?) }
    })
}

/// Writes what is wrong with a module to where the program wants it.
///
/// # Safety
/// There are `count` options and values, and as many bytes in the log as they say.
unsafe fn write_log(why: &str, count: c_uint, options: *const c_uint, values: *mut *mut c_void) {
    if count == 0 || options.is_null() || values.is_null() {
        return;
    }
    // SAFETY: `count` of each are there.
    let (options, values) = unsafe {
        let count = count as usize;
        (slice::from_raw_parts(options, count), slice::from_raw_parts_mut(values, count))
    };
    let place = |option: CUjit_option| options.iter().position(|given| *given == option as c_uint);
    let log = place(CUjit_option::CU_JIT_ERROR_LOG_BUFFER);
    let size = place(CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
    let (Some(log), Some(size)) = (log, size) else { return };
    let line = format!("ptxas fatal   : {why}\n");
    let count = line.len().min(values[size].addr().saturating_sub(1));
    let log = values[log].cast::<u8>();
    if log.is_null() || count == 0 {
        return;
    }
    // SAFETY: the log has one byte more than `count`.
    unsafe {
        log.copy_from_nonoverlapping(line.as_ptr(), count);
        log.add(count).write(0);
    }
    values[size] = std::ptr::without_provenance_mut(count);
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: usize) -> CUresult {
    answer(|| {
        on_handle(module, |device| {
            device.forbid_while_recording("unloading a module")?;
            device.run_all()?;
            device.modules.remove(module).map(drop)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    module: usize,
    name: *const c_char,
) -> CUresult {
    answer(|| {
        // SAFETY: see `driver`.
        let name = unsafe { text(name) }?;
        let found = on_current(|device| {
            let found = device.modules.get(module)?.function(name)?;
            Ok(device.functions.insert(found))
        })?;
        // SAFETY: see `driver`.
        unsafe { give(function, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: usize) -> CUresult {
    answer(|| {
        let number = on_current(|device| {
            let function = device.functions.get(function)?;
            match attribute {
                MAX_THREADS => Ok(function.max_threads() as usize),
                STATIC_SHARED => function.static_shared(),
                MAX_DYNAMIC_SHARED => Ok(function.max_shared()),
                _ => invalid(format!("the stand-in does not know the function attribute {attribute}")),
            }
        })?;
        // SAFETY: see `driver`.
        unsafe { give(value, number as c_int) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: usize, attribute: c_uint, value: c_int) -> CUresult {
    answer(|| {
        on_current(|device| {
            let capability = device.capability;
            let function = device.functions.get_mut(function)?;
            match (attribute, usize::try_from(value)) {
                (MAX_DYNAMIC_SHARED, Ok(bytes)) => function.allow_shared(bytes, capability),
                _ => invalid(format!("the function attribute {attribute} cannot be {value}")),
            }
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    stream: usize,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    answer(|| {
        if !extra.is_null() {
            return invalid("the stand-in takes parameters one by one");
        }
        let layout = on_current(|device| device.functions.get(function)?.parameters())?;
        // SAFETY: see `driver`; there are as many parameters as the kernel has.
        let parameters = unsafe { read_parameters(&layout, parameters) }?;
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        on_current(|device| {
            let launch = device.check_launch(function, grid, block, shared as usize, parameters)?;
            device.put(stream, Work::Launch(launch))
        })
    })
}

/// The parameters of a launch, as they lie in memory.
///
/// # Safety
/// `parameters` has a pointer to each parameter of `layout` (offset, size).
unsafe fn read_parameters(layout: &[(usize, usize)], parameters: *mut *mut c_void) -> Answer<Vec<u8>> {
    if !layout.is_empty() && parameters.is_null() {
        return invalid("a launch without parameters");
    }
    let mut bytes = Vec::new();
    for (number, (offset, size)) in layout.iter().enumerate() {
        // SAFETY: there is a pointer to each.
        let from = unsafe { parameters.add(number).read() }.cast::<u8>();
        if from.is_null() {
            return invalid(format!("parameter {number} is a null pointer"));
        }
        bytes.resize(*offset, 0);
        // SAFETY: it has the parameter's size.
        bytes.extend_from_slice(unsafe { slice::from_raw_parts(from, *size) });
    }
    Ok(bytes)
}
