//! Models of several scenarios.

use super::Translation;

pub(super) const TRANSLATIONS: &[Translation] = &[
    Translation {
        model: "star",
        required: &[
            ("act", "activation"),
            ("units", "units"),
            ("norm", "partitioned_norm"),
            ("eps", "epsilon"),
            ("momentum", "momentum"),
            ("running_var", "running_variance"),
            ("scene_dim", "scenario_dim"),
        ],
        optional: &[("aux_units", "auxiliary_units")],
        special: |keys, model| {
            let input: String = keys.required("aux_input")?;
            let auxiliary = if model.contains_key("auxiliary_units") { input } else { "none".into() };
            model.insert("auxiliary".into(), auxiliary.into());
            Ok(())
        },
        without_effect: &["scene_rule"],
    },
    Translation {
        model: "hinet",
        required: &[
            ("act", "activation"),
            ("scene_dim", "scenario_dim"),
            ("shared_sub_experts", "shared_sub_experts"),
            ("sub_experts", "sub_experts"),
            ("sub_units", "sub_units"),
            ("attention_mode", "attention"),
            ("task_experts", "task_experts"),
            ("common_experts", "common_experts"),
            ("expert_units", "expert_units"),
            ("tower_units", "tower_units"),
        ],
        optional: &[],
        special: |keys, model| {
            let kind: String = keys.required("cgc")?;
            let kind = if kind == "scene_task" { "scenario_task".to_owned() } else { kind };
            model.insert("extraction".into(), kind.into());
            Ok(())
        },
        without_effect: &[],
    },
    Translation {
        model: "m2m",
        required: &[
            ("act", "activation"),
            ("attention_heads", "attention_heads"),
            ("ffn", "ffn"),
            ("experts", "experts"),
            ("expert_units", "expert_units"),
            ("scene_dim", "scenario_dim"),
            ("scene_units", "scenario_units"),
            ("profile_fields", "profile_fields"),
            ("task_dim", "task_dim"),
            ("task_units", "task_units"),
            ("attention_meta", "attention_meta"),
            ("tower_meta", "tower_meta"),
            ("tower_layers", "tower_layers"),
            ("meta_per_task", "meta_per_task"),
        ],
        optional: &[],
        special: |_, _| Ok(()),
        without_effect: &[],
    },
    Translation {
        model: "m3oe",
        required: &[
            ("act", "activation"),
            ("star_width", "star_width"),
            ("width", "width"),
            ("agnostic_units", "agnostic_units"),
            ("experts", "experts"),
            ("expert_width", "expert_width"),
            ("gate_detach", "gate_detach"),
            ("tower_units", "tower_units"),
        ],
        optional: &[],
        special: |_, _| Ok(()),
        without_effect: &[],
    },
    Translation {
        model: "adaptdhm",
        required: &[
            ("act", "activation"),
            ("clusters", "clusters"),
            ("routing", "routing"),
            ("beta", "beta"),
            ("units", "units"),
        ],
        optional: &[],
        special: |_, _| Ok(()),
        without_effect: &[],
    },
    Translation {
        model: "causalint",
        required: &[
            ("units", "units"),
            ("transfer", "transfer"),
            ("slope", "slope"),
            ("orth_weight", "orthogonality_weight"),
            ("conflict_weight", "conflict_weight"),
            ("meta", "meta"),
            ("inner_lr", "inner_rate"),
        ],
        optional: &[("first_order", "first_order"), ("basis_fixed", "basis_fixed")],
        special: |_, _| Ok(()),
        without_effect: &["absent_scene"],
    },
    Translation {
        model: "mtms",
        required: &[("stage", "stage"), ("tower", "tower_units")],
        optional: &[("warm_start", "warm_start")],
        special: |_, _| Ok(()),
        without_effect: &[],
    },
];
