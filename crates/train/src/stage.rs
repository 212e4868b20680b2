//! Stages of training: what learns from what, and for how long, one after the other.
//!
//! Parameters, state and tables pass from a stage to the next by name; each stage has a plan and fresh optimisers of its
//! own, whose bias corrections begin anew. A run without `[[stage]]` is one stage, that of `[train]`.

use crate::balance::Balance;
use crate::balancer::Balancer;
use crate::config::Config;
use crate::learner::Learner;
use crate::limits;
use crate::optim::OptimizerConfig;
use manygate_core::{Error, Executor, Result};
use manygate_graph::{Graph, LossPart, Mode, Plan, PlanOptions};
use manygate_models::{Architecture, Inputs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[[stage]]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// What it is called.
    pub name: String,
    /// Passes over the fit rows; those of `[train]` where neither passes nor steps are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Steps, in place of passes. The next stage goes on with the batch after them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Ends it early, after so many validations in a row without a better score than the best of the stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// Patterns of names that do not learn, beside `train.freeze`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Factors of parts of the loss by name; those not named keep 1. With 0 a part moves nothing; freeze what it alone
    /// trains where weight decay would.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub losses: BTreeMap<String, f32>,
    /// Keys of `[model]` that differ. The last stage trains the model that is served, and has none.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub model: toml::Table,
    /// The optimisers, in place of `[optimizer]` as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerConfig>,
}

/// A stage with everything filled in.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Empty for the only stage of a run without any.
    pub(crate) name: String,
    pub(crate) architecture: Box<dyn Architecture>,
    pub(crate) optimizer: OptimizerConfig,
    pub(crate) patience: Option<u64>,
    /// Most steps.
    pub(crate) steps: u64,
    freeze: Vec<String>,
    losses: BTreeMap<String, f32>,
    /// The section of the configuration, for messages.
    section: String,
}

impl Stage {
    /// The stages of a run of `batches` batches an epoch.
    ///
    /// # Errors
    /// As [`check`].
    pub(crate) fn all(config: &Config, batches: u64) -> Result<Vec<Stage>> {
        let only = [StageConfig::default()];
        let listed = if config.stage.is_empty() { &only[..] } else { &config.stage };
        check(config)?;
        let stages = listed.iter().enumerate().map(|(i, stage)| {
            let epochs = stage.epochs.unwrap_or(config.train.epochs);
            let steps = stage.steps.unwrap_or(epochs * batches);
            let mut optimizer = stage.optimizer.clone().unwrap_or_else(|| config.optimizer.clone());
            optimizer.schedule.end_with(steps);
            Ok(Stage {
                name: stage.name.clone(),
                architecture: manygate_models::from_table(&model(config, stage))?.1,
                optimizer,
                patience: stage.patience,
                steps,
                freeze: config.train.freeze.iter().chain(&stage.freeze).cloned().collect(),
                losses: stage.losses.clone(),
                section: if config.stage.is_empty() { "train".into() } else { format!("stage.{i}") },
            })
        });
        stages.collect()
    }

    /// The plan's options.
    ///
    /// # Errors
    /// When a pattern of frozen names fits nothing.
    pub(crate) fn options(&self, graph: &Graph) -> Result<PlanOptions> {
        for pattern in &self.freeze {
            let params = graph.params().iter().flat_map(|p| &p.blocks).map(|b| &b.name);
            let mut names = params.chain(graph.tables().iter().map(|t| &t.name));
            if !names.any(|name| manygate_graph::plan::matches(pattern, name)) {
                let message =
                    format!("`{pattern}` fits no parameter; `manygate inspect RUN` lists the names");
                return Err(Error::config(format!("{}.freeze", self.section), message));
            }
        }
        Ok(PlanOptions { frozen: self.freeze.clone(), ..PlanOptions::default() })
    }

    /// The factor of each part of the loss.
    ///
    /// # Errors
    /// When a name is that of no part.
    fn seeds(&self, parts: &[LossPart]) -> Result<Vec<f32>> {
        if let Some(unknown) = self.losses.keys().find(|name| !parts.iter().any(|p| p.name == **name)) {
            let names: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
            let message = format!("there is no loss `{unknown}`; there are: {}", names.join(", "));
            return Err(Error::config(format!("{}.losses", self.section), message));
        }
        Ok(parts.iter().map(|part| self.losses.get(&part.name).copied().unwrap_or(1.0)).collect())
    }

    /// Checks that this stage can follow one of the plan `first`: what a later stage has wrong should not come to light
    /// after hours.
    ///
    /// # Errors
    /// When it declares other parameters, or names what the model does not have.
    pub(crate) fn check(
        &self,
        first: &Plan,
        config: &Config,
        inputs: &Inputs,
        capacity: usize,
    ) -> Result<()> {
        let graph = self.graph(inputs, Mode::Training)?;
        let options = self.options(&graph)?;
        let plan = Plan::compile(graph, options)?;
        if plan.layout() != first.layout()
            || plan.state_layout() != first.state_layout()
            || plan.tables() != first.tables()
        {
            let message = "changes what the model declares; all stages need the same parameters and tables";
            return Err(Error::config(format!("{}.model", self.section), message));
        }
        limits::check_lookups(&plan, capacity)?;
        self.optimizer.check_groups(&plan)?;
        self.optimizer.schedule.schedule()?;
        let factors = self.seeds(plan.losses())?;
        if let Some(balance) = config.balance.as_ref().map(Balance::from_table).transpose()? {
            Balancer::check(&balance, &plan, &factors, &inputs.tasks)?;
        }
        Ok(())
    }

