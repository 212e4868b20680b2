//! What single multi-task models promise beyond their golden cases.

use manygate_core::{Batch, Serial, Stream};
use manygate_embedding::{Table, Tables};
use manygate_graph::check::check_plan;
use manygate_graph::{Draws, Input, Mode, Parameters, Plan, PlanOptions, Workspace};
use manygate_kernels::Isa;
use manygate_models::inputs::{Field, Inputs, Table as TableInput, Task};
use std::sync::Arc;

const IDS: usize = 7;
const ROWS: usize = 40;

/// Click, and buy that comes after it.
fn inputs() -> Inputs {
    Inputs {
        tables: ["user", "item"].map(|name| TableInput { name: name.into(), rows: IDS, dim: None }).to_vec(),
        fields: vec![Field { name: "user".into(), table: 0 }, Field { name: "item".into(), table: 1 }],
        dense: 2,
        tasks: vec![Task::binary("click"), Task { after: Some(0), ..Task::binary("buy") }],
        ..Inputs::default()
    }
}

fn batch() -> Batch {
    let stream = Stream::new(5, 0, 0);
    let below = |r: usize, column: u64, below: u64| stream.below(r as u64, column, below) as u32;
    let click: Vec<f32> = (0..ROWS).map(|r| below(r, 3, 2) as f32).collect();
    let buy = (0..ROWS).map(|r| click[r] * below(r, 4, 2) as f32).collect();
    Batch {
        rows: ROWS,
        ids: [0, 7].map(|field| (0..ROWS).map(|r| below(r, field, IDS as u64)).collect()).to_vec(),
        dense: (0..ROWS * 2).map(|i| stream.normal(i as u64, 1)).collect(),
        dense_width: 2,
        labels: vec![click, buy],
        ..Batch::default()
    }
}

/// A compiled model, every value of it random.
struct Model {
    plan: Plan,
    params: Parameters,
    state: Parameters,
    tables: Tables,
}

impl Model {
    fn new(keys: &str, mode: Mode, isa: Isa) -> Model {
        let (_, architecture) = manygate_models::from_table(&keys.parse().unwrap()).unwrap();
        let graph = manygate_models::build(architecture.as_ref(), &inputs(), mode).unwrap();
        let options =
            PlanOptions { tile_rows: 8, lane_rows: 16, outputs: true, isa, ..PlanOptions::default() };
        let plan = Plan::compile(graph, options).unwrap();
        let stream = Stream::new(11, 0, 0);
        let mut params = Parameters::initial(Arc::clone(plan.layout()), 1);
        params.values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.1 * stream.normal(i as u64, 0));
        let state = Parameters::initial(Arc::clone(plan.state_layout()), 1);
        let tables = plan.tables().iter().map(|spec| {
            let mut table = Table::zeroed(spec.clone(), 0);
            let values: Vec<f32> = (0..spec.rows * spec.dim).map(|i| stream.normal(i as u64, 2)).collect();
            table.set_weights(&values).unwrap();
            table
        });
        Model { tables: Tables(tables.collect()), plan, params, state }
    }

    fn input<'a>(&'a self, batch: &'a Batch, seeds: &'a [f32]) -> Input<'a> {
        let Model { params, state, tables, .. } = self;
        Input { params, state, tables, batch, seeds, draws: Draws::default() }
    }

    /// A workspace after a run.
    fn run(&self, batch: &Batch) -> Workspace {
        let seeds = vec![1.0; self.plan.losses().len()];
        let mut ws = Workspace::new(&self.plan, 1, batch.rows);
        self.plan.pack(&Serial, &mut ws, &self.params);
        self.plan.run(&Serial, &mut ws, &self.input(batch, &seeds)).unwrap();
        ws
    }

    fn output(&self, ws: &Workspace, name: &str) -> Vec<f32> {
        let output = self.plan.output(ws, name).unwrap();
        (0..output.rows()).map(|r| output.row(r)[0]).collect()
    }

    /// Those of the losses that reach a tensor or a table.
    fn losses_of(&self, name: &str) -> Vec<&str> {
        let parts = self.plan.losses().iter().enumerate();
        parts.filter(|&(part, _)| self.plan.reaches(part, name)).map(|(_, part)| part.name.as_str()).collect()
    }
}

fn training(keys: &str) -> Model {
    Model::new(keys, Mode::Training, Isa::best())
}

#[test]
fn taml_multiplies_learners_by_the_event_before() {
    let batch = batch();
    for fuse in ["score", "logit", "gate"] {
        let keys = format!(
            "name = \"taml\"\nembedding_dim = 3\nactivation = \"tanh\"\nlearners = 2\nexpert_units = [5]\n\
             tower_units = [4]\nentire_space = true\nfuse = \"{fuse}\""
        );
        for (isa, mode) in Isa::available().into_iter().zip([Mode::Training, Mode::Evaluation].repeat(4)) {
            let model = Model::new(&keys, mode, isa);
            let seeds = vec![1.0; model.plan.losses().len()];
            check_plan(&model.plan, &Serial, &model.input(&batch, &seeds)).unwrap();
        }
        let model = training(&keys);
        let ws = model.run(&batch);
        let [click, buy, given] = ["click", "buy", "buy_given_click"].map(|output| model.output(&ws, output));
        for r in 0..ROWS {
            assert!((buy[r] - click[r] * given[r]).abs() < 1e-6, "{fuse}, row {r}");
        }
        assert_eq!(model.losses_of("learners.click.0.tower.0.weight").len(), 6, "the loss of buy too");
    }
}

