//! What the engine computes for a case, under the names of the case's tensors.

use super::contents::Contents;
use super::translate::{Setup, Update};
use manygate_core::{Batch, Executor, Pool, Serial};
use manygate_embedding::SparseGradients;
use manygate_graph::{Draws, Input, LossPart, Mode, Parameters, Plan, PlanOptions, RowOrder, Workspace};
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
    /// Fewest rows of a lane.
    pub lane_rows: usize,
}

impl Variant {
    /// On every instruction set of this machine, the fastest one first: tiles and lanes larger than the batches of the
    /// cases, and small odd tiles in lanes that threads share.
    pub fn all() -> impl Iterator<Item = Variant> {
        const SHAPES: [(usize, usize, usize); 4] = [(1, 128, 256), (1, 5, 256), (2, 128, 4), (2, 5, 4)];
        Isa::available().into_iter().rev().flat_map(|isa| {
            SHAPES.map(|(threads, tile_rows, lane_rows)| Variant { isa, threads, tile_rows, lane_rows })
        })
    }

    fn options(&self) -> PlanOptions {
        let Variant { isa, tile_rows, lane_rows, .. } = *self;
        PlanOptions { tile_rows, lane_rows, outputs: true, isa, ..PlanOptions::default() }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Variant { isa, threads, tile_rows, lane_rows } = self;
        write!(f, "{isa}, threads: {threads}, rows of a tile: {tile_rows}, of a lane: {lane_rows}")
    }
}

/// What some cases call the sum of the tasks' losses beside other parts.
pub(crate) const TASKS_TOGETHER: &str = "loss.bce";

/// Values by name.
pub(crate) type Named = BTreeMap<String, Vec<f64>>;

/// What a variant computed.
#[derive(Debug, Default)]
pub(crate) struct Computed {
    /// Under the names of the expected tensors.
    pub(crate) values: Named,
    /// `grad.*` once more: the sum of the gradients of the loss parts, one run each.
    pub(crate) summed: Named,
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
    let training = plan(setup, Mode::Training, variant.options())?;
    let evaluation = plan(setup, Mode::Evaluation, variant.options())?;
    let run = Run { setup, contents, threads: variant.threads };
    if variant.threads == 1 {
        run.both(&Serial, &training, &evaluation)
    } else {
        let pool = Pool::new(variant.threads).map_err(|e| e.to_string())?;
        pool.enter(|exec| run.both(exec, &training, &evaluation))
    }
}

struct Run<'a> {
    setup: &'a Setup,
    contents: &'a Contents,
    threads: usize,
}

