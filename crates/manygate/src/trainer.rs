//! Training in memory.

use crate::columns::check_labelled;
use crate::folder;
use manygate_core::{Batch, Error, Executor, Pool, Result, Serial};
use manygate_data::{Dataset, EpochOrder};
use manygate_embedding::{Table, Tables};
use manygate_features::{Encoder, Schema};
use manygate_graph::{Graph, Mode, Parameters, Plan, PlanOptions};
use manygate_models::{Architecture, Inputs};
use manygate_runtime::{Model, Predictor, Weights, model_inputs};
use manygate_train::balance::Balance;
use manygate_train::evaluate::evaluate_dataset;
use manygate_train::limits;
use manygate_train::metrics::Evaluation;
use manygate_train::optim::OptimizerConfig;
use manygate_train::optim::dense::DenseOptimizer;
use manygate_train::{Config, Learner};
use std::fmt;

/// How a [`Trainer`] trains. Everything but `threads` is part of the result: the same options, data and seed give the
/// same bits on any number of threads.
#[derive(Debug)]
pub struct Options {
    /// Seed of every random number.
    pub seed: u64,
    /// Passes over the rows in each [`Trainer::fit`].
    pub epochs: u64,
    /// Rows a step, and the most that [`Trainer::step`] takes.
    pub batch_size: usize,
    /// The optimisers of dense parameters and of tables.
    pub optimizer: OptimizerConfig,
    /// How the losses of the tasks are weighed against each other: the keys of `[balance]` as TOML, such as
    /// `method = "pcgrad"`. Empty, they are summed up.
    pub balance: String,
    /// Where the work runs.
    pub threads: Threads,
}

impl Default for Options {
    /// Three epochs in batches of 1,024 rows by Adam, seed 1, on all cores.
    fn default() -> Options {
        Options {
            seed: 1,
            epochs: 3,
            batch_size: 1024,
            optimizer: OptimizerConfig::default(),
            balance: String::new(),
            threads: Threads::Number(0),
        }
    }
}

/// Where work runs.
pub enum Threads {
    /// On so many threads of the trainer's own; 0 is one for each core, 1 the thread that calls.
    Number(usize),
    /// On threads of the caller's, such as [`Workers`](crate::Workers).
    Own(Box<dyn Executor + Send>),
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threads::Number(number) => write!(f, "Number({number})"),
            Threads::Own(exec) => write!(f, "Own({} threads)", exec.threads()),
        }
    }
}

/// What [`Threads`] become.
enum Crew {
    Pool(Pool),
    Own(Box<dyn Executor + Send>),
}

impl Crew {
    fn new(threads: Threads) -> Result<Crew> {
        Ok(match threads {
            Threads::Number(1) => Crew::Own(Box::new(Serial)),
            Threads::Number(number) => Crew::Pool(Pool::new(number)?),
            Threads::Own(exec) => Crew::Own(exec),
        })
    }

    fn enter<R: Send>(&self, body: impl FnOnce(&dyn Executor) -> R + Send) -> R {
        match self {
            Crew::Pool(pool) => pool.enter(body),
            Crew::Own(exec) => body(exec.as_ref()),
        }
    }
}

/// What [`Trainer::fit`] did.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Each epoch, in order.
    pub epochs: Vec<Epoch>,
    /// The one whose weights the trainer has now, from 0.
    pub best: usize,
}

/// A pass over the rows.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Mean over steps of each part of the loss, in the order of [`Trainer::losses`].
    pub losses: Vec<f64>,
    /// Metrics on the validation rows at its end.
    pub valid: Evaluation,
}

