//! Models of several scenarios.

use super::Translation;
use serde_json::Value;

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
    Translation {
        model: "lhuc",
        required: &[
            ("act", "activation"),
            ("units", "units"),
            ("form", "form"),
            ("site", "site"),
            ("tower_units", "tower_units"),
        ],
        optional: &[
            ("gate_units", "gate_units"),
            ("gate_fields", "gate_fields"),
            ("gate_general", "gate_general"),
        ],
        special: |keys, model| {
            let amplitude: String = keys.required("amplitude")?;
            let amplitude = if amplitude == "sigmoid2" { "sigmoid".to_owned() } else { amplitude };
            model.insert("amplitude".into(), amplitude.into());
            // 0 in the vector form, which has no embedding.
            let width: i64 = keys.required("scene_dim")?;
            if width > 0 {
                model.insert("scenario_dim".into(), width.into());
            }
            Ok(())
        },
        without_effect: &[],
    },
    Translation {
        model: "pepnet",
        required: &[
            ("act", "activation"),
            ("scene_dim", "scenario_dim"),
            ("units", "tower_units"),
            ("gamma", "gamma"),
            ("epnet", "epnet"),
            ("ppnet", "ppnet"),
            ("domain_fields", "domain_fields"),
            ("prior_fields", "prior_fields"),
            ("prior_tables", "prior_tables"),
            ("gate_site", "gate_site"),
            ("stop_gradient", "stop_gradient"),
        ],
        optional: &[],
        special: |keys, model| {
            // Null stands for as many as a gate has amplitudes.
            let hidden: Option<i64> = keys.optional("gate_hidden")?;
            model.insert("gate_hidden".into(), hidden.unwrap_or(0).into());
            Ok(())
        },
        without_effect: &[],
    },
    Translation {
        model: "adasparse",
        required: &[
            ("act", "activation"),
            ("scene_dim", "scenario_dim"),
            ("units", "units"),
            ("form", "form"),
            ("domain_fields", "domain_fields"),
            ("pruner_units", "pruner_units"),
            ("prune_input", "prune_input"),
            ("alpha", "alpha"),
            ("beta", "beta"),
            ("epsilon", "epsilon"),
            ("straight_through", "straight_through"),
            ("r_min", "ratio_min"),
            ("r_max", "ratio_max"),
        ],
        optional: &[],
        special: |keys, model| {
            let weight: f64 = keys.required("lambda")?;
            let is_on: bool = keys.required("sparsity")?;
            model.insert("sparsity_weight".into(), if is_on { weight } else { 0.0 }.into());
            Ok(())
        },
        without_effect: &[],
    },
];