impl Run<'_> {
    fn both(&self, exec: &dyn Executor, training: &Plan, evaluation: &Plan) -> Result<Computed, String> {
        let rows = self.contents.batch.rows;
        let mut order = RowOrder::default();
        let batch = order.arrange(training, &self.contents.batch).map_err(|e| e.to_string())?.batch.clone();
        let run = |plan: &Plan, ws: &mut Workspace, state: &Parameters, seeds: &[f32]| {
            let Contents { params, tables, .. } = self.contents;
            let tables: Vec<Rows<'_>> = tables.iter().map(|t| t.rows()).collect();
            plan.pack(exec, ws, params);
            let input =
                Input { params, state, tables: &tables, batch: &batch, seeds, draws: Draws::default() };
            plan.run(exec, ws, &input).map_err(|e| e.to_string())
        };
        let state = &self.contents.state;
        let mut computed = Computed::default();
        let mut ws = Workspace::new(training, self.threads, rows);
        let parts = training.losses().len();
        run(training, &mut ws, state, &vec![1.0; parts])?;
        outputs(training, &ws, &order, "out", &mut computed.values)?;
        losses_of(training, ws.part_losses(), self.contents, &mut computed.values);
        gradients(exec, training, &ws, &batch, &mut computed.values)?;
        let mut after = state.clone();
        training.update_state(&ws, &mut after);
        for (block, values) in after.tensors() {
            let values = values.iter().copied().map(f64::from).collect();
            computed.values.insert(format!("after.{}", block.name), values);
        }
        for part in 0..parts {
            let mut seeds = vec![0.0; parts];
            seeds[part] = 1.0;
            run(training, &mut ws, state, &seeds)?;
            let mut own = Named::new();
            gradients(exec, training, &ws, &batch, &mut own)?;
            for (name, values) in own {
                let LossPart { name: of, weight, .. } = &training.losses()[part];
                let of_part = name.replacen("grad.", &format!("grad_of.{of}."), 1);
                if self.contents.expected.contains_key(&of_part) {
                    // That of the part itself, not of its share in the total.
                    let own = values.iter().map(|v| v / f64::from(*weight)).collect();
                    computed.values.insert(of_part, own);
                }
                let sum = computed.summed.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
            }
        }
        if let Some(update) = self.setup.update {
            let mut model = self.contents.clone();
            let loss = self.descend(exec, training, &batch, update, &mut model)?;
            computed.values.insert("after_loss".into(), vec![loss]);
            all_tensors(&model, "after", &mut computed.values);
        }
        self.follow_schedule(exec, training, &batch, &mut computed.values)?;
        let mut ws = Workspace::new(evaluation, self.threads, rows);
        run(evaluation, &mut ws, state, &[])?;
        outputs(evaluation, &ws, &order, "eval", &mut computed.values)?;
        if self.contents.expected.keys().any(|name| name.starts_with("eval_after.")) {
            run(evaluation, &mut ws, &after, &[])?;
            outputs(evaluation, &ws, &order, "eval_after", &mut computed.values)?;
        }
        Ok(computed)
    }

    /// The stages of the case's schedule, each on what the one before left.
    fn follow_schedule(
        &self,
        exec: &dyn Executor,
        training: &Plan,
        batch: &Batch,
        into: &mut Named,
    ) -> Result<(), String> {
        let mut model = self.contents.clone();
        for (number, stage) in self.setup.schedule.iter().enumerate() {
            let setup = self.setup.at_stage(&stage.stage);
            let plan = plan(&setup, Mode::Training, training.options().clone())?;
            if number > 0 {
                let (_, architecture) =
                    manygate_models::from_table(&setup.model).map_err(|e| e.to_string())?;
                architecture.begin_stage(&setup.inputs, &mut model.params).map_err(|e| e.to_string())?;
            }
            if number + 1 == self.setup.schedule.len() {
                all_tensors(&model, "warm", into);
            }
            let update = Update { lr: stage.lr, steps: stage.steps };
            let loss = self.descend(exec, &plan, batch, update, &mut model)?;
            into.insert(format!("after_loss.{}", stage.stage), vec![loss]);
            all_tensors(&model, &format!("after.{}", stage.stage), into);
        }
        Ok(())
    }

    /// Steps of plain gradient descent, of parameters and tables. Gives the loss after them.
    fn descend(
        &self,
        exec: &dyn Executor,
        plan: &Plan,
        batch: &Batch,
        update: Update,
        model: &mut Contents,
    ) -> Result<f64, String> {
        let Contents { params, state, tables, .. } = model;
        let mut ws = Workspace::new(plan, self.threads, batch.rows);
        let seeds = vec![1.0; plan.losses().len()];
        let move_by = |values: &mut [f32], gradient: &[f64]| {
            for (v, g) in values.iter_mut().zip(gradient) {
                *v = (f64::from(*v) - update.lr * g) as f32;
            }
        };
        for step in 0..=update.steps {
            plan.pack(exec, &mut ws, params);
            let rows: Vec<Rows<'_>> = tables.iter().map(|t| t.rows()).collect();
            let input = Input { params, state, tables: &rows, batch, seeds: &seeds, draws: Draws::default() };
            plan.run(exec, &mut ws, &input).map_err(|e| e.to_string())?;
            if step == update.steps {
                break;
            }
            let mut own = Named::new();
            gradients(exec, plan, &ws, batch, &mut own)?;
            for (block, range) in plan.layout().blocks() {
                move_by(&mut params.values[range], &own[&format!("grad.{}", block.name)]);
            }
            for table in tables.iter_mut() {
                let mut weights = table.weights();
                move_by(&mut weights, &own[&format!("grad.{}", table.spec().name)]);
                table.set_weights(&weights).map_err(|e| e.to_string())?;
            }
        }
        let parts = plan.losses().iter().zip(ws.part_losses());
        Ok(parts.map(|(p, loss)| f64::from(p.weight) * loss).sum())
    }
}

