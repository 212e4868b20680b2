//! What may happen to a run folder while a run needs it: another process, a full disk, a folder that cannot be written or
//! goes away. Each ends with the path and the remedy, and what was kept can be gone on with.

#![cfg(unix)]

mod support;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Finished, Lab, entries};

/// A run of several checkpoints, each longer than the one before.
fn job() -> Lab {
    let lab = Lab::new();
    lab.configure("epochs = 2\nbatch_size = 64", "epochs = 30\nbatch_size = 25\nselect = \"logloss\"");
    lab.run(&["train", "config.toml", "--out", "whole"]).success();
    lab
}

const TRAIN: [&str; 4] = ["train", "config.toml", "--out", "run"];
const RESUME: [&str; 5] = ["train", "config.toml", "--out", "run", "--resume"];

/// Starts a run and waits for its first checkpoint.
fn start(lab: &Lab) -> Child {
    let mut child = lab.command(&TRAIN).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while !lab.path("run/checkpoint.safetensors").exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint appears");
        assert!(child.try_wait().unwrap().is_none(), "the run ended without a checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", child.id())).status();
    assert!(sent.unwrap().success());
}

fn resumed(lab: &Lab) {
    lab.run(&RESUME).success();
    lab.assert_same_run("run", "whole");
}

#[test]
fn a_second_process_is_refused_and_readers_are_not() {
    let lab = job();
    lab.hold("run");
    let mut first = start(&lab);
    // It stands still, so that readers find the same files.
    send("STOP", &first);
    let process = format!("process {}", first.id());
    for arguments in [&TRAIN[..], &RESUME] {
        let words = ["run: ", &process, "trains in this folder", "wait for it", "--out"];
        lab.run(arguments).failure(1, &words);
    }
    lab.run(&["eval", "run"]).success();
    lab.run(&["inspect", "run"]).success();
    lab.run(&["inspect", "run", "--plan"]).success();
    lab.run(&["predict", "run", "--data", "test.csv", "--out", "out.csv"]).success();
    first.kill().unwrap();
    first.wait().unwrap();
    lab.release("run");
    // The file is still there and locks nothing.
    assert!(lab.path("run/train.lock").exists());
    resumed(&lab);
}

#[test]
fn a_run_without_a_model_yet_says_so() {
    let lab = Lab::trained();
    fs::remove_file(lab.path("run/model.safetensors")).unwrap();
    for arguments in [&["eval", "run"][..], &["inspect", "run"]] {
        lab.run(arguments)
            .failure(1, &["run/model.safetensors", "no model yet", "first validation", "--resume"]);
    }
    lab.run(&["inspect", "run", "--plan"]).success();
}

/// A limit on the size of files stands in for a disk that is full: no test may fill one.
#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let lab = job();
    let largest = lab.read("whole/checkpoint.safetensors").len();
    // In blocks of 512 bytes, as POSIX has it. Early checkpoints fit.
    let limit = (largest - 4096) / 512;
    let script = format!("ulimit -f {limit}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_manygate")).args(TRAIN).current_dir(lab.path("."));
    let full = Finished::new(command.output().unwrap());
    assert!(full.stderr.contains("\n  manygate train config.toml --out run --resume\n"), "{}", full.stderr);
    full.failure(1, &["run/checkpoint.safetensors", "cannot write", "raise the limit on the size of files"]);
    assert!(!entries(&lab.path("run")).iter().any(|name| name.ends_with(".tmp")));
    let again = lab.run(&RESUME).success();
    assert!(again.stderr.contains("going on after step"), "{}", again.stderr);
    lab.assert_same_run("run", "whole");
}

#[test]
fn a_folder_that_goes_away_is_told_and_can_come_back() {
    let lab = job();
    let child = start(&lab);
    fs::rename(lab.path("run"), lab.path("elsewhere")).unwrap();
    let gone = Finished::new(child.wait_with_output().unwrap());
    assert!(!gone.stderr.contains("--resume"), "there is nothing to go on from: {}", gone.stderr);
    gone.failure(1, &["run/", ".safetensors", "cannot write", "moved or removed"]);
    assert!(!lab.path("run").exists());
    fs::rename(lab.path("elsewhere"), lab.path("run")).unwrap();
    resumed(&lab);
}

#[test]
fn a_place_that_cannot_be_written() {
    let lab = Lab::new();
    lab.run(&["train", "config.toml", "--out", "test.csv"])
        .failure(1, &["test.csv", "a file is where a folder"]);
    lab.run(&["train", "config.toml", "--out", "test.csv/run"])
        .failure(1, &["test.csv/run", "a file is where"]);
    fs::create_dir(lab.path("closed")).unwrap();
    let mut closed = fs::metadata(lab.path("closed")).unwrap().permissions();
    closed.set_readonly(true);
    fs::set_permissions(lab.path("closed"), closed).unwrap();
    // The superuser may write everywhere.
    if File::create(lab.path("closed/probe")).is_err() {
        let words = ["closed/run", "cannot create the folder", "name a place that can be written"];
        lab.run(&["train", "config.toml", "--out", "closed/run"]).failure(1, &words);
    }
}

#[test]
fn predictions_go_to_a_file_that_may_be_replaced() {
    let lab = Lab::trained();
    let predict = |out: &str| lab.run(&["predict", "run", "--data", "test.csv", "--out", out]);
    lab.write("out.csv", "predictions of yesterday");
    predict("out.csv").success();
    assert!(lab.read("out.csv").starts_with(b"click,buy\n"));
    predict("run").failure(2, &["--out", "`run` is not a regular file"]);
    predict("/dev/full").failure(2, &["--out", "`/dev/full` is not a regular file"]);
    predict("missing/out.csv").failure(1, &["missing/out.csv", "cannot write", "has not been made"]);
    let data = lab.read("test.csv");
    for same in ["test.csv", "./run/../test.csv"] {
        predict(same).failure(2, &["--out", "is a file of the data", "name another"]);
    }
    assert_eq!(lab.read("test.csv"), data);
}

#[test]
fn results_that_cannot_be_printed_are_a_failure() {
    let lab = Lab::trained();
    for arguments in [&["eval", "run"][..], &["models"], &["inspect", "run", "--json"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = lab.command(arguments).stdout(full).output().unwrap();
        Finished::new(output).failure(1, &["stdout: cannot write", "make room there"]);
    }
    let shell = format!("{} models | head -1", env!("CARGO_BIN_EXE_manygate"));
    let output = Command::new("sh").arg("-c").arg(shell).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
