//! Losses, outputs and gradients of every architecture against the references of its ops, in f64.

use manygate_core::{Executor, Pool, Serial, Stream};
use manygate_embedding::{Table, Tables};
use manygate_graph::check::PlanReference;
use manygate_graph::{Arranged, Draws, Input, Mode, Parameters, Plan, PlanOptions, RowOrder, Workspace};
use manygate_kernels::{Isa, Mat};
use manygate_models::inputs::{Inputs, TaskKind};
use manygate_models::registry::MODELS;
use manygate_tests::on_all_cores;
use manygate_tests::small_models::{IDS, batch, configurations, inputs, of_every_kind};
use std::ops::Range;
use std::sync::Arc;

/// A compiled model, every value of it random.
struct Model {
    plan: Plan,
    params: Parameters,
    state: Parameters,
    tables: Tables,
}

impl Model {
    fn new(keys: &str, inputs: &Inputs, mode: Mode, options: PlanOptions) -> Model {
        let (_, architecture) = manygate_models::from_table(&keys.parse().unwrap()).unwrap();
        let graph = manygate_models::build(architecture.as_ref(), inputs, mode).unwrap();
        let plan = Plan::compile(graph, options).unwrap();
        // No value stays at the 0 or 1 that it starts with: a unit at exactly 0 has no derivative.
        let mut params = Parameters::initial(Arc::clone(plan.layout()), 1);
        let moved = Stream::new(10, 0, 0);
        for (_, range) in plan.layout().blocks() {
            params.values[range.clone()]
                .iter_mut()
                .zip(range)
                .for_each(|(v, i)| *v += 0.1 * moved.normal(i as u64, 0));
        }
        let state = Parameters::initial(Arc::clone(plan.state_layout()), 1);
        let stream = Stream::new(9, 0, 0);
        let mut tables = Tables(plan.tables().iter().map(|t| Table::zeroed(t.clone(), 1)).collect());
        for (t, table) in tables.0.iter_mut().enumerate() {
            let weights: Vec<f32> =
                (0..IDS * table.spec().dim).map(|i| stream.normal(i as u64, t as u64)).collect();
            table.set_weights(&weights).unwrap();
        }
        Model { plan, params, state, tables }
    }

    fn input<'a>(&'a self, rows: Arranged<'a>, seeds: &'a [f32]) -> Input<'a> {
        let (params, state, tables) = (&self.params, &self.state, &self.tables);
        let draws = Draws { seed: 4, step: 9, caller_rows: rows.caller_rows };
        Input { params, state, tables, batch: rows.batch, seeds, draws }
    }
}

/// Compares a model with its reference: with these options on each of the instruction sets, on one thread and two.
fn check(
    keys: &str,
    inputs: &Inputs,
    mode: Mode,
    rows: usize,
    options: &PlanOptions,
    isas: &[Isa],
) -> Result<(), String> {
    let batch = batch(rows);
    let mut reference = None;
    for &isa in isas {
        let model = Model::new(keys, inputs, mode, PlanOptions { isa, ..options.clone() });
        let seeds = vec![1.0; model.plan.losses().len()];
        let mut order = RowOrder::default();
        let input = model.input(order.arrange(&model.plan, &batch).unwrap(), &seeds);
        let reference = reference.get_or_insert_with(|| PlanReference::new(&model.plan, &input));
        let check = |exec: &dyn Executor| {
            let told = |message| format!("{mode}, {isa}, {rows} rows, {} threads: {message}", exec.threads());
            reference.check(&model.plan, exec, &input).map_err(told)
        };
        check(&Serial)?;
        Pool::new(2).unwrap().enter(check)?;
    }
    Ok(())
}

/// By named tensor, then by table: whether the last run left it a gradient that is not zero.
fn has_gradient(plan: &Plan, ws: &Workspace) -> (Vec<bool>, Vec<bool>) {
    let any = |view: Mat<'_>| (0..view.rows()).any(|r| view.row(r).iter().any(|&v| v != 0.0));
    let tensor = |range: Range<usize>| any(plan.gradients(ws).columns(range.start, range.len()));
    let tensors = plan.layout().blocks().map(|(_, range)| tensor(range)).collect();
    let mut tables = vec![false; plan.tables().len()];
    for source in plan.sparse_sources() {
        tables[source.table] |= any(plan.sparse_gradient(ws, source));
    }
    (tensors, tables)
}

