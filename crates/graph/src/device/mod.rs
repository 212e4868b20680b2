//! Plans on a CUDA device: the same steps, recorded as launches over the whole batch at once.
//!
//! A device runs a plan compiled with tiles of as many rows as a batch may have: what lies in a worker's arena on the CPU
//! lies in one arena for the whole batch, and what dies early makes room there in the same way. Each op turns its step
//! into [launches](manygate_cuda::Launch), which are data; [`Plan::record`](crate::Plan::record) collects them. Nothing
//! here needs a device: who runs the launches says where memory lies ([`DeviceMemory`]), fills the batch
//! ([`BatchLayout`]) and replays them for any batch that fits the [`Capacity`] they were recorded for.

mod batch;
mod layers;
mod places;
mod record;
mod scenarios;
mod step;

pub use batch::{BatchLayout, Capacity, DeviceBag, DeviceBatch};
pub use layers::layers_refused;
pub use record::{DeviceMemory, Recording};
pub use scenarios::{listed_scenarios_scratch, scenario_sums_scratch};
pub use step::{DeviceGradient, DeviceStep, copy_bytes, groups_refused, scenarios_refused};

use crate::check::Case;
use crate::graph::{Graph, Kind};
use crate::ops;
use crate::plan::{Plan, PlanOptions};
use crate::shape::Shape;
use manygate_core::{Error, Result};
use manygate_cuda::{DeviceMat, Launch};
use std::collections::BTreeMap;

/// Which of its values an op can read and write as bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    /// The inputs, as a bit set by position; each with its gradient.
    pub inputs: u64,
    /// The output, with its gradient.
    pub output: bool,
}

impl Halves {
    /// All of them.
    pub const ALL: Halves = Halves { inputs: u64::MAX, output: true };
}

/// An op that a CUDA device can run.
pub trait DeviceOp {
    /// What it can read and write as bf16.
    fn halves(&self) -> Halves {
        Halves::default()
    }

    /// Why its kernels cannot take inputs of these shapes, however many rows there are; [`None`] where they can.
    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        None
    }

    /// Whether its launches weigh and sum the rows of a [part of the loss](crate::op::Op::loss) by scenario, where the part does.
    fn sums_by_scenario(&self) -> bool {
        false
    }

    /// Bytes of scratch for a batch of at most `capacity` rows and ids, used by this op's launches alone.
    fn scratch(&self, _capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        0
    }

    /// Launches what computes the output.
    fn forward(&self, step: &mut DeviceStep<'_>);

    /// Launches that move the state at `state`, f32, by the output: that of a [reduction](crate::op::Reduction), or the
    /// [next one](crate::op::Op::next_state). Into a reduction went `cols` values a row of `batch`; `go_on` is the address
    /// of a u32 that is 0 where nothing may move.
    fn update_state(
        &self,
        _batch: &DeviceBatch,
        _go_on: u64,
        _output: DeviceMat,
        _state: u64,
        _cols: u32,
    ) -> Vec<Launch> {
        Vec::new()
    }

    /// Launches what computes the gradients of inputs and weights from the gradient of the output. It must take the
    /// gradient of every input that is wanted.
    fn backward(&self, step: &mut DeviceStep<'_>);
}

impl Graph {
    /// The ops of the graph that have no CUDA kernel: op, and the first value that needs it.
    pub fn without_device_kernel(&self) -> BTreeMap<&'static str, &str> {
        let mut missing = BTreeMap::new();
        for node in &self.nodes {
            if let Kind::Op { op, .. } = &node.kind
                && op.on_device().is_none()
            {
                missing.entry(op.name()).or_insert(node.name.as_str());
            }
        }
        missing
    }
}

impl Plan {
    /// The same plan as a device runs it: with tiles of as many rows as its batches may have.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn for_device(&self, rows: usize) -> Result<Plan> {
        let options = PlanOptions { tile_rows: rows, lane_rows: rows, ..self.options.clone() };
        Plan::compile(self.graph.clone(), options)
    }
}

/// How much of an op a CUDA device can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDevice {
    /// All of it.
    Whole,
    /// Some forms.
    InPart,
    /// Nothing.
    No,
}

/// Every op of the engine, and how much of it a CUDA device can run.
pub fn kernels_by_op() -> BTreeMap<&'static str, OnDevice> {
    let mut ops = BTreeMap::new();
    for (op, runs) in ops::cases().iter().filter_map(Case::on_device) {
        let this = if runs { OnDevice::Whole } else { OnDevice::No };
        ops.entry(op)
            .and_modify(|known| *known = if *known == this { this } else { OnDevice::InPart })
            .or_insert(this);
    }
    ops
}

/// That a device cannot run `ops`, the first of which computes the value `name`.
pub(crate) fn missing(name: &str, ops: &[&str]) -> Error {
    let (last, before) = ops.split_last().unwrap_or((&"", &[]));
    let what = match before {
        [] => format!("the op `{last}` has no CUDA kernel yet"),
        before => format!("the ops `{}` and `{last}` have no CUDA kernel yet", before.join("`, `")),
    };
    Error::graph(name, format!("{what}; run the model with `--device cpu`"))
}
