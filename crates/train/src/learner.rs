//! A model in training: plan, parameters, tables, optimisers, and the step.

use crate::balance::Balance;
use crate::balancer::Balancer;
use crate::limits;
use crate::optim::dense::DenseOptimizer;
use crate::optim::rows::RowOptimizers;
use crate::optim::{Clip, Gradients, OptimizerConfig, Schedule};
use manygate_core::{Batch, Error, Executor, Result};
use manygate_embedding::{SparseGradients, Table, Tables};
use manygate_graph::{Arranged, Draws, Graph, Input, Parameters, Plan, PlanOptions, RowOrder, Workspace};
use manygate_models::Task;
use std::sync::Arc;

/// Everything that a step reads and moves. A warm step allocates nothing.
#[derive(Debug)]
pub struct Learner {
    /// The training plan.
    pub plan: Plan,
    /// Dense parameters.
    pub params: Parameters,
    /// State that no gradient moves.
    pub state: Parameters,
    /// Tables, optimiser state beside each row.
    pub tables: Tables,
    /// Optimiser of the dense parameters.
    pub dense: DenseOptimizer,
    /// Steps taken in the stage.
    pub step: u64,
    /// Steps of the stages before it.
    pub earlier_steps: u64,
    seed: u64,
    rows: RowOptimizers,
    clip: Option<Clip>,
    schedule: Schedule,
    sparse: SparseGradients,
    seeds: Vec<f32>,
    balancer: Option<Balancer>,
    order: RowOrder,
    /// Most rows of a batch.
    capacity: usize,
    /// Made by the first step: where a device takes them there is none.
    ws: Option<Workspace>,
}

impl Learner {
    /// A model with the initial values of `seed`, for batches of at most `capacity` rows.
    ///
    /// # Errors
    /// When the graph cannot be compiled, a group of `optimizer` does not fit its tensors, or a batch has more look-ups
    /// than can be numbered.
    pub fn new(
        graph: Graph,
        options: PlanOptions,
        optimizer: &OptimizerConfig,
        seed: u64,
        exec: &dyn Executor,
        capacity: usize,
    ) -> Result<Learner> {
        let plan = Plan::compile(graph, options)?;
        limits::check_lookups(&plan, capacity)?;
        optimizer.check_groups(&plan)?;
        let rows = RowOptimizers::new(&plan, optimizer)?;
        let specs = plan.tables().iter().enumerate();
        let tables =
            specs.map(|(t, spec)| Table::initial(spec.clone(), rows.state_width(t, spec.dim), seed, exec));
        Ok(Learner {
            params: Parameters::initial(Arc::clone(plan.layout()), seed),
            state: Parameters::initial(Arc::clone(plan.state_layout()), seed),
            tables: Tables(tables.collect()),
            dense: DenseOptimizer::new(&plan, optimizer)?,
            step: 0,
            earlier_steps: 0,
            seed,
            rows,
            clip: Clip::new(&plan, optimizer),
            schedule: optimizer.schedule.schedule()?,
            sparse: SparseGradients::new(&plan, capacity),
            seeds: vec![1.0; plan.losses().len()],
            balancer: None,
            order: RowOrder::default(),
            capacity,
            ws: None,
            plan,
        })
    }

    /// Goes on with the parameters, state and tables of another graph that declares the same ones, as a new stage of
    /// training does: with fresh optimisers, and no step of it taken.
    ///
    /// # Errors
    /// When the graph declares other parameters or cannot be compiled, or a group of `optimizer` does not fit.
    pub fn begin_stage(
        &mut self,
        graph: Graph,
        options: PlanOptions,
        optimizer: &OptimizerConfig,
    ) -> Result<()> {
        let plan = Plan::compile(graph, options)?;
        if plan.layout() != self.plan.layout()
            || plan.state_layout() != self.plan.state_layout()
            || plan.tables() != self.plan.tables()
        {
            let message =
                "a stage must declare the parameters, the state and the tables of the one before it";
            return Err(Error::config("stage.model", message));
        }
        limits::check_lookups(&plan, self.capacity)?;
        optimizer.check_groups(&plan)?;
        self.rows = RowOptimizers::new(&plan, optimizer)?;
        self.dense = DenseOptimizer::new(&plan, optimizer)?;
        self.clip = Clip::new(&plan, optimizer);
        self.schedule = optimizer.schedule.schedule()?;
        for (t, table) in self.tables.0.iter_mut().enumerate() {
            table.begin_state(self.rows.state_width(t, table.spec().dim));
        }
        self.sparse = SparseGradients::new(&plan, self.capacity);
        self.seeds = vec![1.0; plan.losses().len()];
        self.balancer = None;
        self.order = RowOrder::default();
        self.ws = None;
        self.earlier_steps += self.step;
        (self.plan, self.step) = (plan, 0);
        Ok(())
    }

    /// Lets a method weigh the losses, those of `tasks` unless it names others; `graph` is that of the plan once more.
    /// Factors of losses are set before.
    ///
    /// # Errors
    /// When the method does not fit the model's losses.
    pub fn balance_by(
        &mut self,
        balance: &Balance,
        graph: Graph,
        tasks: &[Task],
        seed: u64,
        exec: &dyn Executor,
    ) -> Result<()> {
        let memory = (exec, self.capacity);
        let balancer = Balancer::new(balance, &self.plan, graph, &self.seeds, tasks, seed, memory)?;
        self.balancer = Some(balancer);
        Ok(())
    }

