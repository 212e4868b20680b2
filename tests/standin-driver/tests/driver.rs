//! What the stand-in refuses, as a driver does, asked without the layer that keeps programs from asking for it.

use cudarc::driver::result::{self, DriverError, event, graph, module, stream};
use cudarc::driver::sys::{self, CUevent, CUresult, CUstream, CUstreamCaptureMode as Mode};
use cudarc::driver::{CudaContext, CudaStream};
use manygate_standin_driver::install;
use std::ptr::null_mut;
use std::sync::Arc;

/// A device of its own, current for this thread.
fn device() -> Arc<CudaContext> {
    let ordinal = install().unwrap().add_device((8, 0));
    result::init().unwrap();
    CudaContext::new(ordinal).unwrap()
}

#[track_caller]
fn refused<T>(answer: Result<T, DriverError>, code: CUresult, why: &str) {
    let error = answer.err().expect("it is refused");
    let text = error.error_string().unwrap().to_str().unwrap();
    assert_eq!(error.0, code, "{text}");
    assert!(text.contains(why), "{text}");
}

fn begin(stream: &CudaStream, mode: Mode) {
    stream.begin_capture(mode).unwrap();
}

fn new_event() -> CUevent {
    event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap()
}

const LEGACY: CUstream = null_mut();

#[test]
fn handles_are_told_apart() {
    let device = device();
    let event = new_event();
    let as_stream = event.cast();
    // SAFETY: the stand-in looks handles up.
    unsafe {
        refused(
            stream::synchronize(as_stream),
            CUresult::CUDA_ERROR_INVALID_HANDLE,
            "is no Stream of device",
        );
        event::destroy(event).unwrap();
        refused(event::destroy(event), CUresult::CUDA_ERROR_INVALID_HANDLE, "or none any more");
        refused(module::unload(null_mut()), CUresult::CUDA_ERROR_INVALID_CONTEXT, "");
        result::ctx::set_current(null_mut()).unwrap();
        refused(result::mem_get_info(), CUresult::CUDA_ERROR_INVALID_CONTEXT, "no context is current");
        result::ctx::set_current(device.cu_ctx()).unwrap();
        let context = device.cu_ctx();
        drop(device);
        refused(result::ctx::set_current(context), CUresult::CUDA_ERROR_INVALID_CONTEXT, "nobody retains");
    }
}

#[test]
fn memory_is_freed_once_and_copied_inside() {
    let _device = device();
    // SAFETY: the stand-in checks addresses of the device; those of the host are of values that are alive.
    unsafe {
        let address = result::malloc_sync(8).unwrap();
        let mut nine = [0u8; 9];
        refused(
            result::memcpy_htod_async(address, &nine, LEGACY),
            CUresult::CUDA_ERROR_INVALID_VALUE,
            "9 bytes",
        );
        refused(
            result::memcpy_dtoh_async(&mut nine, address, LEGACY),
            CUresult::CUDA_ERROR_INVALID_VALUE,
            "9 bytes",
        );
        refused(
            result::memcpy_dtod_async(address, address + 4, 5, LEGACY),
            CUresult::CUDA_ERROR_INVALID_VALUE,
            "5 bytes",
        );
        refused(
            result::memset_d8_async(address - 1, 0, 1, LEGACY),
            CUresult::CUDA_ERROR_INVALID_VALUE,
            "1 bytes",
        );
        result::free_sync(address).unwrap();
        refused(result::free_sync(address), CUresult::CUDA_ERROR_INVALID_VALUE, "is not allocated");
        refused(result::malloc_sync(0), CUresult::CUDA_ERROR_INVALID_VALUE, "0 bytes");
    }
}

#[test]
fn memory_begins_as_rubbish() {
    let device = device();
    let stream = device.new_stream().unwrap();
    // SAFETY: plain memory.
    unsafe {
        let address = result::malloc_async(stream.cu_stream(), 4).unwrap();
        let mut bytes = [0u8; 4];
        result::memcpy_dtoh_async(&mut bytes, address, stream.cu_stream()).unwrap();
        assert_ne!(bytes, [0; 4]);
        result::free_async(address, stream.cu_stream()).unwrap();
    }
}

