//! Every key of every model set to a value that may be wrong: what is built trains a step, and what is refused is told by
//! the name of a key. Nothing panics.

use manygate_core::{Bag, Batch, Error, Result, Serial, Stream};
use manygate_graph::{Mode, PlanOptions};
use manygate_kernels::embedding::Pooling;
use manygate_models::config::Key;
use manygate_models::inputs::{BagField, Field, Inputs, Table, Task};
use manygate_models::{MODELS, build, from_table};
use manygate_tests::on_all_cores;
use manygate_tests::small_models::configurations;
use manygate_train::Learner;
use manygate_train::optim::OptimizerConfig;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

const IDS: usize = 5;
const ROWS: usize = 6;
const SCENARIOS: usize = 2;
const VALUES: [&str; 7] = ["0", "1", "-1", "[]", "[0]", "\"\"", "true"];

fn inputs(model: &str) -> Inputs {
    let table = |name: &str, rows| Table { name: name.into(), rows, dim: None };
    let list = |name: &str, table| {
        let pooling = Pooling::Mean;
        BagField { name: name.into(), table, pooling, longest: Some(3) }
    };
    let bags = [list("history", 1), list("history_scenarios", 2)];
    // They predict one task.
    let tasks = if ["causalint", "deepfm"].contains(&model) { 1 } else { 2 };
    Inputs {
        tables: vec![table("user", IDS), table("item", IDS), table("scenario", SCENARIOS + 1)],
        fields: vec![Field { name: "user".into(), table: 0 }, Field { name: "item".into(), table: 1 }],
        // It alone reads the scenarios of a list.
        bags: bags[..if model == "sarnet" { 2 } else { 1 }].to_vec(),
        dense: 2,
        dense_names: ["price", "weight"].map(str::to_owned).to_vec(),
        scenarios: SCENARIOS,
        tasks: ["click", "buy"].map(Task::binary)[..tasks].to_vec(),
    }
}

fn batch() -> Batch {
    let stream = Stream::new(3, 0, 0);
    let below = |r: usize, column: u64, below: usize| stream.below(r as u64, column, below as u64) as u32;
    let list = |column, ids| {
        let mut bag = Bag { offsets: vec![0], ids: Vec::new() };
        for r in 0..ROWS {
            bag.ids.extend((0..r % 4).map(|i| below(r, column + i as u64, ids)));
            bag.offsets.push(bag.ids.len() as u32);
        }
        bag
    };
    Batch {
        rows: ROWS,
        ids: (0..2).map(|field| (0..ROWS).map(|r| below(r, field, IDS)).collect()).collect(),
        bags: vec![list(3, IDS), list(8, SCENARIOS + 1)],
        dense: (0..ROWS * 2).map(|i| stream.normal(i as u64, 20)).collect(),
        dense_width: 2,
        scenario: (0..ROWS as u32).map(|r| r % 2).collect(),
        labels: (0..2).map(|t| (0..ROWS).map(|r| below(r, 30 + t, 2) as f32).collect()).collect(),
    }
}

/// One step with the model, its key set to the value.
fn train(keys: &toml::Table, inputs: &Inputs, batch: &Batch) -> Result<()> {
    let (_, architecture) = from_table(keys)?;
    build(architecture.as_ref(), inputs, Mode::Evaluation)?;
    let graph = build(architecture.as_ref(), inputs, Mode::Training)?;
    let (options, optimizer) = (PlanOptions::default(), OptimizerConfig::default());
    Learner::new(graph, options, &optimizer, 1, &Serial, ROWS)?.step(&Serial, batch).map(|_| ())
}

/// What is wrong with what came of it.
fn fault(keys: &toml::Table, inputs: &Inputs, batch: &Batch) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| train(keys, inputs, batch))) {
        Err(_) => Some("a panic".to_owned()),
        Ok(Ok(())) => None,
        Ok(Err(Error::Config { key, .. })) if key != "model" => None,
        Ok(Err(error)) => Some(error.to_string()),
    }
}

#[test]
fn a_wrong_value_is_told_by_its_key() {
    let (batch, faults) = (batch(), Mutex::new(Vec::new()));
    on_all_cores(MODELS.to_vec(), |entry| {
        let inputs = inputs(entry.name);
        let plain = format!("name = \"{}\"", entry.name);
        for base in configurations(entry.name).iter().chain([&plain]) {
            let base: toml::Table = base.parse().unwrap();
            for (key, value) in entry.own_keys.iter().chain(entry.common_keys).flat_map(with_values) {
                let mut keys = base.clone();
                keys.extend(format!("{key} = {value}").parse::<toml::Table>().unwrap());
                if let Some(fault) = fault(&keys, &inputs, &batch) {
                    faults.lock().unwrap().push(format!("{}: {key} = {value}: {fault}", entry.name));
                }
            }
        }
    });
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn with_values(key: &Key) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    let name = key.name;
    VALUES.into_iter().map(move |value| (name, value))
}
