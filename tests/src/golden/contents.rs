//! What a case gives to the engine and what it expects back: every tensor is taken by name, kind and shape, and
//! none may remain.

use super::case::{Case, Tensor, Values};
use super::engine;
use super::translate::Setup;
use manygate_core::{Bag, Batch};
use manygate_embedding::Table;
use manygate_graph::{Mode, Parameters, Plan, PlanOptions};
use std::collections::{BTreeMap, BTreeSet};

/// A tensor that the engine must reproduce.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// A case, ready to be run.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    pub(crate) params: Parameters,
    pub(crate) state: Parameters,
    pub(crate) tables: Vec<Table>,
    pub(crate) batch: Batch,
    /// By name: `out.*`, `eval.*`, `eval_after.*`, `loss`, `loss.*`, `grad.*`, `after.*`.
    pub(crate) expected: BTreeMap<String, Expected>,
}

/// Tensors that may be there and are not looked at: what outputs depend on.
fn is_ignored(name: &str) -> bool {
    name.starts_with("mid.")
        || name.starts_with("aux.")
        || name.rsplit('.').next() == Some("num_batches_tracked")
}

impl Contents {
    /// Takes every tensor of `case`: those that the model has, no fewer and no more.
    ///
    /// # Errors
    /// Every tensor that is missing, unknown, of another shape or kind, or not finite.
    pub(crate) fn read(case: &Case, setup: &Setup) -> Result<Contents, Vec<String>> {
        let options = PlanOptions { outputs: true, ..PlanOptions::default() };
        let plan = engine::plan(setup, Mode::Training, options).map_err(|e| vec![e])?;
        let mut take = Take { tensors: &case.tensors, taken: BTreeSet::new(), problems: Vec::new() };
        let mut expected = BTreeMap::new();
        let params = take.parameters("param", Parameters::initial(plan.layout().clone(), 0));
        let state = take.parameters("buffer", Parameters::initial(plan.state_layout().clone(), 0));
        let tables = take.tables(&plan);
        let batch = take.batch(setup);
        take.values(setup, &plan, &mut expected);
        take.gradients_and_state(&plan, &mut expected);
        take.what_steps_reach(setup, &plan, &mut expected);
        take.what_stages_reach(setup, &plan, &mut expected);
        for name in case.tensors.keys().filter(|n| !take.taken.contains(*n) && !is_ignored(n)) {
            take.problems.push(format!("{name} is not a tensor that this model has"));
        }
        match take.problems.is_empty() {
            true => Ok(Contents { params, state, tables, batch, expected }),
            false => Err(take.problems),
        }
    }
}

/// Name and shape of every parameter tensor and table.
fn tensors(plan: &Plan) -> Vec<(String, Vec<usize>)> {
    let blocks = plan.layout().blocks().map(|(block, _)| (block.name.clone(), block.shape.clone()));
    let tables = plan.tables().iter().map(|t| (t.name.clone(), vec![t.rows, t.dim]));
    blocks.chain(tables).collect()
}

/// Takes tensors by name and collects what is wrong with them.
struct Take<'c> {
    tensors: &'c BTreeMap<String, Tensor>,
    taken: BTreeSet<String>,
    problems: Vec<String>,
}

