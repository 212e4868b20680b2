//! `--device cuda`, with the stand-in for the driver, and where there is no driver.

mod support;

use manygate_standin_driver::folder;
use std::fs;
use std::path::Path;
use support::{Finished, Lab, MODEL};

/// A model that is too large for the kernels of a device.
const TOO_LARGE: &str = "name = \"adaptdhm\"\nclusters = 300\nembedding_dim = 4\nunits = [8]";

/// Runs the program with the stand-in as its driver.
#[track_caller]
fn on_standin(lab: &Lab, driver: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = lab.command(arguments);
    command.env("LD_LIBRARY_PATH", driver).envs(environment.iter().copied());
    Finished::new(command.output().expect("the program starts"))
}

#[test]
fn a_run_on_a_device_is_that_of_the_cpu() {
    let (lab, driver) = (Lab::new(), folder().expect("the stand-in"));
    lab.run(&["train", "config.toml", "--out", "cpu"]).success();
    on_standin(&lab, driver.path(), &["train", "config.toml", "--device", "cuda", "--out", "gpu"], &[])
        .success();
    let auc =
        |run: &str| lab.read_json(&format!("{run}/metrics.json"))["test"]["click"]["all"]["auc"].as_f64();
    let (here, there) = (auc("cpu").expect("an AUC"), auc("gpu").expect("an AUC"));
    assert!((here - there).abs() < 1e-3, "{here} here, {there} there");
    lab.run(&["eval", "gpu"]).success();
}

#[test]
fn what_was_found_is_told() {
    let (lab, driver) = (Lab::new(), folder().expect("the stand-in"));
    let train = ["train", "config.toml", "--device", "cuda", "--out", "run"];
    let no_devices = [("MANYGATE_STANDIN_DEVICES", "0")];
    on_standin(&lab, driver.path(), &train, &no_devices).failure(1, &["no CUDA device"]);
    let small = [("MANYGATE_STANDIN_MEMORY", "65536")];
    on_standin(&lab, driver.path(), &train, &small).failure(1, &["of tables", "free", "--device cpu"]);
    let ninth = ["train", "config.toml", "--device", "cuda:9", "--out", "run"];
    on_standin(&lab, driver.path(), &ninth, &[]).failure(1, &["9"]);
    let devices = on_standin(&lab, driver.path(), &["devices", "--json"], &[]).success().json();
    assert_eq!(devices["cuda"]["devices"].as_array().map(Vec::len), Some(1));
    lab.run(&["train", "config.toml", "--precision", "bf16", "--out", "run"])
        .failure(2, &["--precision", "--device cuda"]);
    lab.run(&["train", "config.toml", "--device", "gpu", "--out", "run"])
        .failure(2, &["neither `cpu`, `cuda` nor `cuda:N`"]);
    lab.configure(MODEL, TOO_LARGE);
    on_standin(&lab, driver.path(), &train, &[]).failure(1, &["300 clusters", "--device cpu"]);
}

#[test]
fn a_finished_run_predicts_on_a_device_as_on_the_cpu() {
    let (lab, driver) = (Lab::trained(), folder().expect("the stand-in"));
    let predict = |more: &[&'static str]| {
        [&["predict", "run", "--data", "test.csv", "--out", "out.csv"], more].concat()
    };
    let written = || fs::read_to_string(lab.path("out.csv")).expect("predictions");
    lab.run(&predict(&[])).success();
    let here = written();
    let cuda = ["--device", "cuda"];
    on_standin(&lab, driver.path(), &predict(&cuda), &[]).success();
    assert_predicted_alike(&written(), &here, 1e-5);
    for (precision, tolerance) in [("tf32", 1e-3), ("bf16", 1e-2)] {
        on_standin(&lab, driver.path(), &predict(&["--device", "cuda", "--precision", precision]), &[])
            .success();
        assert_predicted_alike(&written(), &here, tolerance);
        assert!(written() != here, "{precision} rounds");
    }
    // Of the test files of the configuration.
    let eval = |more: &[&'static str]| [&["eval", "run", "--json"], more].concat();
    let auc = |finished: Finished| finished.success().json()["data"]["click"]["all"]["auc"].as_f64();
    let here = auc(lab.run(&eval(&[]))).expect("an AUC");
    let there = auc(on_standin(&lab, driver.path(), &eval(&cuda), &[])).expect("an AUC");
    assert!((here - there).abs() < 1e-3, "{here} here, {there} there");

    let no_devices = [("MANYGATE_STANDIN_DEVICES", "0")];
    for command in [predict(&cuda), eval(&cuda)] {
        on_standin(&lab, driver.path(), &command, &no_devices).failure(1, &["no CUDA device"]);
    }
    let small = [("MANYGATE_STANDIN_MEMORY", "65536")];
    on_standin(&lab, driver.path(), &eval(&cuda), &small).failure(1, &["of tables", "free", "--device cpu"]);
    lab.run(&predict(&["--precision", "bf16"])).failure(2, &["--precision", "--device cuda"]);
    lab.configure(MODEL, TOO_LARGE);
    lab.run(&["train", "config.toml", "--out", "clusters"]).success();
    on_standin(&lab, driver.path(), &["eval", "clusters", "--device", "cuda"], &[])
        .failure(1, &["300 clusters", "--device cpu"]);
}

/// That both have the same columns and rows, and numbers that differ by less than `tolerance`.
#[track_caller]
fn assert_predicted_alike(there: &str, here: &str, tolerance: f64) {
    let (mut there, mut here) = (there.lines(), here.lines());
    assert_eq!(there.next(), here.next());
    let numbers = |line: &str| -> Vec<f64> {
        line.split(',').map(|number| number.parse().expect("a number")).collect()
    };
    let (there, here): (Vec<_>, Vec<_>) = (there.map(numbers).collect(), here.map(numbers).collect());
    assert_eq!(there.len(), here.len());
    for (there, here) in there.iter().flatten().zip(here.iter().flatten()) {
        assert!((there - here).abs() < tolerance, "{there} there, {here} here");
    }
}

#[test]
fn kernels_are_measured_and_their_results_compared() {
    let (lab, driver) = (Lab::new(), folder().expect("the stand-in"));
    let bench = ["bench", "kernels", "--device", "cuda", "--small", "--kernel", "adam"];
    let table = on_standin(&lab, driver.path(), &bench, &[]).success().stdout;
    assert!(
        table.contains("TFLOP/s") && table.lines().last().is_some_and(|row| row.starts_with("adam")),
        "{table}"
    );
    let json = on_standin(&lab, driver.path(), &[&bench[..], &["--json"]].concat(), &[]).success().json();
    assert!(json["ceilings"]["copy_gbps"].as_f64() > Some(0.0), "{json}");
    let row = &json["rows"][0];
    assert_eq!((&row["kernel"], &row["shape"]["parameters"]), (&"adam".into(), &3000.into()));
    assert!(row["relative_error"].as_f64() < Some(1e-4) && row["ms"].as_f64() > Some(0.0), "{row}");
    let few = [("MANYGATE_STANDIN_MEMORY", "40000")];
    let json = on_standin(&lab, driver.path(), &[&bench[..], &["--json"]].concat(), &few).success().json();
    let left_out = &json["left_out"][0];
    assert!(left_out["why"].as_str().is_some_and(|why| why.contains("out of memory")), "{json}");
    assert_eq!(left_out["failed"], false);
    let other = ["bench", "kernels", "--small", "--kernel", "gemmm"];
    on_standin(&lab, driver.path(), &other, &[]).failure(2, &["--kernel", "mmoe_forward"]);
}
