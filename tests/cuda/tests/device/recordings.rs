//! Work that is recorded once and replayed.

use crate::kernels::{SMALL, add};
use manygate_cuda::device::{DeviceBuffer, DeviceError, Recorded, Stream};
use manygate_cuda::{Family, Launch};
use manygate_cuda_tests::Gpu;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

fn launch(stream: &Stream, launch: &Launch) -> Result<(), DeviceError> {
    // SAFETY: tests keep the buffers while recordings are replayed, and put streams in an order.
    unsafe { stream.launch(launch) }
}

fn replay(recorded: &Recorded) {
    // SAFETY: as above.
    unsafe { recorded.launch() }.unwrap();
}

fn download(stream: &Stream, values: &DeviceBuffer<u32>) -> Vec<u32> {
    let mut downloaded = vec![0; values.len()];
    values.download(stream, 0, &mut downloaded).unwrap();
    downloaded
}

/// `[zeros; 3]`, and a number to add.
fn buffers(gpu: &Gpu, by: u32) -> (DeviceBuffer<u32>, DeviceBuffer<u32>) {
    (gpu.device().zeros(3).unwrap(), gpu.device().upload(&[by]).unwrap())
}

#[test]
fn a_replay_reads_what_is_in_memory_then() {
    let gpu = Gpu::new();
    let (stream, (sums, by)) = (gpu.stream(), buffers(&gpu, 2));
    let step = add(sums.address(), by.address(), 3);
    let recorded = stream.record(|stream| (0..2).try_for_each(|_| launch(stream, &step))).unwrap();
    assert_eq!(download(stream, &sums), [0; 3], "recording runs nothing");
    replay(&recorded);
    assert_eq!(download(stream, &sums), [4; 3]);
    by.upload(stream, 0, &[10]).unwrap();
    replay(&recorded);
    replay(&recorded);
    assert_eq!(download(stream, &sums), [44; 3]);
}

#[test]
fn copies_are_recorded_too() {
    let gpu = Gpu::new();
    let (stream, (sums, by)) = (gpu.stream(), buffers(&gpu, 0));
    let (mut given, mut result) = (gpu.device().pinned::<u32>(1).unwrap(), gpu.device().pinned(3).unwrap());
    let step = add(sums.address(), by.address(), 3);
    let recorded = stream.record(|stream| {
        by.upload_pinned(stream, 0, &given, 0..1)?;
        sums.fill_zeros(stream, 0..1)?;
        launch(stream, &step)?;
        sums.download_pinned(stream, 0..3, &mut result, 0)
    });
    let recorded = recorded.unwrap();
    for (number, sum) in [(5, 5), (7, 12)] {
        given.as_mut_slice().unwrap()[0] = number;
        replay(&recorded);
        stream.synchronize().unwrap();
        assert_eq!(result.as_slice().unwrap(), [number, sum, sum]);
    }
}

#[test]
fn streams_part_and_come_together_in_a_recording() {
    let gpu = Gpu::new();
    let (device, stream, side) = (gpu.device(), gpu.stream(), gpu.device().stream().unwrap());
    let (parted, together) = (device.event().unwrap(), device.event().unwrap());
    let ((first, by), second) = (buffers(&gpu, 1), device.zeros::<u32>(3).unwrap());
    let work = |stream: &Stream, joins: bool| {
        launch(stream, &add(first.address(), by.address(), 3))?;
        parted.record(stream)?;
        side.wait(&parted)?;
        launch(&side, &add(second.address(), first.address(), 3))?;
        launch(stream, &add(by.address(), by.address(), 1))?;
        together.record(&side)?;
        if joins { stream.wait(&together) } else { Ok(()) }
    };
    let recorded = stream.record(|stream| work(stream, true)).unwrap();
    replay(&recorded);
    replay(&recorded);
    assert_eq!(download(stream, &first), [3; 3]);
    assert_eq!(download(stream, &second), [4; 3]);
    let error = stream.record(|stream| work(stream, false)).err().unwrap().to_string();
    assert!(error.contains("CUDA_ERROR_STREAM_CAPTURE_UNJOINED"), "{error}");
    side.synchronize().expect("the stream no longer records");
}