/// Every shape on the best instruction set; one on each of the others, where every op has a matrix of its own.
#[test]
fn every_architecture_agrees_with_its_references() {
    let shapes = [(1, 128), (9, 4), (40, 128)];
    on_all_cores(all_configurations(), |model| {
        for (i, (rows, tile_rows)) in shapes.into_iter().enumerate() {
            let isas = if i == 1 { Isa::available() } else { vec![Isa::best()] };
            let options = PlanOptions { tile_rows, lane_rows: 16, outputs: true, ..PlanOptions::default() };
            for mode in [Mode::Training, Mode::Evaluation] {
                check(model, &inputs(model), mode, rows, &options, &isas)
                    .unwrap_or_else(|m| panic!("{model}\n{m}"));
            }
        }
    });
}

fn all_configurations() -> Vec<String> {
    MODELS.iter().flat_map(|entry| configurations(entry.name)).collect()
}

#[test]
fn every_architecture_trains_tasks_of_every_kind() {
    on_all_cores(all_configurations(), |model| {
        for mode in [Mode::Training, Mode::Evaluation] {
            let options =
                PlanOptions { tile_rows: 8, lane_rows: 16, outputs: true, ..PlanOptions::default() };
            check(model, &of_every_kind(model), mode, 40, &options, &[Isa::best()])
                .unwrap_or_else(|m| panic!("{model}\n{m}"));
        }
    });
}

#[test]
fn every_configuration_has_its_kernels_on_a_device() {
    for keys in all_configurations() {
        for inputs in [inputs(&keys), of_every_kind(&keys)] {
            for mode in [Mode::Training, Mode::Evaluation] {
                let plan = Model::new(&keys, &inputs, mode, PlanOptions::default()).plan;
                plan.check_device().unwrap_or_else(|error| panic!("{keys}\n{mode}: {error}"));
            }
        }
    }
}

#[test]
fn experts_that_compete_agree_with_their_references() {
    let keys = "name = \"moe\"\nembedding_dim = 3\nactivation = \"tanh\"\nexperts = 3\nexpert_units = [6, 5]\n\
                jacobs1991 = true";
    let mut inputs = inputs(keys);
    inputs.tasks.truncate(1);
    inputs.tasks[0].kind = TaskKind::Regression;
    for mode in [Mode::Training, Mode::Evaluation] {
        let options = PlanOptions { tile_rows: 8, lane_rows: 16, outputs: true, ..PlanOptions::default() };
        check(keys, &inputs, mode, 40, &options, &Isa::available()).unwrap();
    }
}

#[test]
fn a_part_of_the_loss_gives_gradients_to_what_it_reaches_and_to_nothing_else() {
    // Every scenario has rows, and no unit of these models can be off for all of them: what is reached is not zero.
    let mut batch = batch(60);
    batch.scenario = (0..60).map(|r| r % 3).collect();
    for keys in MODELS.iter().flat_map(|entry| configurations(entry.name)) {
        let options = PlanOptions { lane_rows: 16, ..PlanOptions::default() };
        let model = Model::new(&keys, &inputs(&keys), Mode::Training, options);
        let mut order = RowOrder::default();
        let rows = order.arrange(&model.plan, &batch).unwrap();
        let mut ws = Workspace::new(&model.plan, 1, batch.rows);
        model.plan.pack(&Serial, &mut ws, &model.params);
        let parts = model.plan.losses().len();
        for part in 0..parts {
            let seeds: Vec<f32> = (0..parts).map(|p| if p == part { 1.0 } else { 0.0 }).collect();
            model.plan.run(&Serial, &mut ws, &model.input(rows, &seeds)).unwrap();
            let (tensors, tables) = has_gradient(&model.plan, &ws);
            let reached = model.plan.reached_by(part);
            let names = model.plan.layout().blocks().map(|(block, _)| &block.name);
            let names = names.chain(model.plan.tables().iter().map(|table| &table.name));
            let found = tensors.iter().chain(&tables);
            for ((name, &found), &reached) in
                names.zip(found).zip(reached.tensors().iter().chain(reached.tables()))
            {
                let loss = &model.plan.losses()[part].name;
                assert!(reached || !found, "{keys}\n{loss} moves {name} and does not reach it");
                // A penalty moves what is out of order in some row.
                let moves = found || loss == "calibrator";
                assert!(moves || !reached, "{keys}\n{loss} reaches {name} and does not move it");
            }
        }
    }
}
