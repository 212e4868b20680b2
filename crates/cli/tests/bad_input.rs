//! What a user may get wrong: each mistake ends with a message that names the place and the remedy, and never a panic
//! (which every run checks).
//!
//! Exit code 2: the wrong thing was asked for, by an argument or a key of the configuration. 1: a file is missing or
//! damaged, or holds what cannot be used.

mod support;

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use support::{CONFIG, Lab, MODEL, ROWS, SECOND_TASK, csv};

const TRAIN: [&str; 4] = ["train", "config.toml", "--out", "run"];

/// Training in `lab` must fail, and leave no run behind.
#[track_caller]
fn refused(lab: &Lab, code: i32, words: &[&str]) {
    lab.run(&TRAIN).failure(code, words);
    assert!(!lab.path("run/model.safetensors").exists());
}

#[test]
fn a_key_that_does_not_exist_is_named_with_its_line() {
    let lab = Lab::new();
    lab.configure("batch_size = 64", "batchsize = 64");
    refused(&lab, 2, &["config.toml", "line 19", "batchsize", "batch_size"]);
    lab.configure("experts = 2", "expert = 2");
    refused(&lab, 2, &["model", "expert`", "expert_units"]);
    lab.write("config.toml", CONFIG);
    lab.run(&[&TRAIN[..], &["--set", "train.epoch=3"]].concat())
        .failure(2, &["--set train.epoch=3", "epoch`", "epochs"]);
    lab.run(&[&TRAIN[..], &["--set", "train.epochs"]].concat())
        .failure(2, &["--set train.epochs", "key.path=value"]);
}

#[test]
fn a_value_that_a_key_cannot_have_is_named() {
    let lab = Lab::new();
    let cases: [(&str, &str, &[&str]); 10] = [
        ("epochs = 2", "epochs = \"two\"", &["config.toml", "line 18", "invalid type", "\"two\""]),
        ("epochs = 2", "epochs = 0", &["train.epochs", "at least 1"]),
        ("experts = 2", "experts = 0", &["model.experts", "at least 1"]),
        ("experts = 2", "experts = 2\ntop_k = 3", &["model.top_k", "3 of 2 experts"]),
        ("experts = 2", "experts = 2\ngate_dropout = 1.0", &["model.gate_dropout", "below 1"]),
        ("name = \"mmoe\"", "name = \"mmoo\"", &["model.name", "`mmoo`", "use one of: "]),
        ("last_fraction = 0.2", "last_fraction = 2.0", &["data.valid.last_fraction", "between 0 and 1"]),
        (
            "epochs = 2",
            "epochs = 2\nfreeze = [\"expert.*\"]",
            &["train.freeze", "`expert.*`", "manygate inspect"],
        ),
        (
            "epochs = 2",
            "epochs = 2\nselect_tasks = [\"like\"]",
            &["train.select_tasks", "`like`", "click, buy"],
        ),
        ("epochs = 2", "epochs =", &["config.toml", "line 18"]),
    ];
    for (old, new, words) in cases {
        lab.configure(old, new);
        refused(&lab, 2, words);
    }
}

