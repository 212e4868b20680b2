//! Models whose fields or behaviours interact.

use super::{Keys, Translation};
use serde_json::{Map, Value};

pub(super) const TRANSLATIONS: &[Translation] = &[Translation {
    model: "dffm",
    required: &[("scene_dim", "scenario_dim"), ("dffi", "dffi_units"), ("fusion", "fusion_units")],
    optional: &[("act", "activation"), ("scene_field", "scenario_field"), ("target", "target")],
    special: domain_and_attention,
    without_effect: &["empty_history"],
}];

/// dffm's parts, whose keys stand in tables of their own.
fn domain_and_attention(keys: &mut Keys, model: &mut toml::Table) -> Result<(), String> {
    let renamed: [(&str, &[(&str, &str)]); 3] = [
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
    for (table, names) in renamed {
        let values: Map<String, Value> = keys.optional(table)?.unwrap_or_default();
        if table == "dfub" && !values.is_empty() {
            let history = keys.0.get("sequences").and_then(|s| s.pointer("/0/name")?.as_str());
            model.insert("history".into(), history.ok_or("dfub without a sequence")?.into());
        }
        for (theirs, value) in values {
            let Some((_, ours)) = names.iter().find(|(name, _)| *name == theirs) else {
                return Err(format!("config key `{table}.{theirs}` is not known"));
            };
            let value =
                toml::Value::try_from(value).map_err(|e| format!("config key `{table}.{theirs}`: {e}"))?;
            model.insert((*ours).to_owned(), value);
        }
    }
    Ok(())
}
