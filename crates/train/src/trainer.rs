//! A run: data in, a run folder with the chosen model and its report out.

use crate::cancel::Cancel;
use crate::checkpoint::{CHECKPOINT_FILE, Checkpoint, write_checkpoint};
use crate::choice::Choice;
use crate::config::Config;
use crate::evaluate::{evaluate_outputs, label_means};
use crate::learner::Learner;
use crate::progress::{Event, Observer, Progress};
use crate::report::{Floors, TrainingPoint, ValidationPoint};
use crate::results::{RunFacts, finish};
use crate::run_folder;
use crate::selection::{Score, Select};
use crate::stage::Stage;
use crate::start_from::{Beginning, StartFrom};
use crate::steps::{DeviceChoice, PrecisionChoice, Stepped, Steps};
use manygate_core::{Batch, Error, Executor, Pool, Result};
use manygate_data::{EpochOrder, Splits};
use manygate_features::Encoder;
use manygate_graph::{Mode, Plan, PlanOptions};
use manygate_models::Inputs;
use manygate_runtime::{MODEL_FILE, VOCAB_FOLDER, model_inputs};
use std::path::Path;
use std::time::{Duration, Instant};

pub use crate::results::Outcome;

/// How old the last checkpoint of a run on a device is at a validation that writes one, whatever it reached.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(600);

/// How a run is executed. Threads change nothing of its result; a device rounds sums differently.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Threads; 0 means one for each core.
    pub threads: usize,
    /// Go on from the folder's checkpoint.
    pub resume: bool,
    /// Stops the run when asked.
    pub cancel: Cancel,
    /// Where steps are taken.
    pub device: DeviceChoice,
    /// What products multiply in there.
    pub precision: PrecisionChoice,
}

/// Trains as `config` says and leaves `config.toml`, `vocab/`, `model.safetensors`, `metrics.json`, `report.html` and
/// the last checkpoint in `folder`.
///
/// # Errors
/// When data or configuration cannot be used, another process trains in the folder, the loss is not finite, or the file
/// system refuses; [`Error::Interrupted`] when it was asked to stop. Everything up to the last checkpoint is kept, and the
/// run can be resumed.
pub fn train(
    config: &Config,
    folder: &Path,
    options: RunOptions,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    config.check()?;
    options.device.check(options.precision)?;
    // Read again at the end; that one cannot be read should not come to light only there.
    config.report.floors.as_ref().map(Floors::load).transpose()?;
    let started = Instant::now();
    let lock = run_folder::claim(folder, options.resume)?;
    // A checkpoint holds what was taken over, and the folder its vocabularies: the old run is not needed any more.
    let resumes = options.resume && folder.join(CHECKPOINT_FILE).exists();
    let start = match &config.train.start_from {
        Some(old) if !resumes => Some(StartFrom::open(old, config)?),
        _ => None,
    };
    let known = match &start {
        Some(start) => Some(start.encoder().clone()),
        None if config.train.start_from.is_some() => Some(Encoder::load(&folder.join(VOCAB_FOLDER))?),
        None => None,
    };
    let progress = &mut |rows| observer.event(&Event::Reading { rows });
    let splits = manygate_data::load_keeping(&config.data, &config.features, &config.tasks, known, progress)?;
    let resolved = config.resolved()?;
    let _lock = run_folder::prepare(folder, lock, &resolved, &splits.encoder, options.resume)?;
    let pool = Pool::new(options.threads)?;
    pool.enter(|exec| {
        let mut run = Run::new(config, folder, resolved, &splits, exec, &options, start.as_ref())?;
        run.start(observer);
        run.train(observer, &options.cancel)?;
        // The chosen model takes its place on a device.
        run.steps = Steps::Cpu;
        let facts = RunFacts {
            config,
            folder,
            splits: &splits,
            progress: &run.progress,
            task_steps: run.choice.task_steps(&run.progress.chosen),
            losses: run.learner.plan.losses().iter().map(|part| part.name.clone()).collect(),
            parameters: run.learner.parameter_counts(),
            means: label_means(splits.encoder.schema(), &splits.fit),
            device: options.device,
            threads: exec.threads(),
            isa: run.learner.plan.isa(),
            started,
        };
        finish(&facts, exec)
    })
}