/// A model in training, in memory. [`fit`](Trainer::fit) makes passes over data and keeps the best;
/// [`step`](Trainer::step) takes one batch, for a loop of the caller's.
///
/// ```
/// use manygate::ndarray::{Array2, array};
/// use manygate::{Columns, Model, Options, Schema, Session, Trainer};
/// use std::sync::Arc;
///
/// let schema = Schema::default().field("user", 20).field("item", 10).task("click").task("buy");
/// let rows = |from: u32, rows: usize| {
///     let ids = Array2::from_shape_fn((rows, 2), |(r, c)| (from + r as u32) * [7, 3][c] % [20, 10][c]);
///     let labels = ids.map_axis(manygate::ndarray::Axis(1), |id| (id[0] + id[1]) % 2);
///     let labels = Array2::from_shape_fn((rows, 2), |(r, _)| labels[r] as f32);
///     Columns::new(&schema).ids(ids.view())?.labels(labels.view())?.finish()
/// };
/// let (fit, valid) = (rows(0, 400)?, rows(400, 100)?);
///
/// let options = Options { epochs: 5, batch_size: 64, threads: manygate::Threads::Number(2), ..Options::default() };
/// let keys = "experts = 2\nexpert_units = [16]\ntower_units = [8]"; // `manygate models mmoe` lists them
/// let mut trainer = Trainer::new("mmoe", keys, schema.clone(), options)?;
/// let fitted = trainer.fit(&fit, &valid)?;
/// assert!(fitted.epochs[4].losses[0] < fitted.epochs[0].losses[0]);
///
/// let folder = tempfile::tempdir().unwrap();
/// trainer.save(folder.path())?; // a run folder, as `manygate train` leaves one
/// let mut session = Session::new(Arc::new(Model::open(folder.path())?), 100)?;
/// let request = Columns::new(&schema).ids(array![[3_u32, 7], [4, 0]].view())?.finish()?;
/// let outputs = session.predict(&request)?.to_owned(); // [rows, outputs]
/// println!("{:?}: {outputs:.3}", session.output_names().collect::<Vec<_>>());
/// # Ok::<(), manygate::Error>(())
/// ```
pub struct Trainer {
    name: String,
    architecture: Box<dyn Architecture>,
    pub(crate) encoder: Encoder,
    /// As given; `threads` has become the crew.
    options: Options,
    /// What a run folder says of all this.
    pub(crate) config: Config,
    pub(crate) learner: Learner,
    evaluation: Plan,
    crew: Crew,
    /// Passes so far: each has an order of its own.
    epoch: u64,
}

impl Trainer {
    /// An architecture of the registry (`manygate models` lists them), with its keys as TOML, over this schema.
    ///
    /// # Errors
    /// When the schema contradicts itself, a name or key does not exist, or a number is out of its range.
    pub fn new(model: &str, keys: &str, schema: Schema, options: Options) -> Result<Trainer> {
        let mut table = table("model", keys)?;
        table.insert("name".to_owned(), model.into());
        let (entry, architecture) = manygate_models::from_table(&table)?;
        Trainer::of(entry.name, architecture, schema, options)
    }

    /// An architecture of the caller's own, with the name that it goes by in run folders; see
    /// [`models`](crate::models).
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn of(
        name: &str,
        architecture: Box<dyn Architecture>,
        schema: Schema,
        mut options: Options,
    ) -> Result<Trainer> {
        if schema.user.is_some() {
            let message = "arrays bring no users to group rows by: leave the schema's `user` out";
            return Err(Error::config("schema.user", message));
        }
        if options.batch_size == 0 || options.epochs == 0 {
            return Err(Error::config("options", "`batch_size` and `epochs` must be at least 1"));
        }
        options.optimizer.check()?;
        let balance = match options.balance.trim() {
            "" => None,
            keys => Some(Balance::from_table(&table("balance", keys)?)?),
        };
        let encoder = Encoder::by_ids(schema)?;
        let config =
            folder::config(name, architecture.as_ref(), encoder.schema(), &options, balance.as_ref())?;
        limits::check(&config)?;
        let inputs = model_inputs(encoder.schema())?;
        let graph = |mode| manygate_models::build(architecture.as_ref(), &inputs, mode);
        let crew = Crew::new(std::mem::replace(&mut options.threads, Threads::Number(0)))?;
        let learner = crew.enter(|exec| learner(&graph, &inputs, &options, balance.as_ref(), exec))?;
        let evaluation = Plan::compile(graph(Mode::Evaluation)?, PlanOptions::default())?;
        let name = name.to_owned();
        Ok(Trainer { name, architecture, encoder, options, config, learner, evaluation, crew, epoch: 0 })
    }

