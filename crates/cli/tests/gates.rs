//! `manygate inspect --gates`.

mod support;

use serde_json::json;
use support::{Lab, MODEL};

#[test]
fn gates_are_shown_as_tables_json_and_a_picture() {
    let lab = Lab::trained();
    let text = lab.run(&["inspect", "run", "--gates"]).success().stdout;
    for told in
        ["mean share of each expert", "gates.click", "gates.buy", "experts.1", "tab=", "rows: all 150"]
    {
        assert!(text.contains(told), "`{told}` is not in {text}");
    }
    let arguments = ["inspect", "run", "--gates", "--data", "train.csv", "--svg", "gates.svg", "--json"];
    let json = lab.run(&arguments).success().json();
    assert_eq!(json["slices"][0]["rows"], 400);
    let gates = json["gates"].as_array().unwrap();
    assert_eq!(gates.len(), 2);
    for slice in 0..json["slices"].as_array().unwrap().len() {
        let shares = gates[0]["means"].as_array().unwrap().iter().map(|means| means[slice].as_f64().unwrap());
        assert!((shares.sum::<f64>() - 1.0).abs() < 1e-9);
    }
    assert_eq!(json["experts"].as_array().unwrap().len(), 2);
    assert!(String::from_utf8(lab.read("gates.svg")).unwrap().starts_with("<svg"));
}

#[test]
fn nested_gates_are_shown_with_what_they_mix() {
    let lab = Lab::new();
    let taml = "name = \"taml\"\nembedding_dim = 4\nlearners = 2\nexpert_units = [4]\nnested_gates = true";
    lab.configure(MODEL, taml);
    lab.run(&["train", "config.toml", "--out", "run"]).success();
    let shown = lab.run(&["inspect", "run", "--gates", "--json"]).success().json();
    let gates = shown["gates"].as_array().unwrap();
    let of = |name: &str| gates.iter().find(|gate| gate["name"] == name).unwrap()["of"].clone();
    assert_eq!(gates.len(), 6);
    assert_eq!(of("gates.buy"), json!(["experts.buy.0", "experts.shared.0", "experts.shared.1"]));
    assert_eq!(of("learners.buy.1.gate"), json!(["learners.buy.1.experts.0", "gates.buy"]));
}

#[test]
fn a_model_without_gates_says_so() {
    let lab = Lab::new();
    lab.configure(MODEL, "name = \"shared_bottom\"\nembedding_dim = 4");
    lab.run(&["train", "config.toml", "--out", "run"]).success();
    let told = ["--gates: `shared_bottom` has no gates to look at"];
    lab.run(&["inspect", "run", "--gates"]).failure(2, &told);
    lab.run(&["inspect", "run", "--svg", "gates.svg"]).failure(2, &["--gates"]);
}
