//! What a CUDA device computes for a case, under the names of the case's tensors.

use super::contents::Contents;
use super::engine::{self, Computed, Named, all_tensors, losses_of};
use super::translate::{ScheduledStage, Setup, Update};
use manygate_core::Result;
use manygate_cuda::Precision;
use manygate_cuda::device::Device;
use manygate_device::{DeviceModel, TableShape};
use manygate_graph::device::Capacity;
use manygate_graph::{Draws, LookupSource, LossPart, Mode, Parameters, Plan, PlanOptions, RowOrder};

/// Runs a training step, its single losses, steps of descent and an evaluation on a device.
///
/// # Errors
/// When the engine or the device refuses.
pub(crate) fn compute(
    setup: &Setup,
    contents: &Contents,
    device: &Device,
) -> std::result::Result<Computed, String> {
    let rows = contents.batch.rows;
    let options = PlanOptions { tile_rows: rows, lane_rows: rows, outputs: true, ..PlanOptions::default() };
    let training = engine::plan(setup, Mode::Training, options.clone())?;
    let evaluation = engine::plan(setup, Mode::Evaluation, options.clone())?;
    let of_stage =
        |stage: &ScheduledStage| engine::plan(&setup.at_stage(&stage.stage), Mode::Training, options.clone());
    let stages: Vec<Plan> = setup.schedule.iter().map(of_stage).collect::<std::result::Result<_, _>>()?;
    let compute = || {
        let mut computed = Computed::default();
        let mut order = RowOrder::default();
        let batch = order.arrange(&training, &contents.batch)?.batch.clone();
        let (contents, order) = (&Contents { batch, ..contents.clone() }, &order);
        let mut run = Run { contents, order, model: model(device, training, contents)? };
        let after = run.step(&mut computed)?;
        run.single_losses(&mut computed)?;
        if let Some(update) = setup.update {
            let mut moved = contents.clone();
            let loss = run.descend(update, &mut moved)?;
            computed.values.insert("after_loss".into(), vec![loss]);
            all_tensors(&moved, "after", &mut computed.values);
        }
        follow_schedule(setup, stages, device, contents, order, &mut computed.values)?;
        let mut run = Run { contents, order, model: model(device, evaluation, contents)? };
        run.run(contents, &[])?;
        run.outputs("eval", &mut computed.values)?;
        if contents.expected.keys().any(|name| name.starts_with("eval_after.")) {
            run.run(&Contents { state: after, ..contents.clone() }, &[])?;
            run.outputs("eval_after", &mut computed.values)?;
        }
        Ok(computed)
    };
    let computed: Result<Computed> = compute();
    computed.map_err(|e| e.to_string())
}

/// The stages of the case's schedule, by their plans, each on what the one before left.
fn follow_schedule(
    setup: &Setup,
    stages: Vec<Plan>,
    device: &Device,
    contents: &Contents,
    order: &RowOrder,
    into: &mut Named,
) -> Result<()> {
    let mut moved = contents.clone();
    for (number, (stage, plan)) in setup.schedule.iter().zip(stages).enumerate() {
        if number > 0 {
            let (_, architecture) = manygate_models::from_table(&setup.at_stage(&stage.stage).model)?;
            architecture.begin_stage(&setup.inputs, &mut moved.params)?;
        }
        if number + 1 == setup.schedule.len() {
            all_tensors(&moved, "warm", into);
        }
        let mut run = Run { contents, order, model: model(device, plan, contents)? };
        let loss = run.descend(Update { lr: stage.lr, steps: stage.steps }, &mut moved)?;
        into.insert(format!("after_loss.{}", stage.stage), vec![loss]);
        all_tensors(&moved, &format!("after.{}", stage.stage), into);
    }
    Ok(())
}

fn model(device: &Device, plan: Plan, contents: &Contents) -> Result<DeviceModel> {
    let shape = |t: &manygate_embedding::Table| TableShape {
        rows: t.spec().rows,
        dim: t.spec().dim,
        stride: t.stride(),
    };
    let tables: Vec<TableShape> = contents.tables.iter().map(shape).collect();
    let ids = contents.batch.bags.iter().map(|bag| bag.ids.len()).collect();
    let capacity = Capacity { rows: contents.batch.rows, ids };
    DeviceModel::new(device, plan, capacity, Precision::F32, &tables, None)
}

struct Run<'a> {
    /// With the rows in the order that the plans read.
    contents: &'a Contents,
    order: &'a RowOrder,
    model: DeviceModel,
}