    /// The schema.
    pub fn schema(&self) -> &Schema {
        self.encoder.schema()
    }

    /// Names of the parts of the loss, in the order in which steps return them: those of the tasks, as a rule.
    pub fn losses(&self) -> impl Iterator<Item = &str> {
        self.learner.plan.losses().iter().map(|part| part.name.as_str())
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.learner.step
    }

    /// One step on a labelled batch of at most [`Options::batch_size`] rows; returns the mean loss of each part before it.
    /// Nothing is allocated once batches have been as large.
    ///
    /// ```
    /// use manygate::ndarray::array;
    /// use manygate::{Columns, Options, Schema, Trainer};
    ///
    /// let schema = Schema::default().field("item", 5).task("click");
    /// let keys = "bottom_units = [8]\ntower_units = [4]";
    /// let mut trainer = Trainer::new("shared_bottom", keys, schema.clone(), Options::default())?;
    /// for _ in 0..3 {
    ///     // What has just come in.
    ///     let columns = Columns::new(&schema).ids(array![[0_u32], [4]].view())?;
    ///     let batch = columns.labels(array![[1.0], [0.0]].view())?.finish()?;
    ///     let losses = trainer.step(&batch)?;
    ///     assert!(losses[0].is_finite());
    /// }
    /// let model = std::sync::Arc::new(trainer.model()?); // what sessions serve from now on
    /// # Ok::<(), manygate::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the batch does not fit, or a loss is not finite: then nothing has moved.
    pub fn step(&mut self, batch: &Batch) -> Result<&[f64]> {
        let Trainer { crew, learner, .. } = self;
        crew.enter(|exec| learner.step(exec, batch))
    }

    /// Passes over `fit` in orders that depend on the seed, and ends with the weights of the pass that predicts `valid`
    /// best (the mean of the tasks' AUC, or of their losses where a label is a number; the first of equals). Called again, it goes on from there.
    ///
    /// # Errors
    /// When the data does not fit the schema, or a loss or prediction is not finite; the weights are then those of the
    /// last step.
    pub fn fit(&mut self, fit: &Batch, valid: &Batch) -> Result<Fitted> {
        check_labelled(self.schema(), fit)?;
        check_labelled(self.schema(), valid)?;
        let valid = Dataset { batch: valid.clone(), users: Vec::new(), violations: Vec::new() };
        let Trainer { crew, learner, evaluation, encoder, options, config, epoch, .. } = self;
        crew.enter(|exec| {
            learner.reserve_for(fit);
            let mut order = EpochOrder::new(options.seed, fit.rows, options.batch_size)?;
            let mut batch = Batch::empty_like(fit);
            batch.reserve_for(fit, options.batch_size.min(fit.rows));
            let mut epochs: Vec<Epoch> = Vec::new();
            let mut best = (0, None);
            // Of the best pass, unless it is the last one.
            let mut kept = None;
            for number in 0..options.epochs as usize {
                let mut losses = vec![0.0; learner.plan.losses().len()];
                let batches = order.batches();
                for index in 0..batches {
                    batch.gather(fit, order.batch(*epoch, index).unwrap_or_default());
                    let step = learner.step(exec, &batch)?;
                    losses.iter_mut().zip(step).for_each(|(mean, loss)| *mean += loss / batches as f64);
                }
                *epoch += 1;
                let valid = evaluate(learner, evaluation, exec, encoder.schema(), &valid)?;
                let score = config.score(&valid).value;
                // Where no row counts, nothing tells passes apart: the last one stays.
                if number == 0 || score.is_none() || score > best.1 {
                    best = (number, score);
                    kept = (number + 1 < options.epochs as usize).then(|| Snapshot::of(learner));
                }
                epochs.push(Epoch { losses, valid });
            }
            if let Some(kept) = kept {
                kept.restore(learner);
            }
            Ok(Fitted { epochs, best: best.0 })
        })
    }