#[test]
fn the_teacher_of_taml_does_not_learn() {
    let keys = "name = \"taml\"\nlearners = 2\nexpert_units = [5]\ntower_units = [4]\nfuse = \"gate\"";
    // What makes the fused score of its learners, and nothing else.
    let fuse = training(keys);
    assert_eq!(fuse.losses_of("learners.click.fuse.weight"), ["click.fused"]);
    assert_eq!(fuse.losses_of("learners.buy.1.tower.0.weight"), ["buy.fused", "buy.learners", "buy.distill"]);
    let silent = training(&format!("{keys}\nfused_weight = 0.0"));
    assert!(silent.losses_of("learners.click.fuse.weight").is_empty());
}

#[test]
fn networks_of_cross_stitch_start_convex() {
    let keys = |more: &str| format!("name = \"cross_stitch\"\nunits = [5, 4]\n{more}");
    for (more, own) in [("", 0.9), ("own_weight = 0.5", 0.5), ("own_weight = 1.0\nper_unit = true", 1.0)] {
        let model = training(&keys(more));
        let params = Parameters::initial(Arc::clone(model.plan.layout()), 1);
        let a = params.get("stitch.1").unwrap();
        let width = a.len() / 4;
        for (pair, weights) in a.chunks_exact(width).enumerate() {
            let expected = if pair % 3 == 0 { own } else { 1.0 - own };
            assert!(weights.iter().all(|&w| (w - expected).abs() < 1e-6), "{more}: {a:?}");
        }
    }
}

#[test]
fn a_loss_of_stem_trains_tables_of_its_own_and_shared_ones() {
    let keys = "name = \"stem\"\nexpert_units = [5]\ngate_units = []\ntower_units = [4]";
    let one = training(keys);
    assert_eq!(one.losses_of("embedding.user.weight"), ["click", "buy"]);
    assert_eq!(one.losses_of("levels.0.experts.shared.0.0.weight"), ["click", "buy"]);
    for task in ["click", "buy"] {
        for own in ["experts.{}.0.0.weight", "gates.{}.weight"] {
            assert_eq!(one.losses_of(&format!("levels.0.{}", own.replace("{}", task))), [task]);
        }
        assert_eq!(one.losses_of(&format!("task_embedding.{task}.item.weight")), [task]);
    }
    // The gate learns what foreign experts are worth: each row of its weight is a choice.
    let ws = one.run(&batch());
    let lanes = one.plan.gradients(&ws);
    let (_, range) =
        one.plan.layout().blocks().find(|(b, _)| b.name == "levels.0.gates.click.weight").unwrap();
    let width = range.len() / 3;
    for choice in 0..3 {
        let row = range.start + choice * width..range.start + (choice + 1) * width;
        assert!(row.into_iter().any(|i| lanes.row(0)[i] != 0.0), "choice {choice}");
    }
    // With more levels all lower experts are reached, through the shared state.
    let two = training(&format!("{keys}\nlevels = 2"));
    assert_eq!(two.losses_of("levels.0.experts.buy.0.0.weight"), ["click", "buy"]);
    assert_eq!(two.losses_of("levels.1.experts.buy.0.0.weight"), ["buy"]);
    assert!(two.plan.layout().blocks().all(|(block, _)| block.name != "levels.1.gates.shared.weight"));
}

#[test]
fn an_earlier_event_of_aitm_reads_no_later_one() {
    let model = training("name = \"aitm\"\nbottom_units = [6, 4]\ncalibrator_weight = 0.0");
    assert_eq!(model.losses_of("bottoms.click.0.weight"), ["click", "buy"]);
    for name in ["bottoms.buy.0.weight", "infos.buy.weight", "ait.v.weight", "towers.buy.0.weight"] {
        assert_eq!(model.losses_of(name), ["buy"], "{name}");
    }
    let both = training("name = \"aitm\"\nbottom_units = [6, 4]");
    assert_eq!(both.losses_of("towers.click.0.weight"), ["click", "calibrator"]);
}

#[test]
fn losses_of_escm2_train_what_they_should() {
    let sizes = "name = \"escm2\"\nbase = \"none\"\ntower_units = [5]\nconditional = \"cvr\"";
    let weights = ["ctr", "cvr", "imp"].map(|head| format!("towers.{head}.0.weight"));
    let losses = |keys: &str| -> Vec<Vec<String>> {
        let model = training(&format!("{sizes}\n{keys}"));
        let of = |name: &String| model.losses_of(name).into_iter().map(str::to_owned).collect();
        weights.iter().map(of).collect()
    };
    let (both, error, imputation) = ("buy", "cvr.error", "cvr.imputation");
    assert_eq!(losses(""), [vec!["click", both], vec![both, error, imputation], vec![error, imputation]]);
    assert_eq!(
        losses("imputation_gradient = \"split\""),
        [vec!["click", both], vec![both, error], vec![imputation]]
    );
    assert_eq!(losses("propensity_gradient = true")[0], ["click", both, error, imputation]);
    assert_eq!(losses("estimate = \"ips\"")[1], [both, "cvr"]);
}

/// The network of the imputed error only helps to train.
#[test]
fn the_imputed_error_of_escm2_costs_a_serving_plan_nothing() {
    let plan = |estimate: &str| {
        let keys = "name = \"escm2\"\nexperts = 2\nexpert_units = [5]\ntower_units = [4]";
        let model = Model::new(&format!("{keys}\nestimate = \"{estimate}\""), Mode::Evaluation, Isa::best());
        model.plan.multiply_adds()
    };
    // Its gate's logits are columns of the experts' first layer, two an expert's width of inputs.
    let width = 2 * 16 + 2;
    assert_eq!(plan("dr"), plan("ips") + 2 * width);
}
