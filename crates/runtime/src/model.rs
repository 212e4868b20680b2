//! A trained model, opened from its run folder.

use crate::inputs::model_inputs;
use crate::tensors::TensorFile;
use manygate_core::{Error, Result, Serial};
use manygate_embedding::{Table, Tables};
use manygate_features::Encoder;
use manygate_graph::{Mode, Parameters, Plan, PlanOptions, Prepared};
use manygate_models::{Architecture, Entry};
use std::path::Path;
use std::sync::Arc;

/// File of the resolved configuration in a run folder.
pub const CONFIG_FILE: &str = "config.toml";
/// Folder of the schema and vocabularies in a run folder.
pub const VOCAB_FOLDER: &str = "vocab";
/// File of the chosen model in a run folder.
pub const MODEL_FILE: &str = "model.safetensors";

/// Weights of a model: parameters, state and tables, by the layout of its plan.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Dense parameters.
    pub params: Parameters,
    /// State that no gradient moves.
    pub state: Parameters,
    /// Embedding tables, without optimiser state.
    pub tables: Tables,
}

impl Weights {
    /// Reads the weights that `plan` needs from a tensor file.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or is one too many.
    pub fn read(plan: &Plan, file: &TensorFile) -> Result<Weights> {
        // Before memory is asked for: the configuration may be that of a far larger model.
        for (block, _) in plan.layout().blocks().chain(plan.state_layout().blocks()) {
            file.tensor(&block.name, &block.shape)?;
        }
        for spec in plan.tables() {
            file.tensor(&spec.name, &[spec.rows, spec.dim])?;
        }
        let mut known = 0;
        let mut fill = |set: &mut Parameters| -> Result<()> {
            let layout = set.layout().clone();
            for (block, range) in layout.blocks() {
                set.values[range].copy_from_slice(file.tensor(&block.name, &block.shape)?);
                known += 1;
            }
            Ok(())
        };
        let mut params = Parameters::initial(Arc::clone(plan.layout()), 0);
        let mut state = Parameters::initial(Arc::clone(plan.state_layout()), 0);
        fill(&mut params)?;
        fill(&mut state)?;
        let mut tables = Vec::with_capacity(plan.tables().len());
        for spec in plan.tables() {
            let mut table = Table::zeroed(spec.clone(), 0);
            table.set_weights(file.tensor(&spec.name, &[spec.rows, spec.dim])?)?;
            tables.push(table);
        }
        known += tables.len();
        if file.shapes().count() != known {
            let owned = |name: &str| {
                let sets = [params.layout(), state.layout()];
                sets.iter().any(|l| l.blocks().any(|(b, _)| b.name == name))
                    || plan.tables().iter().any(|t| t.name == name)
            };
            let extra = file.shapes().find(|(name, _)| !owned(name)).map_or("", |(name, _)| name);
            return Err(Error::format(
                file.path(),
                format!("holds the tensor `{extra}`, which the model does not have"),
            ));
        }
        Ok(Weights { params, state, tables: Tables(tables) })
    }
}

/// A model ready to predict: plan, weights and the encoder of raw values. It is read only, so that any number of
/// threads share one.
#[derive(Debug)]
pub struct Model {
    /// Name of its architecture.
    pub name: String,
    /// Raw values to ids and numbers.
    pub encoder: Encoder,
    /// The evaluation plan.
    pub plan: Plan,
    weights: Weights,
    prepared: Prepared,
}

impl Model {
    /// Opens the run folder that training left, to predict: auxiliary tasks are not among the outputs, and their towers
    /// are not computed.
    ///
    /// # Errors
    /// When a file is missing, damaged or does not fit the others.
    pub fn open(folder: &Path) -> Result<Model> {
        Model::open_with(folder, false)
    }

