//! Every optimiser moves as its paper says, on the rows of tables that a batch looks up alone, and goes on from a
//! checkpoint with the same bits.

mod support;

use manygate_core::{Batch, Serial};
use manygate_embedding::SparseGradients;
use manygate_graph::{Draws, Input, PlanOptions, Workspace};
use manygate_train::checkpoint::{Checkpoint, write_checkpoint};
use manygate_train::optim::OptimizerConfig;
use manygate_train::{Learner, progress::Progress};
use support::{IDS, ROWS, batch, graph, learner};

/// Ids and gradient rows of a table.
type RowGradients = (Vec<u32>, Vec<f32>);

/// The gradients that the next step on `batch` takes: dense, and of each table.
fn gradients(learner: &Learner, batch: &Batch) -> (Vec<f32>, Vec<RowGradients>) {
    let Learner { plan, params, state, tables, .. } = learner;
    let mut ws = Workspace::new(plan, 1, ROWS);
    plan.pack(&Serial, &mut ws, params);
    // The seed of the support's learner; dropout draws what the step will draw.
    let draws = Draws { seed: 3, step: learner.step + 1, caller_rows: &[] };
    let input = Input { params, state, tables, batch, seeds: learner.seeds(), draws };
    plan.run(&Serial, &mut ws, &input).unwrap();
    let mut sparse = SparseGradients::new(plan, ROWS);
    sparse.sort(&Serial, batch);
    let lanes = plan.gradients(&ws);
    let sum = |i: usize| (0..lanes.rows()).fold(0.0, |sum, lane| sum + lanes.row(lane)[i]);
    let rows = (0..tables.0.len()).map(|t| sparse.coalesced(plan, &ws, t)).collect();
    ((0..lanes.cols()).map(sum).collect(), rows)
}

/// `[w, first, second]` of one value, moved by the gradient `g` in step `t`.
type Formula = fn([f64; 3], g: f64, t: i32) -> [f64; 3];

/// Keys of a method for dense parameters, and its formulas with them.
const DENSE: [(&str, Formula); 5] = [
    (
        "method = \"momentum\"\nrate = 0.1\nmomentum = 0.5\nl2 = 0.01\nweight_decay = 0.1",
        |[w, v, s], g, _| {
            let v = 0.5 * v + g + 0.01 * w;
            [(1.0 - 0.1 * 0.1) * w - 0.1 * v, v, s]
        },
    ),
    ("method = \"momentum\"\nrate = 0.1\nmomentum = 0.5\nnesterov = true", |[w, v, s], g, _| {
        let v = 0.5 * v + g;
        [w - 0.1 * (g + 0.5 * v), v, s]
    }),
    ("method = \"adamw\"\nrate = 0.1\nweight_decay = 0.1\nepsilon = 0.01", |[w, m, v], g, t| {
        let (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
        let direction = m / (1.0 - 0.9f64.powi(t)) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 0.01);
        [(1.0 - 0.1 * 0.1) * w - 0.1 * direction, m, v]
    }),
    ("method = \"adagrad\"\nrate = 0.1\nl2 = 0.01\nepsilon = 0.01", |[w, m, a], g, _| {
        let g = g + 0.01 * w;
        let a = a + g * g;
        [w - 0.1 * g / (a.sqrt() + 0.01), m, a]
    }),
    ("method = \"sgd\"\nrate = 0.1\nl2 = 0.01", |[w, m, v], g, _| [w - 0.1 * (g + 0.01 * w), m, v]),
];

#[test]
fn dense_parameters_move_by_the_formulas() {
    for (keys, formula) in DENSE {
        let mut learner = learner(&format!("[dense]\n{keys}"));
        for step in 1..=3 {
            let batch = batch(step);
            let (gradient, _) = gradients(&learner, &batch);
            let values = |learner: &Learner| {
                let (first, second) = (&learner.dense.first, &learner.dense.second);
                let values = learner.params.values.iter().zip(&first[..]).zip(&second[..]);
                values.map(|((&w, &m), &v)| [w, m, v].map(f64::from)).collect::<Vec<_>>()
            };
            let before = values(&learner);
            learner.step(&Serial, &batch).unwrap();
            let after = values(&learner);
            for (_, range) in learner.plan.layout().blocks() {
                for i in range {
                    let expected = formula(before[i], f64::from(gradient[i]), step as i32);
                    for (found, expected) in after[i].iter().zip(expected) {
                        assert!((found - expected).abs() < 1e-5, "{keys}, step {step}: {found} {expected}");
                    }
                }
            }
        }
    }
}

/// A method for tables, its keys, and values of state beside 5 weights.
const TABLES: [(&str, usize); 5] = [
    ("method = \"adagrad\"", 5),
    ("method = \"adam\"", 10),
    ("method = \"ftrl\"\nl1 = 1e-4", 10),
    ("method = \"rowwise_adagrad\"", 1),
    ("method = \"sgd\"\nrate = 0.1", 0),
];

