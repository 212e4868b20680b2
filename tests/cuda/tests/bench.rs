//! The cases of `manygate bench kernels`, small: each runs, and its results are right.

use manygate_cuda::{FAMILIES, Family};
use manygate_cuda_tests::Gpu;
use manygate_device::bench::{KernelBenchOptions, KernelSpeeds, Ready, Size, bench_kernels, cases};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn bench(options: KernelBenchOptions) -> manygate_core::Result<KernelSpeeds> {
    let gpu = Gpu::new();
    let device = gpu.device().description().ordinal;
    bench_kernels(&KernelBenchOptions { device, ..options }, &mut |progress| {
        println!("{progress:?}");
        Ok(())
    })
}

fn small(kernel: &str) -> KernelBenchOptions {
    KernelBenchOptions { device: 0, size: Size::Small, kernel: Some(kernel.to_owned()), seconds: None }
}

fn check(kernel: &str) -> KernelSpeeds {
    let speeds = bench(small(kernel)).expect("small cases run");
    assert!(!speeds.rows.is_empty() && speeds.left_out.is_empty());
    for row in &speeds.rows {
        assert!(row.is_right(), "{row:?}");
        assert!(row.ms > 0.0 && row.floor_ms > 0.0 && row.gbps.is_finite(), "{row:?}");
    }
    speeds
}

#[test]
fn bags_are_summed() {
    check("embedding_bag_forward");
}

#[test]
fn tables_move() {
    check("embedding_bag_update");
}

#[test]
fn lookups_are_sorted() {
    check("sort_lookups");
}

#[test]
fn banks_of_experts_run_and_learn() {
    assert_eq!(check("mmoe").rows.len(), 12, "two directions, batches, three precisions");
}

#[test]
fn products_multiply() {
    assert_eq!(check("linear").rows.len(), 30, "nine products and two at once in three precisions");
    check("column_sums_by_scenario");
}

#[test]
fn gates_mix() {
    check("gate");
}

#[test]
fn slopes_are_learnt_and_scores_fused() {
    let losses = ["learner_loss", "weighted_loss", "risk", "order_penalty", "mixture_likelihood"];
    for kernel in ["dice", "pruning_dr", "self_scored", "fuse_scores"].into_iter().chain(losses) {
        check(kernel);
    }
}

#[test]
fn gradients_of_layers_follow_their_rows() {
    let of_gates = ["gate_combine_seen_dx", "self_scored_dx", "amplify_parts", "cross_vector", "sum_columns"];
    let of_rows = ["row_sums", "softmax_dz", "row_normalise_dx", "transfer_mixture_d"];
    for kernel in of_gates.into_iter().chain(of_rows) {
        check(kernel);
    }
}

#[test]
fn layers_are_summed_over_rows() {
    for kernel in ["pruned_share", "dice_sums", "layer_norm_sums", "stitch", "level_fusion_dnumbers"] {
        check(kernel);
    }
}

#[test]
fn experts_are_gated_selected_and_bounded() {
    for kernel in ["gate_groups", "hard_tanh", "select_experts", "product_logit"] {
        check(kernel);
    }
}

#[test]
fn columns_are_normalised() {
    for kernel in ["batch_moments", "normalise", "move_running"] {
        check(kernel);
    }
}

#[test]
fn elements_are_added_and_weights_folded_turned_and_cast() {
    for kernel in ["add", "multiply", "broadcast", "fill", "one_hot", "fold", "transpose", "to_bf16"] {
        check(kernel);
    }
}

#[test]
fn samples_have_matrices_and_rows_are_taken_by_themselves() {
    check("row_");
    check("softmax");
    check("transfer_mixture");
}

#[test]
fn rows_have_something_by_scenario_and_cluster() {
    for kernel in
        ["scenario_", "level_fusion", "layer_norm", "route", "order_rows", "gather_rows", "scatter_rows"]
    {
        check(kernel);
    }
    check("centers");
}

#[test]
fn lists_are_pooled_compared_and_attended_to() {
    let attention = ["attend", "self_attention"];
    for kernel in ["sequence_", "weighted_pool", "compare", "position_"].into_iter().chain(attention) {
        check(kernel);
    }
}

#[test]
fn tables_are_read_summed_and_moved_by_sums() {
    for kernel in ["gather", "scale_bag_gradient", "coalesce", "update_rows_by_sums"] {
        check(kernel);
    }
}

#[test]
fn adam_moves_and_gradients_are_clipped() {
    check("adam");
    check("clip_factor");
}

#[test]
fn losses_are_summed() {
    for kernel in
        ["bce", "cross_entropy", "mean_square", "range_penalty", "losses_finite", "gradient_conflict"]
    {
        check(kernel);
    }
}

#[test]
fn gradients_of_losses_are_multiplied_weighed_and_clipped() {
    for kernel in ["gradient_products", "row_products", "combine_", "clip_rows"] {
        check(kernel);
    }
}

#[test]
fn matrices_are_dropped_activated_and_summed() {
    check("dropout");
    check("activat");
    check("column_sums");
}

/// But for those that fill memory and find what a device does at the most, those that stand in for others on one
/// architecture, and the sums of chunks, which so few rows are not divided into.
#[test]
fn every_kernel_has_a_case() {
    let gpu = Gpu::new();
    let mut launched = BTreeSet::new();
    for case in cases(gpu.device(), Size::Small).expect("memory that is free") {
        launched.extend(Ready::new(gpu.device(), &case, Size::Small).expect("small cases run").kernels);
    }
    let is_meant = |family: &&&Family| !family.name.starts_with("peak") && !family.name.contains("hopper");
    for family in FAMILIES.iter().filter(is_meant) {
        for kernel in family.kernels.iter().filter(|kernel| !kernel.starts_with("sum_partials")) {
            assert!(launched.contains(&(family.name, kernel)), "{}: nothing times {kernel}", family.name);
        }
    }
}

#[test]
fn a_name_that_no_kernel_has_is_told() {
    let why = bench(small("gemmm")).expect_err("no such kernel").to_string();
    assert!(why.contains("`gemmm`") && why.contains("mmoe_forward_backward"), "{why}");
}

#[test]
fn what_would_begin_too_late_is_left_out() {
    let speeds =
        bench(KernelBenchOptions { seconds: Some(0.0), ..small("adam") }).expect("a result all the same");
    assert_eq!((speeds.rows.len(), speeds.left_out.len()), (0, 1));
}

#[test]
fn merge_reads_the_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let speeds = check("bce");
    let json = serde_json::to_string(&speeds).expect("JSON");
    fs::write(folder.path().join("bench.json"), json).expect("a file");
    let merge = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels/cuda/check/merge.py");
    if !merge.exists() {
        println!("the sources are not here: nothing to merge with");
        return;
    }
    let merged =
        Command::new("python3").arg(merge).arg(folder.path()).output().expect("python3, as for the gate");
    assert!(merged.status.success(), "{}", String::from_utf8_lossy(&merged.stderr));
    let merged: serde_json::Value = serde_json::from_slice(&merged.stdout).expect("JSON");
    let row = &merged["rows"][0];
    assert_eq!((&row["kernel"], &row["shape"]["rows"]), (&"bce_with_logits".into(), &1000.into()));
    assert_eq!(row["bound"], "copy_gbps");
    assert!(row["share_of_ceiling"].as_f64() > Some(0.0) && row["relative_error"].as_f64() < Some(1e-5));
}
