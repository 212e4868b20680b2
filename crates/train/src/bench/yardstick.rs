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
    /// Whether rows have a history of behaviours.
    pub(super) history: bool,
}

/// What is said of an architecture; it predicts all tasks and reads no history unless that is said.
#[derive(Clone, Copy)]
struct Size {
    name: &'static str,
    keys: &'static str,
    tasks: usize,
    history: bool,
}

const fn size(name: &'static str, keys: &'static str) -> Size {
    Size { name, keys, tasks: 3, history: false }
}

const SIZES: &[Size] = &[
    size("mmoe", "gate_bias = true"),
    size("cgc", "task_experts = 4\nshared_experts = 4\nexpert_units = [256, 128]\ngate_bias = true"),
    size("ple", "task_experts = 4\nshared_experts = 4\nexpert_units = [256, 128]\ngate_bias = true"),
    Size { tasks: 2, ..size("esmm", "tower_units = [512, 256, 128]") },
    Size { tasks: 1, ..size("star", "units = [512, 256, 128]\nauxiliary_units = [128]") },
    Size { tasks: 1, ..size("causalint", "units = [512, 256, 128]") },
    Size { tasks: 2, ..size("mtms", "stage = \"represent\"\ntower_units = [512, 256]") },
    Size {
        history: true,
        ..size(
            "m2m",
            "expert_units = [256, 64]\nattention_heads = 4\nffn = 128\nscenario_units = [64]\ntask_dim = 64\n\
             task_units = [64]\nattention_meta = [64]\ntower_layers = 2\n\
             profile_fields = [\"field0\", \"field1\", \"field2\", \"field3\"]",
        )
    },
    Size {
        history: true,
        ..size(
            "dffm",
            "dffi_units = [512, 256]\nfusion_units = [128, 64]\nhistory = \"history\"\ntarget = \"field25\"\n\
             attention_heads = 4\nattention_head_dim = 8",
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
        Ok(Yardstick { model, tasks: size.tasks, history: size.history })
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
            let Yardstick { model, tasks, history } = Yardstick::of(entry.name).unwrap();
            let (_, architecture) = manygate_models::from_table(&model).unwrap();
            for mode in [Mode::Training, Mode::Evaluation] {
                let graph = manygate_models::build(architecture.as_ref(), &inputs(tasks, history), mode);
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
