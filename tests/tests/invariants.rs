//! What holds for every architecture, whatever it computes: rows do not depend on each other in evaluation, and their
//! order does not matter; what only an absent scenario uses stays as it is.

use manygate_core::{Batch, Executor, Pool, Serial, Stream};
use manygate_embedding::{Table, Tables};
use manygate_graph::{Draws, Graph, Input, Mode, Parameters, Plan, PlanOptions, RowOrder, Workspace};
use manygate_models::inputs::{Field, Inputs, Table as TableInput, Task};
use manygate_models::{MODELS, build};
use manygate_runtime::model::Weights;
use manygate_runtime::{Predictor, TensorFile};
use manygate_train::Learner;
use manygate_train::checkpoint::write_model;
use manygate_train::optim::OptimizerConfig;
use std::collections::BTreeMap;
use std::sync::Arc;

const IDS: usize = 7;
const SCENARIOS: usize = 4;

fn inputs(model: &str) -> Inputs {
    // It predicts one task.
    let tasks = if ["causalint", "deepfm"].contains(&model) { 1 } else { 2 };
    let task = |name: &str| Task::binary(name);
    Inputs {
        tables: ["user", "item"].map(|name| TableInput { name: name.into(), rows: IDS, dim: None }).to_vec(),
        fields: vec![Field { name: "user".into(), table: 0 }, Field { name: "item".into(), table: 1 }],
        dense: 2,
        scenarios: SCENARIOS,
        tasks: [task("click"), task("buy")][..tasks].to_vec(),
        ..Inputs::default()
    }
}

/// Rows of scenarios 0, 1 and 3, in no order.
fn batch(rows: usize) -> Batch {
    let stream = Stream::new(5, 0, 0);
    let below = |r: usize, column: u64, below: u64| stream.below(r as u64, column, below) as u32;
    Batch {
        rows,
        ids: [0, 7].map(|field| (0..rows).map(|r| below(r, field, IDS as u64)).collect()).to_vec(),
        dense: (0..rows * 2).map(|i| stream.normal(i as u64, 1)).collect(),
        dense_width: 2,
        scenario: (0..rows).map(|r| [0, 1, 3][below(r, 2, 3) as usize]).collect(),
        labels: (0..2).map(|t| (0..rows).map(|r| below(r, 3 + t, 2) as f32).collect()).collect(),
        ..Batch::default()
    }
}

struct Model {
    plan: Plan,
    params: Parameters,
    state: Parameters,
    tables: Tables,
}

/// The model with its defaults, but every value random.
fn model(name: &str, mode: Mode) -> Model {
    configured(name, &format!("name = \"{name}\""), mode)
}

fn configured(name: &str, keys: &str, mode: Mode) -> Model {
    let (_, architecture) = manygate_models::from_table(&keys.parse().unwrap()).unwrap();
    let graph: Graph = build(architecture.as_ref(), &inputs(name), mode).unwrap();
    let plan = Plan::compile(graph, PlanOptions { lane_rows: 16, ..PlanOptions::default() }).unwrap();
    let stream = Stream::new(11, 0, 0);
    let mut params = Parameters::initial(Arc::clone(plan.layout()), 1);
    params.values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.05 * stream.normal(i as u64, 0));
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

fn predict(model: &Model, exec: &dyn Executor, batch: &Batch) -> Vec<Vec<f32>> {
    let Model { plan, params, state, tables } = model;
    let mut predictor = Predictor::new(plan, params, state, tables, exec, batch.rows).unwrap();
    let mut out = vec![Vec::new(); plan.output_names().count()];
    predictor.predict(exec, batch, &mut out).unwrap();
    out
}

fn pick(batch: &Batch, rows: &[u32]) -> Batch {
    let mut picked = Batch::empty_like(batch);
    picked.gather(batch, rows);
    picked
}

