//! A model that is declared again with more inputs begins with the predictions that it had, bit for bit where its
//! formula allows: every small configuration of every model, with an input of each kind added. What is excepted
//! stands in `Beginning::of`, and in the documentation of `manygate_graph::growth`.

use manygate_core::{Bag, Batch, Serial, Stream};
use manygate_graph::{Added, Graph, Inheritance, Mode, Plan, PlanOptions};
use manygate_kernels::embedding::Pooling;
use manygate_models::inputs::{self, BagField, Field, Inputs};
use manygate_models::{MODELS, build, from_table};
use manygate_runtime::Predictor;
use manygate_tests::small_models::configurations;
use manygate_train::Learner;
use manygate_train::optim::OptimizerConfig;

const IDS: usize = 5;
const ROWS: usize = 41;

/// Two fields, two lists, and so many numbers.
fn before(keys: &str, numbers: usize) -> Inputs {
    let tasks = match keys {
        keys if ["causalint", "deepfm"].iter().any(|name| keys.contains(name)) => 1,
        keys if keys.contains("mtms") || keys.contains("escm2") => 2,
        _ => 3,
    };
    let list =
        |name: &str, table| BagField { name: name.into(), table, pooling: Pooling::Mean, longest: Some(3) };
    let table = |name: &str| inputs::Table { name: name.into(), rows: IDS, dim: None };
    Inputs {
        tables: vec![table("user"), table("item"), inputs::Table { rows: 4, ..table("scenario") }],
        fields: ["user", "item"]
            .iter()
            .enumerate()
            .map(|(table, name)| Field { name: (*name).into(), table })
            .collect(),
        bags: vec![list("history", 1), list("history_scenarios", 2)],
        dense: numbers,
        dense_names: ["price", "weight"].map(str::to_owned)[..numbers].to_vec(),
        scenarios: 3,
        tasks: ["click", "like", "buy"].map(inputs::Task::binary)[..tasks].to_vec(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addition {
    Field,
    Shared,
    Bag,
    Sequence,
    Number,
}

impl Addition {
    const ALL: [Addition; 5] =
        [Addition::Field, Addition::Shared, Addition::Bag, Addition::Sequence, Addition::Number];

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
                let table = if self == Addition::Shared {
                    0
                } else {
                    inputs.tables.push(table());
                    own
                };
                inputs.fields.push(Field { name: "added".into(), table });
                added.fields.push(true);
            }
            Addition::Bag | Addition::Sequence => {
                let longest = (self == Addition::Sequence).then_some(3);
                inputs.tables.push(table());
                inputs.bags.push(BagField {
                    name: "added".into(),
                    table: own,
                    pooling: Pooling::Mean,
                    longest,
                });
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

    /// The rows with values of the input, which differ by `shift`.
    fn batch(self, before: &Batch, shift: usize) -> Batch {
        let mut batch = before.clone();
        match self {
            Addition::Field | Addition::Shared => {
                batch.ids.push(batch.ids[0].iter().map(|id| (id + shift as u32) % IDS as u32).collect())
            }
            Addition::Bag | Addition::Sequence => {
                let ids = |r: usize| (0..r % 3).map(move |i| ((r + i + shift) % IDS) as u32);
                let mut bag = Bag { offsets: vec![0], ids: Vec::new() };
                for r in 0..batch.rows {
                    bag.ids.extend(ids(r));
                    bag.offsets.push(bag.ids.len() as u32);
                }
                batch.bags.push(bag);
            }
            Addition::Number => {
                let numbers = batch.dense_width;
                let row = |r: usize| {
                    let known = before.dense[r * numbers..][..numbers].iter().copied();
                    known.chain([shift as f32 - r as f32 * 0.1])
                };
                batch.dense = (0..batch.rows).flat_map(row).collect();
                batch.dense_width = numbers + 1;
            }
        }
        batch
    }
}

fn batch(rows: usize, numbers: usize) -> Batch {
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
        dense: (0..rows * numbers).map(|i| stream.normal(i as u64, 20)).collect(),
        dense_width: numbers,
        scenario: (0..rows).map(|r| id(r, 30) % 3).collect(),
        labels: (0..3).map(|t| (0..rows).map(|r| (id(r, 31 + t) % 2) as f32).collect()).collect(),
    }
}

/// How a grown model begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Beginning {
    /// With the bits of its predictions.
    Exact,
    /// But for the order of a sum.
    Rounded,
    /// With other predictions.
    Moved,
    /// Not at all: an error says so.
    Refused,
}

impl Beginning {
    /// What the formula allows.
    fn of(keys: &str, addition: Addition) -> Beginning {
        let has = |text: &str| keys.contains(text);
        let vector =
            has("\"dcn\"") || (has("\"vector\"") && !has("lhuc")) || (has("epnet_dcn") && !has("\"matrix\""));
        // Its whole weights, made by sample, are multiplied along their rows.
        let by_sample = has("\"apg\"") && has("\"full\"") && has("\"mix\"");
        // The sum over lanes of a product depends on the place of the pair.
        let pairs = has("\"interactions\"") && has("\"inner\"");
        let is_number = addition == Addition::Number;
        // A list whose order dffm could read is none of its fields.
        let is_field = !is_number && (!has("dffm") || addition != Addition::Sequence);
        // One vector more among those that a softmax weighs.
        let attends = has("autoint") && is_field;
        // The sum of products has no weights: vectors must be 0, and those of a table that is there are not.
        let shares = (has("deepfm") || has("\"bi\"")) && addition == Addition::Shared;
        // A map with a bias stands between.
        let is_mapped = has("dffm") && has("\"bi\"") && is_field;
        match () {
            // It attends to each sequence by itself, and no op says which of what that gives is new.
            () if has("m2m") && addition == Addition::Sequence => Beginning::Refused,
            () if attends || shares || is_mapped => Beginning::Moved,
            () if vector || (is_field && pairs) || by_sample => Beginning::Rounded,
            () => Beginning::Exact,
        }
    }

    /// How many values a vector register holds decides whether a sum that may be rounded otherwise is.
    fn allows(self, found: Beginning) -> bool {
        found == self || (self == Beginning::Rounded && found == Beginning::Exact)
    }

    fn found(before: &[Vec<f32>], now: &[Vec<f32>]) -> Beginning {
        let pairs = || before.iter().flatten().zip(now.iter().flatten());
        if pairs().all(|(a, b)| a.to_bits() == b.to_bits()) {
            return Beginning::Exact;
        }
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
        if pairs().all(near) { Beginning::Rounded } else { Beginning::Moved }
    }
}

fn graph(keys: &str, inputs: &Inputs, mode: Mode) -> Graph {
    let (_, architecture) = from_table(&keys.parse().unwrap()).unwrap();
    build(architecture.as_ref(), inputs, mode).unwrap()
}

fn learner(keys: &str, inputs: &Inputs) -> Learner {
    let graph = graph(keys, inputs, Mode::Training);
    Learner::new(graph, PlanOptions::default(), &OptimizerConfig::default(), 7, &Serial, ROWS).unwrap()
}

/// Every value random.
fn trained(keys: &str, inputs: &Inputs) -> Learner {
    let (stream, mut old) = (Stream::new(11, 0, 0), learner(keys, inputs));
    old.params.values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.3 * stream.normal(i as u64, 0));
    old.state.values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.1 * stream.uniform(i as u64, 1));
    for table in &mut old.tables.0 {
        let values = table.spec().rows * table.spec().dim;
        let values: Vec<f32> = (0..values).map(|i| stream.normal(i as u64, 2)).collect();
        table.set_weights(&values).unwrap();
    }
    old
}

