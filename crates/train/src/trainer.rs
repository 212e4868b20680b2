//! A run: data in, a run folder with the chosen model and its report out.

use crate::checkpoint::{CHECKPOINT_FILE, read_checkpoint, write_atomically, write_checkpoint, write_model};
use crate::config::{Config, Select};
use crate::evaluate::{evaluate_dataset, label_rates};
use crate::learner::Learner;
use crate::metrics::{ALL, Evaluation};
use crate::progress::{Event, Observer, Progress};
use crate::report::{Floors, TrainingPoint, ValidationPoint};
use crate::results::{RunFacts, finish};
use manygate_core::{Batch, Error, Executor, Pool, Result};
use manygate_data::{EpochOrder, Splits};
use manygate_graph::{Mode, Plan, PlanOptions};
use manygate_models::{Architecture, Inputs};
use manygate_runtime::{CONFIG_FILE, MODEL_FILE, Predictor, VOCAB_FOLDER, model_inputs};
use std::fs;
use std::path::Path;
use std::time::Instant;

pub use crate::results::Outcome;

/// How a run is executed; nothing here changes its result.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Threads; 0 means one for each core.
    pub threads: usize,
    /// Go on from the folder's checkpoint.
    pub resume: bool,
}

/// Trains as `config` says and leaves `config.toml`, `vocab/`, `model.safetensors`, `metrics.json`, `report.html` and
/// the last checkpoint in `folder`.
///
/// # Errors
/// When data or configuration cannot be used, the loss is not finite, or the file system refuses. Everything up to
/// the last checkpoint is kept, and the run can be resumed.
pub fn train(
    config: &Config,
    folder: &Path,
    options: RunOptions,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    config.check()?;
    // Read again at the end; that one cannot be read should not come to light only there.
    config.report.floors.as_ref().map(Floors::load).transpose()?;
    let started = Instant::now();
    let splits = manygate_data::load(&config.data, &config.features, &config.tasks, &mut |rows| {
        observer.event(&Event::Reading { rows });
    })?;
    let resolved = config.resolved()?;
    prepare_folder(folder, &resolved, &splits, options.resume)?;
    let pool = Pool::new(options.threads)?;
    pool.enter(|exec| {
        let mut run = Run::new(config, folder, resolved, &splits, exec)?;
        run.start(options.resume, observer)?;
        run.train(observer)?;
        let facts = RunFacts {
            config,
            folder,
            splits: &splits,
            progress: &run.progress,
            parameters: run.learner.parameter_counts(),
            rates: label_rates(splits.encoder.schema(), &splits.fit),
            threads: exec.threads(),
            isa: run.learner.plan.isa(),
            started,
        };
        finish(&facts, exec)
    })
}

/// A run that was killed before its first checkpoint leaves a folder without one, perhaps with a model: resuming
/// starts it again, which gives the same result, as long as it is the same configuration.
fn prepare_folder(folder: &Path, resolved: &str, splits: &Splits, resume: bool) -> Result<()> {
    let has_checkpoint = folder.join(CHECKPOINT_FILE).exists();
    let has_run = has_checkpoint || folder.join(MODEL_FILE).exists();
    if has_run && !resume {
        let message = "already holds a run; give another folder with --out, or go on with --resume";
        return Err(Error::format(folder, message));
    }
    let config = folder.join(CONFIG_FILE);
    if has_run
        && !has_checkpoint
        && fs::read_to_string(&config).map_err(Error::io("read", &config))? != resolved
    {
        let message =
            "belongs to a run with another configuration; resume with that one, or give another --out";
        return Err(Error::format(&config, message));
    }
    fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    if !has_checkpoint {
        write_atomically(&config, resolved.as_bytes())?;
        splits.encoder.save(&folder.join(VOCAB_FOLDER))?;
    }
    Ok(())
}

/// A run in memory.
struct Run<'a> {
    config: &'a Config,
    folder: &'a Path,
    resolved: String,
    splits: &'a Splits,
    exec: &'a dyn Executor,
    model: &'static str,
    learner: Learner,
    evaluation: Plan,
    order: EpochOrder,
    batch: Batch,
    progress: Progress,
}

