//! What a device does at the most: the measures behind floors.

use super::Size;
use super::case::Work;
use super::timing::Replays;
use super::workbench::Workbench;
use manygate_cuda::device::{Device, DeviceError};
use manygate_cuda::peak::{self, multiply_add_flops, multiply_adds};
use manygate_cuda::{Launch, Precision};
use serde::Serialize;
use std::rc::Rc;

/// Bytes that are copied, far more than caches hold.
const COPIED: u64 = 2 << 30;
/// Blocks of multiply-adds for each multiprocessor: several rounds of as many as run at once.
const BLOCKS: u32 = 16;
/// How often a thread multiplies.
const RUNS: u32 = 4096;

/// What a device does at the most, measured there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ceilings {
    /// Large copies on the device, read and written bytes counted, 10^9 bytes a second: by the driver or a kernel,
    /// whichever is faster.
    pub copy_gbps: f64,
    /// Multiply-adds in registers in f32, two operations each, 10^12 operations a second.
    pub f32_tflops: f64,
    /// The same on tensor cores in tf32, by `mma.sync`.
    pub tf32_tflops: f64,
    /// The same in bf16, by `mma.sync`, or on Hopper by its own instructions.
    pub bf16_tflops: f64,
}

impl Ceilings {
    /// Measures them, a tenth of a second each. Those of small cases mean nothing.
    ///
    /// # Errors
    /// When the device fails, or has not even memory for this.
    pub fn measure(device: &Device, size: Size) -> Result<Ceilings, DeviceError> {
        let multiply = |precision| multiply_tflops(device, size, precision);
        Ok(Ceilings {
            copy_gbps: copy_gbps(device, size)?,
            f32_tflops: multiply(Precision::F32)?,
            tf32_tflops: multiply(Precision::Tf32)?,
            bf16_tflops: multiply(Precision::Bf16)?,
        })
    }

    /// The least seconds that `work` can take, and what bounds it.
    pub fn floor(&self, work: Work, precision: Precision) -> (f64, &'static str) {
        let (tflops, bound) = match precision {
            Precision::F32 => (self.f32_tflops, "f32_tflops"),
            Precision::Tf32 => (self.tf32_tflops, "tf32_tflops"),
            Precision::Bf16 => (self.bf16_tflops, "bf16_tflops"),
        };
        let (moving, multiplying) = (work.bytes / self.copy_gbps * 1e-9, work.flops / tflops * 1e-12);
        if moving >= multiplying { (moving, "copy_gbps") } else { (multiplying, bound) }
    }
}

fn copy_gbps(device: &Device, size: Size) -> Result<f64, DeviceError> {
    let bytes = match size {
        Size::Full => COPIED.min(device.free_memory()? / 4).next_multiple_of(16),
        Size::Small => 1 << 14,
    };
    let mut bench = Workbench::new(device)?;
    let count = (bytes / 4) as u32;
    let from = bench.random_contiguous(1, count, Default::default(), 1.0)?.mat.address;
    let to = bench.zeros(bytes)?;
    let by_kernel = vec![peak::copy(from, to, bytes)];
    let bench = Rc::new(bench);
    bench.run(&by_kernel)?;
    let by_kernel = Replays::new(&bench, size, &|stream| bench.put(stream, &by_kernel))?;
    let by_driver = Replays::new(&bench, size, &|stream| bench.copy(stream, from, to, bytes))?;
    let fastest = by_kernel.median_seconds(size)?.min(by_driver.median_seconds(size)?);
    Ok(2.0 * bytes as f64 / fastest * 1e-9)
}

fn multiply_tflops(device: &Device, size: Size, precision: Precision) -> Result<f64, DeviceError> {
    let (blocks, runs) = match size {
        Size::Full => (BLOCKS * device.description().multiprocessors.max(1), RUNS),
        Size::Small => (1, 2),
    };
    let mut bench = Workbench::new(device)?;
    let out = bench.allocate(4 * peak::threads(blocks) as u64)?;
    let launches: Vec<Launch> = vec![multiply_adds(precision, runs, peak::Stream(1), blocks, out)];
    let bench = Rc::new(bench);
    bench.run(&launches)?;
    let replays = Replays::new(&bench, size, &|stream| bench.put(stream, &launches))?;
    let seconds = replays.median_seconds(size)?;
    Ok(multiply_add_flops(precision, runs, blocks) / seconds * 1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_moving_and_multiplying_is_the_floor() {
        let ceilings = Ceilings { copy_gbps: 2.0, f32_tflops: 1.0, tf32_tflops: 4.0, bf16_tflops: 8.0 };
        let work = Work { bytes: 4e9, flops: 12e12 };
        assert_eq!(ceilings.floor(work, Precision::F32), (12.0, "f32_tflops"));
        assert_eq!(ceilings.floor(work, Precision::Tf32), (3.0, "tf32_tflops"));
        assert_eq!(ceilings.floor(work, Precision::Bf16), (2.0, "copy_gbps"));
    }
}
