//! The CUDA kernels, as `manygate bench kernels` lists them. Times are those of the device, of recorded launches that are
//! replayed. Where there is no device nothing is measured.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_main};
use manygate_benches::quick;
use manygate_cuda::device::{Device, DeviceError};
use manygate_device::bench::{Case, Ceilings, Ready, Size, cases};
use std::time::Duration;

/// Benches a case, and prints its best measurement as a share of the floor.
fn case(
    group: &mut BenchmarkGroup<'_, WallTime>,
    device: &Device,
    ceilings: Ceilings,
    case: &Case,
) -> Result<(), DeviceError> {
    let (mut ready, mut failure, mut best) = (None, None, f64::INFINITY);
    let name = format!("{}, {}, {}", case.kernel, case.precision_name(), case.shape);
    group.throughput(Throughput::Bytes(case.work.bytes as u64));
    group.bench_function(&name, |bencher| {
        bencher.iter_custom(|runs| {
            let mut measure = || {
                // Not before a filter has let the case through: memory is large.
                let ready = match &mut ready {
                    Some(ready) => ready,
                    none => none.insert(Ready::new(device, case, Size::Full)?),
                };
                ready.mean_seconds(runs.try_into().unwrap_or(u32::MAX))
            };
            match measure() {
                Ok(seconds) => {
                    best = best.min(seconds);
                    Duration::from_secs_f64(seconds * runs as f64)
                }
                Err(error) => {
                    failure = Some(error);
                    // Criterion wants a time.
                    Duration::from_secs(1)
                }
            }
        });
    });
    if let Some(error) = failure {
        return Err(error);
    }
    if let Some(ready) = ready {
        let (floor, bound) = ceilings.floor(case.work, case.precision);
        let (share, error) = (100.0 * floor / best, ready.relative_error);
        println!(
            "    {name}: best {:.1} us, {share:.0} % of {bound}, relative error {error:.1e}",
            best * 1e6
        );
    }
    Ok(())
}

fn measure(device: &Device) -> Result<(), DeviceError> {
    let ceilings = Ceilings::measure(device, Size::Full)?;
    println!("{}: {ceilings:?}", device.description());
    let mut criterion: Criterion = quick();
    let mut group = criterion.benchmark_group("cuda");
    for of_list in cases(device, Size::Full)? {
        match case(&mut group, device, ceilings, &of_list) {
            Err(why @ DeviceError::OutOfMemory { .. }) => println!("    {of_list:?} is left out: {why}"),
            done => done?,
        }
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

fn benches() {
    match Device::open(0) {
        Ok(device) => measure(&device).unwrap_or_else(|error| panic!("{error}")),
        Err(why) => println!("CUDA kernels are not measured: {why}"),
    }
}

criterion_main!(benches);
