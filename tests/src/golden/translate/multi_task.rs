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
];

/// The reference's defaults are not the engine's: no normalisation is spelt out, no hidden layers are.
fn norm_and_towers(keys: &mut Keys, model: &mut toml::Table) -> Result<(), String> {
    let norm = keys.optional::<String>("norm")?.unwrap_or_else(|| "none".into());
    model.insert("norm".into(), norm.into());
    let towers: Vec<i64> = keys.optional("tower_units")?.unwrap_or_default();
    model.insert("tower_units".into(), towers.into());
    Ok(())
}
