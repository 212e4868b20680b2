//! single_task is shared_bottom with one task, once for each: equal weights give equal bits.

use manygate_core::{Batch, Serial, Stream};
use manygate_embedding::{SparseGradients, Table, Tables};
use manygate_graph::{Draws, Input, Mode, Parameters, Plan, PlanOptions, Workspace};
use manygate_models::inputs::{self, Inputs};
use manygate_models::{build, from_table};
use std::collections::BTreeMap;
use std::sync::Arc;

const ROWS: usize = 60;
const IDS: usize = 7;
const TASKS: [(&str, f32); 3] = [("click", 1.0), ("like", 0.5), ("buy", 2.0)];

fn inputs(tasks: &[(&str, f32)]) -> Inputs {
    let table = |name: &str| inputs::Table { name: name.into(), rows: IDS, dim: None };
    let field = |name: &str, table| inputs::Field { name: name.into(), table };
    let task = |&(name, weight): &(&str, f32)| inputs::Task { weight, ..inputs::Task::binary(name) };
    Inputs {
        tables: vec![table("user"), table("item")],
        fields: vec![field("user", 0), field("item", 1)],
        dense: 2,
        tasks: tasks.iter().map(task).collect(),
        ..Inputs::default()
    }
}

fn batch() -> Batch {
    let stream = Stream::new(5, 0, 0);
    let below = |r: usize, column: u64, below: usize| stream.below(r as u64, column, below as u64) as u32;
    Batch {
        rows: ROWS,
        ids: (0..2).map(|field| (0..ROWS).map(|r| below(r, field, IDS)).collect()).collect(),
        dense: (0..ROWS * 2).map(|i| stream.normal(i as u64, 9)).collect(),
        dense_width: 2,
        labels: (0..3).map(|t| (0..ROWS).map(|r| below(r, 3 + t, 2) as f32).collect()).collect(),
        ..Batch::default()
    }
}

/// Outputs, losses and gradients in bits.
type Bits = BTreeMap<String, Vec<u64>>;

/// A step of training or an evaluation. The values of a tensor depend on what `named` calls it, which is also what its
/// gradient is called.
fn run(keys: &str, mode: Mode, inputs: &Inputs, batch: &Batch, named: impl Fn(&str) -> String) -> Bits {
    let (_, architecture) = from_table(&keys.parse().unwrap()).unwrap();
    let graph = build(architecture.as_ref(), inputs, mode).unwrap();
    let plan = Plan::compile(graph, PlanOptions { outputs: true, ..PlanOptions::default() }).unwrap();
    let values = |name: &str, len: usize| -> Vec<f32> {
        let key = named(name).bytes().fold(7, |key: u64, b| key.wrapping_mul(31).wrapping_add(b.into()));
        (0..len).map(|i| 0.5 + 0.3 * Stream::new(key, 0, 0).normal(i as u64, 0)).collect()
    };
    let [params, state] = [plan.layout(), plan.state_layout()].map(|layout| {
        let mut set = Parameters::initial(Arc::clone(layout), 1);
        for (block, range) in layout.blocks() {
            let random = values(&block.name, range.len());
            // A variance is no random number.
            set.values[range].iter_mut().zip(random).for_each(|(v, random)| *v = random.abs() - 0.1);
        }
        set
    });
    let tables = plan.tables().iter().map(|spec| {
        let mut table = Table::zeroed(spec.clone(), 0);
        table.set_weights(&values(&spec.name, spec.rows * spec.dim)).unwrap();
        table
    });
    let tables = Tables(tables.collect());
    let mut ws = Workspace::new(&plan, 1, ROWS);
    plan.pack(&Serial, &mut ws, &params);
    let seeds = vec![1.0; plan.losses().len()];
    let input = Input {
        params: &params,
        state: &state,
        tables: &tables,
        batch,
        seeds: &seeds,
        draws: Draws::default(),
    };
    plan.run(&Serial, &mut ws, &input).unwrap();
    let bits = |values: &[f32]| values.iter().map(|v| u64::from(v.to_bits())).collect::<Vec<_>>();
    let mut found = Bits::new();
    for name in plan.output_names() {
        let output = plan.output(&ws, name).unwrap();
        found.insert(format!("out.{name}"), (0..ROWS).flat_map(|r| bits(output.row(r))).collect());
    }
    if mode == Mode::Evaluation {
        return found;
    }
    for (part, loss) in plan.losses().iter().zip(ws.part_losses()) {
        found.insert(format!("loss.{}", part.name), vec![loss.to_bits()]);
    }
    assert_eq!(plan.lanes(ROWS), 1, "sums in one order");
    let dense = plan.gradients(&ws).row(0);
    for (block, range) in plan.layout().blocks() {
        found.insert(named(&block.name), bits(&dense[range]));
    }
    let mut sparse = SparseGradients::new(&plan, ROWS);
    sparse.sort(&Serial, batch);
    for (t, spec) in plan.tables().iter().enumerate() {
        let (ids, rows) = sparse.coalesced(&plan, &ws, t);
        found.insert(named(&spec.name), ids.iter().map(|&id| id.into()).chain(bits(&rows)).collect());
    }
    found
}

#[test]
fn a_network_a_task_is_shared_bottom_a_task() {
    let batch = batch();
    for sizes in [
        "bottom_units = [6, 5]\ntower_units = [4]",
        "bottom_units = [6]\ntower_units = []",
        "norm = \"batch\"\nbottom_units = [6, 5]\ntower_units = [4]",
    ] {
        let keys = |name: &str| format!("name = \"{name}\"\nembedding_dim = 3\n{sizes}");
        for mode in [Mode::Training, Mode::Evaluation] {
            let together = run(&keys("single_task"), mode, &inputs(&TASKS), &batch, str::to_owned);
            let mut apart = Bits::new();
            for (t, &(task, weight)) in TASKS.iter().enumerate() {
                let own = Batch { labels: vec![batch.labels[t].clone()], ..batch.clone() };
                let named =
                    |name: &str| format!("{task}.{}", name.replacen(&format!("towers.{task}."), "tower.", 1));
                apart.extend(run(&keys("shared_bottom"), mode, &inputs(&[(task, weight)]), &own, named));
            }
            let (together, apart) = (together.iter(), apart.iter());
            for (one, other) in together.clone().zip(apart.clone()) {
                assert_eq!(one, other, "{sizes}, {mode}");
            }
            assert_eq!(together.len(), apart.len());
        }
    }
}
