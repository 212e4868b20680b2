//! What an op sees of a step that is recorded.

use super::batch::{Capacity, DeviceBatch};
use super::places::Places;
use crate::graph::{LossId, Value};
use crate::plan::{Place, Step};
use manygate_core::{Error, Result};
use manygate_cuda::elementwise;
use manygate_cuda::embedding::DeviceTable;
use manygate_cuda::loss::{Scale, ScenarioRows};
use manygate_cuda::norm::Groups;
use manygate_cuda::sequence::Lists;
use manygate_cuda::{DeviceMat, Element, Launch, Precision, scenario};
use manygate_kernels::activation::Activation;

/// Where the gradient of an input goes.
#[derive(Clone, Copy, Debug)]
pub struct DeviceGradient {
    /// The matrix to write.
    pub to: DeviceMat,
    /// Whether to add to what is there, or overwrite it.
    pub accumulate: bool,
    /// After the sum, multiply by the slope of this activation at this output.
    pub mask: Option<(Activation, DeviceMat)>,
}

/// One op over the whole batch, in one direction: what it reads and writes, and where its launches go.
pub struct DeviceStep<'a> {
    pub(super) places: &'a Places<'a>,
    /// What the op reads.
    pub(super) inputs: &'a [Value],
    pub(super) step: &'a Step,
    pub(super) precision: Precision,
    pub(super) launches: &'a mut Vec<Launch>,
    pub(super) upload: &'a mut dyn FnMut(&[u8]) -> Result<u64>,
    /// The first upload that failed.
    pub(super) failure: Option<Error>,
    /// Inputs whose gradient was taken, as a bit set.
    pub(super) taken: u64,
}

impl<'a> DeviceStep<'a> {
    /// Adds a launch, which runs after all before it.
    pub fn launch(&mut self, launch: Launch) {
        self.launches.push(launch);
    }

    /// Adds launches, in order.
    pub fn launch_all(&mut self, launches: Vec<Launch>) {
        self.launches.extend(launches);
    }

    /// What products of matrices that are stored as `element` multiply in.
    pub fn precision(&self, element: Element) -> Precision {
        match (self.precision, element) {
            (Precision::F32, _) => Precision::F32,
            (_, Element::Bf16) => Precision::Bf16,
            (_, Element::F32) => Precision::Tf32,
        }
    }