/// A run in memory.
struct Run<'a> {
    config: &'a Config,
    folder: &'a Path,
    resolved: String,
    splits: &'a Splits,
    exec: &'a dyn Executor,
    options: &'a RunOptions,
    model: &'static str,
    inputs: Inputs,
    stages: Vec<Stage>,
    choice: Choice,
    learner: Learner,
    steps: Steps,
    evaluation: Plan,
    order: EpochOrder,
    batch: Batch,
    progress: Progress,
    /// Step from which a resumed run goes on.
    resumed_at: Option<u64>,
    /// When its last checkpoint was written, or it began.
    kept_at: Instant,
    /// Where the weights of another run are its first ones.
    beginning: Option<Beginning>,
}

impl<'a> Run<'a> {
    /// A run at its start, or where its last checkpoint left it.
    fn new(
        config: &'a Config,
        folder: &'a Path,
        resolved: String,
        splits: &'a Splits,
        exec: &'a dyn Executor,
        options: &'a RunOptions,
        start: Option<&StartFrom>,
    ) -> Result<Run<'a>> {
        let (entry, _) = manygate_models::from_table(&config.model)?;
        let inputs = model_inputs(splits.encoder.schema())?;
        let (batch_size, fit) = (config.train.batch_size, &splits.fit.batch);
        let order = EpochOrder::new(config.seed, fit.rows, batch_size)?;
        let stages = Stage::all(config, order.batches() as u64)?;
        let path = folder.join(CHECKPOINT_FILE);
        let checkpoint =
            if options.resume && path.exists() { Some(Checkpoint::read(&path, &resolved)?) } else { None };
        let progress = checkpoint.as_ref().map(|c| c.progress.clone()).unwrap_or_default();
        let exists = |stage: &&Stage| {
            progress.batch < order.batches() as u64
                && progress.stage_step <= progress.step.min(stage.steps)
                && progress.epoch <= progress.step
        };
        let Some(stage) = stages.get(progress.stage as usize).filter(exists) else {
            return Err(Error::format(
                &path,
                "is in a place that no run of this configuration comes to; use a copy",
            ));
        };
        let graph = stage.graph(&inputs, Mode::Training)?;
        let (plan_options, capacity) = (stage.options(&graph)?, batch_size.min(fit.rows));
        let mut learner = Learner::new(graph, plan_options, &stage.optimizer, config.seed, exec, capacity)?;
        for other in &stages {
            other.check(&learner.plan, config, &inputs, capacity)?;
        }
        stage.set_up(&mut learner, config, &inputs, exec)?;
        if let Some(checkpoint) = &checkpoint {
            checkpoint.restore(&mut learner)?;
        }
        let schema = splits.encoder.schema();
        let begin = |start: &StartFrom| start.begin(&mut learner, &stages, schema, &splits.valid.batch, exec);
        let beginning = start.map(begin).transpose()?;
        let evaluation = Plan::compile(stage.graph(&inputs, Mode::Evaluation)?, PlanOptions::default())?;
        let steps =
            Steps::new(options.device, options.precision, &mut learner, &evaluation, splits, capacity)?;
        let mut batch = Batch::empty_like(fit);
        batch.reserve_for(fit, batch_size.min(fit.rows));
        let resumed_at = checkpoint.map(|c| c.progress.step);
        // What earlier stages train is not what is served.
        let choice = Choice::of(stages[stages.len() - 1].architecture.as_ref(), &inputs);
        Ok(Run {
            config,
            folder,
            resolved,
            splits,
            exec,
            options,
            model: entry.name,
            inputs,
            stages,
            choice,
            learner,
            steps,
            evaluation,
            order,
            batch,
            progress,
            resumed_at,
            kept_at: Instant::now(),
            beginning,
        })
    }

    fn stage(&self) -> &Stage {
        &self.stages[self.progress.stage as usize]
    }

    fn is_last_stage(&self) -> bool {
        self.progress.stage as usize + 1 == self.stages.len()
    }

    /// Steps of the whole run, as far as it is known: a stage may end early.
    fn planned_steps(&self) -> u64 {
        let planned: u64 = self.stages[self.progress.stage as usize..].iter().map(|s| s.steps).sum();
        self.progress.step - self.progress.stage_step + planned
    }

    fn start(&self, observer: &mut dyn Observer) {
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
            steps: self.planned_steps(),
            resumed_at: self.resumed_at,
        });
        if let Some(beginning) = &self.beginning {
            observer.event(&Event::Begun { beginning });
        }
        observer.event(&Event::Violated { violations: &self.splits.violations() });
    }

    fn train(&mut self, observer: &mut dyn Observer, cancel: &Cancel) -> Result<()> {
        loop {
            self.tell_stage(observer);
            while !self.stage_is_over() {
                self.stop_if_asked(observer, cancel)?;
                self.step_and_validate(observer)?;
            }
            if self.is_last_stage() {
                return self.stop_if_asked(observer, cancel);
            }
            self.next_stage()?;
        }
    }

    /// Between any two steps: the order of rows and all random numbers are functions of the position, which the
    /// checkpoint holds.
    fn stop_if_asked(&mut self, observer: &mut dyn Observer, cancel: &Cancel) -> Result<()> {
        if !cancel.is_requested() {
            return Ok(());
        }
        self.finish_step(observer)?;
        self.write_checkpoint()?;
        Err(Error::Interrupted { step: self.progress.step })
    }

    fn write_checkpoint(&mut self) -> Result<()> {
        self.steps.bring(&mut self.learner)?;
        let path = self.folder.join(CHECKPOINT_FILE);
        write_checkpoint(&path, &self.learner, &self.progress, &self.resolved)?;
        self.kept_at = Instant::now();
        Ok(())
    }

    /// Whether a validation ends in a checkpoint. All do where weights are at hand; from a device they are brought when they
    /// are kept as the best, at the end of a stage, and else from time to time.
    fn checkpoint_is_due(&self, is_better: bool) -> bool {
        let is_old = self.kept_at.elapsed() >= CHECKPOINT_INTERVAL;
        is_better || is_old || self.steps.are_at_hand() || self.stage_is_over()
    }

    fn tell_stage(&self, observer: &mut dyn Observer) {
        let stage = self.stage();
        if !stage.name.is_empty() {
            let (number, stages) = (self.progress.stage + 1, self.stages.len() as u64);
            observer.event(&Event::Stage { name: &stage.name, number, stages, steps: stage.steps });
        }
    }

    fn stage_is_over(&self) -> bool {
        let stage = self.stage();
        let stalls = stage.patience.is_some_and(|patience| self.progress.stage_worse >= patience);
        self.progress.stage_step >= stage.steps || stalls
    }

    /// Parameters, state and tables go on; optimisers begin anew.
    fn next_stage(&mut self) -> Result<()> {
        let Progress { stage, stage_step, stage_best, stage_worse, .. } = &mut self.progress;
        *stage += 1;
        (*stage_step, *stage_best, *stage_worse) = (0, None, 0);
        let (stage, inputs) = (&self.stages[*stage as usize], &self.inputs);
        let graph = stage.graph(inputs, Mode::Training)?;
        let options = stage.options(&graph)?;
        self.learner.begin_stage(graph, options, &stage.optimizer)?;
        stage.set_up(&mut self.learner, self.config, inputs, self.exec)?;
        stage.architecture.begin_stage(inputs, &mut self.learner.params)?;
        let (RunOptions { device, precision, .. }, fit) = (self.options, &self.splits.fit.batch);
        let capacity = self.config.train.batch_size.min(fit.rows);
        self.evaluation = Plan::compile(stage.graph(inputs, Mode::Evaluation)?, PlanOptions::default())?;
        // The device has no room for the models of two stages.
        self.steps = Steps::Cpu;
        let (learner, evaluation) = (&mut self.learner, &self.evaluation);
        self.steps = Steps::new(*device, *precision, learner, evaluation, self.splits, capacity)?;
        Ok(())
    }

    fn step_and_validate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let batches = self.order.batches();
        let validations = self.config.train.validations_per_epoch;
        let index = self.progress.batch as usize;
        self.step(index, observer)?;
        self.progress.batch += 1;
        let done = index + 1;
        // Validation v of V comes after floor(batches · v / V) steps of the epoch, and one at the end of a stage.
        let in_epoch = (1..=validations).any(|v| batches * v / validations == done);
        if done == batches {
            self.progress.epoch += 1;
            self.progress.batch = 0;
        }
        if in_epoch || self.progress.stage_step == self.stage().steps {
            self.finish_step(observer)?;
            if self.validate(observer)? {
                self.write_checkpoint()?;
            }
        }
        Ok(())
    }

    fn step(&mut self, index: usize, observer: &mut dyn Observer) -> Result<()> {
        let Some(rows) = self.order.batch(self.progress.epoch, index) else {
            return Err(Error::config("train", format!("there is no batch {index} in an epoch")));
        };
        self.batch.gather(&self.splits.fit.batch, rows);
        let stepped = self.steps.step(&mut self.learner, self.exec, &self.batch);
        let stepped = stepped.map_err(|error| self.in_run(error))?;
        self.progress.step += 1;
        self.progress.stage_step += 1;
        self.tell_step(stepped, observer);
        Ok(())
    }

    /// Waits for the step that a device is at.
    fn finish_step(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let stepped = self.steps.finish().map_err(|error| self.in_run(error))?;
        self.tell_step(stepped, observer);
        Ok(())
    }

    /// The learner counts the steps of its stage.
    fn in_run(&self, error: Error) -> Error {
        let of_run = |step: u64| self.learner.earlier_steps + step;
        match error {
            Error::NonFinite { step, task, loss, op } => {
                Error::NonFinite { step: of_run(step), task, loss, op }
            }
            Error::NonFiniteGradient { step, tensor } => {
                Error::NonFiniteGradient { step: of_run(step), tensor }
            }
            other => other,
        }
    }

    fn tell_step(&mut self, stepped: Option<Stepped>, observer: &mut dyn Observer) {
        let Some(Stepped { step, rows, losses }) = stepped else { return };
        let parts = self.learner.plan.losses().iter().zip(self.learner.seeds());
        let weights = parts.map(|(part, seed)| f64::from(part.weight * seed));
        let loss = losses.iter().zip(weights).map(|(l, w)| l * w).sum();
        let (step, steps) = (self.learner.earlier_steps + step, self.planned_steps());
        self.progress.training.push(TrainingPoint { step, loss: losses });
        let rate_factor = self.learner.rate_factor();
        observer.event(&Event::Step { step, steps, rows, loss, rate_factor });
    }

    /// Tells whether a checkpoint is to follow.
    fn validate(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let (valid, schema) = (&self.splits.valid, self.splits.encoder.schema());
        let outputs = self.steps.predict(&self.learner, &self.evaluation, self.exec, &valid.batch)?;
        let (evaluation, _) = evaluate_outputs(&self.evaluation, outputs, schema, valid)?;
        let Score { value: score, by, warning } = self.config.score(&evaluation);
        if let Some(message) = warning.filter(|_| self.progress.validation.is_empty()) {
            observer.event(&Event::Warning { message });
        }
        let improves = |best: Option<f64>| best.is_none_or(|b| score.is_some_and(|s| s > b));
        if improves(self.progress.stage_best) {
            (self.progress.stage_best, self.progress.stage_worse) = (score, 0);
        } else {
            self.progress.stage_worse += 1;
        }
        let mut better = Vec::new();
        if self.is_last_stage() {
            let scores = self.choice.scores(score, &evaluation, by);
            let (path, Progress { step, chosen, .. }) = (self.folder.join(MODEL_FILE), &mut self.progress);
            better = Choice::better(chosen, &scores);
            if better.contains(&true) {
                self.steps.bring(&mut self.learner)?;
            }
            self.choice.keep(&better, &path, &self.learner, chosen, *step, &scores)?;
        }
        let epochs = self.progress.step as f64 / self.order.batches() as f64;
        if let Some(balancer) = self.learner.balancer() {
            let parts = self.learner.plan.losses();
            let weights = balancer.weights().map(|(loss, weight)| (parts[loss].name.clone(), weight));
            observer.event(&Event::Balanced { weights: weights.collect() });
        }
        observer.event(&Event::Validated {
            step: self.progress.step,
            epochs,
            evaluation: &evaluation,
            score: (by.name(), score.map(|score| if by == Select::Auc { score } else { -score })),
            best: better.contains(&true),
            best_of: self.choice.names_of(&better),
        });
        self.progress.validation.push(ValidationPoint { step: self.progress.step, evaluation });
        Ok(self.checkpoint_is_due(better.contains(&true)))
    }
}