    /// Metrics of the present weights on labelled rows.
    ///
    /// # Errors
    /// When the data does not fit the schema, or a prediction is not finite.
    pub fn evaluate(&self, data: &Batch) -> Result<Evaluation> {
        check_labelled(self.schema(), data)?;
        let data = Dataset { batch: data.clone(), users: Vec::new(), violations: Vec::new() };
        let Trainer { crew, learner, evaluation, encoder, .. } = self;
        crew.enter(|exec| evaluate(learner, evaluation, exec, encoder.schema(), &data))
    }

    /// A copy of the present weights as a model to predict with.
    ///
    /// # Errors
    /// None, as long as the architecture declares the same parameters for training and evaluation.
    pub fn model(&self) -> Result<Model> {
        let Learner { params, state, tables, .. } = &self.learner;
        let tables = tables.0.iter().map(|table| {
            let mut copy = Table::zeroed(table.spec().clone(), 0);
            copy.set_weights(&table.weights()).map(|()| copy)
        });
        let tables = Tables(tables.collect::<Result<_>>()?);
        let weights = Weights { params: params.clone(), state: state.clone(), tables };
        Model::new(&self.name, self.architecture.as_ref(), self.encoder.clone(), weights)
    }
}

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trainer { name, architecture, learner, .. } = self;
        let mut told = f.debug_struct("Trainer");
        told.field("name", name).field("architecture", architecture).field("step", &learner.step);
        told.finish_non_exhaustive()
    }
}

/// Keys of a section as TOML.
fn table(section: &str, keys: &str) -> Result<toml::Table> {
    keys.parse().map_err(|e: toml::de::Error| Error::config(section, e.to_string().trim_end()))
}

fn learner(
    graph: &dyn Fn(Mode) -> Result<Graph>,
    inputs: &Inputs,
    options: &Options,
    balance: Option<&Balance>,
    exec: &dyn Executor,
) -> Result<Learner> {
    let Options { optimizer, seed, batch_size, .. } = options;
    let training = graph(Mode::Training)?;
    let mut learner = Learner::new(training, PlanOptions::default(), optimizer, *seed, exec, *batch_size)?;
    if let Some(balance) = balance {
        learner.balance_by(balance, graph(Mode::Training)?, &inputs.tasks, *seed, exec)?;
    }
    Ok(learner)
}

fn evaluate(
    learner: &Learner,
    plan: &Plan,
    exec: &dyn Executor,
    schema: &Schema,
    data: &Dataset,
) -> Result<Evaluation> {
    let Learner { params, state, tables, .. } = learner;
    let capacity = manygate_runtime::predictor::CHUNK_ROWS.min(data.batch.rows.max(1));
    let mut predictor = Predictor::new(plan, params, state, tables, exec, capacity)?;
    Ok(evaluate_dataset(&mut predictor, exec, schema, data)?.0)
}

/// A learner at the end of a pass.
struct Snapshot {
    params: Parameters,
    state: Parameters,
    tables: Tables,
    dense: DenseOptimizer,
    step: u64,
}

impl Snapshot {
    fn of(learner: &Learner) -> Snapshot {
        let Learner { params, state, tables, dense, step, .. } = learner;
        Snapshot {
            params: params.clone(),
            state: state.clone(),
            tables: tables.clone(),
            dense: dense.clone(),
            step: *step,
        }
    }

    fn restore(self, learner: &mut Learner) {
        (learner.params, learner.state, learner.tables) = (self.params, self.state, self.tables);
        (learner.dense, learner.step) = (self.dense, self.step);
    }
}
