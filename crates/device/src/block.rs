//! What differs from run to run, on its way to the device.

use crate::memory::{Sizes, failed};
use manygate_core::Result;
use manygate_cuda::device::{Device, DeviceBuffer, Event, PinnedBuffer, Stream};

/// Runs that may be under way at once: the host prepares one while the device works on the other.
pub(crate) const SLOTS: usize = 2;

/// A block on its way: the host fills one while the device still reads what it was given before.
pub(crate) struct Slot {
    host: PinnedBuffer<u8>,
    staged: DeviceBuffer<u8>,
    /// Marks when `staged` is filled.
    arrived: Event,
    /// Marks when `staged` may be overwritten.
    taken: Event,
    /// What the run told, when it is done.
    pub(crate) told: PinnedBuffer<f64>,
    /// The outputs of its rows, where it is one of evaluation.
    pub(crate) outputs: PinnedBuffer<f32>,
}

impl Slot {
    pub(crate) fn new(device: &Device, sizes: &Sizes) -> Result<Slot> {
        Ok(Slot {
            host: device.pinned(sizes.block as usize).map_err(failed)?,
            staged: device.allocate(sizes.block as usize).map_err(failed)?,
            arrived: device.event().map_err(failed)?,
            taken: device.event().map_err(failed)?,
            told: device.pinned(sizes.told).map_err(failed)?,
            outputs: device.pinned(sizes.outputs).map_err(failed)?,
        })
    }

    /// Lets `fill` write the block, sends it on the stream of copies, and lets `stream` move it to `block` when it has
    /// arrived.
    pub(crate) fn send(
        &mut self,
        copies: &Stream,
        stream: &Stream,
        block: &DeviceBuffer<u8>,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        fill(self.host.as_mut_slice().map_err(failed)?)?;
        let all = 0..block.len();
        let sent = copies.wait(&self.taken);
        let sent = sent.and_then(|()| self.staged.upload_pinned(copies, 0, &self.host, all.clone()));
        let sent = sent.and_then(|()| self.arrived.record(copies));
        let sent = sent.and_then(|()| stream.wait(&self.arrived));
        let sent = sent.and_then(|()| block.copy_from(stream, 0, &self.staged, all));
        sent.and_then(|()| self.taken.record(stream)).map_err(failed)
    }
}
