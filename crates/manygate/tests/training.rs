//! Training in memory: the same bits on any threads, a folder like any other run's, and errors.

use manygate::ndarray::Array2;
use manygate::{Batch, Columns, Model, Options, Schema, Session, Threads, Trainer, Workers};
use manygate_train::PredictOptions;
use std::sync::Arc;
use std::thread;

fn schema() -> Schema {
    Schema::default()
        .field("user", 9)
        .field("item", 6)
        .sequence("history", "item", 3)
        .number("age")
        .scenarios("tab", ["feed", "search", "mail"])
        .task("click")
        .task_within("buy", "click")
}

fn rows(from: usize, rows: usize) -> Batch {
    let schema = schema();
    let ids = Array2::from_shape_fn((rows, 2), |(r, c)| ((from + r) * [5, 7][c] / 3 % [9, 6][c]) as u32);
    let history: Vec<Vec<u32>> = (0..rows).map(|r| (0..r as u32 % 4).collect()).collect();
    let labels = Array2::from_shape_fn((rows, 2), |(r, t)| ((ids[[r, 1]] as usize + r * t) % 2) as f32);
    Columns::new(&schema)
        .ids(ids.view())
        .and_then(|c| c.lists("history", &history))
        .and_then(|c| c.numbers(Array2::from_shape_fn((rows, 1), |(r, _)| (r as f32).sin()).view()))
        .and_then(|c| c.scenario(&(0..rows as u32).map(|r| r * 7 % 3).collect::<Vec<_>>()))
        .and_then(|c| c.labels(labels.view()))
        .and_then(Columns::finish)
        .unwrap()
}

const MODELS: [(&str, &str); 2] = [
    ("mmoe", "experts = 2\nexpert_units = [8]\ntower_units = [4]"),
    ("star", "units = [8, 4]\nauxiliary_units = [4]"),
];

fn options(threads: Threads, balance: &str) -> Options {
    Options { epochs: 3, batch_size: 300, balance: balance.to_owned(), threads, ..Options::default() }
}

/// What a trainer that was fitted predicts.
fn predictions((name, keys): (&str, &str), threads: Threads, balance: &str) -> (Trainer, Vec<u32>) {
    let mut trainer = Trainer::new(name, keys, schema(), options(threads, balance)).unwrap();
    let fitted = trainer.fit(&rows(0, 900), &rows(900, 100)).unwrap();
    assert_eq!(fitted.epochs.len(), 3);
    let best = &fitted.epochs[fitted.best].valid;
    assert_eq!(trainer.evaluate(&rows(900, 100)).unwrap(), *best, "the best pass stays");
    let bits = bits(trainer.model().unwrap());
    (trainer, bits)
}

fn bits(model: Model) -> Vec<u32> {
    let mut session = Session::new(Arc::new(model), 100).unwrap();
    session.predict(&rows(1000, 100)).unwrap().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn bits_do_not_depend_on_threads_and_survive_a_folder() {
    for model in MODELS {
        let (trainer, serial) = predictions(model, Threads::Number(1), "");
        assert_eq!(predictions(model, Threads::Number(3), "").1, serial, "{model:?}");
        let workers = Workers::new(2, |work| {
            thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
        });
        assert_eq!(predictions(model, Threads::Own(Box::new(workers)), "").1, serial, "{model:?}");
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            trainer.save(folder.path()).unwrap();
            assert_eq!(bits(Model::open(folder.path()).unwrap()), serial, "{model:?}");
        }
    }
}

#[test]
fn steps_of_the_callers_are_those_of_a_fit() {
    let fit = rows(0, 200);
    let small = || Options { epochs: 1, ..options(Threads::Number(1), "method = \"uncertainty\"") };
    let mut by_steps = Trainer::new(MODELS[0].0, MODELS[0].1, schema(), small()).unwrap();
    let first = by_steps.step(&fit).unwrap().to_vec();
    for _ in 0..20 {
        by_steps.step(&fit).unwrap();
    }
    let last = by_steps.step(&fit).unwrap();
    assert!(last.iter().sum::<f64>() < first.iter().sum::<f64>(), "{first:?} to {last:?}");
    assert_eq!((by_steps.steps(), by_steps.losses().collect::<Vec<_>>()), (22, vec!["click", "buy"]));
}

#[test]
fn the_commands_read_the_folder() {
    let (trainer, _) = predictions(MODELS[0], Threads::Number(1), "method = \"pcgrad\"");
    let folder = tempfile::tempdir().unwrap();
    trainer.save(folder.path()).unwrap();
    let data = folder.path().join("rows.csv");
    // The integers that arrays have.
    std::fs::write(&data, "user,item,history,age,tab,click,buy\n8,5,0|1|2,0.5,mail,1,0\n0,0,,,feed,0,0\n")
        .unwrap();
    let out = folder.path().join("out.csv");
    let options = PredictOptions { threads: 1, ..PredictOptions::default() };
    let rows = manygate_train::score::predict(folder.path(), std::slice::from_ref(&data), &out, &options);
    assert_eq!(rows.unwrap(), 2);
    let text = std::fs::read_to_string(out).unwrap();
    assert!(text.starts_with("click,buy\n0."), "{text}");
    manygate_train::score::score(folder.path(), &[data], &options).unwrap();
    let message = manygate_train::score::score(folder.path(), &[], &options).unwrap_err().to_string();
    assert!(message.contains("names no test files"), "{message}");
    assert_eq!(manygate_train::inspect::inspect(folder.path()).unwrap().model, "mmoe");
    assert_eq!(manygate_train::inspect::training_plan(folder.path()).unwrap().rows, 300);
    let config = std::fs::read_to_string(folder.path().join("config.toml")).unwrap();
    assert!(config.contains("gate_bias = false") && config.contains("method = \"pcgrad\""), "{config}");

    std::fs::write(folder.path().join("checkpoint.safetensors"), "").unwrap();
    let message = trainer.save(folder.path()).unwrap_err().to_string();
    assert!(message.contains("holds a run of `manygate train`"), "{message}");
}

