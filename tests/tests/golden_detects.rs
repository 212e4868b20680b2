//! Does the golden harness see what it should? Every passing case is damaged in every place, and must fail.

use manygate_tests::golden::{
    Case, Computation, Report, Summary, Tensor, Values, Verdict, WITHOUT_CASES, check, check_folder,
};
use manygate_tests::on_all_cores;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(case)
}

fn read(case: &str) -> Case {
    Case::read(&folder(case)).unwrap()
}

/// Every case, of a model or of a method that balances losses.
fn all_cases_of(methods: bool) -> Vec<(String, Case)> {
    let mut names = Vec::new();
    check_folder(&folder(""), true, |report| names.push(report.name.clone()));
    names.retain(|name| name.starts_with("task_optimization/") == methods);
    assert!(names.len() >= 11, "{names:?}");
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

fn all_cases() -> Vec<(String, Case)> {
    all_cases_of(false)
}

fn ignored(name: &str) -> bool {
    name.starts_with("mid.") || name.starts_with("aux.")
}

fn floats<'c>(case: &'c mut Case, name: &str) -> &'c mut Vec<f32> {
    match &mut case.tensors.get_mut(name).unwrap().values {
        Values::F32(values) => values,
        Values::I64(_) => panic!("{name} holds ids"),
    }
}

/// The check must fail, and one of its lines must contain `told`.
fn assert_fails(case: &Case, told: &str) {
    let why = check(case).expect_err(told);
    assert!(why.iter().any(|line| line.contains(told)), "`{told}` is not in {why:#?}");
}

/// Position of the largest value of `values`.
fn largest(values: &[f32]) -> usize {
    (0..values.len()).max_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs())).unwrap()
}

/// Where a tensor is moved. Some values have no effect, and moving them proves nothing: a parameter is moved where
/// the loss depends on it most (rows may not be looked up, units not active), a label on a row that counts, an input
/// on the row that the model is most wrong about (a saturated one that is right has no gradient).
fn places(case: &mut Case, name: &str) -> Vec<usize> {
    if let Some(parameter) = name.strip_prefix("param.") {
        let gradient = floats(case, &format!("grad.{parameter}"));
        let at = largest(gradient);
        // That of an absent scenario, say, or of what a softmax takes out again: rounding noise.
        return if gradient[at].abs() < 1e-12 { Vec::new() } else { vec![at] };
    }
    let space =
        name.strip_prefix("label.").and_then(|task| case.config.get("sample_space")?.get(task)?.as_str());
    if let Some(space) = space.map(str::to_owned) {
        let labels = floats(case, &format!("label.{space}"));
        return (0..labels.len()).filter(|&row| labels[row] == 1.0).collect();
    }
    if let Some(before) = name.strip_prefix("label.").and_then(|task| events_before(case, task)) {
        let labels: Vec<Vec<f32>> =
            before.iter().map(|task| floats(case, &format!("label.{task}")).clone()).collect();
        let rows = floats(case, name).len();
        return (0..rows).filter(|&row| labels.iter().all(|of| of[row] == 1.0)).collect();
    }
    // A number that is removed before anything reads it has no effect, and which are is not told.
    if name == "input.dense" && case.config.get("prune_input") == Some(&json!(true)) {
        return Vec::new();
    }
    if name == "input.dense" {
        let width = case.tensors[name].shape[1];
        return (0..width).map(|column| most_wrong(case) * width + column).collect();
    }
    let last = floats(case, name).len() - 1;
    Vec::from_iter(BTreeSet::from([0, last / 2, last]))
}

/// The tasks without which an event of a chain does not happen, whatever its label.
fn events_before(case: &Case, task: &str) -> Option<Vec<String>> {
    let is_chain = ["escm2", "esmm", "mtms"].contains(&case.config.get("model")?.as_str()?);
    let tasks = case.config.get("tasks")?.as_array()?.iter();
    let before = tasks.filter_map(|name| name.as_str().map(str::to_owned)).take_while(|name| name != task);
    is_chain.then(|| before.collect())
}

/// The row with the largest |p - y| of any task.
fn most_wrong(case: &mut Case) -> usize {
    let tasks: Vec<String> =
        case.tensors.keys().filter_map(|n| n.strip_prefix("label.")).map(str::to_owned).collect();
    let mut wrong = Vec::new();
    for task in tasks {
        let labels = floats(case, &format!("label.{task}")).clone();
        let errors = floats(case, &format!("out.{task}")).iter().zip(labels).map(|(p, y)| (p - y).abs());
        let errors: Vec<f32> = errors.collect();
        let row = largest(&errors);
        wrong.push((errors[row], row));
    }
    wrong.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1
}

