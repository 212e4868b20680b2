//! Small models over a made-up batch.

use manygate_core::{Bag, Batch, Executor, Result, Serial, Stream};
use manygate_graph::check::check_plan;
use manygate_graph::ops::{
    BatchMoments, BceWithLogits, Linear, LookupTrunk, Normalise, Piece, Running, Segment,
};
use manygate_graph::{
    Block, Draws, Graph, Init, Input, LossPart, Mode, ParamSpec, Parameters, Plan, PlanOptions,
};
use manygate_graph::{TableSpec, Value, Workspace};
use manygate_kernels::activation::Activation;
use manygate_kernels::embedding::{Pooling, Rows};
use std::sync::Arc;

/// Rows of the table `user`, of the table `tag`, and numbers of the made-up batch.
pub(crate) const USERS: usize = 7;
pub(crate) const TAGS: usize = 6;
pub(crate) const DENSE: usize = 4;

/// Width of [`trunk`].
pub(crate) const TRUNK: usize = 3 + 2 + DENSE;

/// Rows with a user, some tags, numbers, and labels of three tasks.
pub(crate) fn batch(rows: usize) -> Batch {
    let stream = Stream::new(11, 0, 0);
    let unit = |row: usize, column: u64| stream.uniform(row as u64, column);
    let below = |row: usize, column: u64, n: usize| stream.below(row as u64, column, n as u64) as u32;
    let mut tags = Bag { offsets: vec![0], ids: Vec::new() };
    for r in 0..rows {
        tags.ids.extend((0..below(r, 1, 4)).map(|i| below(r, 2 + u64::from(i), TAGS)));
        tags.offsets.push(tags.ids.len() as u32);
    }
    Batch {
        rows,
        ids: vec![(0..rows).map(|r| below(r, 0, USERS)).collect()],
        bags: vec![tags],
        dense: (0..rows * DENSE).map(|i| 2.0 * unit(i, 10) - 1.0).collect(),
        dense_width: DENSE,
        scenario: Vec::new(),
        labels: (0..3).map(|task| (0..rows).map(|r| unit(r, 20 + task).round()).collect()).collect(),
    }
}

/// User, mean of the tags, numbers: `[batch, TRUNK]`.
pub(crate) fn trunk(g: &mut Graph) -> Result<Value> {
    let table = |name: &str, rows, dim| TableSpec { name: name.into(), rows, dim, init: Init::Normal(0.5) };
    let user = g.table(table("user", USERS, 3))?;
    let tag = g.table(table("tag", TAGS, 2))?;
    let pieces = vec![
        Piece::Field { field: 0, table: user, dim: 3 },
        Piece::Bag { bag: 0, table: tag, dim: 2, pooling: Pooling::Mean },
        Piece::Dense { width: DENSE },
    ];
    g.add("trunk", LookupTrunk::new(pieces), &[])
}

fn vector(g: &mut Graph, name: String, len: usize, init: Init) -> Result<Value> {
    g.param(ParamSpec::new(vec![Block::vector(name, len, init)])?)
}

/// `act(x Wᵀ + b)` with the parameters `<name>.weight` and `<name>.bias`.
pub(crate) fn linear(
    g: &mut Graph,
    name: &str,
    x: Value,
    out: usize,
    activation: Activation,
) -> Result<Value> {
    segments(g, name, x, vec![Segment { out, bias: true, activation }])
}

/// Several heads of x, all with a bias.
pub(crate) fn segments(g: &mut Graph, name: &str, x: Value, segments: Vec<Segment>) -> Result<Value> {
    let (out, cols) = (segments.iter().map(|s| s.out).sum(), g.cols(x));
    let weight = Block::weight(format!("{name}.weight"), out, cols, Init::XavierUniform);
    let w = g.param(ParamSpec::new(vec![weight])?)?;
    let b = vector(g, format!("{name}.bias"), out, Init::Normal(0.3))?;
    g.add(name, Linear::segmented(segments), &[x, w, b])
}

/// Batch normalisation with momentum 0.1, `<name>.gamma`, `<name>.beta` and the state `<name>.running`.
pub(crate) fn batch_norm(g: &mut Graph, name: &str, x: Value, activation: Activation) -> Result<Value> {
    let cols = g.cols(x);
    let gamma = vector(g, format!("{name}.gamma"), cols, Init::Normal(1.0))?;
    let beta = vector(g, format!("{name}.beta"), cols, Init::Normal(0.5))?;
    let blocks = vec![
        Block::vector(format!("{name}.mean"), cols, Init::Constant(0.0)),
        Block::vector(format!("{name}.variance"), cols, Init::Constant(1.0)),
    ];
    let (running, state) = g.state(ParamSpec::new(blocks)?)?;
    let moments = match g.is_training() {
        true => g.add(
            format!("{name}.moments"),
            BatchMoments::new(Some(Running { state, momentum: 0.1, unbiased: true })),
            &[x],
        )?,
        false => running,
    };
    g.add(name, Normalise::new(1e-3, activation), &[x, moments, gamma, beta])
}

/// A task over one logit: its loss in training.
pub(crate) fn task(g: &mut Graph, name: &str, index: usize, logit: Value) -> Result<()> {
    counted_task(g, name, index, logit, None)
}

