//! A case on a device: the same paths of a plan, as launches over the whole batch.

use super::expected::Data;
use super::found::{Found, Results, Rounding, with_input};
use super::setting::{Setting, settings_in};
use super::{Case, LONGEST};
use crate::device::{Capacity, DeviceMemory};
use crate::plan::{Plan, SparseSource};
use crate::run::Input;
use manygate_core::Result;
use manygate_cuda::{DeviceMat, Element, Precision};
use manygate_kernels::Isa;
use std::ops::Range;

/// Numbers of rows that a case is checked with, and those that memory and launches are made for.
const ROWS: [(usize, usize); 3] = [(1, 1), (7, 12), (34, 34)];

/// Of the settings the first: training, with outputs too, and evaluation.
const PLAINEST: usize = 3;

/// A device that plans run on.
pub trait DeviceRunner {
    /// Runs `plan` over the batch of `input` in `precision`, in memory for `capacity` that holds no number where the plan
    /// writes; tells where that memory is.
    ///
    /// # Errors
    /// Why it cannot, or what a launch did that is not allowed.
    fn run(
        &mut self,
        plan: &Plan,
        input: &Input<'_>,
        capacity: &Capacity,
        precision: Precision,
    ) -> std::result::Result<DeviceMemory, String>;

    /// `count` bytes of that memory.
    fn read(&mut self, address: u64, count: usize) -> Vec<u8>;
}

/// What became of a case on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckedOnDevice {
    /// It is right there, in so many runs.
    Right(usize),
    /// The op has no launches.
    NoLaunches,
}

/// Checks a case on a device, in every setting in which a tile holds the whole batch: 7 rows, for fewer than there is room,
/// and 34; and in the plainest settings one row. In bf16 inputs end in an activation.
///
/// # Errors
/// A message with the first value that is wrong: setting, tensor, index, both values.
///
/// # Panics
/// When the op's launches drop a gradient or read what it did not save.
pub fn check_on_device(
    case: &Case,
    precision: Precision,
    device: &mut dyn DeviceRunner,
) -> std::result::Result<CheckedOnDevice, String> {
    if !case.on_device().is_some_and(|(_, runs)| runs) {
        return Ok(CheckedOnDevice::NoLaunches);
    }
    let (rounding, all): (Rounding, &[bool]) = match precision {
        Precision::F32 | Precision::Tf32 => (Rounding::F32, &[false, true]),
        // Without an activation a tap is before the op, which stores f32.
        Precision::Bf16 => (Rounding::BF16, &[true]),
    };
    let mut runs = 0;
    for (rows, most) in ROWS {
        let (activated, most_settings): (&[bool], usize) =
            if rows == 1 { (&all[..1], PLAINEST) } else { (all, usize::MAX) };
        for &activated in activated {
            let told = |what: &dyn std::fmt::Display, m: String| format!("{}, {what}: {m}", case.name);
            let data = Data::new(case, rows, activated, false, precision == Precision::Bf16)
                .map_err(|m| told(&rows, m))?;
            let settings = settings_in((most, most), case, &data, Isa::best(), activated);
            for setting in settings.into_iter().take(most_settings) {
                let text = |e: manygate_core::Error| told(&setting, e.to_string());
                let Some(plan) = setting.plan(case, &data).map_err(text)? else { continue };
                plan.check_device().map_err(text)?;
                let capacity = Capacity { rows: most, ids: vec![most * LONGEST; data.batch.bags.len()] };
                run(case, &data, &setting, &plan, &capacity, precision, device)
                    .and_then(|found| found.compare(case, &data, &setting, rounding))
                    .map_err(|m| told(&setting, m))?;
                runs += 1;
            }
        }
    }
    Ok(CheckedOnDevice::Right(runs))
}

fn run(
    case: &Case,
    data: &Data,
    setting: &Setting,
    plan: &Plan,
    capacity: &Capacity,
    precision: Precision,
    device: &mut dyn DeviceRunner,
) -> std::result::Result<Found, String> {
    let text = |e: manygate_core::Error| e.to_string();
    let memory = with_input(case, data, plan, |input| device.run(plan, input, capacity, precision))
        .map_err(text)??;
    let own_loss = data.own_part.is_some();
    let mut results = OnDevice { plan, memory, capacity, precision, own_loss, device };
    Found::read(case, data, setting, plan, &mut results).map_err(text)
}

/// What a run left in a device's memory.
struct OnDevice<'a> {
    plan: &'a Plan,
    memory: DeviceMemory,
    capacity: &'a Capacity,
    precision: Precision,
    /// Whether the op under test is a loss: the other losses are not summed.
    own_loss: bool,
    device: &'a mut dyn DeviceRunner,
}

impl OnDevice<'_> {
    fn words(&mut self, address: u64, count: usize) -> Vec<u32> {
        let bytes = self.device.read(address, 4 * count);
        let (words, _) = bytes.as_chunks();
        words.iter().map(|&word| u32::from_le_bytes(word)).collect()
    }

    fn values(&mut self, address: u64, count: usize) -> Vec<f32> {
        self.words(address, count).into_iter().map(f32::from_bits).collect()
    }

    /// Values side by side.
    fn row(&mut self, address: u64, count: usize, element: Element) -> Vec<f32> {
        match element {
            Element::F32 => self.values(address, count),
            Element::Bf16 => {
                let bytes = self.device.read(address, 2 * count);
                let (halves, _) = bytes.as_chunks();
                let upper = |&half: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16);
                halves.iter().map(upper).collect()
            }
        }
    }

    /// The rows of a matrix that are there, without what lies between them.
    fn flat(&mut self, mat: DeviceMat) -> Vec<f32> {
        let rows = if mat.live_rows == 0 { mat.rows } else { self.words(mat.live_rows, 1)[0] };
        let start = |row: u32| mat.address + mat.element.bytes() * u64::from(row) * u64::from(mat.stride);
        (0..rows).flat_map(|row| self.row(start(row), mat.cols as usize, mat.element)).collect()
    }
}

impl Results for OnDevice<'_> {
    fn output(&mut self) -> Result<Vec<f32>> {
        let mat = self.plan.device_output(&self.memory, self.capacity, 0);
        Ok(self.flat(mat))
    }

    fn loss(&mut self, part: usize) -> Option<f64> {
        let (begins, weight) = (self.plan.device_loss_begins(), f64::from(self.plan.losses()[part].weight));
        let groups = (begins[part]..begins[part + 1]).map(u64::from);
        let terms = groups.map(|group| {
            let [low, high] = self.words(self.memory.losses + 8 * group, 2)[..] else { return f64::NAN };
            let [scale] = self.values(self.memory.batch.scales + 4 * group, 1)[..] else { return f64::NAN };
            f64::from_bits(u64::from(high) << 32 | u64::from(low)) * f64::from(scale) / weight
        });
        let sum = terms.sum();
        self.own_loss.then_some(sum)
    }

    fn tapped(&mut self, name: &str) -> Result<Vec<f32>> {
        let mat = self.plan.device_tapped_gradient(&self.memory, self.capacity, self.precision, name)?;
        Ok(self.flat(mat))
    }

    fn parameters(&mut self, range: Range<usize>) -> Vec<f32> {
        self.values(self.memory.gradients + 4 * range.start as u64, range.len())
    }

    fn rows(&mut self, source: &SparseSource) -> Vec<f32> {
        let mat = self.plan.device_sparse_gradient(&self.memory, self.capacity, self.precision, source);
        self.flat(mat)
    }
}