#[test]
fn work_runs_when_its_stream_is_destroyed() {
    let device = device();
    let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    // SAFETY: plain memory.
    unsafe {
        let address = result::malloc_sync(1).unwrap();
        result::memset_d8_async(address, 7, 1, stream.cu_stream()).unwrap();
        let event = stream.record_event(None).unwrap();
        drop(stream);
        other.wait(&event).unwrap();
        let mut byte = [0u8];
        result::memcpy_dtoh_async(&mut byte, address, other.cu_stream()).unwrap();
        assert_eq!(byte, [7]);
        result::free_sync(address).unwrap();
    }
}

#[test]
fn the_legacy_stream_comes_after_blocking_ones() {
    let _device = device();
    // SAFETY: plain memory.
    unsafe {
        let blocking = stream::create(stream::StreamKind::Default).unwrap();
        let (from, to) = (result::malloc_sync(1).unwrap(), result::malloc_sync(1).unwrap());
        result::memset_d8_async(from, 3, 1, blocking).unwrap();
        result::memcpy_dtod_async(to, from, 1, LEGACY).unwrap();
        let mut byte = [0u8];
        result::memcpy_dtoh_async(&mut byte, to, blocking).unwrap();
        assert_eq!(byte, [3]);
        stream::destroy(blocking).unwrap();
        result::free_sync(from).unwrap();
        result::free_sync(to).unwrap();
    }
}

/// What spoils a recording: it is refused with a code, and so is the recording at its end.
#[track_caller]
fn spoils(mode: Mode, code: CUresult, call: impl FnOnce(&CudaStream) -> Result<(), DriverError>) {
    let device = device();
    let stream = device.new_stream().unwrap();
    begin(&stream, mode);
    refused(call(&stream), code, "");
    let ended = stream.end_capture(sys::CUgraphInstantiate_flags(0));
    refused(ended.map(drop), CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "not allowed");
}

#[test]
fn what_waits_or_allocates_spoils_a_recording() {
    use CUresult::{
        CUDA_ERROR_CAPTURED_EVENT as CAPTURED, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT as IMPLICIT,
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED as UNSUPPORTED,
    };
    const LOCAL: Mode = Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    const RELAXED: Mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
    // SAFETY: all of it is refused.
    unsafe {
        spoils(LOCAL, UNSUPPORTED, |_| result::malloc_sync(1).map(drop));
        spoils(LOCAL, UNSUPPORTED, |_| result::malloc_host(1, 0).map(drop));
        spoils(LOCAL, UNSUPPORTED, |_| module::load_data(PTX.as_ptr().cast()).map(drop));
        spoils(RELAXED, UNSUPPORTED, |stream| result::malloc_async(stream.cu_stream(), 1).map(drop));
        spoils(RELAXED, UNSUPPORTED, |stream| stream.synchronize());
        spoils(RELAXED, UNSUPPORTED, |_| result::ctx::synchronize());
        spoils(RELAXED, IMPLICIT, |_| stream::synchronize(LEGACY));
        spoils(RELAXED, CAPTURED, |stream| {
            let recorded = new_event();
            event::record(recorded, stream.cu_stream())?;
            event::synchronize(recorded)
        });
    }
}

const PTX: &std::ffi::CStr = c".version 8.0\n.target sm_80\n.address_size 64\n";

