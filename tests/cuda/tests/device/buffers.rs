//! Memory and copies.

use manygate_cuda::device::{DeviceError, PinnedBuffer};
use manygate_cuda_tests::Gpu;
use manygate_standin_driver::Live;

#[test]
fn values_come_back_from_where_they_were_put() {
    let gpu = Gpu::new();
    let (device, stream) = (gpu.device(), gpu.stream());
    let buffer = device.zeros::<f32>(5).unwrap();
    buffer.upload(stream, 1, &[1.0, 2.0]).unwrap();
    buffer.upload(stream, 4, &[3.0]).unwrap();
    let mut all = [7.0; 5];
    buffer.download(stream, 0, &mut all).unwrap();
    assert_eq!(all, [0.0, 1.0, 2.0, 0.0, 3.0]);
    let mut two = [7.0; 2];
    buffer.download(stream, 2, &mut two).unwrap();
    assert_eq!(two, [2.0, 0.0]);
}

#[test]
fn a_buffer_may_hold_nothing() {
    let gpu = Gpu::new();
    let buffer = gpu.device().upload::<u64>(&[]).unwrap();
    assert!(buffer.is_empty());
    buffer.fill_zeros(gpu.stream(), 0..0).unwrap();
    buffer.download(gpu.stream(), 0, &mut []).unwrap();
    let pinned = gpu.device().pinned::<u64>(0).unwrap();
    buffer.upload_pinned(gpu.stream(), 0, &pinned, 0..0).unwrap();
    assert!(pinned.is_empty() && pinned.as_slice().unwrap().is_empty());
}

#[test]
fn addresses_suit_the_widest_load() {
    let gpu = Gpu::new();
    let buffers: Vec<_> = (1..9).map(|len| gpu.device().allocate::<u8>(len).unwrap()).collect();
    assert!(buffers.iter().all(|buffer| buffer.address().is_multiple_of(256)));
}

#[test]
fn parts_of_buffers_are_copied_and_cleared() {
    let gpu = Gpu::new();
    let (device, stream) = (gpu.device(), gpu.stream());
    let (from, to) = (device.upload(&[1u16, 2, 3, 4]).unwrap(), device.upload(&[9u16; 4]).unwrap());
    to.copy_from(stream, 0, &from, 1..4).unwrap();
    to.fill_zeros(stream, 1..2).unwrap();
    let mut values = [0; 4];
    to.download(stream, 0, &mut values).unwrap();
    assert_eq!(values, [2, 0, 4, 9]);
}

#[test]
fn pinned_memory_is_seen_when_its_copies_are_done() {
    let gpu = Gpu::new();
    let (device, stream) = (gpu.device(), gpu.stream());
    let mut pinned: PinnedBuffer<i32> = device.pinned(4).unwrap();
    assert_eq!(pinned.as_slice().unwrap(), [0; 4]);
    pinned.as_mut_slice().unwrap().copy_from_slice(&[1, 2, 3, 4]);
    let buffer = device.zeros(4).unwrap();
    buffer.upload_pinned(stream, 1, &pinned, 0..3).unwrap();
    // The copy reads what was there when it was put on the stream, however late it runs.
    pinned.as_mut_slice().unwrap().fill(9);
    buffer.download_pinned(stream, 1..4, &mut pinned, 0).unwrap();
    assert_eq!(pinned.as_slice().unwrap(), [1, 2, 3, 9]);
}

#[test]
fn copies_of_pinned_memory_on_two_streams_come_one_after_the_other() {
    let gpu = Gpu::new();
    let (device, first, second) = (gpu.device(), gpu.stream(), gpu.device().stream().unwrap());
    let (from, to) = (device.upload(&[5u8]).unwrap(), device.zeros::<u8>(1).unwrap());
    let mut pinned = device.pinned(1).unwrap();
    from.download_pinned(first, 0..1, &mut pinned, 0).unwrap();
    to.upload_pinned(&second, 0, &pinned, 0..1).unwrap();
    second.synchronize().unwrap();
    let mut value = [0];
    to.download(first, 0, &mut value).unwrap();
    assert_eq!(value, [5]);
}

#[test]
fn what_is_not_inside_is_refused() {
    let gpu = Gpu::new();
    let (device, stream) = (gpu.device(), gpu.stream());
    let (buffer, mut pinned) = (device.zeros::<f32>(4).unwrap(), device.pinned::<f32>(2).unwrap());
    let outside = |result, from, to, len| {
        assert_eq!(result, Err(DeviceError::OutOfBounds { from, to, len }));
    };
    outside(buffer.upload(stream, 3, &[0.0; 2]), 3, 5, 4);
    outside(buffer.download(stream, 5, &mut []), 5, 5, 4);
    outside(buffer.fill_zeros(stream, 0..5), 0, 5, 4);
    outside(buffer.upload_pinned(stream, 0, &pinned, 1..3), 1, 3, 2);
    outside(buffer.download_pinned(stream, 0..2, &mut pinned, 1), 1, 3, 2);
    outside(buffer.copy_from(stream, 2, &buffer, 0..3), 2, 5, 4);
    outside(buffer.download(stream, usize::MAX, &mut [0.0]), usize::MAX, usize::MAX, 4);
}

#[test]
fn a_stream_of_another_device_is_refused() {
    let (gpu, other) = (Gpu::new(), Gpu::new());
    let buffer = gpu.device().zeros::<f32>(4).unwrap();
    assert_eq!(buffer.upload(other.stream(), 0, &[1.0]), Err(DeviceError::OtherDevice));
}

#[test]
fn used_up_memory_is_told_with_numbers() {
    let gpu = Gpu::new();
    let error = gpu.device().allocate::<f32>(1 << 48).err().unwrap();
    assert!(matches!(error, DeviceError::OutOfMemory { wanted, .. } if wanted == 1 << 50), "{error}");
    if gpu.standin().is_some() {
        let wanted = "out of memory on the CUDA device: 1048576.0 GiB wanted, 4.0 GiB of 4.0 GiB free; ";
        assert!(error.to_string().starts_with(wanted), "{error}");
    }
    let error = gpu.device().allocate::<f64>(usize::MAX).err().unwrap();
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
    let error = gpu.device().pinned::<f64>(usize::MAX).err().unwrap();
    assert!(matches!(error, DeviceError::OutOfPinned { .. }), "{error}");
}

#[test]
fn everything_is_given_back() {
    let gpu = Gpu::new();
    let Some((standin, ordinal)) = gpu.standin() else { return };
    let before = standin.live(ordinal);
    let buffer = gpu.device().zeros::<f32>(100).unwrap();
    let pinned = gpu.device().pinned::<f32>(100).unwrap();
    let (stream, event) = (gpu.device().stream().unwrap(), gpu.device().event().unwrap());
    let recorded = stream.record(|stream| buffer.fill_zeros(stream, 0..100)).unwrap();
    assert_ne!(standin.live(ordinal), before);
    let free = gpu.device().free_memory().unwrap();
    drop((buffer, pinned, stream, event, recorded));
    assert_eq!(standin.live(ordinal), before);
    assert_eq!(gpu.device().free_memory().unwrap(), free + 512, "what the driver keeps is free too");
    drop(gpu);
    assert_eq!(standin.live(ordinal), Live::default());
}