/// Every parameter and table under `<kind>.<name>`.
pub(crate) fn all_tensors(model: &Contents, kind: &str, into: &mut Named) {
    let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect();
    let Contents { params, tables, .. } = model;
    into.extend(params.tensors().map(|(block, values)| (format!("{kind}.{}", block.name), wide(values))));
    into.extend(tables.iter().map(|t| (format!("{kind}.{}", t.spec().name), wide(&t.weights()))));
}

/// Dense gradients of the last run, of parameters and tables.
fn gradients(
    exec: &dyn Executor,
    plan: &Plan,
    ws: &Workspace,
    batch: &Batch,
    into: &mut Named,
) -> Result<(), String> {
    let lanes = plan.gradients(ws);
    for (block, range) in plan.layout().blocks() {
        let sum = |i| (0..lanes.rows()).map(|lane| f64::from(lanes.row(lane)[i])).sum();
        into.insert(format!("grad.{}", block.name), range.map(sum).collect());
    }
    let mut sparse = SparseGradients::new(plan, batch.rows);
    sparse.sort(exec, batch);
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

/// Outputs in the case's order of rows.
fn outputs(
    plan: &Plan,
    ws: &Workspace,
    order: &RowOrder,
    kind: &str,
    into: &mut Named,
) -> Result<(), String> {
    for name in plan.output_names() {
        let output = plan.output(ws, name).map_err(|e| e.to_string())?;
        let mut values = vec![0.0; output.rows() * output.cols()];
        for r in 0..output.rows() {
            let to = &mut values[order.caller_row(r) * output.cols()..][..output.cols()];
            to.iter_mut().zip(output.row(r)).for_each(|(to, &v)| *to = f64::from(v));
        }
        into.insert(format!("{kind}.{name}"), values);
    }
    Ok(())
}

/// The loss of each part, of parts with one beginning, all together, and the tasks' where the case states that.
pub(crate) fn losses_of(plan: &Plan, parts: &[f64], contents: &Contents, into: &mut Named) {
    let parts = plan.losses().iter().zip(parts);
    let weighed = |(part, loss): (&LossPart, &f64)| f64::from(part.weight) * loss;
    into.insert("loss".into(), vec![parts.clone().map(weighed).sum()]);
    if contents.expected.contains_key(TASKS_TOGETHER) {
        let is_task = |(part, _): &(&LossPart, _)| plan.output_names().any(|task| task == part.name);
        into.insert(TASKS_TOGETHER.into(), vec![parts.clone().filter(is_task).map(weighed).sum()]);
    }
    for (part, loss) in parts.clone() {
        if let Some(family) = family_of(&part.name) {
            into.entry(format!("loss.{family}")).or_insert_with(|| vec![0.0])[0] += loss;
        }
    }
    into.extend(parts.map(|(part, &loss)| (format!("loss.{}", part.name), vec![loss])));
}

/// `cvr` of the part `cvr.error`: a case may state the sum of such parts.
pub(crate) fn family_of(part: &str) -> Option<&str> {
    part.rsplit_once('.').map(|(family, _)| family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_batches_are_divided_into_tiles_and_lanes() {
        let config = serde_json::json!({
            "model": "mmoe", "sparse": [{"name": "f0", "vocab": 7}], "dim": 4, "batch": 16, "tasks": ["click"],
            "act": "relu", "experts": 3, "expert_units": [6],
        });
        let setup = Setup::translate(config.as_object().unwrap()).unwrap();
        let plan = |variant: Variant| plan(&setup, Mode::Training, variant.options()).unwrap();
        for isa in Isa::available() {
            let mut variants = Variant::all().filter(|v| v.isa == isa);
            assert!(variants.any(|v| v.threads > 1 && plan(v).lanes(16) > 1 && v.tile_rows < 8));
        }
    }
}
