//! The families of kernels and their PTX.

/// A family of kernels: one file of PTX.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// Its name, that of its files.
    pub name: &'static str,
    /// The PTX.
    pub ptx: &'static str,
    /// Names of its kernels, in the order of the file.
    pub kernels: &'static [&'static str],
}

/// Activation functions.
pub static ACTIVATION: Family = Family {
    name: "activation",
    ptx: include_str!("../ptx/activation.ptx"),
    kernels: &["activate", "activation_dx", "dice", "dice_backward"],
};

/// Units times amplitudes.
pub static AMPLITUDE: Family = Family {
    name: "amplitude",
    ptx: include_str!("../ptx/amplitude.ptx"),
    kernels: &[
        "amplify",
        "amplify_backward",
        "amplify_parts",
        "amplify_parts_backward",
        "unpruned",
        "finish_share",
        "pruning_dr",
    ],
};

/// Attention.
pub static ATTENTION: Family = Family {
    name: "attention",
    ptx: include_str!("../ptx/attention.ptx"),
    kernels: &["attend", "self_attention", "attend_backward", "self_attention_dq", "self_attention_dkv"],
};

/// Rows by cluster.
pub static CLUSTER: Family = Family {
    name: "cluster",
    ptx: include_str!("../ptx/cluster.ptx"),
    kernels: &[
        "route",
        "count_clusters",
        "order_rows",
        "gather_rows",
        "scatter_rows",
        "move_centers",
        "move_centers_backward",
        "keep_centers",
    ],
};

/// Cross layers with a vector.
pub static CROSS: Family = Family {
    name: "cross",
    ptx: include_str!("../ptx/cross.ptx"),
    kernels: &["cross_vector", "cross_vector_dx"],
};

/// Element-wise arithmetic.
pub static ELEMENTWISE: Family = Family {
    name: "elementwise",
    ptx: include_str!("../ptx/elementwise.ptx"),
    kernels: &[
        "add",
        "add_scaled",
        "multiply",
        "broadcast",
        "fill",
        "one_hot",
        "fold",
        "fold_dx",
        "transpose",
    ],
};

/// Look-ups in embedding tables.
pub static EMBEDDING_LOOKUP: Family = Family {
    name: "embedding_lookup",
    ptx: include_str!("../ptx/embedding_lookup.ptx"),
    kernels: &["lookup", "gather", "scale_bag_gradient"],
};

/// Look-ups of a batch, sorted by row.
pub static EMBEDDING_SORT: Family = Family {
    name: "embedding_sort",
    ptx: include_str!("../ptx/embedding_sort.ptx"),
    kernels: &["number_lookups", "make_keys", "count_digits", "scan_digits", "scatter"],
};

/// Gradients of rows of tables, and their optimisers.
pub static EMBEDDING_UPDATE: Family = Family {
    name: "embedding_update",
    ptx: include_str!("../ptx/embedding_update.ptx"),
    kernels: &["update_rows", "update_long_rows", "count_runs", "number_runs", "coalesce", "coalesce_long"],
};

/// Gates over banks of experts.
pub static GATE: Family = Family {
    name: "gate",
    ptx: include_str!("../ptx/gate.ptx"),
    kernels: &[
        "gate_combine",
        "gate_combine_dx",
        "gate_combine_seen",
        "gate_combine_seen_dx",
        "self_scored",
        "self_scored_dx",
    ],
};

/// Products of linear layers.
pub static GEMM: Family = Family {
    name: "gemm",
    ptx: include_str!("../ptx/gemm.ptx"),
    kernels: &[
        "linear_f32",
        "linear_dx_f32",
        "linear_dw_f32",
        "linear_tf32",
        "linear_dx_tf32",
        "linear_dw_tf32",
        "linear_bf16",
        "linear_dx_bf16",
        "linear_dw_bf16",
        "column_sums",
        "sum_partials",
        "to_bf16",
    ],
};

