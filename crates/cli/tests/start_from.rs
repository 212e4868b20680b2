//! A run that begins with what another one learnt, and has more features.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{CONFIG, Finished, Lab, MODEL, SECOND_TASK, csv};

/// What the configuration of the old run leaves out.
const ADDED: &str = "[[features]]\nkind = \"categorical\"\ncolumns = [\"slot\"]\nids = 10\n\n[[features]]\nkind = \"numeric\"\n\
                     columns = [\"price\"]\n\n";

/// A lab with a finished run in `old`, of `model` without slot and price; `config.toml` has both.
fn lab_of(model: &str, changes: &[(&str, &str)]) -> Lab {
    let lab = Lab::new();
    lab.write("train.csv", csv(1500, 3));
    lab.configure_all(&[&[(MODEL, model)], changes, &[(ADDED, "")]].concat());
    lab.run(&["train", "config.toml", "--out", "old", "--threads", "1"]).success();
    lab.configure_all(&[&[(MODEL, model)], changes].concat());
    lab
}

fn start(lab: &Lab, out: &str, more: &[&str]) -> Finished {
    lab.run(&[&["train", "config.toml", "--start-from", "old", "--out", out], more].concat())
}

fn predictions(lab: &Lab, run: &str) -> String {
    lab.run(&["predict", run, "--data", "test.csv", "--out", "predictions.csv"]).success();
    String::from_utf8(lab.read("predictions.csv")).expect("UTF-8")
}

#[test]
fn the_first_predictions_are_those_of_the_old_run() {
    for (model, left_out) in [
        (MODEL, ""),
        ("name = \"shared_bottom\"\nembedding_dim = 4\nbottom_units = [16, 8]\ntower_units = [8]", ""),
        (
            "name = \"ple\"\nembedding_dim = 4\nexpert_units = [16, 8]\ntower_units = [8]\nnorm = \"batch\"",
            "",
        ),
        ("name = \"star\"\nembedding_dim = 4\nunits = [16, 8]\nauxiliary_units = [8]", ""),
        (
            "name = \"pepnet\"\nembedding_dim = 4\nprior_fields = [\"user\"]\ntower_units = [16, 8]\ngate_hidden = 0",
            "",
        ),
        ("name = \"dcn_v2\"\nembedding_dim = 4\ncross = \"mixture\"\nrank = 4\ndeep_units = [8]", ""),
        ("name = \"deepfm\"\nembedding_dim = 4\ndeep_units = [8]", SECOND_TASK),
        ("name = \"m2m\"\nembedding_dim = 4\nexpert_units = [8]", ""),
        ("name = \"single_scenario\"\nembedding_dim = 4\nbottom_units = [16, 8]\ntower_units = [8]", ""),
    ] {
        let lab = lab_of(model, &[(left_out, "")]);
        let new = start(&lab, "new", &[]).success();
        let told =
            "begins from old, with slot, price added: predicts 300 validation rows bit for bit as there";
        assert!(new.stderr.contains(told), "{model}: {}", new.stderr);
        // With nothing that learns, the model that is served is the one that the run begins with. State still moves.
        if !model.contains("star") && !model.contains("batch") {
            start(&lab, "frozen", &["--set", "train.freeze=[\"*\"]"]).success();
            assert_eq!(predictions(&lab, "frozen"), predictions(&lab, "old"), "{model}");
        }
        assert_ne!(predictions(&lab, "new"), predictions(&lab, "old"), "{model}");
    }
}

#[test]
fn what_differs_at_the_beginning_is_told() {
    let lab =
        lab_of("name = \"autoint\"\nembedding_dim = 4\nlayers = 2\nhead_dim = 4\ndeep_units = [8]", &[]);
    let new = start(&lab, "new", &[]).success();
    assert!(new.stderr.contains("predicts 300 validation rows as there but for "), "{}", new.stderr);
}

/// Labels depend on the price.
#[test]
fn training_goes_on_and_gets_better() {
    let lab = lab_of(MODEL, &[("epochs = 2", "epochs = 20\nselect = \"logloss\"")]);
    start(&lab, "new", &[]).success();
    let loss = |run: &str| {
        lab.read_json(&format!("{run}/metrics.json"))["valid"]["click"]["all"]["logloss"]
            .as_f64()
            .expect("a loss")
    };
    assert!(loss("new") < loss("old"), "{} and {}", loss("new"), loss("old"));
}