#[test]
fn a_task_that_cannot_be_is_told() {
    let lab = Lab::new();
    let second = |keys: &str| format!("\n[[tasks]]\nname = \"buy\"\n{keys}\n");
    let cases: [(&str, &[&str]); 10] = [
        ("kind = \"count\"", &["config.toml", "`count`", "`regression`", "`poisson`"]),
        ("role = \"helper\"", &["config.toml", "`helper`", "`auxiliary`"]),
        (
            "role = \"auxiliary\"\n[[tasks]]\nname = \"x\"\nrole = \"auxiliary\"\nspace = \"y\"",
            &["tasks[2].space", "`y`"],
        ),
        ("after = \"clik\"", &["tasks[1].after", "`clik`", "did you mean `click`"]),
        ("after = \"buy\"", &["tasks[1].after", "cannot come after itself"]),
        ("scenario_weights = { 0 = -2.0 }", &["tasks[1].scenario_weights", "-2", "finite number from 0"]),
        (
            "scenario_weights = { 7 = 2.0 }",
            &["tasks[1].scenario_weights", "`7`", "the scenarios are: ", "`0`", "`1`"],
        ),
        (
            "kind = \"regression\"\n[train]\nselect = \"auc\"\nselect_tasks = [\"buy\"]",
            &["train.select", "`buy` is no binary task", "\"loss\""],
        ),
        (
            "role = \"auxiliary\"\n[train]\nselect_tasks = [\"buy\"]",
            &["train.select_tasks", "`buy` is auxiliary"],
        ),
        ("role = \"auxiliary\"\n[train]\nselect = \"rmse\"", &["config.toml", "`rmse`", "`logloss`, `loss`"]),
    ];
    for (keys, words) in cases {
        let train = if keys.contains("[train]") { "[train]\nepochs = 2\nbatch_size = 64\n" } else { "" };
        lab.configure_all(&[(SECOND_TASK, &second(keys)), (train, "")]);
        refused(&lab, 2, words);
    }
    lab.configure_all(&[
        ("[train]\nepochs = 2\nbatch_size = 64", "[train]\nepochs = 2\nselect = \"logloss\""),
        ("name = \"click\"", "name = \"click\"\nkind = \"poisson\""),
        ("name = \"buy\"", "name = \"buy\"\nkind = \"regression\""),
    ]);
    refused(&lab, 2, &["train.select", "no task that decides is binary", "log loss", "\"loss\""]);
    lab.configure("scenario = \"tab\"", "scenario = \"tab\"\nscenario_weights = { 2 = 1.0 }");
    refused(&lab, 2, &["data.scenario_weights", "`2`", "the scenarios are: "]);
    for model in ["mtms", "causalint"] {
        let left_out = if model == "causalint" { SECOND_TASK } else { "" };
        let name = format!("name = \"{model}\"");
        lab.configure_all(&[
            (MODEL, &name),
            (left_out, ""),
            ("name = \"click\"", "name = \"click\"\nkind = \"regression\""),
        ]);
        refused(&lab, 2, &["tasks[0].kind", model, "`click` is a regression task"]);
    }
}

#[test]
fn a_value_beyond_its_limit_is_named_with_the_limit() {
    let lab = Lab::new();
    let cases: [(&str, &str, &[&str]); 9] = [
        ("embedding_dim = 4", "embedding_dim = 10000000", &["model.embedding_dim", "10000000", "1024"]),
        ("embedding_dim = 4", "embedding_dim = 9223372036854775807", &["model.embedding_dim", "1024"]),
        ("ids = 10", "ids = 10\ndim = 1025", &["features[1].dim", "1025", "1024"]),
        (
            "ids = 10",
            "ids = 4000000000",
            &["features", "`embedding.slot.weight`", "4000000001 rows of 4", "8589934592", "`ids`"],
        ),
        (
            "batch_size = 64",
            "batch_size = 1000000000000000",
            &["train.batch_size", "1000000000000000", "1048576"],
        ),
        ("epochs = 2", "epochs = 9000000000000000000", &["train.epochs", "1000000"]),
        (
            "epochs = 2",
            "epochs = 2\nvalidations_per_epoch = 1000000000",
            &["train.validations_per_epoch", "1000000000", "10000"],
        ),
        (
            "[[tasks]]\nname = \"click\"",
            "[[features]]\nkind = \"sequence\"\ncolumns = [\"item\"]\nseparator = \"|\"\nmax_length = 1000000000000\n\n\
             [[tasks]]\nname = \"click\"",
            &["features[3].max_length", "1000000000000", "16384"],
        ),
        ("expert_units = [16, 8]", "expert_units = [65536, 65536]", &["experts.0.1.weight", "2147483648"]),
    ];
    for (old, new, words) in cases {
        lab.configure(old, new);
        let code = if new.starts_with("expert_units") { 1 } else { 2 };
        refused(&lab, code, words);
    }
    lab.run(&["bench", "train", "--batch", "1000000000000000"]).failure(2, &["--batch", "1048576"]);
    for model in ["causalint", "dffm", "m2m", "mtms", "shared_bottom", "star"] {
        let model = format!("name = \"{model}\"\nembedding_dim = 9223372036854775807");
        let left_out = if model.contains("causalint") { SECOND_TASK } else { "" };
        lab.configure_all(&[(MODEL, &model), (left_out, "")]);
        refused(&lab, 2, &["model.embedding_dim", "1024"]);
    }
    lab.configure("experts = 2", "experts = 1000000000");
    refused(&lab, 2, &["model.experts", "1000000000", "65536"]);
}