/// `grad.bottom.0.weight` is of kind `grad weight`.
fn kind(name: &str) -> String {
    let (head, rest) = name.split_once('.').unwrap_or((name, ""));
    let last = rest.rsplit('.').next().unwrap_or_default();
    match head {
        "param" | "grad" if rest.starts_with("embedding.") || rest.starts_with("task_embedding.") => {
            format!("{head} embedding")
        }
        "param" | "grad"
            if ["pn.", "transform."].iter().any(|p| rest.starts_with(p)) || rest.contains(".domain_") =>
        {
            format!("{head} of a scenario")
        }
        "param" | "grad" if rest.contains(".norm.") => format!("{head} norm {last}"),
        "param" | "grad" if is_factor(last) => format!("{head} weight"),
        "param" | "grad" if last.ends_with("_b") => format!("{head} bias"),
        "param" | "grad" if rest.starts_with("dfub.") || rest == "position" => format!("{head} weight"),
        "param" | "grad" if ["u", "v", "c", "dense_vectors"].contains(&last) => format!("{head} weight"),
        "param" | "grad"
            if ["v.", "alpha_", "beta_"].iter().any(|own| rest.starts_with(own)) || last == "alpha" =>
        {
            format!("{head} bias")
        }
        "param" | "grad" if rest.starts_with("stitch.") => format!("{head} weight"),
        "param" | "grad" => format!("{head} {last}"),
        "input" => name.to_owned(),
        "grad_of" => "grad of a part".to_owned(),
        "after_loss" | "after" => "after".to_owned(),
        "loss" if !rest.is_empty() => "loss of a part".to_owned(),
        _ => head.to_owned(),
    }
}

/// Whether a tensor with this last name is a factor of a weight.
fn is_factor(last: &str) -> bool {
    ["u", "v", "u_l", "u_r", "v_l", "v_r"].contains(&last) || last.ends_with("_u") || last.ends_with("_v")
}

/// Whether a tensor is compared, and nothing is computed of it.
fn is_expected(name: &str) -> bool {
    ["grad", "grad_of", "out", "loss", "eval", "after", "after_loss", "eval_after"]
        .contains(&name.split('.').next().unwrap_or_default())
}