impl<'a> Run<'a> {
    fn new(
        config: &'a Config,
        folder: &'a Path,
        resolved: String,
        splits: &'a Splits,
        exec: &'a dyn Executor,
    ) -> Result<Run<'a>> {
        let (entry, architecture) = manygate_models::from_table(&config.model)?;
        let inputs = model_inputs(splits.encoder.schema())?;
        let (batch_size, fit) = (config.train.batch_size, &splits.fit.batch);
        let mut learner =
            build_learner(config, architecture.as_ref(), &inputs, exec, batch_size.min(fit.rows))?;
        learner.reserve_for(fit);
        let graph = manygate_models::build(architecture.as_ref(), &inputs, Mode::Evaluation)?;
        let mut batch = Batch::empty_like(fit);
        batch.reserve_for(fit, batch_size.min(fit.rows));
        Ok(Run {
            config,
            folder,
            resolved,
            splits,
            exec,
            model: entry.name,
            learner,
            evaluation: Plan::compile(graph, PlanOptions::default())?,
            order: EpochOrder::new(config.seed, fit.rows, batch_size)?,
            batch,
            progress: Progress::default(),
        })
    }

    fn steps(&self) -> u64 {
        self.config.train.epochs * self.order.batches() as u64
    }

    fn start(&mut self, resume: bool, observer: &mut dyn Observer) -> Result<()> {
        let checkpoint = self.folder.join(CHECKPOINT_FILE);
        let resumed = resume && checkpoint.exists();
        if resumed {
            self.progress = read_checkpoint(&checkpoint, &mut self.learner, &self.resolved)?;
        }
        let (dense, tables) = self.learner.parameter_counts();
        observer.event(&Event::Ready {
            fit_rows: self.splits.fit.batch.rows,
            valid_rows: self.splits.valid.batch.rows,
            test_rows: self.splits.test.as_ref().map_or(0, |t| t.batch.rows),
            model: self.model,
            dense,
            tables,
            threads: self.exec.threads(),
            isa: self.learner.plan.isa().to_string(),
            steps: self.steps(),
            resumed_at: resumed.then_some(self.progress.step),
        });
        Ok(())
    }

    fn train(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let batches = self.order.batches();
        let validations = self.config.train.validations_per_epoch;
        while self.progress.epoch < self.config.train.epochs {
            let index = self.progress.batch as usize;
            self.step(index, observer)?;
            self.progress.batch += 1;
            let done = index + 1;
            // Validation v of V comes after floor(batches · v / V) steps of the epoch.
            let due = (1..=validations).any(|v| batches * v / validations == done);
            if done == batches {
                self.progress.epoch += 1;
                self.progress.batch = 0;
            }
            if due {
                self.validate(observer)?;
                write_checkpoint(
                    &self.folder.join(CHECKPOINT_FILE),
                    &self.learner,
                    &self.progress,
                    &self.resolved,
                )?;
            }
        }
        Ok(())
    }

    fn step(&mut self, index: usize, observer: &mut dyn Observer) -> Result<()> {
        let Some(rows) = self.order.batch(self.progress.epoch, index) else {
            return Err(Error::config("train", format!("there is no batch {index} in an epoch")));
        };
        self.batch.gather(&self.splits.fit.batch, rows);
        let losses = self.learner.step(self.exec, &self.batch)?;
        let point = TrainingPoint { step: self.progress.step + 1, loss: losses.to_vec() };
        let weights = self.learner.plan.losses().iter().map(|l| f64::from(l.weight));
        let loss = point.loss.iter().zip(weights).map(|(l, w)| l * w).sum();
        self.progress.step += 1;
        self.progress.training.push(point);
        let (step, steps) = (self.progress.step, self.steps());
        observer.event(&Event::Step { step, steps, rows: self.batch.rows, loss });
        Ok(())
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Learner { params, state, tables, .. } = &self.learner;
        let capacity = manygate_runtime::predictor::CHUNK_ROWS.min(self.splits.valid.batch.rows.max(1));
        let mut predictor = Predictor::new(&self.evaluation, params, state, tables, self.exec, capacity);
        let schema = self.splits.encoder.schema();
        let (evaluation, _) = evaluate_dataset(&mut predictor, self.exec, schema, &self.splits.valid)?;
        let score = self.score(&evaluation);
        let best = self.progress.best_score.is_none_or(|b| score.is_some_and(|s| s > b));
        if best {
            write_model(&self.folder.join(MODEL_FILE), &self.learner)?;
            self.progress.best_step = Some(self.progress.step);
            self.progress.best_score = score;
        }
        let epochs = self.progress.step as f64 / self.order.batches() as f64;
        observer.event(&Event::Validated { step: self.progress.step, epochs, evaluation: &evaluation, best });
        self.progress.validation.push(ValidationPoint { step: self.progress.step, evaluation });
        Ok(())
    }

    /// What the choice of the checkpoint maximises; [`None`] when no selected task has the metric.
    fn score(&self, evaluation: &Evaluation) -> Option<f64> {
        let selected = &self.config.train.select_tasks;
        let tasks = self.splits.encoder.schema().tasks.iter().map(|t| &t.name);
        let scores: Vec<f64> = tasks
            .filter(|name| selected.is_empty() || selected.contains(name))
            .filter_map(|name| evaluation.get(name, ALL))
            .filter_map(|m| match self.config.train.select {
                Select::Auc => m.auc,
                Select::Logloss => m.logloss.map(|l| -l),
            })
            .collect();
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

/// A learner as `config` says.
///
/// # Errors
/// When the model does not fit the inputs, or a freeze pattern fits nothing.
pub fn build_learner(
    config: &Config,
    architecture: &dyn Architecture,
    inputs: &Inputs,
    exec: &dyn Executor,
    capacity: usize,
) -> Result<Learner> {
    let graph = manygate_models::build(architecture, inputs, Mode::Training)?;
    for pattern in &config.train.freeze {
        let params = graph.params().iter().flat_map(|p| &p.blocks).map(|b| &b.name);
        let mut names = params.chain(graph.tables().iter().map(|t| &t.name));
        if !names.any(|name| manygate_graph::plan::matches(pattern, name)) {
            let message = format!("`{pattern}` fits no parameter; `manygate inspect RUN` lists the names");
            return Err(Error::config("train.freeze", message));
        }
    }
    let options = PlanOptions { frozen: config.train.freeze.clone(), ..PlanOptions::default() };
    Learner::new(graph, options, &config.optimizer, config.seed, exec, capacity)
}