/// Stages declare the same tensors, and each tells of those that it reads.
fn stages(keys: &str) -> Vec<String> {
    let stage =
        ["represent", "ctcvr", "finetune"].into_iter().find(|stage| keys.contains(&format!("\"{stage}\"")));
    let Some(stage) = stage else { return vec![keys.to_owned()] };
    ["represent", "ctcvr", "finetune"].iter().map(|other| keys.replace(stage, other)).collect()
}

fn grown(
    keys: &str,
    old: &Learner,
    before: &Inputs,
    after: &Inputs,
    added: &Added,
) -> manygate_core::Result<Learner> {
    let mut graphs = Vec::new();
    for keys in stages(keys) {
        let of = |mode| (graph(&keys, after, mode), graph(&keys, before, mode));
        graphs.extend([Mode::Training, Mode::Evaluation].map(of));
    }
    let graphs: Vec<(&Graph, &Graph)> = graphs.iter().map(|(new, old)| (new, old)).collect();
    let inheritance = Inheritance::new(&graphs, added)?;
    let mut new = learner(keys, after);
    inheritance.hand_on(&old.params, &mut new.params)?;
    inheritance.hand_on(&old.state, &mut new.state)?;
    for table in &mut new.tables.0 {
        if inheritance.zero_tables.contains(&table.spec().name) {
            table.set_weights(&vec![0.0; table.spec().rows * table.spec().dim]).unwrap();
        }
        if let Some(old) = old.tables.0.iter().find(|old| old.spec().name == table.spec().name) {
            table.set_weights(&old.weights()).unwrap();
        }
    }
    Ok(new)
}