#[test]
fn a_row_is_predicted_alike_alone_in_any_order_and_company() {
    let rows = 70;
    let all = batch(rows);
    let permuted: Vec<u32> = (0..rows as u32).map(|r| r * 27 % rows as u32).collect();
    for entry in MODELS {
        let model = model(entry.name, Mode::Evaluation);
        let together = predict(&model, &Serial, &all);
        let in_pool = Pool::new(2).unwrap().enter(|exec| predict(&model, exec, &all));
        assert_eq!(together, in_pool, "{}: two threads", entry.name);
        let shuffled = predict(&model, &Serial, &pick(&all, &permuted));
        for (output, column) in together.iter().enumerate() {
            assert!(column.iter().all(|p| (0.0..=1.0).contains(p)), "{}: {column:?}", entry.name);
            for (at, &row) in permuted.iter().enumerate() {
                let (a, b) = (shuffled[output][at], column[row as usize]);
                assert_eq!(a.to_bits(), b.to_bits(), "{}: row {row}, permuted", entry.name);
            }
            for row in [0, 1, rows - 1] {
                let alone = predict(&model, &Serial, &pick(&all, &[row as u32]))[output][0];
                assert_eq!(alone.to_bits(), column[row].to_bits(), "{}: row {row}, alone", entry.name);
            }
        }
    }
}

#[test]
fn a_model_that_is_written_and_read_predicts_the_same_bits() {
    let (folder, batch) = (tempfile::tempdir().unwrap(), batch(30));
    for entry in MODELS {
        let keys = toml::Table::from_iter([("name".to_owned(), entry.name.into())]);
        let (_, architecture) = manygate_models::from_table(&keys).unwrap();
        let graph = |mode| build(architecture.as_ref(), &inputs(entry.name), mode).unwrap();
        let optimizer = OptimizerConfig::default();
        let (options, capacity) = (PlanOptions::default(), batch.rows);
        let mut learner =
            Learner::new(graph(Mode::Training), options, &optimizer, 3, &Serial, capacity).unwrap();
        learner.step(&Serial, &batch).unwrap();
        let path = folder.path().join(entry.name);
        write_model(&path, &learner).unwrap();

        let plan = || Plan::compile(graph(Mode::Evaluation), PlanOptions::default()).unwrap();
        let Weights { params, state, tables } =
            Weights::read(&plan(), &TensorFile::read(&path, "model").unwrap()).unwrap();
        let read = Model { plan: plan(), params, state, tables };
        let Learner { params, state, tables, .. } = learner;
        let kept = Model { plan: plan(), params, state, tables };
        let bits = |model: &Model| -> Vec<u32> {
            predict(model, &Serial, &batch).iter().flatten().map(|p| p.to_bits()).collect()
        };
        assert_eq!(bits(&read), bits(&kept), "{}", entry.name);
    }
}

/// Of models whose tasks stand side by side, each under its name. A gate of stem and the experts of sarnet have a row a task
/// in one matrix: what a row means there depends on the order.
#[test]
fn the_order_of_tasks_changes_no_prediction() {
    let batch = batch(30);
    for name in [
        "adaptdhm",
        "adasparse",
        "apg",
        "attention",
        "cgc",
        "cross_stitch",
        "dcn",
        "dcn_v2",
        "dffm",
        "epnet_dcn",
        "hamur",
        "hinet",
        "interactions",
        "lhuc",
        "m3oe",
        "mmoe",
        "moe",
        "shared_bottom",
        "single_scenario",
        "single_task",
        "star",
        "taml",
    ] {
        let keys = toml::Table::from_iter([("name".to_owned(), name.into())]);
        let (_, architecture) = manygate_models::from_table(&keys).unwrap();
        let outputs = |reversed: bool| {
            let mut inputs = inputs(name);
            if reversed {
                inputs.tasks.reverse();
            }
            let graph = build(architecture.as_ref(), &inputs, Mode::Evaluation).unwrap();
            let plan = Plan::compile(graph, PlanOptions::default()).unwrap();
            // Initial values depend on names alone.
            let params = Parameters::initial(Arc::clone(plan.layout()), 1);
            let state = Parameters::initial(Arc::clone(plan.state_layout()), 1);
            let specs = plan.tables().iter();
            let tables = Tables(specs.map(|t| Table::initial(t.clone(), 0, 1, &Serial)).collect());
            let names: Vec<String> = plan.output_names().map(str::to_owned).collect();
            let columns = predict(&Model { plan, params, state, tables }, &Serial, &batch);
            names.into_iter().zip(columns).collect::<BTreeMap<_, _>>()
        };
        let (forward, reversed) = (outputs(false), outputs(true));
        if name == "cross_stitch" {
            // Sums over tasks are rounded in their order.
            let close = |a: &Vec<f32>, b: &Vec<f32>| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(forward.iter().all(|(task, column)| close(column, &reversed[task])), "{name}");
        } else {
            assert_eq!(forward, reversed, "{name}");
        }
    }
}