#[test]
fn a_group_of_the_optimiser_that_fits_nothing_is_told() {
    let lab = Lab::new();
    let group = |keys: &str| format!("[[optimizer.group]]\n{keys}\n\n[report]");
    let cases: [(&str, &[&str]); 4] = [
        ("names = [\"tower.*\"]", &["optimizer.group.0.names", "`tower.*`", "manygate inspect"]),
        ("names = [\"*\"]\nmethod = \"ftrl\"", &["optimizer.group.0.method", "experts.0.0.weight", "sgd"]),
        ("names = [\"towers.*\"]\nevery = 0", &["optimizer.group.0.every", "at least 1"]),
        ("names = [\"towers.*\"]\nmethod = \"sdg\"", &["config.toml", "line 23", "sdg", "sgd"]),
    ];
    for (keys, words) in cases {
        lab.configure("[report]", &group(keys));
        refused(&lab, 2, words);
    }
    let sections: [(&str, &[&str]); 5] = [
        ("[optimizer.dense]\nrates = 1.0", &["config.toml", "line 22", "rates", "rate", "momentum"]),
        (
            "[optimizer.dense]\nweight_decay = 0.1",
            &["optimizer.dense.weight_decay", "adam does not", "adamw"],
        ),
        ("[optimizer]\nclip_norm = 0.0", &["optimizer.clip_norm", "above 0"]),
        ("[optimizer.schedule]\nkind = \"cosine\"\nwarmup_steps = 1000000", &["warmup_steps", "1000000"]),
        (
            "[[stage]]\nname = \"one\"\n\n[[stage]]\nname = \"two\"\nsteps = 5\n\n\
             [stage.optimizer.schedule]\nkind = \"linear\"\nwarmup_steps = 5",
            &["optimizer.schedule.warmup_steps", "5 steps leave none of 5"],
        ),
    ];
    for (section, words) in sections {
        lab.configure("[report]", &format!("{section}\n\n[report]"));
        refused(&lab, 2, words);
    }
}

/// What a later stage has wrong is told before the first one begins.
#[test]
fn a_stage_that_cannot_follow_is_told_before_the_first_step() {
    let lab = Lab::new();
    let stages =
        |keys: &str| format!("[[stage]]\nname = \"one\"\n\n[[stage]]\nname = \"two\"\n{keys}\n\n[report]");
    let cases: [(&str, &[&str]); 7] = [
        ("freeze = [\"tower.*\"]", &["stage.1.freeze", "`tower.*`", "manygate inspect"]),
        ("losses = { share = 1.0 }", &["stage.1.losses", "`share`", "click, buy"]),
        ("[[stage.optimizer.group]]\nnames = [\"x\"]", &["optimizer.group.0.names", "`x`"]),
        ("epochs = 1000000000000000000", &["stage.1.epochs", "1000000000000000000", "1000000"]),
        ("steps = 1000000000000000000", &["stage.1.steps", "1000000000000000000"]),
        ("epochs = 1\nsteps = 1", &["stage.1.steps", "give one of them"]),
        (
            "[[stage]]\nname = \"three\"\n[balance]\nmethod = \"pcgrad\"\nlosses = [\"share\"]",
            &["balance.losses", "`share`"],
        ),
    ];
    for (keys, words) in cases {
        lab.configure("[report]", &stages(keys));
        refused(&lab, 2, words);
    }
    // The first stage would have another model than the second.
    let wider = "[[stage]]\nname = \"one\"\nmodel = { experts = 3 }\n\n[[stage]]\nname = \"two\"\n\n[report]";
    lab.configure("[report]", wider);
    refused(&lab, 2, &["stage.1.model", "the same parameters"]);
}

