//! Values of a model on their way to a device and back.

use super::DeviceModel;
use crate::memory::failed;
use crate::weights::Weights;
use manygate_core::{Error, Result};
use manygate_cuda::{DeviceMat, Element};
use manygate_graph::{Parameters, SparseSource};

impl DeviceModel {
    /// Copies parameters and state to the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn upload(&mut self, params: &Parameters, state: &Parameters) -> Result<()> {
        let Weights { params: to_params, state: to_state, .. } = &*self.weights;
        let done = to_params.upload(&self.stream, 0, &params.values);
        done.and_then(|()| to_state.upload(&self.stream, 0, &state.values)).map_err(failed)
    }

    /// Copies parameters and state of the last run back.
    ///
    /// # Errors
    /// When the device failed.
    pub fn download(&self, params: &mut Parameters, state: &mut Parameters) -> Result<()> {
        let Weights { params: from_params, state: from_state, .. } = &*self.weights;
        let done = from_params.download(&self.stream, 0, &mut params.values);
        done.and_then(|()| from_state.download(&self.stream, 0, &mut state.values)).map_err(failed)
    }

    /// Copies moments, laid out as the parameters, to the device. A model without optimisers has none.
    ///
    /// # Errors
    /// When the device fails.
    pub fn upload_moments(&mut self, first: &[f32], second: &[f32]) -> Result<()> {
        let [to_first, to_second] = &self.buffers.moments;
        let done = to_first.upload(&self.stream, 0, first);
        done.and_then(|()| to_second.upload(&self.stream, 0, second)).map_err(failed)
    }

    /// Copies the moments of the last run back.
    ///
    /// # Errors
    /// When the device failed.
    pub fn download_moments(&self, first: &mut [f32], second: &mut [f32]) -> Result<()> {
        let [from_first, from_second] = &self.buffers.moments;
        let done = from_first.download(&self.stream, 0, first);
        done.and_then(|()| from_second.download(&self.stream, 0, second)).map_err(failed)
    }

    /// Copies all values of table `index` to the device, rows with their optimiser's state.
    ///
    /// # Errors
    /// When the device fails.
    pub fn upload_table(&mut self, index: usize, values: &[f32]) -> Result<()> {
        let Weights { tables, shapes, .. } = &*self.weights;
        shapes[index].upload(&self.stream, values, &tables[index]).map_err(failed)
    }

    /// Copies all values of table `index` back.
    ///
    /// # Errors
    /// When the device failed.
    pub fn download_table(&self, index: usize, values: &mut [f32]) -> Result<()> {
        let Weights { tables, shapes, .. } = &*self.weights;
        shapes[index].download(&self.stream, &tables[index], values).map_err(failed)
    }

    /// Gradients of the parameters from the last run; 0 for those that do not learn.
    ///
    /// # Errors
    /// When the device failed.
    pub fn gradients(&self) -> Result<Vec<f32>> {
        let mut gradients = vec![0.0; self.buffers.gradients.len()];
        self.buffers.gradients.download(&self.stream, 0, &mut gradients).map_err(failed)?;
        Ok(gradients)
    }

    /// Gradient rows of a source of look-ups from the last run, of which there were `rows`: `[rows, dim]`.
    ///
    /// # Errors
    /// When the device failed.
    pub fn sparse_gradient(&self, source: &SparseSource, rows: usize) -> Result<Vec<f32>> {
        self.read(
            self.plan.device_sparse_gradient(&self.memory, &self.capacity, self.precision, source),
            rows,
        )
    }

    /// Output number `index` of the last run, over `rows` rows: `[rows, width]`.
    ///
    /// # Errors
    /// When the device failed.
    pub fn output(&self, index: usize, rows: usize) -> Result<Vec<f32>> {
        self.read(self.plan.device_output(&self.memory, &self.capacity, index), rows)
    }

    fn read(&self, mat: DeviceMat, rows: usize) -> Result<Vec<f32>> {
        let missing = || Error::graph("device", "a value that is not kept cannot be read back");
        if mat.element != Element::F32 {
            return Err(Error::graph("device", "a value stored as bf16 cannot be read back"));
        }
        let (buffer, from) = self.buffers.kept_at(mat.address).ok_or_else(missing)?;
        let (stride, cols) = (mat.stride as usize, mat.cols as usize);
        let mut values = vec![0.0; (rows * stride).min(buffer.len() - from)];
        buffer.download(&self.stream, from, &mut values).map_err(failed)?;
        Ok(values.chunks(stride.max(1)).take(rows).flat_map(|row| &row[..cols]).copied().collect())
    }
}