/// An auxiliary task costs a plan that serves nothing, and changes no bit of the other's predictions.
#[test]
fn what_is_not_served_is_not_computed() {
    let batch = batch(30);
    for name in [
        "adasparse",
        "aitm",
        "apg",
        "attention",
        "cross_stitch",
        "dcn",
        "dcn_v2",
        "dffm",
        "epnet_dcn",
        "hamur",
        "hinet",
        "interactions",
        "lhuc",
        "m2m",
        "m3oe",
        "mmoe",
        "pepnet",
        "shared_bottom",
        "star",
        "stem",
        "taml",
    ] {
        let keys = toml::Table::from_iter([("name".to_owned(), name.into())]);
        let (_, architecture) = manygate_models::from_table(&keys).unwrap();
        let mut inputs = inputs(name);
        inputs.tasks[0].auxiliary = true;
        let served = |all: bool| {
            let mut graph = build(architecture.as_ref(), &inputs, Mode::Evaluation).unwrap();
            graph.retain_outputs(|output| all || output == "buy");
            let plan = Plan::compile(graph, PlanOptions::default()).unwrap();
            let params = Parameters::initial(Arc::clone(plan.layout()), 1);
            let state = Parameters::initial(Arc::clone(plan.state_layout()), 1);
            let specs = plan.tables().iter();
            let tables = Tables(specs.map(|t| Table::initial(t.clone(), 0, 1, &Serial)).collect());
            Model { plan, params, state, tables }
        };
        let (all, primary) = (served(true), served(false));
        assert_eq!(primary.plan.output_names().collect::<Vec<_>>(), ["buy"]);
        assert!(primary.plan.multiply_adds() < all.plan.multiply_adds(), "{name}");
        // A file of all parameters fits both.
        assert_eq!(primary.plan.layout(), all.plan.layout());
        assert_eq!(predict(&primary, &Serial, &batch)[0], predict(&all, &Serial, &batch)[1], "{name}");
    }
}

/// Towers that are served and those that are not are several networks each, and drop values by names of their own.
#[test]
fn towers_that_stand_apart_drop_values_apart() {
    for name in ["hinet", "m3oe", "mmoe"] {
        let keys = format!("name = \"{name}\"\ndropout = 0.2");
        let (_, architecture) = manygate_models::from_table(&keys.parse().unwrap()).unwrap();
        let task = |(name, auxiliary)| Task { auxiliary, ..Task::binary(name) };
        let tasks = [("click", false), ("buy", false), ("like", true), ("share", true)].map(task).to_vec();
        let inputs = Inputs { tasks, ..inputs(name) };
        let graph = build(architecture.as_ref(), &inputs, Mode::Training).unwrap();
        Plan::compile(graph, PlanOptions::default()).unwrap();
    }
}

/// `model` with the parameters of `other` that `name_there` finds.
fn adopt(mut model: Model, other: &Model, name_there: impl Fn(&str) -> String) -> Model {
    let names: Vec<String> = model.params.tensors().map(|(block, _)| block.name.clone()).collect();
    for name in names {
        if let Ok(values) = other.params.get(&name_there(&name)) {
            model.params.set(&name, values).unwrap();
        }
    }
    model
}

fn assert_close(one: &Model, two: &Model) {
    let [one, two] = [one, two].map(|model| predict(model, &Serial, &batch(40)));
    for (one, two) in one.iter().flatten().zip(two.iter().flatten()) {
        assert!((one - two).abs() < 1e-5, "{one} becomes {two}");
    }
}

/// A gate that knows nothing multiplies by 1, with γ = 2.
#[test]
fn epnet_dcn_with_a_silent_gate_is_dcn() {
    let dcn = configured("dcn", "name = \"dcn\"", Mode::Evaluation);
    for granularity in ["element", "field"] {
        let keys = format!("name = \"epnet_dcn\"\ngranularity = \"{granularity}\"");
        let mut gated = configured("epnet_dcn", &keys, Mode::Evaluation);
        for name in ["domain1.weight", "domain1.bias"] {
            let silent = vec![0.0; gated.params.get(name).unwrap().len()];
            gated.params.set(name, &silent).unwrap();
        }
        assert_close(&adopt(gated, &dcn, |name| name.trim_start_matches("dcn.").to_owned()), &dcn);
    }
}

