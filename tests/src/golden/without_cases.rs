//! Models without golden cases: what a device computes for a small one, by what the CPU computes for it.

use super::contents::{Contents, Expected};
use super::engine::{self, Variant};
use super::translate::Setup;
use manygate_core::{Batch, Stream};
use manygate_embedding::Table;
use manygate_graph::{Mode, Parameters, Plan, PlanOptions};
use manygate_models::Inputs;
use std::collections::BTreeMap;

/// The model of `keys` over `inputs`, with random values; it is expected to compute of `batch` what the CPU does.
///
/// # Errors
/// When the engine refuses.
pub(super) fn small(keys: &str, inputs: Inputs, batch: Batch) -> Result<(Setup, Contents), String> {
    let model = keys.parse().map_err(|e| format!("{keys}: {e}"))?;
    let setup = Setup::of_model(model, inputs, batch.rows);
    let plan = engine::plan(&setup, Mode::Training, PlanOptions::default())?;
    let contents = Contents {
        params: random(&plan),
        state: Parameters::initial(plan.state_layout().clone(), 1),
        tables: tables(&plan).map_err(|e| e.to_string())?,
        batch,
        expected: BTreeMap::new(),
    };
    let variant = Variant::all().next().ok_or("there is no instruction set")?;
    let by_cpu = engine::compute(&setup, &contents, variant)?.values.into_iter();
    let expected = by_cpu.map(|(name, values)| {
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        (name, Expected { shape: vec![values.len()], values })
    });
    Ok((setup, Contents { expected: expected.collect(), ..contents }))
}

/// Parameters of which none is at the 0 or 1 that it starts with.
fn random(plan: &Plan) -> Parameters {
    let (mut params, stream) = (Parameters::initial(plan.layout().clone(), 1), Stream::new(10, 0, 0));
    params.values.iter_mut().zip(0..).for_each(|(value, i)| *value += 0.1 * stream.normal(i, 0));
    params
}

fn tables(plan: &Plan) -> manygate_core::Result<Vec<Table>> {
    let stream = Stream::new(9, 0, 0);
    let random = |(t, spec): (usize, &manygate_graph::TableSpec)| {
        let mut table = Table::zeroed(spec.clone(), 0);
        let weights = (0..spec.rows * spec.dim).map(|i| stream.normal(i as u64, t as u64));
        table.set_weights(&weights.collect::<Vec<_>>()).map(|()| table)
    };
    plan.tables().iter().enumerate().map(random).collect()
}
