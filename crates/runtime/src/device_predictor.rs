//! Inference on a CUDA device.

use crate::model::{Model, Weights};
use crate::predictor::{CHUNK_ROWS, check_numbers, chunks, not_finite};
use manygate_core::{Batch, Result};
use manygate_cuda::Precision;
use manygate_cuda::device::Device;
use manygate_device::{DeviceModel, TableShape};
use manygate_graph::device::Capacity;
use manygate_graph::{Draws, Plan};
use std::collections::VecDeque;

/// Runs an evaluation plan on a device: while it predicts some rows, the host prepares the next. Rows have the predictions
/// of a [`Predictor`](crate::Predictor) up to the rounding of sums, and whatever stands beside them.
#[derive(Debug)]
pub struct DevicePredictor {
    model: DeviceModel,
    /// The caller's rows of each run under way.
    under_way: VecDeque<Vec<u32>>,
}

impl DevicePredictor {
    /// Copies the weights of `model` to a device, to predict rows with lists as long as those of `data`.
    ///
    /// # Errors
    /// When the device cannot run the model, its memory is too small, or columns of the data do not fit each other.
    pub fn new(
        device: &Device,
        model: &Model,
        precision: Precision,
        data: &[&Batch],
    ) -> Result<DevicePredictor> {
        let Weights { params, state, tables } = model.weights();
        let shapes: Vec<TableShape> = tables
            .0
            .iter()
            .map(|t| TableShape { rows: t.spec().rows, dim: t.spec().dim, stride: t.stride() })
            .collect();
        let capacity = capacity(data)?;
        let plan = model.plan.for_device(capacity.rows)?;
        let mut on_device = DeviceModel::new(device, plan, capacity, precision, &shapes, None)?;
        on_device.upload(params, state)?;
        for (t, table) in tables.0.iter().enumerate() {
            on_device.upload_table(t, table.values())?;
        }
        Ok(DevicePredictor { model: on_device, under_way: VecDeque::new() })
    }

    /// Predicts with the weights that `trained` has, by the evaluation plan of the same model, in f32 whatever `trained`
    /// multiplies in; rows with lists as long as those of `data`.
    ///
    /// # Errors
    /// When the plan declares other weights, the device cannot run it, or what is free of its memory is too small.
    pub fn sharing(trained: &DeviceModel, plan: &Plan, data: &[&Batch]) -> Result<DevicePredictor> {
        let capacity = capacity(data)?;
        let plan = plan.for_device(capacity.rows)?;
        let model = trained.sharing(plan, capacity, Precision::F32)?;
        Ok(DevicePredictor { model, under_way: VecDeque::new() })
    }

    /// Names of the outputs, in order.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.model.plan().output_names()
    }

    /// Predicts any number of rows: `[output][row]`.
    ///
    /// # Errors
    /// When the data does not fit the model, its lists are longer than those that the predictor was made for, a number or an
    /// output is not finite, or the device fails.
    pub fn predict_all(&mut self, data: &Batch) -> Result<Vec<Vec<f32>>> {
        let chunks = chunks(data, CHUNK_ROWS)?;
        check_numbers(data)?;
        let mut out = vec![vec![0.0; data.rows]; self.output_names().count()];
        let done = self.predict(data, chunks, &mut out);
        if done.is_err() {
            // What is under way belongs to nobody; a device that failed has nothing.
            while let Ok(Some(_)) = self.model.finish() {}
            self.under_way.clear();
        }
        done.map(|()| out)
    }

    fn predict(
        &mut self,
        data: &Batch,
        chunks: impl Iterator<Item = Vec<u32>>,
        out: &mut [Vec<f32>],
    ) -> Result<()> {
        let seeds = vec![1.0; self.model.plan().losses().len()];
        let mut part = Batch::empty_like(data);
        for mut rows in chunks {
            if !self.model.has_room() {
                self.take(out)?;
            }
            if self.model.plan().orders_rows() {
                rows.sort_by_key(|&row| data.scenario.get(row as usize));
            }
            part.gather(data, &rows);
            self.model.run(&part, &seeds, Draws::default(), None)?;
            self.under_way.push_back(rows);
        }
        while self.take(out)? {}
        Ok(())
    }

    /// Waits for the oldest rows that are under way, and writes their outputs; tells whether there were any.
    fn take(&mut self, out: &mut [Vec<f32>]) -> Result<bool> {
        let (Some(finished), Some(rows)) = (self.model.finish()?, self.under_way.pop_front()) else {
            return Ok(false);
        };
        let (width, names) = (out.len(), self.model.plan().output_names());
        for (index, (name, column)) in names.zip(out.iter_mut()).enumerate() {
            let values = finished.outputs.iter().skip(index).step_by(width);
            for (&row, &value) in rows.iter().zip(values) {
                if !value.is_finite() {
                    return Err(not_finite(name, value, row as usize));
                }
                column[row as usize] = value;
            }
        }
        Ok(true)
    }
}

/// As many rows at a time as the CPU predicts.
///
/// # Errors
/// When columns of the data do not fit each other.
fn capacity(data: &[&Batch]) -> Result<Capacity> {
    data.iter().try_for_each(|batch| batch.validate())?;
    let rows = data.iter().map(|batch| batch.rows).max().unwrap_or(0);
    Ok(Capacity::of(data, rows.clamp(1, CHUNK_ROWS)))
}
