//! Each subcommand as a user meets it: what it prints, where, what it leaves behind, how it ends.

mod support;

use serde_json::Value;
use std::io::Read;
use std::process::Stdio;
use support::{Lab, MODEL, ROWS, csv, entries};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn train_prints_tables_on_stdout_and_leaves_a_run_folder() {
    let lab = Lab::new();
    let run = lab.run(&["train", "config.toml", "--out", "run"]).success();
    assert!(run.stdout.starts_with("validation\n") && run.stdout.contains("\ntest\n"), "{}", run.stdout);
    for word in ["click", "buy", "tab=0", "tab=1", "LR", "log loss against the constant training rate"] {
        assert!(run.stdout.contains(word), "{word}: {}", run.stdout);
    }
    for word in [
        "rows: 320 to fit, 80 to validate, 150 to test",
        "step 10/10",
        "epoch 2.0",
        "report in run/report.html",
    ] {
        assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
    }
    assert!(!run.stdout.contains("step"), "progress is on stdout: {}", run.stdout);
    assert!(run.stdout.lines().chain(run.stderr.lines()).all(|line| line.chars().count() <= 120));
    let files = [
        "charts",
        "checkpoint.safetensors",
        "config.toml",
        "metrics.json",
        "model.safetensors",
        "report.html",
        "train.lock",
        "train.log",
        "vocab",
    ];
    assert_eq!(entries(&lab.path("run")), files);

    let metrics = lab.read_json("run/metrics.json");
    assert_eq!(
        keys(&metrics),
        ["version", "test", "valid", "label_rates", "model", "seed", "step", "seconds"]
    );
    assert_eq!(
        (&metrics["version"], &metrics["model"], &metrics["seed"]),
        (&1.into(), &"mmoe".into(), &1.into())
    );
    let all = &metrics["test"]["click"]["all"];
    assert_eq!(keys(all), ["auc", "logloss", "gauc", "pcoc", "rows", "positives", "gauc_users"]);
    assert_eq!(all["rows"], ROWS.1);
    assert!(metrics["label_rates"]["buy"].as_f64().is_some_and(|rate| rate > 0.0 && rate < 0.5));
}

#[test]
fn a_run_without_a_name_is_numbered() {
    let lab = Lab::new();
    for name in ["config-1", "config-2"] {
        let run = lab.run(&["train", "config.toml", "--set", "train.epochs=1"]).success();
        assert!(run.stderr.contains(&format!("the run is in runs/{name}")), "{}", run.stderr);
    }
    assert_eq!(entries(&lab.path("runs")), ["config-1", "config-2"]);
}

#[test]
fn a_run_is_not_overwritten_and_resuming_a_finished_one_changes_nothing() {
    let lab = Lab::trained();
    let model = lab.read("run/model.safetensors");
    let again = lab.run(&["train", "config.toml", "--out", "run", "--seed", "2"]);
    again.failure(1, &["run: already holds a run", "--out", "--resume"]);
    assert!(lab.read("run/model.safetensors") == model);
    let resumed = lab.run(&["train", "config.toml", "--out", "run", "--resume"]).success();
    assert!(resumed.stderr.contains("going on after step 10 of 10"), "{}", resumed.stderr);
    assert!(lab.read("run/model.safetensors") == model);
    let other = lab.run(&["train", "config.toml", "--out", "run", "--resume", "--seed", "2"]);
    other.failure(1, &["run/checkpoint.safetensors", "another configuration"]);
}

#[test]
fn overrides_and_seed_reach_the_run() {
    let lab = Lab::trained();
    let arguments =
        ["train", "config.toml", "--out", "other", "--set", "model.experts=3", "--set", "train.epochs=1"];
    lab.run(&[&arguments[..], &["--seed", "7", "--threads", "1"]].concat()).success();
    let config = String::from_utf8(lab.read("other/config.toml")).unwrap();
    for line in ["seed = 7", "experts = 3", "epochs = 1", "batch_size = 64"] {
        assert!(config.lines().any(|l| l == line), "`{line}` is not in {config}");
    }
    assert_eq!(lab.read_json("other/metrics.json")["seed"], 7);
    let log = String::from_utf8(lab.read("other/train.log")).unwrap();
    assert!(log.contains("1 threads") && log.trim_end().ends_with("finished"), "{log}");
    // The file of a run is a configuration like any other.
    lab.run(&["train", "other/config.toml", "--out", "third"]).success();
    assert!(lab.read("third/model.safetensors") == lab.read("other/model.safetensors"));
}

