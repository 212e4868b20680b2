//! A warm training step allocates nothing: gathering the batch, packing, running, sorting, and both optimisers.
//!
//! The allocator counts what every thread asks for, so this file holds one test.

use manygate_core::{Bag, Batch, Executor, Pool, Serial, Stream};
use manygate_graph::{Mode, PlanOptions};
use manygate_kernels::Isa;
use manygate_kernels::embedding::Pooling;
use manygate_models::inputs::{self, Inputs};
use manygate_tests::small_models::is_chain;
use manygate_train::Learner;
use manygate_train::balance::{Balance, METHODS};
use manygate_train::optim::OptimizerConfig;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a count of the blocks that were asked for.
struct Counting;

static BLOCKS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        BLOCKS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROWS: usize = 700;
const USERS: usize = 300;
const ITEMS: usize = 50;

fn inputs(model: &str) -> Inputs {
    let tasks = match model {
        model if model.contains("causalint") => 1,
        model if model.contains("mtms") || model.contains("escm2") => 2,
        model if ["causalint", "deepfm"].iter().any(|name| model.contains(name)) => 1,
        model if model.contains("mtms") => 2,
        _ => 3,
    };
    let table = |name: &str, rows| inputs::Table { name: name.into(), rows, dim: None };
    // The second is that of the scenarios of the first.
    let lists = if model.contains("history_scenarios") { 2 } else { 1 };
    let list = |name: &str, table| inputs::BagField {
        name: name.into(),
        table,
        pooling: Pooling::Mean,
        longest: Some(5),
    };
    let field = |name: &str, table| inputs::Field { name: name.into(), table };
    // It trains all tasks over all rows.
    let space = (!is_chain(model)).then_some(0);
    let task = |name: &str, space| inputs::Task { space, ..inputs::Task::binary(name) };
    // Tasks of every kind, and scenarios that count unlike, in some of the models.
    let like = match model {
        model if model.contains("m2m") => {
            inputs::Task { kind: inputs::TaskKind::Poisson, ..task("like", None) }
        }
        model if model.contains("norm = \"batch\"") => inputs::Task {
            kind: inputs::TaskKind::Regression,
            scenario_weights: vec![2.0, 1.0, 0.5],
            ..task("like", None)
        },
        _ => task("like", None),
    };
    Inputs {
        tables: vec![table("user", USERS), table("item", ITEMS), table("scenario", 4)],
        fields: vec![field("user", 0), field("item", 1)],
        bags: [list("history", 1), list("history_scenarios", 2)][..lists].to_vec(),
        dense: 3,
        dense_names: ["price", "age", "weight"].map(str::to_owned).to_vec(),
        scenarios: 3,
        tasks: [task("click", None), like, task("buy", space)][..tasks].to_vec(),
    }
}

/// Made-up rows; another number gives other ids, and bags of other lengths.
fn data(rows: usize) -> Batch {
    let stream = Stream::new(1, 0, 0);
    let id = |row: usize, column: u64, below: usize| stream.below(row as u64, column, below as u64) as u32;
    let mut history = Bag { offsets: vec![0], ids: Vec::new() };
    let mut scenarios = history.clone();
    for r in 0..rows {
        history.ids.extend((0..id(r, 2, 6)).map(|i| id(r, 3 + u64::from(i), ITEMS)));
        history.offsets.push(history.ids.len() as u32);
        scenarios.ids.extend((0..id(r, 2, 6)).map(|i| 1 + id(r, 9 + u64::from(i), 3)));
        scenarios.offsets.push(scenarios.ids.len() as u32);
    }
    Batch {
        rows,
        ids: vec![(0..rows).map(|r| id(r, 0, USERS)).collect(), (0..rows).map(|r| id(r, 1, ITEMS)).collect()],
        bags: vec![history, scenarios],
        dense: (0..rows * 3).map(|i| stream.normal(i as u64, 20)).collect(),
        dense_width: 3,
        scenario: (0..rows as u64).map(|r| stream.below(r, 40, 3) as u32).collect(),
        labels: (0..3)
            .map(|t| (0..rows).map(|r| stream.uniform(r as u64, 30 + t).round()).collect())
            .collect(),
    }
}

/// A model with its optimiser groups and its balancing method, none where empty, on an instruction set, the best one
/// where none is named.
#[derive(Debug, Default)]
struct Job {
    model: String,
    isa: Option<Isa>,
    optimizer: &'static str,
    method: &'static str,
}