#[test]
fn a_column_that_is_missing_is_named_with_those_that_exist() {
    let lab = Lab::new();
    lab.configure("columns = [\"price\"]", "columns = [\"prize\"]");
    refused(&lab, 1, &["test.csv", "`prize`", "did you mean `price`", "`slot`"]);
    lab.configure("name = \"buy\"", "name = \"purchase\"");
    refused(&lab, 1, &["`purchase`", "no such column"]);
    lab.write("config.toml", CONFIG);
    lab.write("test.csv", csv(ROWS.1, 2).replacen("item", "article", 1));
    refused(&lab, 1, &["test.csv", "`item`", "`article`"]);
}

#[test]
fn a_value_that_cannot_be_used_is_named_with_line_and_column() {
    let lab = Lab::new();
    let cases: [(&str, &str, &[&str]); 8] = [
        ("price", "cheap", &["train.csv:8", "column `price`", "`cheap` is not a number", "missing"]),
        ("price", "NaN", &["train.csv:8", "column `price`", "`NaN`", "finite"]),
        ("price", "inf", &["train.csv:8", "column `price`", "`inf`", "finite"]),
        ("click", "2", &["train.csv:8", "column `click`", "`2`", "0 or 1"]),
        ("buy", "", &["train.csv:8", "column `buy`", "0 or 1"]),
        ("slot", "10", &["train.csv:8", "column `slot`", "`10`", "`ids`"]),
        ("slot", "-1", &["train.csv:8", "column `slot`", "`-1`"]),
        ("slot", "one", &["train.csv:8", "column `slot`", "`one`"]),
    ];
    for (column, value, words) in cases {
        lab.spoil(7, column, value);
        refused(&lab, 1, words);
    }
    lab.configure("name = \"buy\"", "name = \"buy\"\nkind = \"regression\"");
    for value in ["", "NaN", "1e99", "much"] {
        lab.spoil(7, "buy", value);
        refused(
            &lab,
            1,
            &["train.csv:8", "column `buy`", "regression task `buy`", "finite", "leave the row out"],
        );
    }
    lab.configure("name = \"buy\"", "name = \"buy\"\nkind = \"poisson\"");
    lab.spoil(7, "buy", "-1");
    refused(&lab, 1, &["train.csv:8", "column `buy`", "`-1`", "poisson task `buy`", "from 0 up"]);
    lab.spoil(7, "user", "u1,u2");
    refused(&lab, 1, &["train.csv:8", "8 values", "7", "double quotes"]);
}

#[test]
fn files_that_are_missing_empty_or_cut_short() {
    let lab = Lab::new();
    std::fs::remove_file(lab.path("train.csv")).unwrap();
    refused(&lab, 1, &["train.csv", "cannot open", "No such file"]);
    lab.write("train.csv", "");
    refused(&lab, 1, &["train.csv", "empty", "header"]);
    lab.write("train.csv", "user,item,tab,slot,price,click,buy\n");
    refused(&lab, 1, &["train.csv", "no rows", "at least one row"]);

    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(csv(ROWS.0, 1).as_bytes()).unwrap();
    let mut bytes = gzip.finish().unwrap();
    lab.configure("train = [\"train.csv\"]", "train = [\"train.csv.gz\"]");
    lab.write("train.csv.gz", &bytes);
    lab.run(&["train", "config.toml", "--out", "whole"]).success();
    bytes.truncate(bytes.len() / 2);
    lab.write("train.csv.gz", bytes);
    refused(&lab, 1, &["train.csv.gz:", "gzip data ends or breaks here", "get the file anew"]);

    lab.run(&["train", "none.toml"]).failure(2, &["none.toml", "give a configuration file"]);
    std::fs::remove_file(lab.path("floors.toml")).unwrap();
    lab.write("train.csv", csv(ROWS.0, 1));
    lab.write("config.toml", CONFIG);
    refused(&lab, 1, &["floors.toml", "cannot read"]);
}

