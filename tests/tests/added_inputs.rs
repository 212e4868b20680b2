//! A model that is declared again with more inputs begins with the predictions that it had.

use manygate_core::{Bag, Batch, Serial, Stream};
use manygate_embedding::{Table, Tables};
use manygate_graph::{Added, Graph, Inheritance, Mode, Parameters, Plan, PlanOptions};
use manygate_kernels::embedding::Pooling;
use manygate_models::inputs::{self, BagField, Field, Inputs};
use manygate_models::{MODELS, build, from_table};
use manygate_runtime::Predictor;
use manygate_tests::small_models::configurations;
use std::sync::Arc;

const IDS: usize = 5;

/// Two fields, two lists, two numbers.
fn before(keys: &str) -> Inputs {
    let tasks = match keys {
        keys if ["causalint", "deepfm"].iter().any(|name| keys.contains(name)) => 1,
        keys if keys.contains("mtms") || keys.contains("escm2") => 2,
        _ => 3,
    };
    let list = |name: &str, table| BagField { name: name.into(), table, pooling: Pooling::Mean, longest: Some(3) };
    let table = |name: &str| inputs::Table { name: name.into(), rows: IDS, dim: None };
    Inputs {
        tables: vec![table("user"), table("item"), inputs::Table { rows: 4, ..table("scenario") }],
        fields: ["user", "item"].iter().enumerate().map(|(table, name)| Field { name: (*name).into(), table }).collect(),
        bags: vec![list("history", 1), list("history_scenarios", 2)],
        dense: 2,
        dense_names: ["price", "weight"].map(str::to_owned).to_vec(),
        scenarios: 3,
        tasks: ["click", "like", "buy"].map(inputs::Task::binary)[..tasks].to_vec(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addition {
    Field,
    Shared,
    Bag,
    Number,
}

impl Addition {
    const ALL: [Addition; 4] = [Addition::Field, Addition::Shared, Addition::Bag, Addition::Number];

    fn with(self, before: &Inputs) -> (Inputs, Added) {
        let mut inputs = before.clone();
        let mut added = Added {
            fields: vec![false; inputs.fields.len()],
            bags: vec![false; inputs.bags.len()],
            dense: vec![false; inputs.dense],
        };
        let own = inputs.tables.len();
        let table = || inputs::Table { name: "added".into(), rows: IDS, dim: None };
        match self {
            Addition::Field | Addition::Shared => {
                let table = if self == Addition::Shared { 0 } else { inputs.tables.push(table()); own };
                inputs.fields.push(Field { name: "added".into(), table });
                added.fields.push(true);
            }
            Addition::Bag => {
                inputs.tables.push(table());
                inputs.bags.push(BagField { name: "added".into(), table: own, pooling: Pooling::Mean, longest: None });
                added.bags.push(true);
            }
            Addition::Number => {
                inputs.dense += 1;
                inputs.dense_names.push("added".into());
                added.dense.push(true);
            }
        }
        (inputs, added)
    }

    fn batch(self, before: &Batch) -> Batch {
        let mut batch = before.clone();
        match self {
            Addition::Field | Addition::Shared => batch.ids.push(batch.ids[0].iter().map(|id| (id + 2) % IDS as u32).collect()),
            Addition::Bag => {
                let ids = |r: usize| (0..r % 3).map(move |i| ((r + i) % IDS) as u32);
                let mut bag = Bag { offsets: vec![0], ids: Vec::new() };
                for r in 0..batch.rows {
                    bag.ids.extend(ids(r));
                    bag.offsets.push(bag.ids.len() as u32);
                }
                batch.bags.push(bag);
            }
            Addition::Number => {
                let rows = batch.dense.chunks(2).enumerate();
                batch.dense = rows.flat_map(|(r, row)| [row[0], row[1], 0.5 - r as f32 * 0.1]).collect();
                batch.dense_width = 3;
            }
        }
        batch
    }
}

fn batch(rows: usize) -> Batch {
    let stream = Stream::new(3, 0, 0);
    let id = |r: usize, column: u64| stream.below(r as u64, column, IDS as u64) as u32;
    let mut lists = [(); 2].map(|()| Bag { offsets: vec![0], ids: Vec::new() });
    for r in 0..rows {
        lists[0].ids.extend((0..r % 4).map(|i| id(r, 3 + i as u64)));
        lists[1].ids.extend((0..r % 4).map(|i| 1 + id(r, 8 + i as u64) % 3));
        lists.iter_mut().for_each(|list| list.offsets.push(list.ids.len() as u32));
    }
    Batch {
        rows,
        ids: (0..2).map(|field| (0..rows).map(|r| id(r, field)).collect()).collect(),
        bags: lists.to_vec(),
        dense: (0..rows * 2).map(|i| stream.normal(i as u64, 20)).collect(),
        dense_width: 2,
        scenario: (0..rows).map(|r| id(r, 30) % 3).collect(),
        labels: (0..3).map(|t| (0..rows).map(|r| (id(r, 31 + t) % 2) as f32).collect()).collect(),
    }
}

fn graph(keys: &str, inputs: &Inputs, mode: Mode) -> Graph {
    let (_, architecture) = from_table(&toml::from_str(keys).unwrap()).unwrap();
    build(architecture.as_ref(), inputs, mode).unwrap()
}

struct Model {
    plan: Plan,
    params: Parameters,
    state: Parameters,
    tables: Tables,
}

fn plan(keys: &str, inputs: &Inputs) -> Plan {
    Plan::compile(graph(keys, inputs, Mode::Evaluation), PlanOptions::default()).unwrap()
}

/// Every value random.
fn old(keys: &str, inputs: &Inputs) -> Model {
    let plan = plan(keys, inputs);
    let stream = Stream::new(11, 0, 0);
    let mut params = Parameters::initial(Arc::clone(plan.layout()), 1);
    params.values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.3 * stream.normal(i as u64, 0));
    let mut state = Parameters::initial(Arc::clone(plan.state_layout()), 1);
    state.values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.1 * stream.uniform(i as u64, 1));
    let tables = plan.tables().iter().map(|spec| {
        let mut table = Table::zeroed(spec.clone(), 0);
        let values: Vec<f32> = (0..spec.rows * spec.dim).map(|i| stream.normal(i as u64, 2)).collect();
        table.set_weights(&values).unwrap();
        table
    });
    Model { tables: Tables(tables.collect()), plan, params, state }
}

fn grown(keys: &str, old: &Model, before: &Inputs, after: &Inputs, added: &Added) -> manygate_core::Result<Model> {
    let graphs = [Mode::Training, Mode::Evaluation].map(|mode| (graph(keys, after, mode), graph(keys, before, mode)));
    let inheritance = Inheritance::new(&[(&graphs[0].0, &graphs[0].1), (&graphs[1].0, &graphs[1].1)], added)?;
    let plan = plan(keys, after);
    let mut params = Parameters::initial(Arc::clone(plan.layout()), 7);
    let mut state = Parameters::initial(Arc::clone(plan.state_layout()), 7);
    inheritance.hand_on(&old.params, &mut params)?;
    inheritance.hand_on(&old.state, &mut state)?;
    let tables = plan.tables().iter().map(|spec| {
        let mut table = Table::initial(spec.clone(), 0, 7, &Serial);
        if inheritance.zero_tables.contains(&spec.name) {
            table.set_weights(&vec![0.0; spec.rows * spec.dim]).unwrap();
        }
        if let Some(old) = old.tables.0.iter().find(|old| old.spec().name == spec.name) {
            table.set_weights(&old.weights()).unwrap();
        }
        table
    });
    Ok(Model { tables: Tables(tables.collect()), plan, params, state })
}

fn predict(model: &Model, batch: &Batch) -> Vec<Vec<f32>> {
    let Model { plan, params, state, tables } = model;
    let mut predictor = Predictor::new(plan, params, state, tables, &Serial, batch.rows).unwrap();
    let mut out = vec![Vec::new(); plan.output_names().count()];
    predictor.predict(&Serial, batch, &mut out).unwrap();
    out
}

#[test]
fn what_is_added_begins_without_effect() {
    let rows = batch(41);
    for entry in MODELS {
        for keys in configurations(entry.name) {
            let inputs = before(&keys);
            let old = old(&keys, &inputs);
            let expected = predict(&old, &rows);
            for addition in Addition::ALL {
                let (after, added) = addition.with(&inputs);
                let new = match grown(&keys, &old, &inputs, &after, &added) {
                    Ok(new) => new,
                    Err(error) => {
                        println!("{} {addition:?}: {error} [{}]", entry.name, keys.replace('\n', "; "));
                        continue;
                    }
                };
                let found = predict(&new, &addition.batch(&rows));
                let pairs = expected.iter().flatten().zip(found.iter().flatten());
                let most = pairs.clone().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                if pairs.clone().any(|(a, b)| a.to_bits() != b.to_bits()) {
                    println!("{} {addition:?}: {most} [{}]", entry.name, keys.replace('\n', "; "));
                }
            }
        }
    }
}