fn predict(keys: &str, inputs: &Inputs, learner: &Learner, batch: &Batch) -> Vec<Vec<f32>> {
    let plan = Plan::compile(graph(keys, inputs, Mode::Evaluation), PlanOptions::default()).unwrap();
    let Learner { params, state, tables, .. } = learner;
    let mut predictor = Predictor::new(&plan, params, state, tables, &Serial, batch.rows).unwrap();
    let mut out = vec![Vec::new(); plan.output_names().count()];
    predictor.predict(&Serial, batch, &mut out).unwrap();
    out
}

#[test]
fn what_is_added_begins_without_effect_and_then_learns() {
    let mut wrong = Vec::new();
    for keys in MODELS.iter().flat_map(|entry| configurations(entry.name)) {
        for addition in Addition::ALL {
            wrong.extend(faults(&keys, 2, addition));
        }
        // The first number of all, unless the model needs one.
        if !keys.contains("fairness") {
            wrong.extend(faults(&keys, 0, Addition::Number));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong where `addition` joins two fields, two lists and so many numbers.
fn faults(keys: &str, numbers: usize, addition: Addition) -> Vec<String> {
    let (inputs, rows) = (before(keys, numbers), batch(ROWS, numbers));
    let old = trained(keys, &inputs);
    let expected = predict(keys, &inputs, &old, &rows);
    let (after, added) = addition.with(&inputs);
    let told =
        |what: String| format!("{addition:?} beside {numbers} numbers: {what}: {}", keys.replace('\n', "; "));
    let mut new = match grown(keys, &old, &inputs, &after, &added) {
        Ok(new) => new,
        Err(_) if Beginning::of(keys, addition) == Beginning::Refused => return Vec::new(),
        Err(error) => return vec![told(error.to_string())],
    };
    let mut wrong = Vec::new();
    let found = Beginning::found(&expected, &predict(keys, &after, &new, &addition.batch(&rows, 2)));
    if !Beginning::of(keys, addition).allows(found) {
        wrong.push(told(format!("{found:?}")));
    }
    for step in 0..4 {
        new.step(&Serial, &addition.batch(&rows, step)).unwrap();
    }
    let [one, other] = [1, 3].map(|shift| predict(keys, &after, &new, &addition.batch(&rows, shift)));
    // It reads no sequence but the one that it is told of.
    let reads = !(keys.contains("dffm") && addition == Addition::Sequence);
    if reads && one == other {
        wrong.push(told("learns nothing".to_owned()));
    }
    wrong
}