/// A model in training, as the trainer makes it.
fn learner(job: &Job, exec: &dyn Executor, data: &Batch) -> Learner {
    let Job { model, isa, optimizer, method } = job;
    let (_, architecture) = manygate_models::from_table(&model.parse().unwrap()).unwrap();
    let inputs = inputs(model);
    let graph = || manygate_models::build(architecture.as_ref(), &inputs, Mode::Training).unwrap();
    let optimizer: OptimizerConfig = optimizer.parse().unwrap();
    let options = PlanOptions { isa: isa.unwrap_or_else(Isa::best), ..PlanOptions::default() };
    let mut learner = Learner::new(graph(), options, &optimizer, 1, exec, ROWS).unwrap();
    if !method.is_empty() {
        let table = toml::Table::from_iter([("method".to_owned(), (*method).into())]);
        let balance = Balance::from_table(&table).unwrap();
        learner.balance_by(&balance, graph(), &inputs.tasks, 1, exec).unwrap();
    }
    assert!(learner.plan.lanes(ROWS) > 1, "several lanes");
    learner.reserve_for(data);
    learner
}

/// Methods, rates and cadences of their own, of dense parameters and tables.
const GROUPS: &str = r#"
    [[group]]
    names = ["towers.*", "embedding.user.weight"]
    method = "sgd"
    every = 2
    [[group]]
    names = ["experts.0.*"]
    rate = 0.01
    [[group]]
    names = ["embedding.item.weight"]
    method = "rowwise_adagrad"
    every = 3
"#;

/// Every other method, a schedule, and gradients that are clipped.
const METHODS_OF_MOVING: &str = r#"
    clip_norm = 0.01
    clip_tables = true
    [schedule]
    kind = "cosine"
    warmup_steps = 2
    steps = 5
    [dense]
    method = "momentum"
    nesterov = true
    [tables]
    method = "ftrl"
    [[group]]
    names = ["towers.*"]
    method = "adamw"
    [[group]]
    names = ["experts.0.*", "embedding.item.weight"]
    method = "adagrad"
"#;

/// Blocks that steps ask for from the second batch on. The whole is repeated from nothing: what a step asks for shows
/// every time, what the test harness's own thread asks for meanwhile does not.
fn least_blocks(job: &Job, exec: &dyn Executor) -> usize {
    (0..3).map(|_| blocks(job, exec)).min().unwrap_or(0)
}

/// Blocks that steps ask for from the second batch on.
fn blocks(job: &Job, exec: &dyn Executor) -> usize {
    let data = data(5 * ROWS);
    let mut learner = learner(job, exec, &data);
    let mut batch = Batch::empty_like(&data);
    batch.reserve_for(&data, ROWS);
    let order: Vec<u32> = (0..data.rows as u32).collect();
    let mut batches = order.chunks(ROWS).chain([&order[..123], &order[..1]]);
    let first = batches.next().unwrap();
    batch.gather(&data, first);
    learner.step(exec, &batch).unwrap();
    let before = BLOCKS.load(Ordering::Relaxed);
    for rows in batches {
        batch.gather(&data, rows);
        learner.step(exec, &batch).unwrap();
    }
    BLOCKS.load(Ordering::Relaxed) - before
}