/// The same with weights for each scenario.
pub static GEMM_BY_SCENARIO: Family = Family {
    name: "gemm_by_scenario",
    ptx: include_str!("../ptx/gemm_by_scenario.ptx"),
    kernels: &[
        "linear_by_scenario_f32",
        "linear_dx_by_scenario_f32",
        "linear_dw_by_scenario_f32",
        "linear_by_scenario_tf32",
        "linear_dx_by_scenario_tf32",
        "linear_dw_by_scenario_tf32",
        "linear_by_scenario_bf16",
        "linear_dx_by_scenario_bf16",
        "linear_dw_by_scenario_bf16",
        "column_sums_by_scenario",
        "sum_partials_by_scenario",
    ],
};

/// Products of linear layers in bf16 for compute capability 9.0.
pub static GEMM_HOPPER: Family = Family {
    name: "gemm_hopper",
    ptx: include_str!("../ptx/gemm_hopper.ptx"),
    kernels: &["linear_bf16", "linear_dx_bf16", "linear_dw_bf16"],
};

/// Both gradients of layers at once, there.
pub static GEMM_HOPPER_GRADIENTS: Family = Family {
    name: "gemm_hopper_gradients",
    ptx: include_str!("../ptx/gemm_hopper_gradients.ptx"),
    kernels: &["linear_gradients_bf16"],
};

/// Products there that multiply-adds bound.
pub static GEMM_HOPPER_WIDE: Family = Family {
    name: "gemm_hopper_wide",
    ptx: include_str!("../ptx/gemm_hopper_wide.ptx"),
    kernels: &["linear_bf16", "linear_dx_bf16", "linear_dw_bf16"],
};

/// Interactions of fields.
pub static INTERACTION: Family = Family {
    name: "interaction",
    ptx: include_str!("../ptx/interaction.ptx"),
    kernels: &[
        "bi_interaction",
        "bi_interaction_de",
        "sum_columns",
        "sum_columns_dx",
        "pair_products",
        "pair_products_de",
    ],
};

/// Layer normalisation.
pub static LAYER_NORM: Family = Family {
    name: "layer_norm",
    ptx: include_str!("../ptx/layer_norm.ptx"),
    kernels: &["layer_norm", "layer_norm_dx", "layer_norm_sums", "finish_layer_norm_sums"],
};

/// Losses.
pub static LOSS: Family = Family {
    name: "loss",
    ptx: include_str!("../ptx/loss.ptx"),
    kernels: &[
        "bce_with_logits",
        "bce_of_product",
        "fuse_scores",
        "fuse_scores_backward",
        "learner_loss",
        "counterfactual_risk",
        "order_penalty",
        "range_penalty",
        "add_partials",
        "losses_finite",
        "weighted_loss",
        "mixture_likelihood",
    ],
};

/// Gradients of several losses.
pub static LOSS_GRADIENTS: Family = Family {
    name: "loss_gradients",
    ptx: include_str!("../ptx/loss_gradients.ptx"),
    kernels: &[
        "gradient_products",
        "row_products",
        "sum_products",
        "combine_gradients",
        "combine_rows",
        "clip_rows",
    ],
};

/// Mixtures of the experts of cross layers.
pub static MIXTURE: Family = Family {
    name: "mixture",
    ptx: include_str!("../ptx/mixture.ptx"),
    kernels: &["gate_groups", "gate_groups_dz", "gate_groups_dg", "hard_tanh", "hard_tanh_dx"],
};

/// Batch normalisation.
pub static NORM: Family = Family {
    name: "norm",
    ptx: include_str!("../ptx/norm.ptx"),
    kernels: &[
        "column_moments",
        "finish_moments",
        "normalise",
        "norm_gradient_sums",
        "finish_gradients",
        "normalise_dx",
        "batch_moments_dx",
        "move_running",
    ],
};

/// Optimisers of dense parameters.
pub static OPTIM: Family = Family {
    name: "optim",
    ptx: include_str!("../ptx/optim.ptx"),
    kernels: &["optimise", "sum_squares", "clip_factor"],
};

