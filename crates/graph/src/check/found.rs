//! What a run of a case computed, wherever it ran, and whether it is right.

use super::Case;
use super::expected::{Data, Sampled, input_name};
use super::setting::Setting;
use crate::op::LookupSource;
use crate::param::Parameters;
use crate::plan::{Plan, SparseSource};
use crate::run::Input;
use manygate_core::{Batch, Result};
use manygate_kernels::embedding::Rows;
use std::ops::Range;
use std::sync::Arc;

/// Where the results of a run are read.
pub(super) trait Results {
    /// The only output, row after row.
    fn output(&mut self) -> Result<Vec<f32>>;
    /// What the terms of part `part` of the loss add up to; [`None`] where nothing computes it.
    fn loss(&mut self, part: usize) -> Option<f64>;
    /// The gradient of a tapped value.
    fn tapped(&mut self, name: &str) -> Result<Vec<f32>>;
    /// The gradient of a range of the parameters.
    fn parameters(&mut self, range: Range<usize>) -> Vec<f32>;
    /// The gradient of what was looked up, row after row.
    fn rows(&mut self, source: &SparseSource) -> Vec<f32>;
}

/// What a run computed.
pub(super) struct Found {
    output: Option<Vec<f32>>,
    loss: Option<f64>,
    /// By input that learns: its gradient.
    gradients: Vec<Option<Vec<f32>>>,
    tables: Vec<Vec<f32>>,
}