    /// The same with the outputs of auxiliary tasks, to score all tasks on labelled rows.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_to_score(folder: &Path) -> Result<Model> {
        Model::open_with(folder, true)
    }

    fn open_with(folder: &Path, auxiliary: bool) -> Result<Model> {
        check_folder(folder)?;
        let (entry, architecture) = read_architecture(&folder.join(CONFIG_FILE))?;
        Model::opened(folder, entry.name, architecture.as_ref(), auxiliary)
    }

    /// Opens a run folder of an architecture that is not in the registry, with the name that it goes by.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_as(folder: &Path, name: &str, architecture: &dyn Architecture) -> Result<Model> {
        check_folder(folder)?;
        Model::opened(folder, name, architecture, false)
    }

    fn opened(folder: &Path, name: &str, architecture: &dyn Architecture, auxiliary: bool) -> Result<Model> {
        let encoder = Encoder::load(&folder.join(VOCAB_FOLDER))?;
        let plan = evaluation_plan(architecture, &encoder, auxiliary)?;
        let path = folder.join(MODEL_FILE);
        if !path.exists() {
            let message = "there is no model yet: training writes it at its first validation; let the run go on, or \
                           resume it with `manygate train --resume`";
            return Err(Error::format(path, message));
        }
        let file = TensorFile::read(&path, "model")?;
        let weights = Weights::read(&plan, &file)?;
        Model::over(name, encoder, plan, weights)
    }

    /// A model of weights in memory.
    ///
    /// # Errors
    /// When the architecture does not fit the encoder's schema, or the weights are not its own.
    pub fn new(
        name: &str,
        architecture: &dyn Architecture,
        encoder: Encoder,
        weights: Weights,
    ) -> Result<Model> {
        let plan = evaluation_plan(architecture, &encoder, false)?;
        Model::over(name, encoder, plan, weights)
    }

    fn over(name: &str, encoder: Encoder, plan: Plan, weights: Weights) -> Result<Model> {
        let prepared = plan.prepare(&Serial, &weights.params, &weights.state, &weights.tables)?;
        Ok(Model { name: name.to_owned(), encoder, plan, weights, prepared })
    }

    /// The weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What was computed of the weights alone, for all predictors.
    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Bytes of the weights: parameters, tables, and what was computed of them. Predictors share them.
    pub fn bytes(&self) -> usize {
        let Weights { params, state, tables } = &self.weights;
        let values = params.values.len()
            + state.values.len()
            + tables.0.iter().map(|table| table.values().len()).sum::<usize>();
        values * size_of::<f32>() + self.prepared.bytes()
    }
}

/// The plan of the served outputs, or with `auxiliary` of all.
fn evaluation_plan(architecture: &dyn Architecture, encoder: &Encoder, auxiliary: bool) -> Result<Plan> {
    let inputs = model_inputs(encoder.schema())?;
    let mut graph = manygate_models::build(architecture, &inputs, Mode::Evaluation)?;
    let is_auxiliary = |name: &str| inputs.tasks.iter().any(|task| task.name == name && task.auxiliary);
    graph.retain_outputs(|name| auxiliary || !is_auxiliary(name));
    Plan::compile(graph, PlanOptions::default())
}

/// Checks that `folder` holds a run, be it unfinished.
///
/// # Errors
/// [`Error::Config`] when there is no such folder, or it lacks the configuration that every run begins with.
pub fn check_folder(folder: &Path) -> Result<()> {
    let wrong = |message: String| Err(Error::config("RUN", message));
    if !folder.is_dir() {
        return wrong(format!("there is no folder `{}`; give a run folder", folder.display()));
    }
    if !folder.join(CONFIG_FILE).exists() {
        let folder = folder.display();
        return wrong(format!(
            "`{folder}` is no run folder: it has no {CONFIG_FILE}; `manygate train` makes one"
        ));
    }
    Ok(())
}

fn read_architecture(path: &Path) -> Result<(&'static Entry, Box<dyn Architecture>)> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let config: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| Error::format(path, format!("is not TOML: {}", e.message())))?;
    match config.get("model") {
        Some(toml::Value::Table(model)) => manygate_models::from_table(model),
        _ => Err(Error::format(path, "has no [model] section")),
    }
}