impl<'c> Take<'c> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Option<&'c Values> {
        self.taken.insert(name.to_owned());
        match self.tensors.get(name) {
            None => self.problems.push(format!("{name} {shape:?} is missing")),
            Some(t) if t.shape != shape => {
                self.problems.push(format!("{name} has shape {:?}, the model's is {shape:?}", t.shape));
            }
            Some(t) => return Some(&t.values),
        }
        None
    }

    fn floats(&mut self, name: &str, shape: &[usize]) -> Option<&'c [f32]> {
        match self.tensor(name, shape)? {
            Values::F32(values) if values.iter().all(|v| v.is_finite()) => return Some(values),
            Values::F32(_) => self.problems.push(format!("{name} has values that are not finite")),
            Values::I64(_) => self.problems.push(format!("{name} is i64, f32 is needed")),
        }
        None
    }

    fn expect(&mut self, into: &mut BTreeMap<String, Expected>, name: String, shape: &[usize]) {
        if let Some(values) = self.floats(&name, shape) {
            into.insert(name, Expected { shape: shape.to_vec(), values: values.to_vec() });
        }
    }

    fn parameters(&mut self, kind: &str, mut values: Parameters) -> Parameters {
        let layout = values.layout().clone();
        for (block, range) in layout.blocks() {
            if let Some(given) = self.floats(&format!("{kind}.{}", block.name), &block.shape) {
                values.values[range].copy_from_slice(given);
            }
        }
        values
    }

    fn tables(&mut self, plan: &Plan) -> Vec<Table> {
        let mut tables: Vec<Table> = plan.tables().iter().map(|s| Table::zeroed(s.clone(), 0)).collect();
        for table in &mut tables {
            let (name, shape) =
                (format!("param.{}", table.spec().name), [table.spec().rows, table.spec().dim]);
            if let Some(given) = self.floats(&name, &shape)
                && let Err(e) = table.set_weights(given)
            {
                self.problems.push(e.to_string());
            }
        }
        tables
    }

    fn batch(&mut self, setup: &Setup) -> Batch {
        let (inputs, rows) = (&setup.inputs, setup.rows);
        let ids = self.ids(setup);
        let mut batch = Batch { rows, ids, dense_width: inputs.dense, ..Batch::default() };
        let has_fairness = setup.model.contains_key("fairness");
        let numbers = inputs.dense - usize::from(has_fairness);
        if numbers > 0 {
            batch.dense = self.floats("input.dense", &[rows, numbers]).unwrap_or_default().to_vec();
        }
        if has_fairness {
            let fairness = self.floats("input.fairness", &[rows]).unwrap_or_default();
            let before = std::mem::take(&mut batch.dense);
            for (row, f) in fairness.iter().enumerate() {
                batch.dense.extend(before.iter().skip(row * numbers).take(numbers).chain([f]));
            }
        }
        for (_, field, length) in inputs.sequences() {
            let vocabulary = inputs.tables[field.table].rows;
            let bag = self.sequence(&format!("input.seq.{}", field.name), rows, length, vocabulary);
            batch.bags.push(bag);
        }
        if inputs.scenarios > 0 {
            batch.scenario = self.scenarios(rows, inputs.scenarios);
        }
        for task in inputs.task_names() {
            let labels = self.floats(&format!("label.{task}"), &[rows]).unwrap_or_default();
            batch.labels.push(labels.to_vec());
        }
        batch
    }

    /// Ids from 1, those of a row first and zeros behind them.
    fn sequence(&mut self, name: &str, rows: usize, length: usize, vocabulary: usize) -> Bag {
        let mut bag = Bag { offsets: vec![0], ids: Vec::new() };
        let Some(Values::I64(given)) = self.tensor(name, &[rows, length]) else {
            self.problems.push(format!("{name} is needed as i64"));
            return Bag { offsets: vec![0; rows + 1], ids: Vec::new() };
        };
        for (row, ids) in given.chunks_exact(length).enumerate() {
            let valid = ids.iter().take_while(|&&id| id != 0).count();
            if ids[valid..].iter().any(|&id| id != 0)
                || ids.iter().any(|id| !(0..vocabulary as i64).contains(id))
            {
                self.problems.push(format!("{name}[{row}] is {ids:?}, the table has {vocabulary} rows"));
            } else {
                bag.ids.extend(ids[..valid].iter().map(|&id| id as u32));
            }
            bag.offsets.push(bag.ids.len() as u32);
        }
        bag
    }

    fn scenarios(&mut self, rows: usize, count: usize) -> Vec<u32> {
        let Some(Values::I64(given)) = self.tensor("input.scene", &[rows]) else {
            self.problems.push("input.scene is needed as i64".into());
            return Vec::new();
        };
        if let Some(row) = given.iter().position(|&s| !(0..count as i64).contains(&s)) {
            self.problems.push(format!("input.scene[{row}] is {}, there are {count} scenarios", given[row]));
            return Vec::new();
        }
        given.iter().map(|&s| s as u32).collect()
    }

    /// `[field][row]`.
    fn ids(&mut self, setup: &Setup) -> Vec<Vec<u32>> {
        let (name, fields) = ("input.sparse", &setup.inputs.fields);
        let ids = match self.tensor(name, &[setup.rows, fields.len()]) {
            Some(Values::I64(ids)) => ids,
            Some(Values::F32(_)) => {
                self.problems.push(format!("{name} is f32, i64 is needed"));
                return Vec::new();
            }
            None => return Vec::new(),
        };
        let mut columns = vec![Vec::with_capacity(setup.rows); fields.len()];
        for (i, &id) in ids.iter().enumerate() {
            let (row, field) = (i / fields.len(), i % fields.len());
            let vocabulary = setup.inputs.tables[fields[field].table].rows;
            match u32::try_from(id) {
                Ok(id) if (id as usize) < vocabulary => columns[field].push(id),
                _ => {
                    self.problems
                        .push(format!("{name}[{row}, {field}] is {id}, the table has {vocabulary} rows"));
                }
            }
        }
        columns
    }

    /// Losses; probabilities in training mode and in evaluation, which are the same unless there is state. A case that has
    /// those after a step leaves out those before it where state has not told them from training.
    fn values(&mut self, setup: &Setup, plan: &Plan, expected: &mut BTreeMap<String, Expected>) {
        let has_state = !plan.state_layout().is_empty();
        self.expect(expected, "loss".into(), &[1]);
        for part in plan.losses() {
            let name = format!("loss.{}", part.name);
            match expected.get("loss").cloned() {
                // The only part is the total.
                Some(total) if plan.losses().len() == 1 && !self.tensors.contains_key(&name) => {
                    expected.insert(name, total);
                }
                _ => self.expect(expected, name, &[1]),
            }
        }
        if self.tensors.contains_key(engine::TASKS_TOGETHER) {
            self.expect(expected, engine::TASKS_TOGETHER.into(), &[1]);
        }
        self.families_of_parts(plan, expected);
        for output in plan.output_names() {
            let (out, eval) = (format!("out.{output}"), format!("eval.{output}"));
            self.expect(expected, out.clone(), &[setup.rows]);
            let after = format!("eval_after.{output}");
            let has_after = self.tensors.contains_key(&after);
            if has_after {
                self.expect(expected, after, &[setup.rows]);
            }
            if (has_state && !has_after) || self.tensors.contains_key(&eval) {
                self.expect(expected, eval, &[setup.rows]);
            } else if let Some(training) = expected.get(&out) {
                expected.insert(eval, training.clone());
            }
        }
    }

    /// Sums of parts with one beginning, which the case may state or not.
    fn families_of_parts(&mut self, plan: &Plan, expected: &mut BTreeMap<String, Expected>) {
        let mut sums = BTreeMap::<String, f32>::new();
        for part in plan.losses() {
            let values = expected.get(&format!("loss.{}", part.name)).map(|loss| loss.values[0]);
            if let (Some(family), Some(loss)) = (engine::family_of(&part.name), values) {
                *sums.entry(format!("loss.{family}")).or_default() += loss;
            }
        }
        for (name, sum) in sums {
            if self.tensors.contains_key(&name) {
                self.expect(expected, name, &[1]);
            } else {
                expected.insert(name, Expected { shape: vec![1], values: vec![sum] });
            }
        }
    }

    /// Gradients of single parts, where the case has them, and what steps of gradient descent reach.
    fn what_steps_reach(&mut self, setup: &Setup, plan: &Plan, expected: &mut BTreeMap<String, Expected>) {
        for (name, shape) in tensors(plan) {
            for part in plan.losses() {
                let of_part = format!("grad_of.{}.{name}", part.name);
                if self.tensors.contains_key(&of_part) {
                    self.expect(expected, of_part, &shape);
                }
            }
            if setup.update.is_some() {
                let (after, before) = (format!("after.{name}"), format!("param.{name}"));
                self.expect_moved(expected, &after, &before, &shape);
            }
        }
        if setup.update.is_some() {
            self.expect(expected, "after_loss".into(), &[1]);
        }
    }

    /// Expects the tensor `name` of the case or, where it is not repeated there because nothing moved, `before`.
    fn expect_moved(
        &mut self,
        into: &mut BTreeMap<String, Expected>,
        name: &str,
        before: &str,
        shape: &[usize],
    ) {
        let given = if self.tensors.contains_key(name) { name } else { before };
        if let Some(values) = self.floats(given, shape) {
            into.insert(name.to_owned(), Expected { shape: shape.to_vec(), values: values.to_vec() });
        }
    }

    /// What each stage of a schedule reaches, and what a warm start makes of it just before the last.
    fn what_stages_reach(&mut self, setup: &Setup, plan: &Plan, expected: &mut BTreeMap<String, Expected>) {
        for (name, shape) in tensors(plan) {
            let mut before = format!("param.{name}");
            for (number, stage) in setup.schedule.iter().enumerate() {
                let warm = format!("warm.{name}");
                if number + 1 == setup.schedule.len() {
                    self.expect_moved(expected, &warm, &before, &shape);
                    if self.tensors.contains_key(&warm) {
                        before = warm;
                    }
                }
                let after = format!("after.{}.{name}", stage.stage);
                self.expect_moved(expected, &after, &before, &shape);
                if self.tensors.contains_key(&after) {
                    before = after;
                }
            }
        }
        for stage in &setup.schedule {
            self.expect(expected, format!("after_loss.{}", stage.stage), &[1]);
        }
    }

    /// Gradients of all parameters and tables, and the state after a step.
    fn gradients_and_state(&mut self, plan: &Plan, expected: &mut BTreeMap<String, Expected>) {
        for (block, _) in plan.layout().blocks() {
            self.expect(expected, format!("grad.{}", block.name), &block.shape);
        }
        for table in plan.tables() {
            self.expect(expected, format!("grad.{}", table.name), &[table.rows, table.dim]);
        }
        for (block, _) in plan.state_layout().blocks() {
            self.expect(expected, format!("after.{}", block.name), &block.shape);
        }
    }
}
