//! Models of several tasks.

use super::{Keys, Translation};

pub(super) const TRANSLATIONS: &[Translation] = &[
    Translation {
        model: "shared_bottom",
        required: &[("act", "activation"), ("bottom_units", "bottom_units")],
        optional: &[],
        special: norm_and_towers,
        without_effect: &["gate_bias", "gate_units"],
    },
    Translation {
        model: "moe",
        required: &[("act", "activation"), ("experts", "experts"), ("expert_units", "expert_units")],
        optional: &[("gate_bias", "gate_bias"), ("gate_units", "gate_units")],
        special: norm_and_towers,
        without_effect: &[],
    },
    Translation {
        model: "mmoe",
        required: &[("act", "activation"), ("experts", "experts"), ("expert_units", "expert_units")],
        optional: &[("gate_bias", "gate_bias"), ("gate_units", "gate_units")],
        special: norm_and_towers,
        without_effect: &[],
    },
    Translation {
        model: "cgc",
        required: &[
            ("act", "activation"),
            ("task_experts", "task_experts"),
            ("shared_experts", "shared_experts"),
            ("expert_units", "expert_units"),
        ],
        optional: &[("gate_bias", "gate_bias"), ("gate_units", "gate_units")],
        special: norm_and_towers,
        without_effect: &[],
    },
    Translation {
        model: "ple",
        required: &[
            ("act", "activation"),
            ("levels", "levels"),
            ("task_experts", "task_experts"),
            ("shared_experts", "shared_experts"),
            ("expert_units", "expert_units"),
        ],
        optional: &[("gate_bias", "gate_bias"), ("gate_units", "gate_units")],
        special: norm_and_towers,
        without_effect: &[],
    },
    Translation {
        model: "esmm",
        required: &[("act", "activation"), ("conditional", "conditional")],
        optional: &[],
        special: norm_and_towers,
        without_effect: &["gate_bias", "gate_units"],
    },
    Translation {
        model: "cross_stitch",
        required: &[("act", "activation"), ("units", "units"), ("per_unit", "per_unit")],
        optional: &[],
        special: norm_and_towers,
        without_effect: &["gate_bias", "gate_units"],
    },
    Translation {
        model: "aitm",
        required: &[
            ("act", "activation"),
            ("bottom_units", "bottom_units"),
            ("ait_shared", "transfer_shared"),
            ("calibrator_weight", "calibrator_weight"),
        ],
        optional: &[("ait_bias", "transfer_bias"), ("info_act", "info_activation")],
        special: norm_and_towers,
        without_effect: &["gate_bias", "gate_units"],
    },
    Translation {
        model: "escm2",
        required: &[
            ("act", "activation"),
            ("mode", "estimate"),
            ("base", "base"),
            ("propensity_min", "least_propensity"),
            ("propensity_grad", "propensity_gradient"),
            ("lambda_c", "conversion_weight"),
            ("lambda_g", "both_weight"),
        ],
        optional: &[
            ("experts", "experts"),
            ("expert_units", "expert_units"),
            ("gate_bias", "gate_bias"),
            ("gate_units", "gate_units"),
            ("imputation", "imputation"),
            ("imputation_grad", "imputation_gradient"),
        ],
        special: |keys, model| {
            model.insert("conditional".into(), "cvr".into());
            norm_and_towers(keys, model)
        },
        without_effect: &[],
    },
    Translation {
        model: "stem",
        required: &[
            ("act", "activation"),
            ("levels", "levels"),
            ("task_experts", "task_experts"),
            ("shared_experts", "shared_experts"),
            ("expert_units", "expert_units"),
        ],
        optional: &[],
        special: |keys, model| {
            bare_gates(keys, model)?;
            norm_and_towers(keys, model)
        },
        without_effect: &[],
    },
    Translation {
        model: "taml",
        required: &[
            ("act", "activation"),
            ("learners", "learners"),
            ("learner_experts", "learner_experts"),
            ("task_experts", "task_experts"),
            ("shared_experts", "shared_experts"),
            ("expert_units", "expert_units"),
            ("distill", "distill"),
            ("fused_weight", "fused_weight"),
            ("learner_weight", "learner_weight"),
            ("distill_weight", "distill_weight"),
        ],
        optional: &[("gate_bias", "gate_bias"), ("gate_units", "gate_units")],
        special: norm_and_towers,
        without_effect: &[],
    },
];

/// The reference's defaults are not the engine's: gates have neither a bias nor hidden layers.
fn bare_gates(keys: &mut Keys, model: &mut toml::Table) -> Result<(), String> {
    let bias: bool = keys.optional("gate_bias")?.unwrap_or(false);
    model.insert("gate_bias".into(), bias.into());
    let units: Vec<i64> = keys.optional("gate_units")?.unwrap_or_default();
    model.insert("gate_units".into(), units.into());
    Ok(())
}

/// The reference's defaults are not the engine's: no normalisation is spelt out, no hidden layers are.
fn norm_and_towers(keys: &mut Keys, model: &mut toml::Table) -> Result<(), String> {
    let norm = keys.optional::<String>("norm")?.unwrap_or_else(|| "none".into());
    model.insert("norm".into(), norm.into());
    let towers: Vec<i64> = keys.optional("tower_units")?.unwrap_or_default();
    model.insert("tower_units".into(), towers.into());
    Ok(())
}