#[test]
fn zstd_that_is_cut_short_patterns_without_files_and_rows_without_end() {
    let lab = Lab::new();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(csv(ROWS.0, 1).as_bytes(), level);
    lab.configure("train = [\"train.csv\"]", "train = [\"train-*.csv.zst\"]");
    refused(&lab, 2, &["data.train", "no file matches `train-*.csv.zst`"]);
    lab.write("train-1.csv.zst", &zstd[..zstd.len() / 2]);
    refused(&lab, 1, &["train-1.csv.zst:", "zstd data ends or breaks here", "get the file anew"]);
    lab.write("train-1.csv.zst", &zstd);
    lab.run(&["train", "config.toml", "--out", "whole"]).success();
    lab.run(&["predict", "whole", "--data", "train-?.csv.zst", "--out", "out.csv"]).success();
    lab.write("train-1.csv.zst", format!("{}\"{}", csv(3, 1), "x".repeat(17 << 20)));
    refused(&lab, 1, &["train-1.csv.zst:5", "longer than 16 MiB", "close every quote"]);
}

#[test]
fn text_that_is_not_utf8_is_named_with_line_and_column() {
    let lab = Lab::new();
    let mut bytes = csv(ROWS.0, 1).into_bytes();
    bytes.extend(b"u1,i\xe9,0,3,1.5,0,0\n");
    lab.write("train.csv", bytes);
    refused(&lab, 1, &["train.csv:402", "column `item`", "not UTF-8", "convert the file"]);
}

#[test]
fn numbers_and_hashes_that_make_no_rows() {
    let lab = Lab::new();
    let bucket = |keys: &str| format!("kind = \"bucket\"\n{keys}\ncolumns = [\"price\"]");
    let old = "kind = \"numeric\"\ncolumns = [\"price\"]";
    let cases: [(&str, &[&str]); 3] = [
        ("boundaries = [10.0, 5.0]", &["features[2].boundaries", "must rise", "10", "5"]),
        ("quantiles = 4000000000", &["features[2].quantiles", "65536"]),
        ("quantiles = \"ten\"", &["config.toml", "line 24", "\"ten\""]),
    ];
    for (keys, words) in cases {
        lab.configure(old, &bucket(keys));
        refused(&lab, 2, words);
    }
    lab.spoil(7, "price", "cheap");
    lab.configure(old, &bucket("quantiles = 5"));
    refused(&lab, 1, &["train.csv:8", "column `price`", "`cheap` is not a number", "missing"]);
    lab.write("train.csv", csv(ROWS.0, 1));
    lab.configure("ids = 10", "hash = 4000000000");
    refused(&lab, 2, &["features", "`embedding.slot.weight`", "4000000001 rows", "`hash`"]);
}

/// Data that has little to say is no mistake: what cannot be computed is undefined.
#[test]
fn few_rows_and_one_class() {
    let lab = Lab::new();
    for zeros in [true, false] {
        let all = csv(ROWS.0, 1);
        let lines = all.lines().enumerate().map(|(number, line)| match line.rsplitn(3, ',').nth(2) {
            Some(inputs) if number > 0 => format!("{inputs},{},0\n", u8::from(!zeros)),
            _ => format!("{line}\n"),
        });
        lab.write("train.csv", lines.collect::<String>());
        let out = format!("zeros-{zeros}");
        lab.run(&["train", "config.toml", "--out", &out]).success();
        let metrics = lab.read_json(&format!("{out}/metrics.json"));
        assert!(metrics["valid"]["click"]["all"]["auc"].is_null(), "{metrics}");
        assert!(metrics["valid"]["click"]["all"]["logloss"].is_f64(), "{metrics}");
    }
    lab.write("train.csv", csv(1, 1));
    refused(&lab, 2, &["data.valid", "no training row is for validation"]);
    lab.configure_all(&[("last_fraction = 0.2", "last_fraction = 0.5"), ("test = [\"test.csv\"]\n", "")]);
    let row = "u1,i1,0,3,1.5,1,0\n";
    lab.write("train.csv", format!("user,item,tab,slot,price,click,buy\n{row}{row}"));
    lab.run(&["train", "config.toml", "--out", "two"]).success();
}

#[test]
fn a_scenario_of_the_test_rows_alone() {
    let lab = Lab::new();
    let mut text = csv(ROWS.1, 2);
    text += "u1,i1,search,3,1.5,0,0\n";
    lab.write("test.csv", text);
    refused(&lab, 1, &["test.csv:152", "column `tab`", "`search`", "`0`, `1`", "data.unknown_scenario"]);
    lab.configure("scenario = \"tab\"", "scenario = \"tab\"\nunknown_scenario = \"0\"");
    lab.run(&["train", "config.toml", "--out", "stands-in"]).success();
}

