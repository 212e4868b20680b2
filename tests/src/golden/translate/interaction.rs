//! Models whose fields or behaviours interact.

use super::{Key, Keys, Translation};
use serde_json::{Map, Value};

pub(super) const TRANSLATIONS: &[Translation] = &[
    Translation {
        model: "dcn",
        required: &[],
        optional: DEEP_CROSS,
        special: |keys, model| match cross(keys, model)?.as_str() {
            "vector" => Ok(()),
            other => Err(format!("config key `cross.kind`: {other} is none of dcn's")),
        },
        without_effect: &[],
    },
    Translation {
        model: "dcn_v2",
        required: &[],
        optional: DEEP_CROSS,
        special: cross_kind,
        without_effect: &["embed_scale"],
    },
    Translation {
        model: "deepfm",
        required: &[("deep", "deep_units")],
        optional: &[("act", "activation"), ("dense_field", "dense_field")],
        special: |_, _| Ok(()),
        without_effect: &[],
    },
    Translation {
        model: "epnet_dcn",
        required: &[
            ("scene_dim", "scenario_dim"),
            ("domain_hidden", "gate_hidden"),
            ("gamma", "gamma"),
            ("granularity", "granularity"),
            ("stop_gradient", "stop_gradient"),
            ("gate_features", "gate_features"),
            ("scene_to_dcn", "scenario_to_dcn"),
            ("deep", "deep_units"),
        ],
        optional: &[("act", "activation"), ("scene_fields", "scenario_fields")],
        special: cross_kind,
        without_effect: &[],
    },
    Translation {
        model: "interactions",
        required: &[("deep", "deep_units")],
        optional: &[("act", "activation")],
        special: |keys, model| {
            let values: Map<String, Value> = keys.required("interaction")?;
            let names = ["kind", "layers", "heads", "head_dim", "scale"].map(|name| (name, name));
            rename("interaction", values, &names, model)
        },
        without_effect: &[],
    },
    Translation {
        model: "attention",
        required: &[("kind", "kind"), ("target", "target"), ("deep", "units")],
        optional: &[
            ("unit", "unit_units"),
            ("unit_act", "unit_activation"),
            ("softmax", "softmax"),
            ("layers", "layers"),
            ("position", "position"),
            ("pool", "attention_pool"),
        ],
        special: |keys, model| {
            let activation: Option<String> = keys.optional("act")?;
            model.insert("activation".into(), activation.unwrap_or("relu".into()).into());
            let history = first_sequence(keys).ok_or("attention without a sequence")?;
            model.insert("history".into(), history.into());
            tables(keys, model, &[("attention", ATTENTION)])
        },
        without_effect: &["empty_history"],
    },
    Translation {
        model: "dffm",
        required: &[("scene_dim", "scenario_dim"), ("dffi", "dffi_units"), ("fusion", "fusion_units")],
        optional: &[("act", "activation"), ("scene_field", "scenario_field"), ("target", "target")],
        special: domain_and_attention,
        without_effect: &["empty_history"],
    },
];

/// Keys of a Deep & Cross network.
const DEEP_CROSS: &[Key] = &[
    ("act", "activation"),
    ("structure", "structure"),
    ("deep", "deep_units"),
    ("scene_dim", "scenario_dim"),
];

/// The cross layers' keys with their kind.
fn cross_kind(keys: &mut Keys, model: &mut toml::Table) -> Result<(), String> {
    let kind = cross(keys, model)?;
    model.insert("cross".into(), kind.into());
    Ok(())
}

/// The cross layers' keys, which stand in a table of their own; returns their kind.
fn cross(keys: &mut Keys, model: &mut toml::Table) -> Result<String, String> {
    let mut values: Map<String, Value> = keys.required("cross")?;
    // None, where a mixture says so.
    if let Some(inner @ Value::Null) = values.get_mut("inner") {
        *inner = "none".into();
    }
    let kind = values.remove("kind").unwrap_or_default();
    let names = [
        ("layers", "cross_layers"),
        ("rank", "rank"),
        ("experts", "experts"),
        ("gate", "gate"),
        ("inner", "inner"),
        ("gate_shared", "gate_shared"),
    ];
    rename("cross", values, &names, model)?;
    kind.as_str().map(str::to_owned).ok_or_else(|| "config key `cross.kind` is missing".into())
}

/// Puts the values of a table into the model's keys, by their names there.
fn rename(
    table: &str,
    values: Map<String, Value>,
    names: &[Key],
    model: &mut toml::Table,
) -> Result<(), String> {
    for (theirs, value) in values {
        let Some((_, ours)) = names.iter().find(|(name, _)| *name == theirs) else {
            return Err(format!("config key `{table}.{theirs}` is not known"));
        };
        let value =
            toml::Value::try_from(value).map_err(|e| format!("config key `{table}.{theirs}`: {e}"))?;
        model.insert((*ours).to_owned(), value);
    }
    Ok(())
}

const ATTENTION: &[Key] = &[
    ("heads", "attention_heads"),
    ("head_dim", "attention_head_dim"),
    ("residual", "attention_residual"),
    ("norm", "attention_norm"),
    ("ffn", "ffn"),
];

/// The name of a case's first sequence.
fn first_sequence(keys: &Keys) -> Option<String> {
    keys.0.get("sequences")?.pointer("/0/name")?.as_str().map(str::to_owned)
}

/// dffm's parts, whose keys stand in tables of their own.
fn domain_and_attention(keys: &mut Keys, model: &mut toml::Table) -> Result<(), String> {
    if keys.0.get("dfub").is_some_and(|dfub| !dfub.is_null()) {
        let history = first_sequence(keys).ok_or("dfub without a sequence")?;
        model.insert("history".into(), history.into());
    }
    let renamed: [(&str, &[Key]); 3] = [
        (
            "domain",
            &[("hidden", "domain_units"), ("act", "domain_activation"), ("weights", "domain_weights")],
        ),
        (
            "interaction",
            &[
                ("kind", "interaction"),
                ("layers", "interaction_layers"),
                ("heads", "interaction_heads"),
                ("head_dim", "interaction_head_dim"),
                ("scale", "interaction_scale"),
            ],
        ),
        (
            "dfub",
            &[
                ("heads", "attention_heads"),
                ("head_dim", "attention_head_dim"),
                ("rank", "attention_rank"),
                ("condition", "attention_condition"),
                ("pool", "attention_pool"),
            ],
        ),
    ];
    tables(keys, model, &renamed)
}

/// Keys that stand in tables of their own.
fn tables(keys: &mut Keys, model: &mut toml::Table, renamed: &[(&str, &[Key])]) -> Result<(), String> {
    for &(table, names) in renamed {
        let values: Map<String, Value> = keys.optional(table)?.unwrap_or_default();
        rename(table, values, names, model)?;
    }
    Ok(())
}