#[test]
fn threads_do_not_matter() {
    let lab = lab_of(MODEL, &[]);
    for threads in ["1", "2", "5"] {
        start(&lab, threads, &["--threads", threads]).success();
        assert!(
            lab.read(&format!("{threads}/model.safetensors")) == lab.read("1/model.safetensors"),
            "{threads}"
        );
    }
}

/// Without the old run: the folder of the new one has all that is needed.
#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_by_itself() {
    let lab = lab_of(MODEL, &[("epochs = 2", "epochs = 200")]);
    start(&lab, "whole", &[]).success();
    let arguments = ["train", "config.toml", "--start-from", "old", "--out", "killed"];
    lab.hold("killed");
    let mut child = lab.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while !lab.path("killed/checkpoint.safetensors").exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint appears");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    assert!(child.wait().unwrap().code().is_none(), "the run ended by itself");
    lab.release("killed");
    std::fs::rename(lab.path("old"), lab.path("away")).unwrap();
    let resumed = lab.run(&["train", "killed/config.toml", "--out", "killed", "--resume"]).success();
    assert!(resumed.stderr.contains("going on after step"), "{}", resumed.stderr);
    lab.assert_same_run("killed", "whole");
}

#[test]
fn a_second_round_begins_where_the_first_ended() {
    let lab = Lab::new();
    let price = "[[features]]\nkind = \"numeric\"\ncolumns = [\"price\"]\n\n";
    lab.configure(ADDED, "");
    lab.run(&["train", "config.toml", "--out", "old"]).success();
    lab.configure(price, "");
    start(&lab, "first", &[]).success();
    // In the file, and in front of what is there.
    let added = CONFIG.replace(price, "").replacen("[[features]]", &format!("{price}[[features]]"), 1);
    lab.write("config.toml", added.replace("epochs = 2", "epochs = 2\nstart_from = \"first\""));
    let second = lab.run(&["train", "config.toml", "--out", "second"]).success();
    let told = "begins from first, with price added: predicts 80 validation rows bit for bit as there";
    assert!(second.stderr.contains(told), "{}", second.stderr);
}

#[test]
fn a_run_that_cannot_be_gone_on_from_is_told() {
    let lab = lab_of(MODEL, &[]);
    let fails = |config: String, words: &[&str]| {
        lab.write("config.toml", config);
        start(&lab, "new", &[]).failure(2, words);
        assert!(!lab.path("new").exists(), "a run that cannot begin leaves nothing behind");
    };
    let columns = "columns = [\"user\", \"item\", \"tab\"]";
    let with = |old: &str, new: &str| {
        assert!(CONFIG.contains(old), "{old}");
        CONFIG.replacen(old, new, 1)
    };
    fails(with(columns, "columns = [\"user\", \"tab\"]"), &["features: `item`, which `old` has, is missing"]);
    fails(with(columns, "columns = [\"item\", \"user\", \"tab\"]"), &["features: `item` stands before"]);
    fails(
        with(columns, &format!("{columns}\nmin_count = 3")),
        &["features: `user` has other keys than in `old`"],
    );
    let bucket = "columns = [\"user\", \"tab\"]\n\n[[features]]\nkind = \"bag\"\nseparator = \"|\"\ncolumns = [\"item\"]";
    fails(with(columns, bucket), &["features: `item` is of another kind than in `old`"]);
    fails(with("name = \"mmoe\"", "name = \"moe\""), &["model.name: is moe, and mmoe in `old`"]);
    fails(with("experts = 2", "experts = 3"), &["model.experts: is 3, and 2 in `old`"]);
    fails(with("name = \"buy\"", "name = \"buy\"\nspace = \"click\""), &["tasks: are not those of `old`"]);
    fails(with("scenario = \"tab\"", ""), &["data.scenario: is none, and was `tab` in `old`"]);
    let bag = "[[tasks]]\nname = \"click\"";
    let same_name = format!("[[features]]\nkind = \"bag\"\nseparator = \"|\"\ncolumns = [\"slot\"]\n\n{bag}");
    lab.write("config.toml", with(bag, &same_name));
    start(&lab, "lists", &[]).success();

    lab.write("config.toml", CONFIG);
    let from = |run: &str, code: i32, words: &[&str]| {
        lab.run(&["train", "config.toml", "--start-from", run, "--out", "new"]).failure(code, words);
    };
    from("nowhere", 2, &["train.start_from: there is no folder `nowhere`"]);
    std::fs::create_dir(lab.path("empty")).unwrap();
    from("empty", 2, &["train.start_from: `empty` is no run folder"]);
    std::fs::remove_file(lab.path("old/model.safetensors")).unwrap();
    from("old", 1, &["there is no model yet"]);
}
