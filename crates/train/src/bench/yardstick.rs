//! The size that each architecture is measured at: about those of the scripts that other engines are measured with, on
//! the workload's 429 values a row.

use manygate_core::{Error, Result};

/// An architecture as it is measured.
#[derive(Clone, Debug)]
pub(super) struct Yardstick {
    /// The `[model]` table.
    pub(super) model: toml::Table,
    /// How many of the workload's tasks it predicts.
    pub(super) tasks: usize,
    /// How many lists of behaviours rows have: none, items, or items and the scenarios that they were met in.
    pub(super) lists: usize,
}

/// What is said of an architecture; it predicts all tasks and reads no lists unless that is said.
#[derive(Clone, Copy)]
struct Size {
    name: &'static str,
    keys: &'static str,
    tasks: usize,
    lists: usize,
}

const fn size(name: &'static str, keys: &'static str) -> Size {
    Size { name, keys, tasks: 3, lists: 0 }
}

const SIZES: &[Size] = &[
    // Deep networks of one shape, whatever stands before, between or beside their layers.
    Size { tasks: 1, ..size("adaptdhm", "units = [512, 256, 128]") },
    Size {
        tasks: 1,
        ..size("adasparse", "units = [512, 256, 128]\nprune_input = true\nsparsity_weight = 0.0")
    },
    Size { tasks: 1, ..size("apg", "units = [512, 256, 128]") },
    Size { tasks: 1, ..size("causalint", "units = [512, 256, 128]") },
    Size { tasks: 1, ..size("hamur", "units = [512, 256, 128]") },
    Size { tasks: 1, ..size("star", "units = [512, 256, 128]\nauxiliary_units = [128]") },
    size("lhuc", "units = [512, 256]\ntower_units = [128, 64]"),
    // Experts.
    size("mmoe", "gate_bias = true"),
    size("cgc", "task_experts = 4\nshared_experts = 4\nexpert_units = [256, 128]\ngate_bias = true"),
    size("ple", "task_experts = 4\nshared_experts = 4\nexpert_units = [256, 128]\ngate_bias = true"),
    size(
        "hinet",
        "scenario_dim = 16\nshared_sub_experts = 4\nsub_experts = 2\nsub_units = [256, 128]\nextraction = \"task\"\n\
         task_experts = 2\ncommon_experts = 4\nexpert_units = [256, 128]",
    ),
    Size { tasks: 2, ..size("escm2", "gate_bias = true") },
    // Networks and towers of tasks.
    size("aitm", "bottom_units = [512, 256]\ntower_units = [128, 64]"),
    Size { tasks: 2, ..size("esmm", "tower_units = [512, 256, 128]") },
    Size { tasks: 2, ..size("mtms", "stage = \"represent\"\ntower_units = [512, 256]") },
    size(
        "pepnet",
        "tower_units = [512, 256, 128]\ngate_hidden = 128\ngate_site = \"output\"\n\
         prior_fields = [\"field23\", \"field24\", \"field25\"]",
    ),
    // Interactions of fields.
    size("dcn", "deep_units = [512, 256]"),
    size("dcn_v2", "deep_units = [512, 256]"),
    size("epnet_dcn", "deep_units = [512, 256]"),
    size("interactions", "deep_units = [512, 256]"),
    Size { tasks: 1, ..size("deepfm", "") },
    // Behaviours.
    Size {
        lists: 1,
        ..size(
            "attention",
            "history = \"history\"\ntarget = \"field25\"\nunits = [512, 256]\nactivation = \"relu\"",
        )
    },
    Size {
        lists: 1,
        ..size(
            "dffm",
            "dffi_units = [512, 256]\nfusion_units = [128, 64]\nhistory = \"history\"\ntarget = \"field25\"\n\
             attention_heads = 4\nattention_head_dim = 8",
        )
    },
    Size {
        lists: 1,
        ..size(
            "m2m",
            "expert_units = [256, 64]\nmeta_per_task = false\nattention_heads = 4\nffn = 128\nscenario_units = [64]\ntask_dim = 64\n\
             task_units = [64]\nattention_meta = [64]\ntower_layers = 2\n\
             profile_fields = [\"field0\", \"field1\", \"field2\", \"field3\"]",
        )
    },
    Size {
        lists: 2,
        ..size(
            "sarnet",
            "history = \"history\"\nhistory_scenarios = \"history_scenarios\"\ntarget = \"field25\"\n\
             expert_units = [256, 128]",
        )
    },
];

impl Yardstick {
    /// The architecture called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn of(name: &str) -> Result<Yardstick> {
        let entry = manygate_models::find(name)?;
        let size = SIZES.iter().find(|size| size.name == entry.name).copied().unwrap_or(size(entry.name, ""));
        let mut model: toml::Table =
            size.keys.parse().map_err(|e: toml::de::Error| Error::config("model", e.message()))?;
        model.insert("name".to_owned(), name.into());
        Ok(Yardstick { model, tasks: size.tasks, lists: size.lists })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::inputs;
    use manygate_graph::{Mode, Plan, PlanOptions};

    #[test]
    fn every_architecture_can_be_measured() {
        for entry in manygate_models::MODELS {
            let Yardstick { model, tasks, lists } = Yardstick::of(entry.name).unwrap();
            let (_, architecture) = manygate_models::from_table(&model).unwrap();
            for mode in [Mode::Training, Mode::Evaluation] {
                let graph = manygate_models::build(architecture.as_ref(), &inputs(tasks, lists), mode);
                let graph = graph.unwrap_or_else(|e| panic!("{}: {e}", entry.name));
                Plan::compile(graph, PlanOptions::default()).unwrap();
            }
        }
    }

    #[test]
    fn sizes_are_of_architectures_that_exist() {
        for size in SIZES {
            assert_eq!(manygate_models::find(size.name).unwrap().name, size.name);
        }
    }
}