#[test]
fn what_cannot_be_trained_is_told() {
    let told = |name: &str, keys: &str, schema: Schema, options: Options| {
        Trainer::new(name, keys, schema, options).unwrap_err().to_string()
    };
    let plain = || options(Threads::Number(1), "");
    let (name, keys) = MODELS[0];
    assert!(told("mmoo", "", schema(), plain()).contains("there is no model `mmoo`"));
    assert!(told(name, "expert = 3", schema(), plain()).contains("unknown field `expert`"));
    assert!(told(name, "experts = ", schema(), plain()).contains("configuration: model: TOML parse error"));
    assert!(told(name, keys, Schema::default(), plain()).contains("nothing to predict"));
    assert!(told(name, keys, schema().field_of("shop", "shops"), plain()).contains("no table `shops`"));
    let user = Schema { user: Some("user".into()), ..schema() };
    assert!(told(name, keys, user, plain()).contains("schema.user"));
    let long = schema().sequence("long", "item", usize::MAX);
    let message = told(name, keys, long, plain());
    assert!(message.contains("features[") && message.contains("max_length"), "{message}");
    for (options, want) in [
        (Options { batch_size: 0, ..plain() }, "must be at least 1"),
        (Options { batch_size: usize::MAX, ..plain() }, "options.batch_size: 18446744073709551615 is more"),
        (Options { batch_size: 1 << 30, ..plain() }, "train.batch_size: 1073741824 is more"),
        (Options { seed: u64::MAX, ..plain() }, "options.seed"),
        (options(Threads::Number(1), "method = \"sum\""), "sum"),
    ] {
        let message = told(name, keys, schema(), options);
        assert!(message.contains(want), "{message} instead of {want}");
    }
}

#[test]
fn batches_that_do_not_fit_move_nothing() {
    type Breaker = fn(&mut Batch);
    let breakers: [(&str, Breaker); 9] = [
        ("label", |b| b.labels.clear()),
        ("id column 0 has id 10", |b| b.ids[0][0] = 10),
        ("id column", |b| b.ids.truncate(1)),
        ("bag", |b| b.bags.clear()),
        ("bag 0 has id 77", |b| b.bags[0].ids[0] = 77),
        ("scenario", |b| b.scenario.clear()),
        ("is of scenario 3", |b| b.scenario[0] = 3),
        ("is NaN at step", |b| b.dense.fill(f32::NAN)),
        ("301 rows, the workspace was made for 300", |b| *b = rows(0, 301)),
    ];
    for balance in ["", "method = \"pcgrad\""] {
        let (name, keys) = MODELS[1];
        let mut trainer = Trainer::new(name, keys, schema(), options(Threads::Number(1), balance)).unwrap();
        let before = bits(trainer.model().unwrap());
        for (want, break_it) in breakers {
            let mut broken = rows(0, 50);
            break_it(&mut broken);
            let message = trainer.step(&broken).unwrap_err().to_string();
            assert!(message.contains(want), "{message} instead of {want}");
            if !want.contains("301") {
                assert!(
                    trainer.fit(&broken, &rows(0, 50)).is_err() && trainer.evaluate(&broken).is_err(),
                    "{want}"
                );
            }
        }
        assert_eq!(bits(trainer.model().unwrap()), before);
    }
}

#[test]
fn data_is_told_by_row_and_column_before_the_first_step() {
    let mut trainer =
        Trainer::new(MODELS[0].0, MODELS[0].1, schema(), options(Threads::Number(1), "")).unwrap();
    let mut told = |break_it: fn(&mut Batch)| {
        let mut broken = rows(0, 50);
        break_it(&mut broken);
        trainer.fit(&rows(0, 50), &broken).unwrap_err().to_string()
    };
    assert_eq!(told(|b| b.ids[1][4] = 7), "ids of `item`: row 4 has row 7 of its table, which has 7");
    assert_eq!(
        told(|b| b.bags[0].ids[1] = 9),
        "list of `history`: row 2 has row 9 of its table, which has 7"
    );
    assert_eq!(
        told(|b| b.dense[6] = f32::INFINITY),
        "numbers of `age`: row 6 has inf, which is not a finite number"
    );
    assert!(told(|b| b.labels[1][3] = 2.0).starts_with("labels of `buy`: row 3 has 2"));
    assert!(told(|b| b.truncate(0)).contains("no rows"));
}