impl Run<'_> {
    /// One run over the batch with the weights of `contents`; the loss of each part.
    fn run(&mut self, contents: &Contents, seeds: &[f32]) -> Result<Vec<f64>> {
        self.model.upload(&contents.params, &contents.state)?;
        for (t, table) in contents.tables.iter().enumerate() {
            self.model.upload_table(t, table.values())?;
        }
        self.model.run(&contents.batch, seeds, Draws::default(), None)?;
        let finished = self.model.finish()?;
        Ok(finished.map(|finished| finished.losses).unwrap_or_default())
    }

    /// A training step; the state after it.
    fn step(&mut self, computed: &mut Computed) -> Result<Parameters> {
        let seeds = vec![1.0; self.model.plan().losses().len()];
        let losses = self.run(self.contents, &seeds)?;
        losses_of(self.model.plan(), &losses, self.contents, &mut computed.values);
        self.outputs("out", &mut computed.values)?;
        computed.values.extend(self.gradients()?);
        let (mut params, mut state) = (self.contents.params.clone(), self.contents.state.clone());
        self.model.download(&mut params, &mut state)?;
        for (block, values) in state.tensors() {
            let values = values.iter().copied().map(f64::from).collect();
            computed.values.insert(format!("after.{}", block.name), values);
        }
        Ok(state)
    }

    /// The gradients of one part of the loss after the other, and their sum.
    fn single_losses(&mut self, computed: &mut Computed) -> Result<()> {
        let parts = self.model.plan().losses().to_vec();
        for (part, LossPart { name: of, weight, .. }) in parts.iter().enumerate() {
            let mut seeds = vec![0.0; parts.len()];
            seeds[part] = 1.0;
            self.run(self.contents, &seeds)?;
            for (name, values) in self.gradients()? {
                let of_part = name.replacen("grad.", &format!("grad_of.{of}."), 1);
                if self.contents.expected.contains_key(&of_part) {
                    let own = values.iter().map(|v| v / f64::from(*weight)).collect();
                    computed.values.insert(of_part, own);
                }
                let sum = computed.summed.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
            }
        }
        Ok(())
    }

    /// Steps of plain gradient descent, of the parameters and tables of `moved`. Gives the loss after them.
    fn descend(&mut self, update: Update, moved: &mut Contents) -> Result<f64> {
        let seeds = vec![1.0; self.model.plan().losses().len()];
        let move_by = |values: &mut [f32], gradient: &[f64]| {
            let pairs = values.iter_mut().zip(gradient);
            pairs.for_each(|(v, g)| *v = (f64::from(*v) - update.lr * g) as f32);
        };
        for _ in 0..update.steps {
            self.run(moved, &seeds)?;
            let own = self.gradients()?;
            for (block, range) in self.model.plan().layout().blocks() {
                move_by(&mut moved.params.values[range], &own[&format!("grad.{}", block.name)]);
            }
            for table in &mut moved.tables {
                let mut weights = table.weights();
                move_by(&mut weights, &own[&format!("grad.{}", table.spec().name)]);
                table.set_weights(&weights)?;
            }
        }
        let parts = self.run(moved, &seeds)?;
        let parts = self.model.plan().losses().iter().zip(parts);
        Ok(parts.map(|(p, loss)| f64::from(p.weight) * loss).sum())
    }

    fn outputs(&self, kind: &str, into: &mut Named) -> Result<()> {
        let names: Vec<String> = self.model.plan().output_names().map(str::to_owned).collect();
        for (index, name) in names.iter().enumerate() {
            let output = self.model.output(index, self.contents.batch.rows)?;
            let width = output.len() / self.contents.batch.rows;
            let mut values = vec![0.0; output.len()];
            for (row, own) in output.chunks_exact(width.max(1)).enumerate() {
                let to = &mut values[self.order.caller_row(row) * width..][..width];
                to.iter_mut().zip(own).for_each(|(to, &value)| *to = value.into());
            }
            into.insert(format!("{kind}.{name}"), values);
        }
        Ok(())
    }

    /// Dense gradients of the last run, of parameters and tables.
    fn gradients(&self) -> Result<Named> {
        let (plan, batch) = (self.model.plan(), &self.contents.batch);
        let dense = self.model.gradients()?;
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect();
        let blocks = plan.layout().blocks();
        let mut named: Named =
            blocks.map(|(block, range)| (format!("grad.{}", block.name), wide(&dense[range]))).collect();
        for spec in plan.tables() {
            named.insert(format!("grad.{}", spec.name), vec![0.0; spec.rows * spec.dim]);
        }
        for source in plan.sparse_sources() {
            let spec = &plan.tables()[source.table];
            let lists = |bag: usize| batch.bags[bag].offsets.windows(2).map(|w| w[0] as usize..w[1] as usize);
            let ids: Vec<&[u32]> = match source.source {
                LookupSource::Field(field) => batch.ids[field].chunks(1).collect(),
                LookupSource::Bag(bag) => lists(bag).map(|list| &batch.bags[bag].ids[list]).collect(),
                LookupSource::Positions(bag) => batch.bags[bag].ids.chunks(1).collect(),
            };
            let rows = self.model.sparse_gradient(source, ids.len())?;
            let Some(sums) = named.get_mut(&format!("grad.{}", spec.name)) else { continue };
            let own = source.scenario.map_or(0..ids.len(), |scenario| batch.rows_of_scenario(scenario));
            for (ids, row) in ids.iter().zip(rows.chunks_exact(spec.dim)).take(own.end).skip(own.start) {
                for &id in *ids {
                    let to = &mut sums[id as usize * spec.dim..][..spec.dim];
                    to.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
                }
            }
        }
        Ok(named)
    }
}
