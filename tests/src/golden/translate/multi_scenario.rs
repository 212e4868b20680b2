//! Models of several scenarios.

use super::Translation;

pub(super) const TRANSLATIONS: &[Translation] = &[
    Translation {
        model: "apg",
        required: &[
            ("act", "activation"),
            ("scene_dim", "scenario_dim"),
            ("condition", "condition"),
            ("condition_fields", "condition_fields"),
            ("units", "units"),
            ("hyper_units", "hyper_units"),
            ("generate_bias", "generate_bias"),
        ],
        optional: &[("rank", "rank")],
        special: |keys, model| {
            let kind: String = keys.required("generate")?;
            model.insert("generate".into(), kind.replace("lowrank", "low_rank").into());
            let over = keys.optional::<u32>("over")?.unwrap_or(0);
            model.insert("over_rank".into(), i64::from(over).into());
            Ok(())
        },
        without_effect: &[],
    },
    Translation {
        model: "hamur",
        required: &[
            ("act", "activation"),
            ("units", "units"),
            ("adapters", "adapters"),
            ("adapter_width", "adapter_width"),
            ("rank", "rank"),
            ("hyper_units", "hyper_units"),
            ("backbone", "backbone"),
            ("eps", "epsilon"),
            ("momentum", "momentum"),
            ("running_var", "running_variance"),
        ],
        optional: &[],
        special: |_, _| Ok(()),
        without_effect: &[],
    },
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