#[test]
fn eval_gives_the_figures_of_train() {
    let lab = Lab::trained();
    let table = lab.run(&["eval", "run"]).success();
    assert!(table.stdout.starts_with("test\n") && table.stdout.contains("LR"), "{}", table.stdout);
    assert_eq!(table.stderr, "");
    let test = &lab.read_json("run/metrics.json")["test"];
    for arguments in
        [&["eval", "run", "--json"][..], &["eval", "run", "--json", "--data", "test.csv", "--threads", "1"]]
    {
        let scores = lab.run(arguments).success().json();
        assert_eq!(keys(&scores), ["version", "data"]);
        assert_eq!(scores["version"], 1);
        assert_eq!(&scores["data"], test);
    }
    let both =
        lab.run(&["eval", "run", "--json", "--data", "test.csv", "--data", "train.csv"]).success().json();
    assert_eq!(both["data"]["buy"]["all"]["rows"], ROWS.0 + ROWS.1);
    // Floors were measured on the test rows; other data stands without them.
    let other = lab.run(&["eval", "run", "--data", "train.csv"]).success();
    assert!(other.stdout.starts_with("data\n") && !other.stdout.contains("LR"), "{}", other.stdout);
}

#[test]
fn predict_writes_a_line_a_row_and_needs_no_labels() {
    let lab = Lab::trained();
    let unlabelled: String =
        csv(ROWS.1, 2).lines().map(|l| l.rsplitn(3, ',').nth(2).unwrap().to_owned() + "\n").collect();
    lab.write("unlabelled.csv", unlabelled);
    let run = lab.run(&["predict", "run", "--data", "unlabelled.csv", "--out", "out.csv"]).success();
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("150 rows") && run.stderr.contains("out.csv"), "{}", run.stderr);
    lab.run(&["predict", "run", "--data", "test.csv", "--out", "labelled.csv", "--threads", "1"]).success();
    assert_eq!(lab.read("out.csv"), lab.read("labelled.csv"));
    assert!(!lab.path("out.csv.tmp").exists());

    let text = String::from_utf8(lab.read("out.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("click,buy"));
    let probabilities: Vec<f64> =
        lines.map(|l| f64::from(l.split(',').next().unwrap().parse::<f32>().unwrap())).collect();
    assert_eq!(probabilities.len(), ROWS.1);
    // In the order of the data: the log loss against its labels is that of the run.
    let rows = csv(ROWS.1, 2);
    let labels = rows.lines().skip(1).map(|l| l.split(',').nth(5) == Some("1"));
    let losses = labels.zip(&probabilities).map(|(y, &p)| if y { -p.ln() } else { -(1.0 - p).ln() });
    let told = lab.read_json("run/metrics.json")["test"]["click"]["all"]["logloss"].as_f64().unwrap();
    assert!((losses.sum::<f64>() / ROWS.1 as f64 - told).abs() < 1e-6);

    let device = lab.run(&["predict", "run", "--data", "test.csv", "--out", "run"]);
    device.failure(2, &["--out", "`run` is not a regular file"]);
}

#[test]
fn models_lists_and_describes() {
    let lab = Lab::new();
    let list = lab.run(&["models"]).success();
    assert!(list.stdout.contains("mmoe") && list.stdout.contains("shared_bottom"));
    let list = lab.run(&["models", "--json"]).success().json();
    assert_eq!(list["version"], 1);
    assert!(
        list["models"].as_array().unwrap().iter().any(|m| m["name"] == "mmoe" && m["summary"].is_string())
    );
    let one = lab.run(&["models", "mmoe"]).success();
    for word in [
        "KDD 2018",
        "tasks: parallel",
        "scenarios: none",
        "soft sharing",
        "gate_bias",
        "embedding_dim",
        "[512, 256]",
    ] {
        assert!(one.stdout.contains(word), "{word}: {}", one.stdout);
    }
    let one = lab.run(&["models", "mmoe", "--json"]).success().json();
    let place = ["aliases", "relation", "structure", "method"];
    let described = [&["version", "name", "summary", "paper"], &place[..], &["own_keys", "common_keys"]];
    assert_eq!(keys(&one), described.concat());
    assert_eq!([&one["relation"], &one["structure"], &one["method"]], ["parallel", "none", "soft_sharing"]);
    assert_eq!(keys(&one["own_keys"][0]), ["name", "default", "doc"]);
    lab.run(&["models", "mmoo"]).failure(2, &["there is no model `mmoo`", "mmoe"]);
}

#[test]
fn an_alias_is_told_before_its_model() {
    let lab = Lab::new();
    for (alias, lines) in [
        (
            "mhta",
            [
                "mhta: multi-head attention",
                "A. Vaswani",
                "attention with kind = \"target\"",
                "",
                "attention: ",
            ],
        ),
        ("omoe", ["omoe: ", "J. Ma", "another name of moe", "", "moe: "]),
    ] {
        let told = lab.run(&["models", alias]).success().stdout;
        assert!(told.lines().zip(lines).all(|(line, begins)| line.starts_with(begins)), "{told}");
        assert!(told.contains("also called ") && told.contains("embedding_dim"), "{told}");
    }
    let dnn = lab.run(&["models", "dnn"]).success().stdout;
    assert!(dnn.lines().nth(1).unwrap().starts_with("interactions with kind = \"none\""), "{dnn}");
    let pnn = lab.run(&["models", "pnn", "--json"]).success().json();
    assert_eq!(pnn["alias"]["preset"], serde_json::json!({ "key": "kind", "value": "inner" }));
    assert_eq!([&pnn["alias"]["name"], &pnn["name"]], ["pnn", "interactions"]);
    assert!(lab.run(&["models", "interactions", "--json"]).success().json().get("alias").is_none());
}

/// Of the weights that are kept, every task has those of its own best validation.
#[test]
fn tasks_that_share_nothing_are_chosen_one_by_one() {
    let lab = Lab::new();
    lab.write("train.csv", csv(2000, 3));
    let model = "name = \"single_task\"\nembedding_dim = 4\nbottom_units = [16, 8]\ntower_units = [8]";
    let long = "epochs = 8\nbatch_size = 64\nvalidations_per_epoch = 2";
    lab.configure_all(&[(MODEL, model), ("epochs = 2\nbatch_size = 64", long)]);
    let train = lab.run(&["train", "config.toml", "--out", "run"]).success();
    let metrics = lab.read_json("run/metrics.json");
    let log = String::from_utf8(lab.read("run/train.log")).unwrap();
    let mut steps = Vec::new();
    for task in ["click", "buy"] {
        let auc = |line: &str| -> Option<f64> {
            let (_, rest) = line.split_once(&format!("{task} "))?;
            rest.split([' ', ',']).next()?.parse().ok()
        };
        let best =
            log.lines().filter(|line| line.contains("validation AUC")).filter_map(auc).fold(0.0, f64::max);
        let kept = metrics["valid"][task]["all"]["auc"].as_f64().unwrap();
        assert!((kept - best).abs() < 6e-5, "{task}: {kept} is kept, {best} was the best\n{log}");
        steps.push(metrics["task_steps"][task].as_u64().unwrap());
        assert!(train.stderr.contains(&format!("{} of {task}", steps[steps.len() - 1])), "{}", train.stderr);
    }
    assert_ne!(steps[0], steps[1], "one step for both would be chosen anyhow");
    assert_eq!(metrics["step"].as_u64(), steps.iter().copied().max());
    let selected = "select_tasks = [\"click\"]\nepochs = 2";
    lab.configure_all(&[(MODEL, model), ("epochs = 2", selected)]);
    lab.run(&["train", "config.toml"]).failure(2, &["train.select_tasks", "each task by that task alone"]);
}

#[test]
fn inspect_shows_tensors_and_the_training_plan() {
    let lab = Lab::trained();
    let text = lab.run(&["inspect", "run"]).success().stdout;
    for word in [
        "experts.0.0.weight",
        "[16, 17]",
        "embedding.user.weight",
        "embedding.slot.weight",
        "[11, 4]",
        "in tables",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let json = lab.run(&["inspect", "run", "--json"]).success().json();
    assert_eq!(keys(&json), ["version", "model", "parameters", "state", "tables", "totals"]);
    let first = &json["parameters"][0];
    assert_eq!(keys(first), ["name", "shape", "count", "bytes", "norm", "mean", "largest"]);
    assert!(first["norm"].as_f64().is_some_and(|norm| norm > 0.0));
    let count =
        |set: &str| json[set].as_array().unwrap().iter().map(|t| t["count"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(keys(&json["totals"]), ["parameters", "state", "tables", "bytes"]);
    let totals = |key: &str| json["totals"][key].as_u64().unwrap();
    assert_eq!((totals("parameters"), totals("tables")), (count("parameters"), count("tables")));
    assert_eq!(totals("bytes"), 4 * (count("parameters") + count("state") + count("tables")));

    let plan = lab.run(&["inspect", "run", "--plan"]).success().stdout;
    for word in [
        "training plan",
        "phase 1",
        "memory",
        "batches of 64 rows: 1 lanes",
        "bytes of buffers on one thread",
    ] {
        assert!(plan.contains(word), "{word}: {plan}");
    }
    assert!(plan.lines().all(|line| line.chars().count() <= 120), "{plan}");
    lab.run(&["inspect", "run", "--plan", "--json"]).failure(2, &["cannot be used with"]);
}

#[test]
fn repeat_stands_beside_a_reference() {
    let lab = Lab::new();
    let reference = |auc: f64| {
        let figures = format!(r#"{{"mean": {auc}, "deviation": 0.5}}"#);
        let task = format!(r#"{{"auc": {figures}, "logloss": {{"mean": 0.7, "deviation": 5}}}}"#);
        format!(
            r#"{{"about": "a test", "models": {{"mmoe": {{"seeds": 4, "tasks": {{"click": {task}}}}}}}}}"#
        )
    };
    lab.write("near.json", reference(0.6));
    lab.write("far.json", reference(9.0));
    lab.write("unseeded.json", reference(9.0).replace("\"seeds\": 4", "\"seeds\": 0"));
    lab.write("sell.json", reference(0.6).replace("click", "sell"));
    lab.write("other.json", reference(0.6).replace("mmoe", "star"));
    let repeat = |file: &str, seeds: &str| {
        let arguments = ["repeat", "config.toml", "--set", "train.epochs=1", "--seeds", seeds];
        lab.run(&[&arguments[..], &["--reference", file]].concat())
    };
    let near = repeat("near.json", "1,2").success();
    assert!(near.stdout.contains("click auc") && near.stdout.contains("agrees"), "{}", near.stdout);
    assert!(near.stdout.lines().any(|line| line.starts_with("signs: ")), "{}", near.stdout);
    let far = repeat("far.json", "1,2");
    assert_eq!(far.code, Some(1));
    assert!(far.stdout.contains("OUTSIDE"), "the table comes first: {}", far.stdout);
    assert!(far.stdout.contains("fresh seeds") && far.stderr.contains("seed 4"), "{}", far.stderr);
    assert!(
        far.stderr.contains("auc of click") && far.stderr.contains("the reference has 9.0000"),
        "{}",
        far.stderr
    );
    let arguments = ["repeat", "config.toml", "--set", "train.epochs=1", "--seeds", "1,2", "--json"];
    let json = lab.run(&[&arguments[..], &["--reference", "near.json"]].concat()).success().json();
    assert_eq!(keys(&json["signs"]), ["better", "worse", "mean", "limit"]);
    assert_eq!(json["agreement"].as_array().map(Vec::len), Some(2));
    repeat("near.json", "1").failure(2, &["--reference", "at least two seeds"]);
    repeat("unseeded.json", "1,2").failure(2, &["--reference", "at least one seed"]);
    repeat("sell.json", "1,2").failure(2, &["--reference", "the task `sell`"]);
    repeat("other.json", "1,2").failure(2, &["--reference", "no figures for the model `mmoe`"]);
}

#[test]
fn repeat_gives_each_seed_what_train_gives_it() {
    let lab = Lab::trained();
    let temporary = lab.path("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let repeat = |arguments: &[&str]| {
        let output =
            lab.command(&[&["repeat", "config.toml"], arguments].concat()).env("TMPDIR", &temporary).output();
        let output = output.unwrap();
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (json, progress) = repeat(&["--seeds", "1,5", "--json", "--threads", "1"]);
    assert_eq!(progress.lines().filter(|line| line.starts_with("seed ")).count(), 2, "{progress}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(keys(&json), ["version", "model", "part", "seeds", "steps", "seconds", "tasks", "floors"]);
    let auc = &json["tasks"]["click"]["auc"];
    assert_eq!(keys(auc), ["values", "mean", "deviation", "min", "max"]);
    assert_eq!(auc["values"][0], lab.read_json("run/metrics.json")["test"]["click"]["all"]["auc"]);
    let values = [auc["values"][0].as_f64().unwrap(), auc["values"][1].as_f64().unwrap()];
    assert!((auc["mean"].as_f64().unwrap() - (values[0] + values[1]) / 2.0).abs() < 1e-12);
    assert_eq!(auc["min"].as_f64().unwrap(), values[0].min(values[1]));

    let (text, _) = repeat(&["--seeds", "1,5", "--set", "train.epochs=1"]);
    for word in ["click, test rows of 2 seeds", "deviation", "LR", "mean +.", "won"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (text, _) = repeat(&["--seeds", "3", "--part", "valid"]);
    assert!(text.contains("click, valid rows of 1 seeds") && !text.contains("LR"), "{text}");
    assert!(entries(&temporary).is_empty(), "run folders are left: {:?}", entries(&temporary));
    lab.run(&["repeat", "config.toml", "--seeds", "1,1"]).failure(2, &["--seeds", "1 is given twice"]);
    let require =
        |what| ["repeat", "config.toml", "--seeds", "3", "--set", "train.epochs=1", "--require", what];
    let unmet = lab.run(&require("click=0.999"));
    assert_eq!(unmet.code, Some(1));
    assert!(unmet.stdout.contains("click, test rows of 1 seeds"), "the table comes first: {}", unmet.stdout);
    assert!(
        unmet.stderr.contains("with seed 3") && unmet.stderr.contains("0.999 is required"),
        "{}",
        unmet.stderr
    );
    lab.run(&require("sell=0.5")).failure(2, &["--require", "there is no task `sell`"]);
    lab.configure("test = [\"test.csv\"]\n", "");
    lab.run(&["repeat", "config.toml"]).failure(2, &["--part", "names no test files", "--part valid"]);
}

#[test]
fn bench_train_reports_speed_and_floor() {
    let lab = Lab::new();
    let arguments =
        ["bench", "train", "--model", "shared_bottom", "--batch", "64", "--threads", "2", "--seconds", "0.1"];
    let json = lab.run(&[&arguments[..], &["--json"]].concat()).success().json();
    for key in
        ["samples_per_second", "step_ms", "step_ms_p10", "step_ms_p90", "floor_ms", "peak_rss_bytes", "steps"]
    {
        assert!(json[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {json}");
    }
    assert_eq!((&json["model"], &json["batch"]), (&"shared_bottom".into(), &64.into()));
    assert_eq!((&json["threads"], &json["precision"]), (&2.into(), &"f32".into()));
    assert!(json["isa"].is_string());
    assert!(json["floor_ms"].as_f64() < json["step_ms"].as_f64(), "a step is faster than its floor: {json}");
    lab.run(&["bench", "train", "--model", "mmoo"]).failure(2, &["there is no model `mmoo`"]);
    lab.run(&["bench", "train", "--batch", "0"]).failure(2, &["--batch"]);
}

#[test]
fn bench_kernels_needs_a_gpu_and_says_so() {
    let lab = Lab::new();
    let bench = |device: &str| lab.run(&["bench", "kernels", "--small", "--device", device]);
    bench("cpu").failure(2, &["--device", "cuda:N", "cargo bench"]);
    bench("gpu").failure(2, &["--device", "neither `cpu`, `cuda` nor `cuda:N`"]);
    bench("cuda:99").failure(if cfg!(feature = "cuda") { 1 } else { 2 }, &["CUDA"]);
}

/// The bundled sample, beside this crate.
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/quickstart/sample.csv");

#[test]
fn data_describe_writes_a_configuration_that_trains() {
    let lab = Lab::new();
    let told = lab.run(&["data", "describe", SAMPLE, "--config", "sample.toml"]).success();
    for word in ["1000 rows, 37 columns", "hist_video_ids", "list", "42.50 %", "onehot_feat4", "4.4 %"] {
        assert!(told.stdout.contains(word), "{word}: {}", told.stdout);
    }
    assert!(told.stdout.lines().skip(1).all(|line| line.chars().count() <= 120), "{}", told.stdout);
    assert!(told.stderr.contains("`tab` is taken for the scenario"), "{}", told.stderr);
    lab.run(&["data", "describe", SAMPLE, "--config", "sample.toml"]).failure(2, &["--config", "exists"]);
    let run = [
        "train",
        "sample.toml",
        "--set",
        "train.epochs=1",
        "--set",
        "model.expert_units=[8]",
        "--out",
        "run",
    ];
    lab.run(&run).success();
    assert_eq!(lab.read_json("run/metrics.json")["model"], "mmoe");

    // Without a file for it the configuration is printed.
    let printed = lab.run(&["data", "describe", SAMPLE]).success().stdout;
    let config = String::from_utf8(lab.read("sample.toml")).unwrap();
    assert!(printed.ends_with(&config) || printed.trim_end().ends_with(config.trim_end()), "{printed}");
    let json = lab.run(&["data", "describe", SAMPLE, "--rows", "50", "--json"]).success().json();
    let names =
        ["version", "files", "rows", "complete", "columns", "scenario", "labels", "warnings", "config"];
    assert_eq!(keys(&json), names);
    assert_eq!((&json["rows"], &json["complete"]), (&50.into(), &false.into()));
    // What a configuration says of its data is taken from it.
    let known = lab.run(&["data", "describe", "config.toml", "--json"]).success().json();
    assert_eq!((&known["rows"], &known["scenario"]), (&ROWS.0.into(), &"tab".into()));
    let labels = known["labels"].as_array().unwrap();
    assert_eq!(labels.iter().map(|l| l["label"].as_str().unwrap()).collect::<Vec<_>>(), ["click", "buy"]);
    lab.run(&["data", "describe", "none.csv"]).failure(1, &["none.csv", "cannot open"]);
    lab.run(&["data", "describe", SAMPLE, "--rows", "0"]).failure(2, &["--rows"]);
}

#[test]
fn data_synth_writes_rows_that_can_be_learnt() {
    let lab = Lab::new();
    let options = [
        "data",
        "synth",
        "--rows",
        "6000",
        "--inputs",
        "8",
        "--scenarios",
        "0.7,0.3",
        "--cascade",
        "--sequence",
        "6",
        "--ids",
        "50",
        "--config",
        "synth.toml",
    ];
    let synth = |out: &str| lab.run(&[&options[..], &["--out", out]].concat());
    let told = synth("synth.csv.gz").success();
    assert!(
        told.stderr.contains("6000 rows are in synth.csv.gz") && told.stdout.is_empty(),
        "{}",
        told.stderr
    );
    synth("other.csv.gz").failure(2, &["--config", "`synth.toml` exists"]);
    assert!(!lab.path("other.csv.gz").exists());
    lab.run(&[
        "train",
        "synth.toml",
        "--out",
        "run",
        "--set",
        "model.expert_units=[16]",
        "--set",
        "train.batch_size=128",
        "--set",
        "optimizer.dense.rate=0.01",
    ])
    .success();
    let auc = &lab.read_json("run/metrics.json")["valid"]["task1"]["all"]["auc"];
    assert!(auc.as_f64().is_some_and(|auc| auc > 0.7), "{auc}");

    let printed =
        lab.run(&["data", "synth", "--out", "a.csv", "--rows", "10", "--correlation", "-0.5"]).success();
    assert!(printed.stdout.contains("train = [\"a.csv\"]"), "{}", printed.stdout);
    let header = String::from_utf8(lab.read("a.csv")).unwrap();
    assert_eq!((header.lines().count(), header.lines().next().unwrap().split(',').count()), (11, 104));
    lab.run(&["data", "synth"]).failure(2, &["--out"]);
    lab.run(&["data", "synth", "--out", "b.csv", "--rate", "2"]).failure(2, &["--rate", "between 0 and 1"]);
}

#[test]
fn help_is_everywhere_and_has_an_example() {
    let lab = Lab::new();
    let commands: [&[&str]; 13] = [
        &[],
        &["train"],
        &["repeat"],
        &["eval"],
        &["predict"],
        &["models"],
        &["inspect"],
        &["bench"],
        &["bench", "train"],
        &["bench", "kernels"],
        &["data"],
        &["data", "describe"],
        &["data", "synth"],
    ];
    for command in commands {
        let help = lab.run(&[command, &["--help"]].concat()).success();
        let example = help.stdout.split_once("Example:").map(|(_, example)| example.trim());
        let example = example.unwrap_or_else(|| panic!("{command:?} has no example: {}", help.stdout));
        assert!(
            example.starts_with(&["manygate"].iter().chain(command).copied().collect::<Vec<_>>().join(" "))
        );
        assert_eq!(help.stderr, "");
    }
    assert!(lab.run(&["--version"]).success().stdout.starts_with("manygate "));
}

#[test]
fn wrong_usage_ends_with_2() {
    let lab = Lab::new();
    let wrong: [(&[&str], &str); 6] = [
        (&["trian"], "train"),
        (&["train", "--epochs", "3"], "--epochs"),
        (&["train", "--threads", "two"], "--threads"),
        (&["eval"], "RUN"),
        (&["predict", "run", "--data", "test.csv"], "--out"),
        (&["repeat", "--part", "all"], "valid"),
    ];
    for (arguments, word) in wrong {
        lab.run(arguments).failure(2, &[word]);
    }
    assert_eq!(lab.run(&[]).code, Some(2));
    let output = lab.command(&["models"]).env("MANYGATE_ISA", "mmx").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        message.contains("MANYGATE_ISA: `mmx` is not available") && message.contains("scalar, portable"),
        "{message}"
    );
    let output = lab.command(&["--help"]).env("MANYGATE_ISA", "portable").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && help.contains("MANYGATE_ISA=scalar|portable|avx2|avx512"), "{help}");
    assert!(!lab.path("runs").exists());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let lab = Lab::trained();
    let all: [&[&str]; 4] = [
        &["inspect", "run"],
        &["models", "mmoe"],
        &["eval", "run"],
        &["train", "config.toml", "--out", "unheard"],
    ];
    for arguments in all {
        let mut child = lab.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success() && !said.contains("panicked"), "{arguments:?}: {said}");
    }
    // Nor is one of the progress.
    let mut child = lab.command(&["train", "config.toml", "--out", "unseen"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    assert!(lab.read("unseen/model.safetensors") == lab.read("run/model.safetensors"));
}