/// Gives `run` what a case's plan reads.
pub(super) fn with_input<T>(
    case: &Case,
    data: &Data,
    plan: &Plan,
    run: impl FnOnce(&Input<'_>) -> T,
) -> Result<T> {
    let mut params = Parameters::initial(Arc::clone(plan.layout()), 0);
    for (i, input) in data.raw.iter().enumerate().filter(|(i, _)| case.inputs[*i].once.is_some()) {
        let values: Vec<f32> = input.data.iter().map(|&v| v as f32).collect();
        params.set(&input_name(i), &values)?;
    }
    let state = Parameters::initial(Arc::clone(plan.state_layout()), 0);
    let specs = plan.tables().iter().zip(&data.tables);
    let tables: Vec<Rows<'_>> = specs.map(|(t, v)| Rows::new(v, t.rows, t.dim, t.dim)).collect();
    let seeds: Vec<f32> = plan.losses().iter().map(|part| data.seed(part)).collect();
    let (batch, draws) = (&data.batch, data.draws());
    Ok(run(&Input { params: &params, state: &state, tables: &tables, batch, seeds: &seeds, draws }))
}

/// The gradient of every table, `[rows, dim]`, of the gradient rows of each source.
pub(super) fn scatter(
    plan: &Plan,
    batch: &Batch,
    mut rows_of: impl FnMut(&SparseSource) -> Vec<f32>,
) -> Vec<Vec<f32>> {
    let mut tables: Vec<Vec<f32>> = plan.tables().iter().map(|t| vec![0.0; t.rows * t.dim]).collect();
    for source in plan.sparse_sources() {
        let dim = plan.tables()[source.table].dim;
        let rows = rows_of(source);
        let of_scenario = |r: usize| source.scenario.is_none_or(|s| batch.scenario[r] as usize == s);
        for (r, row) in rows.chunks_exact(dim).enumerate().filter(|(r, _)| of_scenario(*r)) {
            let ids = match source.source {
                LookupSource::Field(f) => &batch.ids[f][r..=r],
                LookupSource::Bag(b) => batch.bags[b].row(r),
                LookupSource::Positions(b) => &batch.bags[b].ids[r..=r],
            };
            for &id in ids {
                let to = &mut tables[source.table][id as usize * dim..][..dim];
                to.iter_mut().zip(row).for_each(|(to, d)| *to += d);
            }
        }
    }
    tables
}

impl Found {
    /// Reads what a run of `plan` left.
    ///
    /// # Errors
    /// When something is not there.
    pub(super) fn read(
        case: &Case,
        data: &Data,
        setting: &Setting,
        plan: &Plan,
        results: &mut dyn Results,
    ) -> Result<Found> {
        let mut found = Found { output: None, loss: None, gradients: Vec::new(), tables: Vec::new() };
        if plan.output_names().next().is_some() {
            found.output = Some(results.output()?);
        }
        if !setting.is_training() {
            return Ok(found);
        }
        let own = data.own_part.as_ref().map_or("output", |part| &part.name);
        let part = plan.losses().iter().position(|p| p.name == own);
        found.loss = part.and_then(|part| results.loss(part));
        for (i, spec) in case.inputs.iter().enumerate() {
            let name = input_name(i);
            found.gradients.push(match (setting.learns(i), spec.once) {
                (false, _) => None,
                (true, None) => Some(results.tapped(&name)?),
                (true, Some(_)) => {
                    let block = plan.layout().blocks().find(|(block, _)| block.name == name);
                    Some(results.parameters(block.map(|(_, range)| range).unwrap_or_default()))
                }
            });
        }
        found.tables = scatter(plan, &data.batch, |source| results.rows(source));
        Ok(found)
    }

    /// Everything, to the bit.
    pub(super) fn bits(&self) -> Vec<u64> {
        let numbers = self.output.iter().chain(self.gradients.iter().flatten()).chain(&self.tables).flatten();
        numbers.map(|v| u64::from(v.to_bits())).chain(self.loss.map(f64::to_bits)).collect()
    }

    /// Compares all with the reference.
    ///
    /// # Errors
    /// The first value that is wrong.
    pub(super) fn compare(
        &self,
        case: &Case,
        data: &Data,
        setting: &Setting,
        rounding: Rounding,
    ) -> std::result::Result<(), String> {
        if let Some(output) = &self.output {
            let expected: Sampled = data.output.data.iter().copied().enumerate().collect();
            compare_above(rounding, "output", output, &expected)?;
        }
        if let Some(loss) = self.loss {
            let scale: f64 = data.output.data.iter().map(|v| v.abs()).sum();
            if loss.is_nan() || (loss - data.loss).abs() > rounding.of_scale * scale.max(1.0) {
                return Err(format!("the loss is {loss}, the reference's {}", data.loss));
            }
        }
        for (i, found) in self.gradients.iter().enumerate() {
            let Some(found) = found else { continue };
            let cols = case.inputs[i].cols;
            let (left, right) = if case.inputs[i].once.is_some() { (0, 0) } else { setting.beside() };
            let wide = left + cols + right;
            let place = |at: usize| at / cols * wide + left + at % cols;
            let expected: Sampled = data.gradients[i]
                .iter()
                .map(|&(at, d)| (place(at), setting.below(case, data, i, at, d)))
                .collect();
            compare_above(rounding, &format!("gradient of input {i}"), found, &expected)?;
            let is_beside = |at: &usize| !(left..left + cols).contains(&(at % wide));
            if let Some(at) = (0..found.len()).filter(is_beside).find(|&at| found[at] != 0.0) {
                return Err(format!("gradient of input {i}: {} beside its columns", found[at]));
            }
        }
        for (t, expected) in data.table_gradients.iter().enumerate().filter(|_| !self.tables.is_empty()) {
            compare_above(rounding, &format!("gradient of table {t}"), &self.tables[t], expected)?;
        }
        Ok(())
    }
}

/// How far a value may be from what is expected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding {
    /// As a share of it,
    pub(super) of_value: f64,
    /// of the largest of its tensor,
    pub(super) of_scale: f64,
    /// and in any case.
    pub(super) noise: f64,
}

impl Rounding {
    /// Of sums in f32.
    pub(super) const F32: Rounding = Rounding { of_value: 1e-4, of_scale: 1e-5, noise: 1e-6 };
    /// Of values in bf16.
    pub(super) const BF16: Rounding = Rounding { of_value: 1e-2, of_scale: 1e-2, noise: 1e-4 };
}

/// Compares the expected elements of a tensor, and that all of it is finite.
pub(super) fn compare(what: &str, found: &[f32], expected: &Sampled) -> std::result::Result<(), String> {
    compare_above(Rounding::F32, what, found, expected)
}

/// The same with another rounding.
pub(super) fn compare_above(
    Rounding { of_value, of_scale, noise }: Rounding,
    what: &str,
    found: &[f32],
    expected: &Sampled,
) -> std::result::Result<(), String> {
    if let Some(at) = found.iter().position(|v| !v.is_finite()) {
        return Err(format!("{what} is {} at {at}", found[at]));
    }
    let scale = expected.iter().map(|(_, e)| e.abs()).fold(0.0, f64::max);
    for &(at, e) in expected {
        let found = found.get(at).copied().map_or(f64::NAN, f64::from);
        if (found - e).abs() > of_value * e.abs() + of_scale * scale + noise || found.is_nan() {
            return Err(format!("{what} at {at} is {found}, {e} is expected"));
        }
    }
    Ok(())
}
