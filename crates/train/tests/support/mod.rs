//! A small mmoe of three losses and with dropout, and a batch for it.

use manygate_core::{Batch, Serial, Stream};
use manygate_graph::{Graph, Mode, PlanOptions};
use manygate_models::inputs::{Field, Inputs, Table, Task};
use manygate_train::Learner;
use manygate_train::optim::OptimizerConfig;

pub(crate) const ROWS: usize = 90;
pub(crate) const IDS: usize = 20;

#[allow(dead_code, reason = "each test binary uses a part of this")]
pub(crate) fn tasks() -> Vec<Task> {
    let task = |name: &str, weight, space| Task { weight, space, ..Task::binary(name) };
    vec![task("click", 1.0, None), task("like", 0.5, None), task("buy", 2.0, Some(0))]
}

pub(crate) fn graph() -> Graph {
    let inputs = Inputs {
        tables: ["user", "item"].map(|name| Table { name: name.into(), rows: IDS, dim: None }).to_vec(),
        fields: vec![Field { name: "user".into(), table: 0 }, Field { name: "item".into(), table: 1 }],
        dense: 2,
        tasks: tasks(),
        ..Inputs::default()
    };
    let model = "name = \"mmoe\"\nembedding_dim = 5\nexperts = 2\nexpert_units = [9, 7]\ntower_units = [5]\n\
                 dropout = 0.3";
    let (_, architecture) = manygate_models::from_table(&model.parse().unwrap()).unwrap();
    manygate_models::build(architecture.as_ref(), &inputs, Mode::Training).unwrap()
}

pub(crate) fn learner(optimizer: &str) -> Learner {
    let options = PlanOptions { lane_rows: 16, ..PlanOptions::default() };
    let optimizer: OptimizerConfig = optimizer.parse().unwrap();
    Learner::new(graph(), options, &optimizer, 3, &Serial, ROWS).unwrap()
}

pub(crate) fn batch(number: u64) -> Batch {
    let stream = Stream::new(9, number, 0);
    let below = |r: usize, column: u64, below: usize| stream.below(r as u64, column, below as u64) as u32;
    let column = |c: u64, limit: usize| (0..ROWS).map(|r| below(r, c, limit)).collect::<Vec<u32>>();
    Batch {
        rows: ROWS,
        ids: [10, 11].map(|c| column(c, IDS)).to_vec(),
        dense: (0..ROWS * 2).map(|i| stream.normal(i as u64, 0)).collect(),
        dense_width: 2,
        labels: [20, 21, 22].map(|c| column(c, 2).into_iter().map(|y| y as f32).collect()).to_vec(),
        ..Batch::default()
    }
}
