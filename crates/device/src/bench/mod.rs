//! Speed of the CUDA kernels, each beside the least time that the device could take for it.
//!
//! [`cases`] is the one list, for `manygate bench kernels` and for Criterion. A case fills memory with random numbers,
//! runs once, is compared on a sample with a reference in f64 (or the CPU's kernel), and is then recorded and replayed:
//! times are those of the device, without what the host needs to launch.
//!
//! The floor of a case is the larger of two times: the bytes of its inputs and outputs at the rate of a large copy, and
//! its multiply-adds at the rate of multiply-adds in registers. Both rates are measured on the device, see [`Ceilings`].
//! Work whose bytes stay in the caches may be faster.

mod case;
mod ceilings;
mod elementwise;
mod embedding;
mod gradients;
mod layer;
mod layers;
mod loss_gradients;
mod losses;
mod mixtures;
mod mmoe;
mod norms;
mod others;
mod products;
mod reference;
mod row_losses;
mod scenarios;
mod sequences;
mod sums;
mod tables;
mod timing;
mod workbench;

pub use case::{Case, Shape, Work};
pub use ceilings::Ceilings;

use crate::memory::failed;
use case::Prepared;
use manygate_core::{Error, Result};
use manygate_cuda::Launch;
use manygate_cuda::device::{Device, DeviceError};
use serde::Serialize;
use std::rc::Rc;
use std::time::Instant;
use timing::Replays;
use workbench::Workbench;

/// How large cases are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As in training.
    Full,
    /// For an interpreter of kernels: results are compared, times mean nothing.
    Small,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct KernelBenchOptions {
    /// Number of the CUDA device.
    pub device: usize,
    /// How large cases are.
    pub size: Size,
    /// Part of the names of those kernels alone that are measured.
    pub kernel: Option<String>,
    /// Cases that would begin later than after so many seconds are left out.
    pub seconds: Option<f64>,
}

/// The figures of a case.
#[derive(Clone, Debug, Serialize)]
pub struct KernelSpeed {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Its sizes.
    pub shape: Shape,
    /// What products multiply in, and elsewhere what values are stored as.
    pub precision: &'static str,
    /// Milliseconds of a run: the median.
    pub ms: f64,
    /// Bytes that had to be moved.
    pub bytes: f64,
    /// Operations of its products.
    pub flops: f64,
    /// Those bytes, 10^9 a second.
    pub gbps: f64,
    /// Those operations, 10^12 a second.
    pub tflops: f64,
    /// Least milliseconds that it could take.
    pub floor_ms: f64,
    /// The ceiling that this is by.
    pub bound: &'static str,
    /// The floor as a share of the time.
    pub share_of_floor: f64,
    /// Largest error on a sample, as a share of the largest value there.
    pub relative_error: f64,
    /// Largest such error that the precision explains.
    pub tolerance: f64,
}

impl KernelSpeed {
    /// Whether results are what they should be.
    pub fn is_right(&self) -> bool {
        self.relative_error <= self.tolerance
    }
}

/// A case that was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Its sizes.
    pub shape: Shape,
    /// What products multiply in, and elsewhere what values are stored as.
    pub precision: &'static str,
    /// Why.
    pub why: String,
    /// Whether the device failed; it may have failed for all that follow.
    pub failed: bool,
}

/// Result of [`bench_kernels`]; the JSON of `manygate bench kernels --json`.
#[derive(Clone, Debug, Serialize)]
pub struct KernelSpeeds {
    /// Version of this form.
    pub version: u32,
    /// The device.
    pub device: String,
    /// Whether cases were small and times mean nothing.
    pub small: bool,
    /// What the device does at the most.
    pub ceilings: Ceilings,
    /// The cases that were measured.
    pub rows: Vec<KernelSpeed>,
    /// Those that were not.
    pub left_out: Vec<LeftOut>,
}