#[test]
fn kernels_that_are_not_loaded_yet_can_be_recorded() {
    static UNUSED: Family = Family { name: "unused", ..SMALL_COPY };
    let gpu = Gpu::new();
    let (sums, by) = buffers(&gpu, 1);
    let step = Launch { family: &UNUSED, ..add(sums.address(), by.address(), 3) };
    replay(&gpu.stream().record(|stream| launch(stream, &step)).unwrap());
    assert_eq!(download(gpu.stream(), &sums), [1; 3]);
}

const SMALL_COPY: Family = Family { name: "", ptx: include_str!("kernels.ptx"), kernels: &["add"] };

#[test]
fn what_cannot_be_recorded_is_refused() {
    let gpu = Gpu::new();
    let (device, stream, (sums, _)) = (gpu.device(), gpu.stream(), buffers(&gpu, 0));
    device.load(&SMALL).unwrap();
    let error =
        |work: &dyn Fn(&Stream) -> Result<(), DeviceError>| stream.record(work).err().unwrap().to_string();
    assert_eq!(error(&|stream| stream.synchronize()), "a stream that records cannot be waited for");
    let uploads = error(&|stream| sums.upload(stream, 0, &[1]));
    assert_eq!(uploads, "a stream that records cannot copy from memory that is not pinned");
    let downloads = error(&|stream| sums.download(stream, 0, &mut [0]));
    assert_eq!(downloads, "a stream that records cannot copy to memory that is not pinned");
    if gpu.standin().is_some() {
        let waits = error(&|_| device.synchronize());
        assert!(waits.contains("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"), "{waits}");
        let allocates = error(&|_| device.pinned::<u32>(1).map(drop));
        assert!(allocates.contains("pinning memory while a stream records"), "{allocates}");
        // The driver says so at the end, where the work does not.
        let drops = error(&|_| {
            let _ = device.synchronize();
            Ok(())
        });
        assert!(drops.contains("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"), "{drops}");
    }
    sums.upload(stream, 0, &[1]).expect("the stream records no more");
}

#[test]
fn work_that_fails_or_panics_ends_the_recording() {
    let gpu = Gpu::new();
    let (stream, (sums, by)) = (gpu.stream(), buffers(&gpu, 1));
    let step = add(sums.address(), by.address(), 3);
    let failed = stream.record(|stream| {
        launch(stream, &step)?;
        Err(DeviceError::OtherDevice)
    });
    assert_eq!(failed.err(), Some(DeviceError::OtherDevice));
    let panicked = catch_unwind(AssertUnwindSafe(|| stream.record(|_| panic!("on purpose")).err()));
    assert!(panicked.is_err());
    launch(stream, &step).unwrap();
    assert_eq!(download(stream, &sums), [1; 3]);
}

#[test]
fn a_recording_may_be_replayed_by_another_thread() {
    let gpu = Gpu::new();
    let (stream, (sums, by)) = (gpu.stream(), buffers(&gpu, 1));
    let step = add(sums.address(), by.address(), 3);
    let recorded = stream.record(|stream| launch(stream, &step)).unwrap();
    thread::scope(|scope| scope.spawn(|| replay(&{ recorded })).join()).unwrap();
    assert_eq!(download(stream, &sums), [1; 3]);
}

#[test]
fn others_allocate_and_free_while_a_stream_records() {
    let gpu = Gpu::new();
    let (device, stream, (sums, by)) = (gpu.device(), gpu.stream(), buffers(&gpu, 1));
    let (step, freed) = (add(sums.address(), by.address(), 3), device.zeros::<u32>(1).unwrap());
    thread::scope(|scope| {
        let recorded = stream.record(|stream| {
            let buffers = scope.spawn(|| (device.pinned::<u32>(1).unwrap(), device.free_memory().unwrap()));
            let (pinned, _) = buffers.join().unwrap();
            // Both wait for the device, and so for the end of the recording.
            scope.spawn(move || drop((pinned, freed)));
            thread::sleep(Duration::from_millis(20));
            launch(stream, &step)
        });
        replay(&recorded.unwrap());
    });
    assert_eq!(download(stream, &sums), [1; 3]);
}