    /// The method that weighs the losses, if any.
    pub fn balancer(&self) -> Option<&Balancer> {
        self.balancer.as_ref()
    }

    /// The same, to be restored.
    pub fn balancer_mut(&mut self) -> Option<&mut Balancer> {
        self.balancer.as_mut()
    }

    /// The factor of each part of the loss.
    pub fn seeds(&self) -> &[f32] {
        &self.seeds
    }

    /// The same, to be set: 1 until then.
    pub fn seeds_mut(&mut self) -> &mut [f32] {
        &mut self.seeds
    }

    /// Makes room for the longest bags of `data`.
    pub fn reserve_for(&mut self, data: &Batch) {
        self.sparse.reserve_for(data, self.capacity);
        if let Some(balancer) = &mut self.balancer {
            balancer.reserve_for(&self.sparse, &self.plan);
        }
        if let Some(clip) = &mut self.clip {
            clip.reserve_for(&self.sparse, &self.plan);
        }
        self.order.reserve_for(&self.plan, data, self.capacity);
    }

    /// One step on `batch`; returns the loss of each part, unweighted.
    ///
    /// # Errors
    /// When the batch does not fit, a loss is not finite, or a gradient that is to be clipped is not: then nothing has
    /// moved.
    pub fn step(&mut self, exec: &dyn Executor, batch: &Batch) -> Result<&[f64]> {
        let threads = exec.threads();
        let ws = self.ws.get_or_insert_with(|| Workspace::new(&self.plan, threads, self.capacity));
        self.plan.pack(exec, ws, &self.params);
        let Arranged { batch, caller_rows } = self.order.arrange(&self.plan, batch)?;
        let step = self.step + 1;
        let draws = Draws { seed: self.seed, step: self.earlier_steps + step, caller_rows };
        let (params, state) = (&self.params, &self.state);
        let input = Input { params, state, tables: &self.tables, batch, seeds: &self.seeds, draws };
        if let Some(balancer) = &mut self.balancer {
            self.plan.check_batch(batch)?;
            self.sparse.sort(exec, batch);
            balancer.run(exec, &self.plan, ws, &self.sparse, &input, step)?;
        } else {
            self.plan.run(exec, ws, &input)?;
            self.plan.check_losses(ws, &input, step)?;
            self.sparse.sort(exec, batch);
        }
        let combined = self.balancer.as_ref().and_then(Balancer::gradients);
        let mut gradients = match combined {
            Some(combined) => Gradients { dense: combined.sum(), tables: Some(combined.sparse()) },
            None => Gradients { dense: self.plan.gradients(ws), tables: None },
        };
        if let Some(clip) = &mut self.clip {
            gradients = clip.clip(exec, &self.plan, ws, &self.sparse, gradients, step)?;
        }
        self.step = step;
        let factor = self.schedule.factor(step);
        let rows = self.rows.at_step(step, factor);
        self.dense.apply(exec, &mut self.params, gradients.dense, step, factor);
        match gradients.tables {
            Some(summed) => summed.apply(exec, &mut self.tables.0, rows),
            None => self.sparse.apply(exec, &self.plan, ws, &mut self.tables.0, rows),
        }
        if let Some(balancer) = &mut self.balancer {
            // With the state as the step found it: only the parameters have moved.
            let (params, state) = (&self.params, &self.state);
            let input = Input { params, state, tables: &self.tables, batch, seeds: &self.seeds, draws };
            balancer.look_again(exec, &input, step)?;
        }
        self.plan.update_state(ws, &mut self.state);
        Ok(ws.part_losses())
    }

    /// How long the gradient may be, for a device.
    #[cfg(feature = "cuda")]
    pub(crate) fn device_clip(&self) -> Option<manygate_device::Clip> {
        self.clip.as_ref().map(|clip| clip.on_device(self.plan.tables().len()))
    }

    /// What the optimisers do at step number `step`, from 1.
    #[cfg(feature = "cuda")]
    pub(crate) fn constants_at(&mut self, step: u64, constants: &mut manygate_device::StepConstants) {
        let factor = self.schedule.factor(step);
        self.dense.constants_at(step, factor, &mut constants.dense);
        constants.tables.clear();
        constants.tables.extend_from_slice(self.rows.at_step(step, factor));
    }

    /// The seed of its random numbers.
    #[cfg(feature = "cuda")]
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The factor of all learning rates in the last step.
    pub fn rate_factor(&self) -> f64 {
        self.schedule.factor(self.step)
    }

    /// Number of learnt values: dense, and in tables.
    pub fn parameter_counts(&self) -> (usize, usize) {
        let dense = self.plan.layout().blocks().map(|(block, _)| block.len()).sum();
        (dense, self.plan.tables().iter().map(|t| t.rows * t.dim).sum())
    }

    /// Bytes of the step's buffers, which the first step makes.
    pub fn workspace_bytes(&self) -> usize {
        self.ws.as_ref().map_or(0, Workspace::bytes)
    }
}