/// What there is to tell while cases are measured.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// The device in words, and what it does at the most.
    Device(&'a str, Ceilings),
    /// A case was measured.
    Measured(&'a KernelSpeed),
    /// A case was left out.
    LeftOut(&'a LeftOut),
}

/// All cases, those first that matter most. Tables have as many rows as fit the memory that is free.
///
/// # Errors
/// When the device does not say what is free.
pub fn cases(device: &Device, size: Size) -> std::result::Result<Vec<Case>, DeviceError> {
    let free = device.free_memory()?;
    let mut cases = embedding::cases(size, free);
    cases.extend(mmoe::cases(size));
    cases.extend(products::cases(size));
    cases.extend(others::cases(size));
    cases.extend(layers::cases(size));
    cases.extend(gradients::cases(size));
    cases.extend(sums::cases(size));
    cases.extend(mixtures::cases(size));
    cases.extend(norms::cases(size));
    cases.extend(elementwise::cases(size));
    cases.extend(scenarios::cases(size));
    cases.extend(sequences::cases(size));
    cases.extend(losses::cases(size));
    cases.extend(row_losses::cases(size));
    cases.extend(loss_gradients::cases(size));
    cases.extend(tables::cases(size, free));
    Ok(cases)
}

/// A case in the memory of a device, compared and ready to be timed.
pub struct Ready {
    replays: Replays,
    size: Size,
    /// What is launched: family and name of each kernel.
    pub kernels: Vec<(&'static str, &'static str)>,
    /// Largest error on a sample, as a share of the largest value there.
    pub relative_error: f64,
}

impl Ready {
    /// Fills memory, runs the case once, compares, and records.
    ///
    /// # Errors
    /// When memory is used up, or the device fails.
    pub fn new(device: &Device, case: &Case, size: Size) -> std::result::Result<Ready, DeviceError> {
        let mut bench = Workbench::new(device)?;
        let Prepared { launches, check } = (case.prepare)(&mut bench)?;
        bench.run(&launches)?;
        let relative_error = check(&bench)?;
        let bench = Rc::new(bench);
        let replays = Replays::new(&bench, size, &|stream| bench.put(stream, &launches))?;
        let does_something = |launch: &&Launch| !launch.grid.contains(&0);
        let names = |launch: &Launch| (launch.family.name, launch.kernel);
        let kernels = launches.iter().filter(does_something).map(names).collect();
        Ok(Ready { replays, size, kernels, relative_error })
    }

    /// Seconds of a run: the median of several measurements, each long enough, after a warm-up.
    ///
    /// # Errors
    /// When the device fails.
    pub fn median_seconds(&self) -> std::result::Result<f64, DeviceError> {
        self.replays.median_seconds(self.size)
    }

    /// Seconds of a run: the mean of at least so many, one right behind the other.
    ///
    /// # Errors
    /// When the device fails.
    pub fn mean_seconds(&self, runs: u32) -> std::result::Result<f64, DeviceError> {
        self.replays.seconds(runs.div_ceil(self.replays.runs()).max(1))
    }
}

/// Measures what the device does at the most, then case after case; `told` hears of each.
///
/// # Errors
/// When there is no such device, no case has the name, or not even the ceilings can be measured. Later the figures so far
/// are worth more than an error: see [`KernelSpeed::is_right`] and [`LeftOut::failed`].
pub fn bench_kernels(
    options: &KernelBenchOptions,
    told: &mut dyn FnMut(Progress<'_>) -> Result<()>,
) -> Result<KernelSpeeds> {
    let begin = Instant::now();
    let device =
        Device::open(options.device).map_err(|found| Error::Device { message: found.to_string() })?;
    let cases = wanted(cases(&device, options.size).map_err(failed)?, options.kernel.as_deref())?;
    let ceilings = Ceilings::measure(&device, options.size).map_err(failed)?;
    let description = device.description().to_string();
    told(Progress::Device(&description, ceilings))?;
    let mut speeds = KernelSpeeds {
        version: 1,
        device: description,
        small: options.size == Size::Small,
        ceilings,
        rows: Vec::new(),
        left_out: Vec::new(),
    };
    for case in &cases {
        let is_late = options.seconds.is_some_and(|seconds| begin.elapsed().as_secs_f64() > seconds);
        let measured = if is_late { None } else { Some(measure(&device, case, ceilings, options.size)) };
        let (why, failed) = match measured {
            Some(Ok(speed)) => {
                told(Progress::Measured(&speed))?;
                speeds.rows.push(speed);
                continue;
            }
            Some(Err(error)) => (error.to_string(), !matches!(error, DeviceError::OutOfMemory { .. })),
            None => ("no time left".to_owned(), false),
        };
        let (kernel, shape, precision) = (case.kernel, case.shape.clone(), case.precision_name());
        let left_out = LeftOut { kernel, shape, precision, why, failed };
        told(Progress::LeftOut(&left_out))?;
        speeds.left_out.push(left_out);
    }
    Ok(speeds)
}

fn wanted(cases: Vec<Case>, kernel: Option<&str>) -> Result<Vec<Case>> {
    let Some(part) = kernel else { return Ok(cases) };
    let mut names: Vec<&str> = cases.iter().map(|case| case.kernel).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    if !names.iter().any(|name| name.contains(part)) {
        return Err(Error::config(
            "--kernel",
            format!("no kernel has `{part}` in its name; there are {}", names.join(", ")),
        ));
    }
    Ok(cases.into_iter().filter(|case| case.kernel.contains(part)).collect())
}

/// The figures of a case.
fn measure(
    device: &Device,
    case: &Case,
    ceilings: Ceilings,
    size: Size,
) -> std::result::Result<KernelSpeed, DeviceError> {
    let ready = Ready::new(device, case, size)?;
    let (seconds, relative_error) = (ready.median_seconds()?, ready.relative_error);
    let (floor, bound) = ceilings.floor(case.work, case.precision);
    let Work { bytes, flops } = case.work;
    Ok(KernelSpeed {
        kernel: case.kernel,
        shape: case.shape.clone(),
        precision: case.precision_name(),
        ms: seconds * 1e3,
        bytes,
        flops,
        gbps: bytes / seconds * 1e-9,
        tflops: flops / seconds * 1e-12,
        floor_ms: floor * 1e3,
        bound,
        share_of_floor: floor / seconds,
        relative_error,
        tolerance: case.tolerance,
    })
}