#[test]
fn l2_of_tables_is_that_of_the_rows_that_a_batch_looks_up() {
    for (keys, state) in TABLES {
        let tables = |l2: f32| {
            let mut learner = learner(&format!("[tables]\n{keys}\nl2 = {l2:?}"));
            let mut batch = batch(1);
            // Ids 0, 3 and 4 alone.
            batch.ids.iter_mut().flatten().for_each(|id| *id = [0, 3, 4][*id as usize % 3]);
            let before = learner.tables.clone();
            learner.step(&Serial, &batch).unwrap();
            (before, learner.tables)
        };
        let ((before, plain), (_, decayed)) = (tables(0.0), tables(0.5));
        for ((before, plain), decayed) in before.0.iter().zip(&plain.0).zip(&decayed.0) {
            assert_eq!(plain.state_width(), state, "{keys}");
            for id in 0..IDS {
                let row = |table: &manygate_embedding::Table| {
                    table.values()[id * table.stride()..][..table.stride()].to_vec()
                };
                let looked_up = [3, 4].contains(&id);
                assert_eq!(row(plain) != row(before), looked_up, "{keys}, row {id}");
                assert_eq!(row(decayed) != row(plain), looked_up, "{keys}, row {id}");
            }
        }
    }
}

/// Dense and table methods together, with clipping and a schedule.
fn mixes() -> impl Iterator<Item = String> {
    let head =
        "clip_norm = 0.25\nclip_tables = true\n[schedule]\nkind = \"cosine\"\nwarmup_steps = 2\nsteps = 6";
    let adam = "method = \"adam\"";
    let dense = DENSE.iter().map(|(keys, _)| *keys).chain([adam]);
    let tables = TABLES.iter().map(|(keys, _)| *keys).cycle();
    dense.zip(tables).map(move |(dense, tables)| format!("{head}\n[dense]\n{dense}\n[tables]\n{tables}"))
}

#[test]
fn a_resumed_run_has_the_bits_of_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let values = |learner: &Learner| {
        let tables = learner.tables.0.iter().flat_map(|t| t.values().to_vec());
        let dense = [&learner.params.values, &learner.dense.first, &learner.dense.second];
        dense.into_iter().flat_map(|values| values.to_vec()).chain(tables).collect::<Vec<_>>()
    };
    for mix in mixes() {
        let mut whole = learner(&mix);
        for step in 1..=5 {
            whole.step(&Serial, &batch(step)).unwrap();
            if step == 3 {
                let progress = Progress { step, stage_step: step, ..Progress::default() };
                write_checkpoint(&path, &whole, &progress, &mix).unwrap();
            }
        }
        let mut resumed = learner(&mix);
        Checkpoint::read(&path, &mix).unwrap().restore(&mut resumed).unwrap();
        for step in 4..=5 {
            resumed.step(&Serial, &batch(step)).unwrap();
        }
        assert!(values(&whole) == values(&resumed), "{mix}");
    }
}

#[test]
fn a_schedule_multiplies_rates_and_begins_anew_with_a_stage() {
    let plain = |rate: f64| format!("[dense]\nmethod = \"sgd\"\nrate = {rate}\n[tables]\nmethod = \"ftrl\"");
    let warm = format!("[schedule]\nwarmup_steps = 2\n{}", plain(0.5));
    let (mut scheduled, mut half, mut full) = (learner(&warm), learner(&plain(0.25)), learner(&plain(0.5)));
    for learner in [&mut scheduled, &mut half, &mut full] {
        learner.step(&Serial, &batch(1)).unwrap();
    }
    assert_eq!(scheduled.rate_factor(), 0.5);
    assert_eq!(scheduled.params.values[..], half.params.values[..]);
    assert_ne!(scheduled.params.values[..], full.params.values[..]);
    // Weights of ftrl are computed from its rate, which stays.
    assert_eq!(scheduled.tables.0[0].values(), full.tables.0[0].values());
    scheduled.step(&Serial, &batch(2)).unwrap();
    assert_eq!(scheduled.rate_factor(), 1.0);

    let optimizer: OptimizerConfig = warm.parse().unwrap();
    scheduled.begin_stage(graph(), PlanOptions::default(), &optimizer).unwrap();
    scheduled.step(&Serial, &batch(1)).unwrap();
    assert_eq!(scheduled.rate_factor(), 0.5);

    let endless: OptimizerConfig = "[schedule]\nkind = \"linear\"".parse().unwrap();
    let told = scheduled.begin_stage(graph(), PlanOptions::default(), &endless).unwrap_err();
    assert!(told.to_string().contains("optimizer.schedule.steps: must be given"), "{told}");
}