/// A task whose loss counts the rows in which the label of `counted` is 1.
pub(crate) fn counted_task(
    g: &mut Graph,
    name: &str,
    index: usize,
    logit: Value,
    counted: Option<usize>,
) -> Result<()> {
    if g.is_training() {
        let weight = [1.0, 0.5, 2.0][index];
        let loss = g.loss(LossPart::new(name, weight, counted))?;
        g.add(format!("loss.{name}"), BceWithLogits::new(loss, index, counted), &[logit])?;
    }
    Ok(())
}

/// A compiled model with values and a batch.
pub(crate) struct Setup {
    pub(crate) plan: Plan,
    pub(crate) params: Parameters,
    pub(crate) state: Parameters,
    pub(crate) tables: Vec<Vec<f32>>,
    pub(crate) batch: Batch,
    pub(crate) seeds: Vec<f32>,
    pub(crate) step: u64,
}

/// Tiles and lanes so small that a few rows fill several.
pub(crate) fn small() -> PlanOptions {
    PlanOptions { tile_rows: 5, lane_rows: 16, ..PlanOptions::default() }
}

impl Setup {
    /// A training plan.
    pub(crate) fn new(
        rows: usize,
        options: PlanOptions,
        declare: impl FnOnce(&mut Graph) -> Result<()>,
    ) -> Setup {
        Setup::of(Mode::Training, rows, options, declare)
    }

    pub(crate) fn of(
        mode: Mode,
        rows: usize,
        options: PlanOptions,
        declare: impl FnOnce(&mut Graph) -> Result<()>,
    ) -> Setup {
        let mut g = Graph::new(mode);
        declare(&mut g).unwrap();
        let plan = Plan::compile(g, options).unwrap();
        let stream = Stream::new(5, 0, 0);
        let table =
            |t: usize, len: usize| (0..len).map(|i| 0.5 * stream.normal(i as u64, t as u64)).collect();
        Setup {
            params: Parameters::initial(Arc::clone(plan.layout()), 3),
            state: Parameters::initial(Arc::clone(plan.state_layout()), 3),
            tables: plan.tables().iter().enumerate().map(|(t, s)| table(t, s.rows * s.dim)).collect(),
            batch: batch(rows),
            seeds: vec![1.0; plan.losses().len()],
            step: 1,
            plan,
        }
    }

    /// Hands `then` what a run reads.
    pub(crate) fn with_input<R>(&self, then: impl FnOnce(&Input<'_>) -> R) -> R {
        let specs = self.plan.tables().iter().zip(&self.tables);
        let tables: Vec<Rows<'_>> = specs.map(|(t, v)| Rows::new(v, t.rows, t.dim, t.dim)).collect();
        then(&Input {
            params: &self.params,
            state: &self.state,
            tables: &tables,
            batch: &self.batch,
            seeds: &self.seeds,
            draws: Draws { seed: 3, step: self.step, caller_rows: &[] },
        })
    }

    /// Packs and runs on one thread.
    pub(crate) fn run(&self) -> Workspace {
        self.run_on(&Serial)
    }

    pub(crate) fn run_on(&self, exec: &dyn Executor) -> Workspace {
        let mut ws = Workspace::new(&self.plan, exec.threads(), self.batch.rows);
        self.plan.pack(exec, &mut ws, &self.params);
        self.with_input(|input| self.plan.run(exec, &mut ws, input)).unwrap();
        ws
    }

    /// What a run says to a batch that does not fit.
    pub(crate) fn error(&self) -> String {
        let mut ws = Workspace::new(&self.plan, 1, 64);
        self.plan.pack(&Serial, &mut ws, &self.params);
        self.with_input(|input| self.plan.run(&Serial, &mut ws, input)).unwrap_err().to_string()
    }

    /// Compares losses, outputs and all gradients with the references of the ops.
    pub(crate) fn check(&self) {
        self.with_input(|input| check_plan(&self.plan, &Serial, input)).unwrap();
    }

    /// The gradient of a parameter tensor.
    pub(crate) fn gradient(&self, ws: &Workspace, name: &str) -> Vec<f32> {
        let lanes = self.plan.gradients(ws);
        let found = self.plan.layout().blocks().find(|(block, _)| block.name == name);
        let (_, range) = found.unwrap_or_else(|| panic!("no tensor {name}"));
        range.map(|i| (0..lanes.rows()).map(|lane| lanes.row(lane)[i]).sum()).collect()
    }

    /// Bits of everything that a run leaves.
    pub(crate) fn bits(&self, ws: &Workspace) -> Vec<u64> {
        let lanes = self.plan.gradients(ws);
        let mut all: Vec<u64> = ws.part_losses().iter().map(|l| l.to_bits()).collect();
        all.extend((0..lanes.rows()).flat_map(|lane| lanes.row(lane)).map(|v| u64::from(v.to_bits())));
        for source in self.plan.sparse_sources() {
            let rows = self.plan.sparse_gradient(ws, source);
            all.extend((0..rows.rows()).flat_map(|r| rows.row(r)).map(|v| u64::from(v.to_bits())));
        }
        all
    }
}
