//! The golden cases of every model that a CUDA device runs.

use manygate_cuda_tests::{Gpu, project_root};
use manygate_tests::golden::{Case, Checked, check_on_device};
use manygate_train::devices::devices;
use std::fs;

/// A test of each model over those of its cases whose names are wanted, and all their names.
macro_rules! models {
    ($($model:ident: $wanted:expr),* $(,)?) => {
        const MODELS: &[&str] = &[$(stringify!($model)),*];

        $(#[test]
        fn $model() {
            check_cases(stringify!($model), $wanted);
        })*
    };
}

models! {
    adaptdhm: |_| true,
    adasparse: |_| true,
    aitm: |_| true,
    apg: |_| true,
    attention: |_| true,
    // The others are larger, or have less.
    causalint: |case| ["small", "parameter_maml"].contains(&case),
    cgc: |_| true,
    cross_stitch: |_| true,
    dcn: |_| true,
    dcn_v2: |_| true,
    deepfm: |_| true,
    dffm: |_| true,
    epnet_dcn: |_| true,
    escm2: |_| true,
    esmm: |_| true,
    hamur: |_| true,
    hinet: |_| true,
    interactions: |_| true,
    lhuc: |_| true,
    m2m: |_| true,
    m3oe: |_| true,
    mmoe: |_| true,
    moe: |_| true,
    // Without steps of several stages, which no model alone takes.
    mtms: |case| case != "schedule",
    pepnet: |_| true,
    ple: |_| true,
    sarnet: |_| true,
    shared_bottom: |_| true,
    star: |_| true,
    stem: |_| true,
    taml: |_| true,
}

/// Networks of their own: what they have, others have.
const WITHOUT_CASES: &[&str] = &["single_scenario", "single_task"];

#[test]
fn every_model_trains_there_and_has_its_cases() {
    let models = devices().expect("the models").models;
    let lacking: Vec<_> = models.iter().filter(|model| model.lacks.is_some()).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
    let mut checked = [MODELS, WITHOUT_CASES].concat();
    checked.sort_unstable();
    let all: Vec<_> = models.iter().map(|model| model.name).collect();
    assert_eq!(checked, all, "models checked here, and all");
}

/// Checks the cases of `model` whose names are `wanted`.
fn check_cases(model: &str, wanted: impl Fn(&str) -> bool) {
    let folder = project_root().join("tests/golden").join(model);
    let mut checked = 0;
    for entry in fs::read_dir(&folder).expect("the model's cases") {
        let path = entry.expect("a case").path();
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted) {
            continue;
        }
        let case = Case::read(&path).expect("a readable case");
        let gpu = Gpu::new();
        let Checked { tensors, worst } = check_on_device(&case, gpu.device())
            .unwrap_or_else(|why| panic!("{}: {}", path.display(), why.join("; ")));
        println!(
            "ok {model}/{} ({tensors} tensors, {worst})",
            path.file_name().unwrap_or_default().display()
        );
        checked += 1;
    }
    assert!(checked > 0, "{model} has no cases");
}