#[test]
fn a_moved_value_of_any_tensor_fails_its_case() {
    let kinds = Mutex::new(BTreeSet::new());
    on_all_cores(all_cases(), |(label, case)| {
        let mut case = case.clone();
        let computation = Computation::of(&case).unwrap();
        let are_floats = |name: &&String| matches!(case.tensors[*name].values, Values::F32(_));
        let names = case.tensors.keys().filter(|name| !ignored(name)).filter(are_floats);
        for name in names.cloned().collect::<Vec<String>>() {
            for at in places(&mut case, &name) {
                let values = floats(&mut case, &name);
                let (before, largest) = (values[at], values[largest(values)].abs());
                values[at] += (1e-2 * largest).max(1e-2);
                let found = if is_expected(&name) { computation.check(&case) } else { check(&case) };
                assert!(found.is_err(), "{label}: {name} moved at {at} is not seen");
                floats(&mut case, &name)[at] = before;
            }
            kinds.lock().unwrap().insert(kind(&name));
        }
    });
    let kinds = kinds.into_inner().unwrap();
    let all = [
        "after",
        "buffer",
        "eval",
        "eval_after",
        "grad bias",
        "grad embedding",
        "grad norm bias",
        "grad norm weight",
        "grad of a part",
        "grad of a scenario",
        "grad weight",
        "input.dense",
        "input.fairness",
        "label",
        "loss",
        "loss of a part",
        "out",
        "param bias",
        "param embedding",
        "param norm bias",
        "param norm weight",
        "param of a scenario",
        "param weight",
        "warm",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn another_id_fails_its_case() {
    for (label, mut case) in all_cases() {
        let Values::I64(ids) = &mut case.tensors.get_mut("input.sparse").unwrap().values else { panic!() };
        ids[0] = if ids[0] == 0 { 1 } else { 0 };
        assert!(check(&case).is_err(), "{label}");
        let Values::I64(ids) = &mut case.tensors.get_mut("input.sparse").unwrap().values else { panic!() };
        ids[0] = 1000;
        assert_fails(&case, "input.sparse[0, 0] is 1000");
    }
}

#[test]
fn another_scenario_fails_its_case() {
    let mut case = read("star/small");
    for (scenario, told) in [(1, "differ"), (3, "input.scene[0] is 3, there are 3 scenarios")] {
        let Values::I64(scenarios) = &mut case.tensors.get_mut("input.scene").unwrap().values else {
            panic!()
        };
        scenarios[0] = if scenarios[0] == scenario { 2 } else { scenario };
        assert_fails(&case, told);
    }
}

#[test]
fn a_missing_misshapen_or_undefined_tensor_fails_its_case() {
    for name in ["mmoe/batchnorm", "mmoe/deepgate", "shared_bottom/masked"] {
        let case = read(name);
        for tensor in case.tensors.keys().filter(|n| !ignored(n)) {
            let mut missing = case.clone();
            missing.tensors.remove(tensor);
            assert_fails(&missing, &format!("{tensor} "));

            let mut other_shape = case.clone();
            other_shape.tensors.get_mut(tensor).unwrap().shape.push(1);
            assert_fails(&other_shape, &format!("{tensor} has shape"));

            if tensor != "input.sparse" {
                let mut undefined = case.clone();
                *floats(&mut undefined, tensor).last_mut().unwrap() = f32::NAN;
                assert_fails(&undefined, &format!("{tensor} has values that are not finite"));
            }
        }
    }
}

#[test]
fn an_unknown_tensor_fails_its_case() {
    let case = read("mmoe/small");
    let tensor = Tensor { shape: vec![1], values: Values::F32(vec![0.0]) };
    let unknown = [
        "grad.gates.ctr.bias",
        "param.extra.weight",
        "loss.auxiliary",
        "out.buy",
        "eval.buy",
        "after.x.running_mean",
        "input.seq.history",
        "input.scene",
        "label.buy",
        "buffer.x.running_mean",
        "note",
        "midway.gate",
    ];
    for name in unknown {
        let mut more = case.clone();
        more.tensors.insert(name.into(), tensor.clone());
        assert_fails(&more, &format!("{name} is not a tensor that this model has"));
    }
    let mut ids_as_numbers = case.clone();
    let sparse = ids_as_numbers.tensors.get_mut("input.sparse").unwrap();
    let count = sparse.shape.iter().product();
    sparse.values = Values::F32(vec![0.0; count]);
    assert_fails(&ids_as_numbers, "input.sparse is f32");
}

#[test]
fn only_intermediates_and_counters_of_batches_are_ignored() {
    let mut case = read("mmoe/batchnorm");
    let before = check(&case).unwrap();
    let counter = Tensor { shape: vec![], values: Values::I64(vec![7]) };
    case.tensors.insert("buffer.experts.0.0.norm.num_batches_tracked".into(), counter);
    case.tensors.retain(|name, _| !ignored(name));
    assert_eq!(check(&case).unwrap(), before);
}

#[test]
fn a_stated_evaluation_is_compared() {
    let mut case = read("shared_bottom/small");
    case.tensors.insert("eval.ctr".into(), case.tensors["out.ctr"].clone());
    check(&case).unwrap();
    floats(&mut case, "eval.ctr")[3] += 1e-2;
    assert_fails(&case, "eval.ctr[3]");
}

#[test]
fn keys_must_be_known_and_complete() {
    let case = read("mmoe/small");
    let with = |key: &str, value: Value| {
        let mut changed = case.clone();
        changed.config.insert(key.into(), value);
        changed
    };
    for key in ["model", "sparse", "dim", "tasks", "batch", "act", "experts", "expert_units"] {
        let mut missing = case.clone();
        missing.config.remove(key);
        assert_fails(&missing, &format!("config key `{key}` is missing"));
    }
    check(&with("seed", json!(1))).unwrap();
    check(&with("case", json!("small"))).unwrap();
    assert_fails(&with("top_k", json!(2)), "config key `top_k` is not known");
    assert_fails(&with("bottom_units", json!([8])), "config key `bottom_units` is not known");
    assert_fails(&with("dim", json!("four")), "invalid type: string \"four\"");
    assert_fails(&with("act", json!("gelu")), "gelu");
    assert_fails(&with("sample_space", json!({"cvr": "click"})), "no task `click`");
    assert_fails(&with("task_weights", json!({"click": 2.0})), "click");
    assert_fails(&with("gate_bias", json!(true)), "param.gates.ctr.bias [3] is missing");
    assert_fails(&with("experts", json!(2)), "param.experts.2.0.weight is not a tensor that this model has");
    assert_fails(&with("task_weights", json!({"ctr": 0.5})), "loss[0]: ours");
    assert_fails(&with("sample_space", json!({"cvr": "ctr"})), "loss.cvr[0]: ours");
    assert_fails(&with("norm", json!("batch")), "norm.weight");
    assert_fails(&with("batch", json!(15)), "input.sparse has shape");
    assert_fails(&with("model", json!("mmoo")), "no translation of the keys of `mmoo`");
}

/// Every number of every tensor: these cases are small.
#[test]
fn a_moved_value_fails_the_case_of_a_method() {
    for (label, mut case) in all_cases_of(true) {
        check(&case).unwrap();
        for name in case.tensors.keys().cloned().collect::<Vec<_>>() {
            if let Values::I64(order) = &mut case.tensors.get_mut(&name).unwrap().values {
                order[0] = 0;
                assert_fails(&case, "input.order[0] is not an order of the other losses");
                continue;
            }
            for at in 0..floats(&mut case, &name).len() {
                let values = floats(&mut case, &name);
                let (before, largest) = (values[at], values[largest(values)].abs());
                values[at] += (1e-2 * largest).max(1e-2);
                assert!(check(&case).is_err(), "{label}: {name} moved at {at} is not seen");
                floats(&mut case, &name)[at] = before;
            }
        }
    }
}

#[test]
fn cases_of_methods_must_be_complete_and_known() {
    for (label, case) in all_cases_of(true) {
        for tensor in case.tensors.keys() {
            let mut missing = case.clone();
            missing.tensors.remove(tensor);
            assert_fails(&missing, &format!("{tensor} is missing"));
            let mut other_shape = case.clone();
            other_shape.tensors.get_mut(tensor).unwrap().shape.push(1);
            assert_fails(&other_shape, &format!("{tensor} has shape"));
        }
        for name in ["out.more", "input.more", "more"] {
            let mut more = case.clone();
            let tensor = Tensor { shape: vec![1], values: Values::F32(vec![0.0]) };
            more.tensors.insert(name.into(), tensor);
            assert_fails(&more, &format!("{name} is not a tensor that this method has"));
        }
        for key in case.config.keys().filter(|key| *key != "method") {
            let mut missing = case.clone();
            missing.config.remove(key);
            assert_fails(&missing, &format!("config key `{key}` is missing"));
        }
        let mut more = case.clone();
        more.config.insert("temperature".into(), json!(2.0));
        assert_fails(&more, "config key `temperature` is not known");
        assert!(label.contains(more.config["method"].as_str().unwrap()));
    }
}

/// A folder of one case, which `damage` may change.
fn folder_of(model: &str, damage: impl FnOnce(&Path)) -> (Summary, Vec<Report>) {
    let root = tempfile::tempdir().unwrap();
    let to = root.path().join(model).join("small");
    fs::create_dir_all(&to).unwrap();
    for file in ["config.json", "case.safetensors"] {
        fs::copy(folder("mmoe/small").join(file), to.join(file)).unwrap();
    }
    damage(&to);
    let mut reports = Vec::new();
    let summary = check_folder(root.path(), false, |report| reports.push(report.clone()));
    (summary, reports)
}

fn counts(passed: usize, failed: usize, skipped: usize) -> Summary {
    Summary { passed, failed, skipped }
}

#[test]
fn damaged_files_fail() {
    assert_eq!(folder_of("mmoe", |_| ()).0, counts(1, 0, 0));
    let cut = |file: &'static str, keep: usize| {
        move |case: &Path| {
            let bytes = fs::read(case.join(file)).unwrap();
            fs::write(case.join(file), &bytes[..bytes.len().min(keep)]).unwrap();
        }
    };
    let full = fs::metadata(folder("mmoe/small/case.safetensors")).unwrap().len() as usize;
    for keep in [0, 7, 100, full / 2, full - 1] {
        let (summary, reports) = folder_of("mmoe", cut("case.safetensors", keep));
        assert_eq!(summary, counts(0, 1, 0), "{reports:?}");
        assert!(reports[0].to_string().starts_with("FAIL mmoe/small: case.safetensors: "), "{}", reports[0]);
    }
    assert_eq!(folder_of("mmoe", cut("config.json", 20)).0, counts(0, 1, 0));
    for file in ["config.json", "case.safetensors"] {
        let (summary, _) = folder_of("mmoe", |case| fs::remove_file(case.join(file)).unwrap());
        assert_eq!(summary, counts(0, 1, 0));
    }
}

#[test]
fn models_that_are_not_registered_are_skipped_and_not_mistaken() {
    let (summary, reports) = folder_of("mmoo", |_| ());
    assert_eq!(summary, counts(0, 0, 1));
    assert!(matches!(reports[0].verdict, Verdict::Skipped(_)));
    let (summary, reports) = folder_of("shared_bottom", |_| ());
    assert_eq!(summary, counts(0, 1, 0));
    assert!(reports[0].to_string().contains("its folder `shared_bottom`"), "{}", reports[0]);
}

#[test]
fn missing_cases_are_failures() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(check_folder(&root.path().join("absent"), false, |_| ()), counts(0, 1, 0));
    assert_eq!(check_folder(root.path(), false, |_| ()), counts(0, 1, 0));
    fs::create_dir_all(root.path().join("another/case")).unwrap();
    assert_eq!(check_folder(root.path(), false, |_| ()), counts(0, 0, 1));
    let models = manygate_models::MODELS.len() - WITHOUT_CASES.len();
    let registered = models + manygate_train::balance::METHODS.len();
    assert_eq!(check_folder(root.path(), true, |_| ()), counts(0, registered, 1));
}