/// What a device can do at the most.
pub static PEAK: Family = Family {
    name: "peak",
    ptx: include_str!("../ptx/peak.ptx"),
    kernels: &[
        "fill_random",
        "fill_ids",
        "copy",
        "multiply_adds",
        "multiply_adds_tf32",
        "multiply_adds_bf16",
    ],
};

/// What the tensor cores of compute capability 9.0 can do at the most.
pub static PEAK_HOPPER: Family = Family {
    name: "peak_hopper",
    ptx: include_str!("../ptx/peak_hopper.ptx"),
    kernels: &["multiply_adds_bf16"],
};

/// Random numbers.
pub static RANDOM: Family = Family {
    name: "random",
    ptx: include_str!("../ptx/random.ptx"),
    kernels: &["dropout", "select_experts"],
};

/// What is made of each row by itself.
pub static ROW: Family = Family {
    name: "row",
    ptx: include_str!("../ptx/row.ptx"),
    kernels: &[
        "softmax",
        "softmax_dz",
        "row_normalise",
        "row_normalise_dx",
        "cross_entropy",
        "mean_square",
        "bce_residual",
        "bce_residual_dz",
        "product_logit",
        "product_logit_backward",
    ],
};

/// Products of vectors with matrices of their samples.
pub static ROW_PRODUCT: Family = Family {
    name: "row_product",
    ptx: include_str!("../ptx/row_product.ptx"),
    kernels: &["row_product", "row_outer", "row_sums"],
};

/// What rows have by their scenario.
pub static SCENARIO: Family = Family {
    name: "scenario",
    ptx: include_str!("../ptx/scenario.ptx"),
    kernels: &[
        "scenario_affine",
        "scenario_affine_dx",
        "scenario_sums",
        "finish_scenario_sums",
        "level_fusion",
        "level_fusion_backward",
        "level_fusion_products",
        "finish_level_fusion",
        "scenario_attention",
        "scenario_attention_slopes",
        "scenario_attention_dgroups",
    ],
};

/// Lists of ids and their samples.
pub static SEQUENCE: Family = Family {
    name: "sequence",
    ptx: include_str!("../ptx/sequence.ptx"),
    kernels: &[
        "sequence_pool",
        "sequence_pool_dx",
        "sequence_softmax",
        "sequence_softmax_dx",
        "weighted_pool",
        "weighted_pool_dx",
        "weighted_pool_dw",
        "compare",
        "compare_dk",
        "compare_dq",
        "position_embedding",
        "position_sums",
        "finish_position_sums",
    ],
};

/// Networks side by side that mix.
pub static STITCH: Family = Family {
    name: "stitch",
    ptx: include_str!("../ptx/stitch.ptx"),
    kernels: &["stitch", "stitch_dweights", "finish_stitch_dweights"],
};

/// Transfer between scenarios.
pub static TRANSFER: Family = Family {
    name: "transfer",
    ptx: include_str!("../ptx/transfer.ptx"),
    kernels: &["transfer_mixture", "transfer_mixture_dq", "transfer_mixture_dexperts", "gradient_conflict"],
};

/// All families.
pub static FAMILIES: &[&Family] = &[
    &ACTIVATION,
    &AMPLITUDE,
    &ATTENTION,
    &CLUSTER,
    &CROSS,
    &ELEMENTWISE,
    &EMBEDDING_LOOKUP,
    &EMBEDDING_SORT,
    &EMBEDDING_UPDATE,
    &GATE,
    &GEMM,
    &GEMM_BY_SCENARIO,
    &GEMM_HOPPER,
    &GEMM_HOPPER_GRADIENTS,
    &GEMM_HOPPER_WIDE,
    &INTERACTION,
    &LAYER_NORM,
    &LOSS,
    &LOSS_GRADIENTS,
    &MIXTURE,
    &NORM,
    &OPTIM,
    &PEAK,
    &PEAK_HOPPER,
    &RANDOM,
    &ROW,
    &ROW_PRODUCT,
    &SCENARIO,
    &SEQUENCE,
    &STITCH,
    &TRANSFER,
];