#[test]
fn a_warm_step_allocates_nothing() {
    let models = [
        "name = \"mmoe\"\nexperts = 3\nexpert_units = [24, 16]\ntower_units = [8]",
        "name = \"shared_bottom\"\nbottom_units = [24, 16]\ntower_units = [8]",
    ];
    let with_norms = models
        .iter()
        .flat_map(|m| ["none", "batch"].map(|norm| format!("{m}\nnorm = \"{norm}\"\ndropout = 0.2")));
    let others = [
        "name = \"single_task\"\nbottom_units = [24, 16]\ntower_units = [8]\ndropout = 0.2",
        "name = \"moe\"\nexperts = 3\nexpert_units = [24, 16]\ndropout = 0.2",
        "name = \"cgc\"\nshared_experts = 2\nexpert_units = [24, 16]\ndropout = 0.2",
        "name = \"ple\"\nexpert_units = [24, 16]\ngate_units = [8]\ndropout = 0.2",
        "name = \"esmm\"\ntower_units = [24, 16]\ndropout = 0.2",
        "name = \"mmoe\"\nexperts = 3\nexpert_units = [16]\ntop_k = 2\ngate_dropout = 0.2",
        "name = \"star\"\nunits = [24, 16]\nauxiliary_units = [8]\ndropout = 0.2",
        "name = \"hinet\"\nsub_units = [16]\nexpert_units = [24, 16]\ntower_units = [8]\ndropout = 0.2",
        "name = \"m3oe\"\nstar_width = 16\nwidth = 16\nagnostic_units = [24]\ntower_units = [8]\ndropout = 0.2",
        "name = \"adaptdhm\"\nunits = [24, 16]\ndropout = 0.2",
        "name = \"lhuc\"\nunits = [24, 16]\ntower_units = [8]\ndropout = 0.2",
        "name = \"pepnet\"\ntower_units = [24, 16]\nprior_fields = [\"user\"]\ndropout = 0.2",
        "name = \"adasparse\"\nunits = [24, 16]\nprune_input = true\ndropout = 0.2",
        "name = \"apg\"\nunits = [24, 16]\ncondition = \"mix\"\ncondition_fields = [\"user\"]\ndropout = 0.2",
        "name = \"hamur\"\nunits = [24, 16]\nadapters = [0, 1]\nrank = 4\ndropout = 0.2",
        "name = \"hamur\"\nunits = [24, 16]\nrank = 4\ncondition = \"scenario\"",
        "name = \"single_scenario\"\nbottom_units = [24, 16]\ntower_units = [8]\ndropout = 0.2",
        "name = \"ple\"\nexpert_units = [24, 16]\nnorm = \"batch\"\nscenario_heads = true",
        "name = \"causalint\"\nunits = [24, 16]\ntransfer = 4\nmeta = \"parameter\"",
        "name = \"mtms\"\nstage = \"represent\"\ntower_units = [24, 16]",
        "name = \"mtms\"\nstage = \"finetune\"\ntower_units = [24, 16]",
        "name = \"dcn\"\ndeep_units = [24]\nscenario_dim = 2\ndropout = 0.2",
        "name = \"dcn_v2\"\ncross = \"mixture\"\nrank = 4\ndeep_units = [24]\nnorm = \"batch\"",
        "name = \"deepfm\"\ndeep_units = [24]\ndense_field = true",
        "name = \"epnet_dcn\"\ngate_hidden = 8\ndeep_units = [24]\nscenario_fields = [\"item\"]\ndropout = 0.2",
        "name = \"autoint\"\nlayers = 2\ndeep_units = [24]\ndropout = 0.2",
        "name = \"dffm\"\ndffi_units = [24]\nhistory = \"history\"\ntarget = \"item\"",
        "name = \"aitm\"\nbottom_units = [24, 16]\ndropout = 0.2",
        "name = \"cross_stitch\"\nunits = [24, 16]\ndropout = 0.2",
        "name = \"escm2\"\nexperts = 3\nexpert_units = [24, 16]\ndropout = 0.2",
        "name = \"stem\"\nexpert_units = [24, 16]\nlevels = 2\ndropout = 0.2",
        "name = \"taml\"\nexpert_units = [24, 16]\nnested_gates = true\nfuse = \"gate\"\ndropout = 0.2",
        "name = \"din\"\nhistory = \"history\"\ntarget = \"item\"\nunit_activation = \"dice\"",
        "name = \"mhta\"\nhistory = \"history\"\ntarget = \"item\"\ndropout = 0.2",
        "name = \"sarnet\"\nhistory = \"history\"\nhistory_scenarios = \"history_scenarios\"\ntarget = \"item\"\n\
         attention_units = [8]\nexpert_units = [16]\nfairness = \"weight\"\ndropout = 0.2",
        "name = \"m2m\"\nexpert_units = [24, 16]\nffn = 8\nprofile_fields = [\"item\"]",
    ];
    let plain = with_norms.chain(others.map(str::to_owned)).map(|model| Job { model, ..Job::default() });
    let mmoe = || Job { model: models[0].to_owned(), ..Job::default() };
    let optimizers = [GROUPS, METHODS_OF_MOVING, "clip_value = 0.01\nclip_tables = true"];
    let grouped = optimizers.map(|optimizer| Job { optimizer, ..mmoe() });
    let clipped = Job { optimizer: METHODS_OF_MOVING, method: "pcgrad", ..mmoe() };
    let balanced = METHODS.iter().map(|method| Job { method: method.name, ..mmoe() });
    let on_each_set = Isa::available().into_iter().map(|isa| Job { isa: Some(isa), ..mmoe() });
    let pool = Pool::new(2).unwrap();
    for job in plain.chain(grouped).chain([clipped]).chain(balanced).chain(on_each_set) {
        assert_eq!(least_blocks(&job, &Serial), 0, "one thread: {job:?}");
        assert_eq!(pool.enter(|exec| least_blocks(&job, exec)), 0, "two threads: {job:?}");
    }
}
