//! What the engine computes for a case, under the names of the case's tensors.

use super::contents::Contents;
use super::translate::Setup;
use manygate_core::{Batch, Executor, Pool, Serial};
use manygate_embedding::SparseGradients;
use manygate_graph::{Input, Mode, Plan, PlanOptions, Workspace};
use manygate_kernels::Isa;
use manygate_kernels::embedding::Rows;
use std::collections::BTreeMap;
use std::fmt;

/// One way to run a plan; each must give the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Instruction set.
    pub isa: Isa,
    /// Threads.
    pub threads: usize,
    /// Rows of a tile.
    pub tile_rows: usize,
    /// Whether the batch is repeated until the plan divides it into several lanes: means, and so all gradients, stay
    /// what they are.
    pub repeated: bool,
}

impl Variant {
    /// On every instruction set of this machine: one thread and two, tiles larger than the batches of the cases and
    /// small odd ones, several lanes.
    pub fn all() -> impl Iterator<Item = Variant> {
        const SHAPES: [(usize, usize, bool); 5] =
            [(1, 128, false), (1, 5, false), (2, 128, false), (2, 5, false), (2, 5, true)];
        Isa::available().into_iter().flat_map(|isa| {
            SHAPES.map(|(threads, tile_rows, repeated)| Variant { isa, threads, tile_rows, repeated })
        })
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = if self.threads == 1 { "1 thread".into() } else { format!("{} threads", self.threads) };
        write!(f, "{}, {threads}, tiles of {} rows", self.isa, self.tile_rows)?;
        if self.repeated { write!(f, ", batch repeated over lanes") } else { Ok(()) }
    }
}

/// Values by name.
pub(crate) type Named = BTreeMap<String, Vec<f64>>;

/// What a variant computed.
#[derive(Debug)]
pub(crate) struct Computed {
    /// Under the names of the expected tensors. Outputs have a row for every row of the (repeated) batch.
    pub(crate) values: Named,
    /// `grad.*` once more: the sum of the gradients of the loss parts, one run each.
    pub(crate) summed: Named,
    /// Whether the state after the step is missing: it depends on the number of rows, which repeating changes.
    pub(crate) without_state: bool,
}

/// The plan of a case's model.
///
/// # Errors
/// When the model does not fit.
pub(crate) fn plan(setup: &Setup, mode: Mode, options: PlanOptions) -> Result<Plan, String> {
    let build = || {
        let (_, architecture) = manygate_models::from_table(&setup.model)?;
        Plan::compile(manygate_models::build(architecture.as_ref(), &setup.inputs, mode)?, options)
    };
    build().map_err(|e| e.to_string())
}

/// Runs a training step and an evaluation.
///
/// # Errors
/// When the engine refuses.
pub(crate) fn compute(setup: &Setup, contents: &Contents, variant: Variant) -> Result<Computed, String> {
    let options = PlanOptions {
        tile_rows: variant.tile_rows,
        outputs: true,
        isa: variant.isa,
        ..PlanOptions::default()
    };
    let training = plan(setup, Mode::Training, options.clone())?;
    let evaluation = plan(setup, Mode::Evaluation, options)?;
    let batch = match variant.repeated {
        true => repeated(&contents.batch, &training)?,
        false => contents.batch.clone(),
    };
    let run = Run { contents, batch: &batch, variant };
    if variant.threads == 1 {
        run.both(&Serial, &training, &evaluation)
    } else {
        let pool = Pool::new(variant.threads).map_err(|e| e.to_string())?;
        pool.enter(|exec| run.both(exec, &training, &evaluation))
    }
}

/// The rows of `batch` over and over, as often as it takes to fill two lanes.
fn repeated(batch: &Batch, plan: &Plan) -> Result<Batch, String> {
    const MOST_ROWS: usize = 1 << 16;
    let mut sizes = (1..).map(|copies| copies * batch.rows).take_while(|&rows| rows > 0 && rows <= MOST_ROWS);
    let rows = sizes.find(|&rows| plan.lanes(rows) > 1).ok_or("no batch of this case has two lanes")?;
    let order: Vec<u32> = (0..rows).map(|r| (r % batch.rows) as u32).collect();
    let mut all = Batch::empty_like(batch);
    all.gather(batch, &order);
    Ok(all)
}

struct Run<'a> {
    contents: &'a Contents,
    batch: &'a Batch,
    variant: Variant,
}