#[test]
fn a_model_file_that_is_damaged_or_foreign() {
    let lab = Lab::trained();
    let whole = lab.read("run/model.safetensors");
    let eval = |words: &[&str]| {
        for command in [
            &["eval", "run"][..],
            &["inspect", "run"],
            &["predict", "run", "--data", "test.csv", "--out", "out.csv"],
        ] {
            lab.run(command).failure(1, words);
        }
        assert!(!lab.path("out.csv").exists());
    };
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    lab.write("run/model.safetensors", &altered);
    eval(&["run/model.safetensors", "checksum", "use a copy"]);
    lab.write("run/model.safetensors", &whole[..whole.len() / 2]);
    eval(&["run/model.safetensors", "damaged"]);
    lab.write("run/model.safetensors", b"not a model");
    eval(&["run/model.safetensors", "damaged or not a safetensors file"]);
    lab.write("run/model.safetensors", foreign());
    eval(&["run/model.safetensors", "not written by manygate"]);
    lab.write("run/model.safetensors", lab.read("run/checkpoint.safetensors"));
    eval(&["run/model.safetensors", "is a manygate checkpoint, a model is needed"]);
    std::fs::remove_file(lab.path("run/model.safetensors")).unwrap();
    eval(&["run/model.safetensors", "no model yet", "--resume"]);
}

#[test]
fn a_model_of_another_run() {
    let lab = Lab::trained();
    lab.configure("expert_units = [16, 8]", "expert_units = [12, 8]");
    lab.run(&["train", "config.toml", "--out", "other"]).success();
    lab.write("run/model.safetensors", lab.read("other/model.safetensors"));
    let words = ["run/model.safetensors", "experts.0.0.weight", "[12, 17]", "[16, 17]"];
    lab.run(&["eval", "run"]).failure(1, &words);
}

#[test]
fn a_run_folder_that_is_none() {
    let lab = Lab::new();
    for command in [
        &["eval"][..],
        &["inspect"],
        &["inspect", "--plan"],
        &["predict", "--data", "test.csv", "--out", "x"],
    ] {
        lab.run(&[command, &["missing"]].concat()).failure(2, &["RUN", "there is no folder `missing`"]);
        // This folder has a configuration and nothing else of a run.
        lab.run(&[command, &["."]].concat()).failure(1, &["vocab", "cannot read"]);
    }
    std::fs::create_dir(lab.path("bare")).unwrap();
    lab.run(&["eval", "bare"]).failure(2, &["`bare` is no run folder", "manygate train"]);
    lab.run(&["train", "config.toml", "--resume"]).failure(2, &["--resume", "no run of `config`", "runs"]);
}

#[test]
fn data_that_does_not_fit_the_run() {
    let lab = Lab::trained();
    lab.write("other.csv", "user,item\nu1,i1\n");
    lab.run(&["eval", "run", "--data", "other.csv"])
        .failure(1, &["other.csv", "no such column", "`user`, `item`"]);
    lab.write("unlabelled.csv", "user,item,tab,slot,price\nu1,i1,0,3,1.5\n");
    lab.run(&["eval", "run", "--data", "unlabelled.csv"]).failure(1, &["unlabelled.csv", "`click`"]);
    lab.write("unseen.csv", "user,item,tab,slot,price\nu1,i1,0,3,1.5\nu1,i1,9,3,1.5\n");
    let words = ["unseen.csv:3", "column `tab`", "`9`", "data.unknown_scenario"];
    lab.run(&["predict", "run", "--data", "unseen.csv", "--out", "out.csv"]).failure(1, &words);
    assert!(!lab.path("out.csv").exists());
    // Values that no fit row had are the unknown row: nothing wrong with them.
    lab.write("new.csv", "user,item,tab,slot,price\nnobody,nothing,0,9,1.5\n");
    lab.run(&["predict", "run", "--data", "new.csv", "--out", "out.csv"]).success();
}

/// A well-formed safetensors file of another program: one tensor, no metadata.
fn foreign() -> Vec<u8> {
    let header = br#"{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header, &1.0f32.to_le_bytes()].concat()
}
