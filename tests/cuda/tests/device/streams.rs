//! Streams beside each other, and events.

use crate::kernels::add;
use manygate_cuda::device::{DeviceBuffer, Stream};
use manygate_cuda_tests::Gpu;

fn launch_add(stream: &Stream, values: &DeviceBuffer<u32>, by: &DeviceBuffer<u32>) {
    // SAFETY: both buffers are alive and as large as the kernel is told; events put the streams in an order.
    unsafe { stream.launch(&add(values.address(), by.address(), values.len() as u32)) }.unwrap();
}

fn download(stream: &Stream, values: &DeviceBuffer<u32>) -> Vec<u32> {
    let mut downloaded = vec![0; values.len()];
    values.download(stream, 0, &mut downloaded).unwrap();
    downloaded
}

/// A batch is copied on one stream while the other computes with the one before.
#[test]
fn events_put_copies_and_launches_in_an_order() {
    for seed in 0..6 {
        let gpu = Gpu::new();
        if let Some((standin, ordinal)) = gpu.standin() {
            standin.set_seed(ordinal, seed);
        }
        let (device, compute, copy) = (gpu.device(), gpu.stream(), gpu.device().stream().unwrap());
        let (copied, used) = (device.event().unwrap(), device.event().unwrap());
        let (sums, by) = (device.zeros::<u32>(300).unwrap(), device.zeros::<u32>(1).unwrap());
        let mut staging = device.pinned::<u32>(1).unwrap();
        for step in 1..=5 {
            staging.as_mut_slice().unwrap()[0] = step;
            copy.wait(&used).unwrap();
            by.upload_pinned(&copy, 0, &staging, 0..1).unwrap();
            copied.record(&copy).unwrap();
            compute.wait(&copied).unwrap();
            launch_add(compute, &sums, &by);
            used.record(compute).unwrap();
        }
        assert_eq!(download(compute, &sums), vec![15; 300], "seed {seed}");
    }
}

/// The stand-in would not find a missing event if it ran everything in the order in which it is put on streams.
#[test]
fn the_stand_in_finds_that_an_event_is_missing() {
    let gpu = Gpu::new();
    if gpu.standin().is_none() {
        return;
    }
    let (device, compute, copy) = (gpu.device(), gpu.stream(), gpu.device().stream().unwrap());
    let (sums, by) = (device.zeros::<u32>(1).unwrap(), device.zeros::<u32>(1).unwrap());
    let mut staging = device.pinned::<u32>(1).unwrap();
    staging.as_mut_slice().unwrap()[0] = 3;
    by.upload_pinned(&copy, 0, &staging, 0..1).unwrap();
    launch_add(compute, &sums, &by);
    assert_eq!(download(compute, &sums), [0], "the copy came first though nothing says so");
}

#[test]
fn an_event_waits_and_tells_whether_it_is_reached() {
    let gpu = Gpu::new();
    let event = gpu.device().event().unwrap();
    assert!(event.is_done().unwrap(), "an event that marks nothing");
    event.synchronize().unwrap();
    let (sums, by) = (gpu.device().zeros::<u32>(1).unwrap(), gpu.device().upload(&[1]).unwrap());
    launch_add(gpu.stream(), &sums, &by);
    event.record(gpu.stream()).unwrap();
    event.synchronize().unwrap();
    assert!(event.is_done().unwrap());
    event.record(gpu.stream()).unwrap();
    while !event.is_done().unwrap() {}
}

#[test]
fn events_measure_time() {
    let gpu = Gpu::new();
    let (before, after) = (gpu.device().event().unwrap(), gpu.device().event().unwrap());
    let (sums, by) = (gpu.device().zeros::<u32>(1 << 10).unwrap(), gpu.device().upload(&[1]).unwrap());
    assert!(after.since(&before).is_err(), "events that mark nothing");
    before.record(gpu.stream()).unwrap();
    launch_add(gpu.stream(), &sums, &by);
    after.record(gpu.stream()).unwrap();
    assert!(!after.since(&before).unwrap().is_zero());
}

#[test]
fn a_device_may_be_used_by_several_threads() {
    let gpu = Gpu::new();
    let device = gpu.device().clone();
    let by = device.upload(&[2u32]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let (stream, values) = (device.stream().unwrap(), device.zeros::<u32>(500).unwrap());
                (0..4).for_each(|_| launch_add(&stream, &values, &by));
                assert_eq!(download(&stream, &values), vec![8; 500]);
            });
        }
    });
}