#[test]
fn copies_of_memory_that_is_not_pinned_spoil_a_recording() {
    let device = device();
    let stream = device.new_stream().unwrap();
    // SAFETY: plain memory.
    unsafe {
        let address = result::malloc_sync(1).unwrap();
        begin(&stream, Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
        let copied = result::memcpy_htod_async(address, &[1u8], stream.cu_stream());
        refused(copied, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "not pinned");
        stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(drop).unwrap_err();
        result::free_sync(address).unwrap();
    }
}

#[test]
fn what_is_relaxed_or_elsewhere_spoils_nothing() {
    let device = device();
    let stream = device.new_stream().unwrap();
    begin(&stream, Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    // SAFETY: a mode that lives through the calls, and plain memory.
    let address = unsafe {
        let mut mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
        sys::cuThreadExchangeStreamCaptureMode(&mut mode).result().unwrap();
        assert_eq!(mode, Mode::CU_STREAM_CAPTURE_MODE_GLOBAL);
        let address = result::malloc_sync(1).unwrap();
        sys::cuThreadExchangeStreamCaptureMode(&mut mode).result().unwrap();
        assert_eq!(mode, Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
        address
    };
    let elsewhere = || {
        device.bind_to_thread().unwrap();
        // SAFETY: plain memory.
        unsafe { result::free_sync(address) }
    };
    std::thread::scope(|scope| scope.spawn(elsewhere).join()).unwrap().unwrap();
    assert!(stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().is_some());
}

#[test]
fn a_global_recording_forbids_to_every_thread() {
    let device = device();
    let stream = device.new_stream().unwrap();
    begin(&stream, Mode::CU_STREAM_CAPTURE_MODE_GLOBAL);
    let elsewhere = || {
        device.bind_to_thread().unwrap();
        // SAFETY: it is refused.
        let allocated = unsafe { result::malloc_sync(1) };
        refused(allocated, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "allocating memory");
    };
    std::thread::scope(|scope| scope.spawn(elsewhere).join()).unwrap();
    stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(drop).unwrap_err();
}

#[test]
fn a_recording_is_ended_where_it_began() {
    let device = device();
    let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let end = |stream: &Arc<CudaStream>| stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(drop);
    refused(end(&stream), CUresult::CUDA_ERROR_ILLEGAL_STATE, "does not record");
    begin(&stream, Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    let again = stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    refused(again, CUresult::CUDA_ERROR_ILLEGAL_STATE, "records already");
    other.join(&stream).unwrap();
    refused(end(&other), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "another stream began");
    let elsewhere =
        || refused(end(&stream), CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "another thread began");
    std::thread::scope(|scope| scope.spawn(elsewhere).join()).unwrap();
    end(&stream).unwrap();
}

#[test]
fn recordings_and_other_work_do_not_mix() {
    let device = device();
    let (stream, other) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let end = |stream: &Arc<CudaStream>| stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(drop);
    let plain = other.record_event(None).unwrap();
    begin(&stream, Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
    refused(stream.wait(&plain), CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "that is not recorded");
    end(&stream).unwrap_err();

    begin(&stream, Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
    begin(&other, Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
    let recorded = stream.record_event(None).unwrap();
    refused(other.wait(&recorded), CUresult::CUDA_ERROR_STREAM_CAPTURE_MERGE, "two recordings");
    end(&stream).unwrap_err();
    end(&other).unwrap_err();
    refused(other.wait(&recorded), CUresult::CUDA_ERROR_CAPTURED_EVENT, "that has ended");
}

#[test]
fn a_graph_is_instantiated_and_destroyed_once() {
    let device = device();
    let stream = device.new_stream().unwrap();
    begin(&stream, Mode::CU_STREAM_CAPTURE_MODE_RELAXED);
    // SAFETY: the stand-in looks handles up.
    unsafe {
        let recorded = stream::end_capture(stream.cu_stream()).unwrap();
        let executable = graph::instantiate(recorded, sys::CUgraphInstantiate_flags(0)).unwrap();
        graph::destroy(recorded).unwrap();
        refused(graph::destroy(recorded), CUresult::CUDA_ERROR_INVALID_HANDLE, "Graph");
        graph::launch(executable, stream.cu_stream()).expect("it does not need its graph");
        graph::exec_destroy(executable).unwrap();
        let launched = graph::launch(executable, stream.cu_stream());
        refused(launched, CUresult::CUDA_ERROR_INVALID_HANDLE, "Executable");
    }
}

#[test]
fn modules_are_for_the_driver_and_the_device() {
    let _device = device();
    let load = |ptx: &std::ffi::CStr| {
        // SAFETY: text that ends with a zero.
        unsafe { module::load_data(ptx.as_ptr().cast()) }
    };
    let newer = c".version 8.1\n.target sm_80\n.address_size 64\n";
    refused(
        load(newer),
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
        "PTX (8, 1), and the driver knows (8, 0)",
    );
    let newer = c".version 8.0\n.target sm_90a\n.address_size 64\n";
    refused(load(newer), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU, "PTX for sm_90a on sm_80");
    refused(load(c"kernel"), CUresult::CUDA_ERROR_INVALID_PTX, "without .version");
    let loaded = load(PTX).unwrap();
    // SAFETY: the stand-in looks handles up.
    unsafe {
        let found = module::get_function(loaded, c"f".to_owned());
        refused(found, CUresult::CUDA_ERROR_NOT_FOUND, "no kernel f");
        module::unload(loaded).unwrap();
    }
}