#[test]
fn a_mixture_of_one_open_expert_is_a_layer_of_low_rank() {
    let model =
        |keys: &str| configured("dcn_v2", &format!("name = \"dcn_v2\"\nrank = 3\n{keys}"), Mode::Evaluation);
    let one = model("cross = \"low_rank\"");
    let mixture = "cross = \"mixture\"\nexperts = 1\ninner = \"none\"";
    for gate in ["constant", "softmax"] {
        let mixture = model(&format!("{mixture}\ngate = \"{gate}\""));
        assert_close(&adopt(mixture, &one, str::to_owned), &one);
    }
}

/// W = 1 wᵀ and no bias, which stands inside of one product and outside of the other.
#[test]
fn dcn_is_a_special_case_of_dcn_v2() {
    let mut dcn = configured("dcn", "name = \"dcn\"", Mode::Evaluation);
    let mut second = adopt(configured("dcn_v2", "name = \"dcn_v2\"", Mode::Evaluation), &dcn, |name| {
        if name.starts_with("cross.") { String::new() } else { name.to_owned() }
    });
    for l in 0..3 {
        let (weight, bias) = (format!("cross.{l}.weight"), format!("cross.{l}.bias"));
        let w = dcn.params.get(&weight).unwrap().to_vec();
        second.params.set(&weight, &w.repeat(w.len())).unwrap();
        for model in [&mut dcn, &mut second] {
            model.params.set(&bias, &vec![0.0; w.len()]).unwrap();
        }
    }
    assert_close(&second, &dcn);
}

/// mtms: the last stage begins at the predictions of the one before it.
#[test]
fn a_warm_start_keeps_every_prediction() {
    let batch = batch(40);
    for units in ["[6, 5]", "[4]", "[]"] {
        let keys = |stage: &str| format!("name = \"mtms\"\nstage = \"{stage}\"\ntower_units = {units}");
        let before = configured("mtms", &keys("ctcvr"), Mode::Evaluation);
        let mut after = configured("mtms", &keys("finetune"), Mode::Evaluation);
        assert_eq!(before.params.layout(), after.params.layout());
        let (_, architecture) = manygate_models::from_table(&keys("finetune").parse().unwrap()).unwrap();
        architecture.begin_stage(&inputs("mtms"), &mut after.params).unwrap();
        let [before, after] = [&before, &after].map(|model| predict(model, &Serial, &batch));
        for (one, two) in before.iter().flatten().zip(after.iter().flatten()) {
            assert!((one - two).abs() < 1e-5, "{units}: {one} becomes {two}");
        }
    }
}

/// Amplitudes at rest are 1: such a model is the one without them.
#[test]
fn gates_that_say_nothing_change_no_prediction() {
    let (batch, shared) = (batch(40), "name = \"shared_bottom\"\nbottom_units = [9, 6]\ntower_units = [5]");
    let lhuc = |form: &str| format!("name = \"lhuc\"\nunits = [9, 6]\ntower_units = [5]\n{form}");
    let pepnet = |keys: &str| format!("name = \"pepnet\"\ntower_units = [9, 6]\n{keys}");
    let fusion = "name = \"adasparse\"\nepsilon = 0.0";
    let pairs = [
        ("lhuc", lhuc("amplitude = \"sigmoid\""), shared.to_owned()),
        ("lhuc", lhuc("amplitude = \"exp\"\nsite = \"input\""), shared.to_owned()),
        ("lhuc", lhuc("form = \"gate\"\namplitude = \"linear\"\ngate_units = [4]"), shared.to_owned()),
        ("pepnet", pepnet("prior_fields = [\"user\"]"), pepnet("epnet = false\nppnet = false")),
        ("pepnet", pepnet("gate_site = \"output\""), pepnet("epnet = false\nppnet = false")),
        ("adasparse", fusion.to_owned(), format!("{fusion}\nform = \"scaling\"")),
    ];
    for (name, gated, plain) in pairs {
        let (mut gated, mut plain) =
            (configured(name, &gated, Mode::Evaluation), configured(name, &plain, Mode::Evaluation));
        let at_rest =
            |name: &str| name.starts_with("scale.") || (name.contains("gate") && name.contains(".1."));
        let blocks: Vec<_> =
            gated.params.layout().blocks().map(|(b, range)| (b.name.clone(), range)).collect();
        for (_, range) in blocks.iter().filter(|(name, _)| at_rest(name)) {
            gated.params.values[range.clone()].fill(0.0);
        }
        let values: BTreeMap<_, _> = blocks.into_iter().collect();
        let own: Vec<_> = plain.params.layout().blocks().map(|(b, range)| (b.name.clone(), range)).collect();
        for (name, range) in own {
            plain.params.values[range].copy_from_slice(&gated.params.values[values[&name].clone()]);
        }
        let [gated, plain] = [&gated, &plain].map(|model| predict(model, &Serial, &batch));
        for (one, two) in gated.iter().flatten().zip(plain.iter().flatten()) {
            assert!((one - two).abs() < 1e-6, "{name}: {one} in place of {two}");
        }
    }
}

