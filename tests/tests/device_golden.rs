//! The golden cases of every model that a CUDA device runs.

use manygate_cuda_tests::{Gpu, project_root};
use manygate_tests::golden::{Case, Checked, check_on_device};
use std::fs;

fn check_model(model: &str) {
    check_cases(model, |_| true);
}

/// Of the cases whose names are `wanted`.
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

#[test]
fn shared_bottom() {
    check_model("shared_bottom");
}

#[test]
fn mmoe() {
    check_model("mmoe");
}

/// Cross layers of a full matrix; those of low rank have no kernels.
#[test]
fn dcn_v2() {
    check_cases("dcn_v2", |case| ["small", "stacked"].contains(&case));
}