impl Run<'_> {
    fn both(&self, exec: &dyn Executor, training: &Plan, evaluation: &Plan) -> Result<Computed, String> {
        let mut computed =
            Computed { values: Named::new(), summed: Named::new(), without_state: self.variant.repeated };
        let mut ws = Workspace::new(training, self.variant.threads, self.batch.rows);
        let parts = training.losses().len();
        self.run(exec, training, &mut ws, &vec![1.0; parts])?;
        outputs(training, &ws, "out", &mut computed.values)?;
        losses(training, &ws, &mut computed.values);
        self.gradients(exec, training, &ws, &mut computed.values)?;
        self.state_after(training, &ws, &mut computed.values);
        for part in 0..parts {
            let mut seeds = vec![0.0; parts];
            seeds[part] = 1.0;
            self.run(exec, training, &mut ws, &seeds)?;
            let mut own = Named::new();
            self.gradients(exec, training, &ws, &mut own)?;
            for (name, values) in own {
                let sum = computed.summed.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
            }
        }
        let mut ws = Workspace::new(evaluation, self.variant.threads, self.batch.rows);
        self.run(exec, evaluation, &mut ws, &[])?;
        outputs(evaluation, &ws, "eval", &mut computed.values)?;
        Ok(computed)
    }

    fn run(&self, exec: &dyn Executor, plan: &Plan, ws: &mut Workspace, seeds: &[f32]) -> Result<(), String> {
        let Contents { params, state, tables, .. } = self.contents;
        let tables: Vec<Rows<'_>> = tables.iter().map(|t| t.rows()).collect();
        plan.pack(exec, ws, params);
        let input = Input { params, state, tables: &tables, batch: self.batch, seeds };
        plan.run(exec, ws, &input).map_err(|e| e.to_string())
    }

    /// Dense gradients of the last run, of parameters and tables.
    fn gradients(
        &self,
        exec: &dyn Executor,
        plan: &Plan,
        ws: &Workspace,
        into: &mut Named,
    ) -> Result<(), String> {
        let lanes = plan.gradients(ws);
        for (block, range) in plan.layout().blocks() {
            let sum = |i| (0..lanes.rows()).map(|lane| f64::from(lanes.row(lane)[i])).sum();
            into.insert(format!("grad.{}", block.name), range.map(sum).collect());
        }
        let mut sparse = SparseGradients::new(plan, self.batch.rows);
        sparse.sort(exec, self.batch);
        for (t, spec) in plan.tables().iter().enumerate() {
            let (ids, rows) = sparse.coalesced(plan, ws, t);
            if !ids.is_sorted_by(|a, b| a < b) || ids.len() * spec.dim != rows.len() {
                return Err(format!("{}: its sparse gradient is not one row an id", spec.name));
            }
            let mut dense = vec![0.0; spec.rows * spec.dim];
            for (&id, row) in ids.iter().zip(rows.chunks_exact(spec.dim)) {
                let start = id as usize * spec.dim;
                dense[start..start + spec.dim].iter_mut().zip(row).for_each(|(to, &v)| *to = f64::from(v));
            }
            into.insert(format!("grad.{}", spec.name), dense);
        }
        Ok(())
    }

    fn state_after(&self, plan: &Plan, ws: &Workspace, into: &mut Named) {
        if self.variant.repeated {
            return;
        }
        let mut state = self.contents.state.clone();
        plan.update_state(ws, &mut state);
        for (block, values) in state.tensors() {
            into.insert(format!("after.{}", block.name), values.iter().copied().map(f64::from).collect());
        }
    }
}

fn outputs(plan: &Plan, ws: &Workspace, kind: &str, into: &mut Named) -> Result<(), String> {
    for name in plan.output_names() {
        let output = plan.output(ws, name).map_err(|e| e.to_string())?;
        let values = (0..output.rows()).flat_map(|r| output.row(r)).copied().map(f64::from);
        into.insert(format!("{kind}.{name}"), values.collect());
    }
    Ok(())
}

fn losses(plan: &Plan, ws: &Workspace, into: &mut Named) {
    let parts = plan.losses().iter().zip(ws.part_losses());
    let total = parts.clone().map(|(part, loss)| f64::from(part.weight) * loss).sum();
    into.insert("loss".into(), vec![total]);
    into.extend(parts.map(|(part, &loss)| (format!("loss.{}", part.name), vec![loss])));
}
