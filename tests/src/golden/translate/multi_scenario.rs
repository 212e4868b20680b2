//! Models of several scenarios.

use super::Translation;
use serde_json::Value;

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
        model: "sarnet",
        required: &[
            ("act", "activation"),
            ("scene_dim", "scenario_dim"),
            ("target_field", "target"),
            ("attention_units", "attention_units"),
            ("units", "expert_units"),
            ("bias_units", "bias_units"),
            ("shared_experts", "shared_experts"),
            ("specific_experts", "scenario_experts"),
        ],
        optional: &[],
        special: |keys, model| {
            if keys.required("debias")? {
                model.insert("fairness".into(), "fairness".into());
            }
            model.insert("history".into(), "behaviour".into());
            model.insert("history_scenarios".into(), "behaviour_scene".into());
            // A behaviour looks up the table of the target item.
            let first = keys.0.get_mut("sequences").and_then(|sequences| sequences.pointer_mut("/0"));
            let first = first.and_then(Value::as_object_mut).ok_or("sarnet without a sequence")?;
            let target = model["target"].as_str().unwrap_or_default();
            first.insert("shares".into(), target.into());
            Ok(())
        },
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
