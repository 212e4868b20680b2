//! A model in training: plan, parameters, tables, optimisers, and the step.

use crate::optim::dense::DenseAdam;
use crate::optim::{OptimizerConfig, RowsConfig};
use manygate_core::{Batch, Executor, Result};
use manygate_embedding::{RowOptimizer, SparseGradients, Table, Tables};
use manygate_graph::{Graph, Input, Parameters, Plan, PlanOptions, RowOrder, Workspace};
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
    pub dense: DenseAdam,
    /// Steps taken.
    pub step: u64,
    rows: RowsConfig,
    row_optimizers: Vec<Option<RowOptimizer>>,
    sparse: SparseGradients,
    seeds: Vec<f32>,
    order: RowOrder,
    ws: Workspace,
}

impl Learner {
    /// A model with the initial values of `seed`, for batches of at most `capacity` rows.
    ///
    /// # Errors
    /// When the graph cannot be compiled.
    pub fn new(
        graph: Graph,
        options: PlanOptions,
        optimizer: &OptimizerConfig,
        seed: u64,
        exec: &dyn Executor,
        capacity: usize,
    ) -> Result<Learner> {
        let plan = Plan::compile(graph, options)?;
        let width = |dim| optimizer.tables.state_width(dim);
        let specs = plan.tables().iter().cloned();
        let tables = specs.map(|spec| Table::initial(spec.clone(), width(spec.dim), seed, exec)).collect();
        Ok(Learner {
            params: Parameters::initial(Arc::clone(plan.layout()), seed),
            state: Parameters::initial(Arc::clone(plan.state_layout()), seed),
            tables: Tables(tables),
            dense: DenseAdam::new(&plan, &optimizer.dense),
            step: 0,
            rows: optimizer.tables.clone(),
            row_optimizers: vec![None; plan.tables().len()],
            sparse: SparseGradients::new(&plan, capacity),
            seeds: vec![1.0; plan.losses().len()],
            order: RowOrder::default(),
            ws: Workspace::new(&plan, exec.threads(), capacity),
            plan,
        })
    }

    /// Makes room for the longest bags of `data`.
    pub fn reserve_for(&mut self, data: &Batch) {
        self.sparse.reserve_for(data, self.ws.capacity());
        self.order.reserve_for(&self.plan, data, self.ws.capacity());
    }

    /// One step on `batch`; returns the loss of each part, unweighted.
    ///
    /// # Errors
    /// When the batch does not fit, or a loss is not finite: then nothing has moved.
    pub fn step(&mut self, exec: &dyn Executor, batch: &Batch) -> Result<&[f64]> {
        self.plan.pack(exec, &mut self.ws, &self.params);
        let batch = self.order.arrange(&self.plan, batch)?;
        let (params, state) = (&self.params, &self.state);
        let input = Input { params, state, tables: &self.tables, batch, seeds: &self.seeds };
        self.plan.run(exec, &mut self.ws, &input)?;
        self.plan.check_losses(&mut self.ws, &input, self.step + 1)?;
        self.step += 1;
        self.sparse.sort(exec, batch);
        self.dense.apply(exec, &mut self.params, self.plan.gradients(&self.ws), self.step);
        let optimizer = self.rows.at_step(self.step);
        for (to, spec) in self.row_optimizers.iter_mut().zip(self.plan.tables()) {
            *to = self.plan.learns(&spec.name).then_some(optimizer);
        }
        self.sparse.apply(exec, &self.plan, &self.ws, &mut self.tables.0, &self.row_optimizers);
        self.plan.update_state(&self.ws, &mut self.state);
        Ok(self.ws.part_losses())
    }

    /// Number of learnt values: dense, and in tables.
    pub fn parameter_counts(&self) -> (usize, usize) {
        let dense = self.plan.layout().blocks().map(|(block, _)| block.len()).sum();
        (dense, self.plan.tables().iter().map(|t| t.rows * t.dim).sum())
    }

    /// Bytes of the step's buffers.
    pub fn workspace_bytes(&self) -> usize {
        self.ws.bytes()
    }
}