    /// The largest batch.
    pub fn capacity(&self) -> &'a Capacity {
        self.places.capacity
    }

    /// The columns of the batch.
    pub fn batch(&self) -> &'a DeviceBatch {
        &self.places.memory.batch
    }

    /// Address of the caller's row of each row, u32; [`None`] where a plan never moves them.
    pub fn caller_rows(&self) -> Option<u64> {
        self.places.plan.orders_rows().then_some(self.batch().caller_rows)
    }

    /// The rows of the batch that have statistics in common: those of a scenario, or all.
    pub fn groups(&self, scenarios: Option<usize>) -> Groups {
        scenarios.map_or(Groups::ONE, |count| Groups::of(self.batch().scenario_starts, count))
    }

    /// The ids of each sample in list `bag`.
    pub fn lists(&self, bag: usize) -> Lists {
        let (batch, most) = (self.batch(), self.capacity().rows as u32);
        Lists { offsets: batch.bags[bag].offsets, samples: batch.rows, most }
    }

    /// The numbers of the batch, `[rows, width]`.
    pub fn dense(&self, width: usize) -> DeviceMat {
        let rows = self.capacity().rows as u32;
        DeviceMat { live_rows: self.batch().rows, ..DeviceMat::new(self.batch().dense, rows, width as u32) }
    }

    /// Table number `index`.
    pub fn table(&self, index: usize) -> DeviceTable {
        self.places.memory.tables[index]
    }

    /// Input `i`.
    ///
    /// # Panics
    /// Backward, when it has rows and [`Op::saved`](crate::Op::saved) did not ask for it: its memory is used again.
    pub fn input(&self, i: usize) -> DeviceMat {
        self.places.of(self.inputs[i], saved(self.step.inputs[i]))
    }

    /// Input `i`, a weight, as it is multiplied by what is stored as `element`: a parameter has a copy, and one of what was
    /// computed is made at `scratch`, which takes [`copy_bytes`](super::copy_bytes).
    pub fn weight(&mut self, i: usize, element: Element, scratch: u64) -> DeviceMat {
        let weight = self.places.weight(self.step.inputs[i], element);
        self.copied(weight, element, scratch)
    }

    /// Whether input `i`, a weight, is there as it is multiplied by what is stored as `element`, without a copy.
    pub(super) fn has_weight(&self, i: usize, element: Element) -> bool {
        self.places.weight(self.step.inputs[i], element).element == element
    }

    /// The output; backward only where [`Op::saved`](crate::Op::saved) asked for it.
    ///
    /// # Panics
    /// Backward, when it was not saved.
    pub fn output(&self) -> DeviceMat {
        self.places.of_node(self.step.node, saved(self.step.output))
    }

    /// What the forward launches leave for the backward ones, see [`Op::extra`](crate::Op::extra).
    pub fn extra(&self) -> DeviceMat {
        self.places.kept(self.step.extra)
    }

    /// The gradient of the output; the op may overwrite it.
    pub fn output_gradient(&self) -> DeviceMat {
        self.own_gradient(self.step.output_gradient)
    }

    /// The gradient of the step's node at `place`.
    pub(super) fn own_gradient(&self, place: Place) -> DeviceMat {
        match place {
            Place::Once { .. } => self.places.once_gradient(place),
            other => self.places.of_node(self.step.node, other),
        }
    }

    /// `mat` as it is multiplied by what is stored as `element`: itself, or a copy at the start of scratch, which takes
    /// [`copy_bytes`](super::copy_bytes).
    pub fn stored_as(&mut self, element: Element, mat: DeviceMat) -> DeviceMat {
        self.copied(mat, element, self.scratch())
    }

    fn copied(&mut self, mat: DeviceMat, element: Element, address: u64) -> DeviceMat {
        if mat.element == element {
            return mat;
        }
        let copy = DeviceMat { address, stride: copy_stride(mat.cols), element, ..mat };
        self.launch(elementwise::copy_columns(mat, false, copy));
        copy
    }

    /// Lets `make` launch what writes a gradient: to where it goes, or, where it is added to what is there, to the memory at
    /// `scratch` first, which takes [`copy_bytes`](super::copy_bytes).
    pub fn put_gradient(
        &mut self,
        DeviceGradient { to, accumulate, .. }: DeviceGradient,
        scratch: u64,
        make: impl FnOnce(&mut Self, DeviceMat),
    ) {
        if !accumulate {
            return make(self, to);
        }
        let own = DeviceMat { address: scratch, stride: copy_stride(to.cols), ..to };
        make(self, own);
        self.launch(elementwise::copy_columns(own, true, to));
    }

    /// Whether the gradient of the output is already multiplied by the slope of the op's own activation.
    pub fn activation_done(&self) -> bool {
        self.step.activation_done
    }

    /// Where the gradient of input `i` goes; [`None`] when nobody wants it.
    pub fn take_gradient(&mut self, i: usize) -> Option<DeviceGradient> {
        self.taken |= 1 << i;
        let place = self.step.gradients[i].as_ref()?;
        let value = self.inputs[i];
        let to = match place.place {
            Place::Param { .. } | Place::Once { .. } => self.places.once_gradient(place.place),
            other => self.places.of(value, other),
        };
        let mask = place.mask.map(|(activation, output)| (activation, self.places.of(value, output)));
        Some(DeviceGradient { to, accumulate: place.accumulate, mask })
    }

    /// Address of the scratch that [`DeviceOp::scratch`](super::DeviceOp::scratch) asked for, aligned to 256 bytes.
    pub fn scratch(&self) -> u64 {
        self.places.memory.scratch
    }

    /// Address of the sum of losses of `part`, an f64, to be added to.
    pub fn loss_sum(&self, part: LossId) -> u64 {
        self.places.memory.losses + 8 * self.places.plan.loss_sums[part.index()].start as u64
    }

    /// The factor of the gradient of every row that adds to a part of the loss, or of those of each scenario.
    pub fn scale(&self, part: LossId) -> Scale {
        let (plan, batch) = (self.places.plan, self.batch());
        let count = plan.losses()[part.index()].groups() as u32;
        let of_rows = ScenarioRows { of_rows: batch.scenario, starts: batch.scenario_starts, count };
        let factors = batch.scales + 4 * plan.loss_sums[part.index()].start as u64;
        Scale { factors, scenarios: (count > 1).then_some(of_rows) }
    }

    /// Address of the key of the random numbers that the op with this [key](crate::Op::draws) draws in the step, u32 `[2]`.
    ///
    /// # Panics
    /// When no op of the plan draws by it.
    pub fn draws(&self, op: u64) -> u64 {
        let found = self.batch().draws.iter().find(|(key, _)| *key == op);
        found.map_or_else(|| panic!("no op of the plan draws by the key {op:#x}"), |&(_, address)| address)
    }

    /// Address of a copy of `bytes` in device memory, which stays as it is.
    pub fn constant(&mut self, bytes: &[u8]) -> u64 {
        match (self.upload)(bytes) {
            Ok(address) => address,
            Err(error) => {
                self.failure.get_or_insert(error);
                0
            }
        }
    }
}

/// Why kernels do not take statistics of so many groups of rows, if they do not.
pub fn groups_refused(groups: usize) -> Option<String> {
    let most = Groups::MOST;
    (groups > most).then(|| format!("statistics of {groups} scenarios, and its kernels take those of {most}"))
}

/// Why kernels do not take sums over the rows of each of so many scenarios, if they do not.
pub fn scenarios_refused(scenarios: usize) -> Option<String> {
    let most = scenario::MOST;
    (scenarios > most).then(|| format!("sums of {scenarios} scenarios, and its kernels take those of {most}"))
}

fn saved(place: Place) -> Place {
    assert!(place != Place::Gone, "a step reads what its op did not save for its backward pass");
    place
}

/// Values from one row of a copy to the next: whole loads of 16 bytes.
fn copy_stride(cols: u32) -> u32 {
    cols.next_multiple_of(8)
}

/// Bytes of scratch that a copy of a matrix takes, a multiple of 256.
pub fn copy_bytes(rows: usize, cols: usize) -> u64 {
    (4 * rows as u64 * u64::from(copy_stride(cols as u32))).next_multiple_of(256)
}