    /// Gives a learner of this stage its factors of losses and its balancing method.
    ///
    /// # Errors
    /// When either names what the model does not have.
    pub(crate) fn set_up(
        &self,
        learner: &mut Learner,
        config: &Config,
        inputs: &Inputs,
        exec: &dyn Executor,
    ) -> Result<()> {
        let seeds = self.seeds(learner.plan.losses())?;
        learner.seeds_mut().copy_from_slice(&seeds);
        if let Some(balance) = config.balance.as_ref().map(Balance::from_table).transpose()? {
            let graph = self.graph(inputs, Mode::Training)?;
            learner.balance_by(&balance, graph, &inputs.tasks, config.seed, exec)?;
        }
        Ok(())
    }

    /// The model's graph in this stage.
    ///
    /// # Errors
    /// When the model does not fit the inputs.
    pub(crate) fn graph(&self, inputs: &Inputs, mode: Mode) -> Result<Graph> {
        manygate_models::build(self.architecture.as_ref(), inputs, mode)
    }
}

/// `[model]` with what a stage changes.
fn model(config: &Config, stage: &StageConfig) -> toml::Table {
    let mut model = config.model.clone();
    model.extend(stage.model.clone());
    model
}

/// Checks what types cannot say of the stages.
///
/// # Errors
/// When a number is out of its range, names repeat, a model's key is wrong, or the last stage trains another model than
/// the one that is served.
pub(crate) fn check(config: &Config) -> Result<()> {
    for (i, stage) in config.stage.iter().enumerate() {
        let wrong = |key: &str, message: &str| Err(Error::config(format!("stage.{i}.{key}"), message));
        if stage.name.is_empty() || config.stage[..i].iter().any(|other| other.name == stage.name) {
            return wrong("name", "must be a name of its own");
        }
        if stage.epochs.is_some() && stage.steps.is_some() {
            return wrong("steps", "epochs are given as well; give one of them");
        }
        for (key, value) in [("epochs", stage.epochs), ("steps", stage.steps), ("patience", stage.patience)] {
            if value == Some(0) {
                return wrong(key, "must be at least 1");
            }
        }
        if stage.losses.values().any(|factor| !(factor.is_finite() && *factor >= 0.0)) {
            return wrong("losses", "must be numbers of at least 0");
        }
        if stage.model.contains_key("name") {
            return wrong("model.name", "all stages train one architecture, that of [model]");
        }
        if i + 1 == config.stage.len() && !stage.model.is_empty() {
            return wrong("model", "the last stage trains the model that is served; set its keys in [model]");
        }
        if let Some(optimizer) = &stage.optimizer {
            optimizer.check()?;
        }
        manygate_models::from_table(&model(config, stage))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(stages: &str) -> Config {
        let text = format!(
            "features = []\ntasks = []\n[data]\ntrain = [\"a.csv\"]\nvalid = {{ last_fraction = 0.1 }}\n\
             [model]\nname = \"mtms\"\n[train]\nepochs = 2\nfreeze = [\"embed.*\"]\n{stages}"
        );
        text.parse().unwrap()
    }

    #[test]
    fn a_run_without_stages_is_one() {
        let stages = Stage::all(&config(""), 10).unwrap();
        assert_eq!((stages.len(), stages[0].steps, stages[0].name.as_str()), (1, 20, ""));
    }

    #[test]
    fn stages_change_what_they_name() {
        let text = "[[stage]]\nname = \"one\"\nsteps = 7\nfreeze = [\"tower.*\"]\nmodel = { stage = \"represent\" }\n\
                    [stage.losses]\ncvr = 0.5\n[stage.optimizer.dense]\nrate = 0.5\n\
                    [[stage]]\nname = \"two\"\nepochs = 1\npatience = 3";
        let stages = Stage::all(&config(text), 10).unwrap();
        assert_eq!([stages[0].steps, stages[1].steps], [7, 10]);
        assert_eq!(stages[0].freeze, ["embed.*", "tower.*"]);
        assert_eq!(stages[0].architecture.resolved()["stage"].as_str(), Some("represent"));
        assert_eq!(stages[1].architecture.resolved()["stage"].as_str(), Some("finetune"));
        assert_eq!([stages[0].optimizer.dense.rate, stages[1].optimizer.dense.rate], [Some(0.5), None]);
        let part = |name: &str| LossPart::new(name, 1.0, manygate_graph::Over::Rows);
        assert_eq!(stages[0].seeds(&[part("ctr"), part("cvr")]).unwrap(), [1.0, 0.5]);
        let told = stages[0].seeds(&[part("ctr")]).unwrap_err().to_string();
        assert!(told.contains("stage.0.losses") && told.contains("there are: ctr"), "{told}");
    }

    #[test]
    fn wrong_stages_are_told() {
        let told = |text: &str| check(&config(text)).unwrap_err().to_string();
        let stage = |rest: &str| told(&format!("[[stage]]\nname = \"one\"\n{rest}"));
        assert!(stage("steps = 0").contains("stage.0.steps: must be at least 1"));
        assert!(stage("steps = 1\nepochs = 1").contains("give one of them"));
        assert!(stage("model = { stage = \"represent\" }").contains("stage.0.model: the last stage"));
        assert!(stage("[[stage]]\nname = \"one\"").contains("stage.1.name"));
        assert!(stage("losses = { ctr = -1.0 }").contains("at least 0"));
        assert!(stage("model = { units = [3] }\n[[stage]]\nname = \"two\"").contains("units"));
    }
}