#[test]
fn a_batch_of_one_row_trains() {
    for entry in MODELS {
        let (gradients, _) = step(&model(entry.name, Mode::Training), &batch(1));
        assert!(gradients.iter().all(|(_, values)| values.iter().all(|v| v.is_finite())), "{}", entry.name);
    }
}

/// Gradients by tensor, and the state after a step.
fn step(model: &Model, batch: &Batch) -> (Vec<(String, Vec<f32>)>, Parameters) {
    let Model { plan, params, state, tables } = model;
    let mut order = RowOrder::default();
    let batch = order.arrange(plan, batch).unwrap().batch;
    let mut ws = Workspace::new(plan, 1, batch.rows);
    plan.pack(&Serial, &mut ws, params);
    let seeds = vec![1.0; plan.losses().len()];
    let draws = Draws::default();
    plan.run(&Serial, &mut ws, &Input { params, state, tables, batch, seeds: &seeds, draws }).unwrap();
    let lanes = plan.gradients(&ws);
    let sum = |i: usize| (0..lanes.rows()).map(|lane| lanes.row(lane)[i]).sum();
    let gradients =
        plan.layout().blocks().map(|(block, range)| (block.name.clone(), range.map(sum).collect()));
    let gradients = gradients.collect();
    let mut after = state.clone();
    plan.update_state(&ws, &mut after);
    (gradients, after)
}

/// Tensors with a slice a scenario, by their first dimension: what scenario 2, which has no rows, uses alone.
#[test]
fn an_absent_scenario_gets_no_gradient_and_keeps_its_statistics() {
    const ABSENT: usize = 2;
    let own = |len: usize| ABSENT * len / SCENARIOS..(ABSENT + 1) * len / SCENARIOS;
    // Its parts are clusters, which no scenario names.
    for entry in MODELS.iter().filter(|entry| entry.name != "adaptdhm") {
        let model = model(entry.name, Mode::Training);
        let (gradients, after) = step(&model, &batch(50));
        let by_scenario = |name: &str| {
            let own = ["scene.", "scale.", "transform.", "domain.table.weight"];
            own.iter().any(|start| name.starts_with(start)) || name.contains(".domain_")
        };
        let of_absent = |name: &str| {
            let prefixes: &[&str] = match entry.name {
                "causalint" => &["experts.2.", "towers.2."],
                "hamur" => &["bottom.2.", "towers.2."],
                "mtms" => &["tower.2.", "head.2."],
                "sarnet" => &["specific.2."],
                "single_scenario" => &["bottom.2.", "towers.click.2.", "towers.buy.2."],
                _ => &[],
            };
            prefixes.iter().any(|prefix| name.starts_with(prefix)) || name.contains("_2.")
        };
        for (name, gradient) in gradients.iter().filter(|(name, _)| of_absent(name)) {
            assert!(gradient.iter().all(|&v| v == 0.0), "{}: {name}", entry.name);
        }
        for (name, gradient) in gradients.iter().filter(|(name, _)| by_scenario(name)) {
            let range = own(gradient.len());
            assert!(gradient[range].iter().all(|v| v.to_bits() << 1 == 0), "{}: {name}", entry.name);
            // dffm reads the scenario's embedding with a history alone.
            let reads =
                gradient.iter().any(|&v| v != 0.0) || (entry.name, name.as_str()) == ("dffm", "scene.weight");
            assert!(reads, "{}: {name} gets no gradient at all", entry.name);
        }
        let both = model.state.tensors().zip(after.tensors());
        for ((block, before), (_, after)) in both.filter(|((b, _), _)| b.shape.first() == Some(&SCENARIOS)) {
            let range = own(before.len());
            assert_eq!(before[range.clone()], after[range], "{}: {}", entry.name, block.name);
            assert_ne!(before, after, "{}: {} does not move", entry.name, block.name);
        }
    }
}
