//! A step whose losses a method of [`balance`](crate::balance) weighs: comes by what the method asks for, and by the
//! gradients that its weights make.

use crate::balance::uncertainty::Likelihood;
use crate::balance::{Access, Balance, Method, Seen};
use crate::loss_gradients::LossGradients;
use manygate_core::{Error, Executor, Result};
use manygate_embedding::SparseGradients;
use manygate_graph::{Graph, Input, LossPart, Plan, PlanOptions, Workspace};
use manygate_models::{Task, TaskKind};
use std::ops::Range;

/// A method at work on the losses of one plan.
#[derive(Debug)]
pub struct Balancer {
    method: Box<dyn Method>,
    /// The parts of the loss that are balanced.
    losses: Vec<usize>,
    /// Factor of each part of the loss; the method's weights come on top.
    factors: Vec<f32>,
    /// The same with the weights.
    seeds: Vec<f32>,
    weights: Vec<f64>,
    /// Weights of parameters that belong to one loss.
    own: Vec<f64>,
    /// The losses of the batch, with their weights and factors.
    seen: Vec<f64>,
    again: Vec<f64>,
    gram: Vec<f64>,
    norms: Vec<f64>,
    /// The layer whose gradient norms are asked for.
    layer: Vec<Range<usize>>,
    /// Where gradients are wanted apart.
    gradients: Option<LossGradients>,
    /// Where losses are wanted without gradients: a plan of nothing else.
    losses_alone: Option<(Plan, Workspace)>,
}

impl Balancer {
    /// Checks that `balance` fits the losses of `plan`, without the memory that it works in.
    ///
    /// # Errors
    /// As [`Balancer::new`].
    pub fn check(balance: &Balance, plan: &Plan, factors: &[f32], tasks: &[Task]) -> Result<()> {
        let losses = losses(balance, plan.losses(), factors, tasks)?;
        match balance.method(&likelihoods(plan.losses(), &losses, tasks), 0)?.access() {
            Access::Layer => layer(balance, plan, &losses).map(drop),
            Access::Before | Access::Losses | Access::Gradients => Ok(()),
        }
    }

    /// `balance` over the losses of `plan`, whose graph is declared once more as `graph`; `factors` are those of all parts
    /// of the loss, and the losses of `tasks` are balanced unless `balance` names others.
    ///
    /// # Errors
    /// When a loss or a layer that is named does not exist, or the method does not fit the number of losses.
    pub fn new(
        balance: &Balance,
        plan: &Plan,
        graph: Graph,
        factors: &[f32],
        tasks: &[Task],
        seed: u64,
        (exec, capacity): (&dyn Executor, usize),
    ) -> Result<Balancer> {
        let losses = losses(balance, plan.losses(), factors, tasks)?;
        let count = losses.len();
        let method = balance.method(&likelihoods(plan.losses(), &losses, tasks), seed)?;
        let access = method.access();
        let apart = matches!(access, Access::Gradients | Access::Layer);
        let layer = if access == Access::Layer { layer(balance, plan, &losses)? } else { Vec::new() };
        let losses_alone = (access == Access::Losses || method.looks_again()).then(|| -> Result<_> {
            let plan =
                Plan::compile(graph, PlanOptions { frozen: vec!["*".into()], ..plan.options().clone() })?;
            let ws = Workspace::new(&plan, exec.threads(), capacity);
            Ok((plan, ws))
        });
        Ok(Balancer {
            method,
            gradients: apart.then(|| LossGradients::new(plan, &losses, factors)),
            losses,
            factors: factors.to_vec(),
            seeds: factors.to_vec(),
            weights: vec![1.0; count],
            own: vec![1.0; count],
            seen: vec![0.0; count],
            again: vec![0.0; count],
            gram: vec![0.0; count * count],
            norms: vec![0.0; count],
            layer,
            losses_alone: losses_alone.transpose()?,
        })
    }

    /// Makes room for as many look-ups as `sparse` has room for.
    pub fn reserve_for(&mut self, sparse: &SparseGradients, plan: &Plan) {
        if let Some(gradients) = &mut self.gradients {
            gradients.reserve_for(sparse, plan);
        }
    }

    /// Runs `plan` on the batch of `input`, as often as the method wants, and lets the method learn from it. The gradients
    /// are those of the last run, or [`gradients`](Balancer::gradients). `sparse` has sorted the batch.
    ///
    /// # Errors
    /// When the batch does not fit, or a loss is not finite: then the method has learnt nothing.
    pub fn run(
        &mut self,
        exec: &dyn Executor,
        plan: &Plan,
        ws: &mut Workspace,
        sparse: &SparseGradients,
        input: &Input<'_>,
        step: u64,
    ) -> Result<()> {
        if self.looks_first() {
            self.look(exec, input, false, step)?;
        }
        self.weigh_ahead(step);
        if let Some(gradients) = &mut self.gradients {
            gradients.compute(exec, plan, ws, sparse, input, step)?;
        } else {
            let input = Input { seeds: &self.seeds, ..*input };
            plan.run(exec, ws, &input)?;
            plan.check_losses(ws, &input, step)?;
        }
        self.see(plan, ws.part_losses())?;
        match &self.gradients {
            Some(gradients) if self.method.access() == Access::Gradients => {
                gradients.gram(exec, &mut self.gram)
            }
            Some(gradients) => gradients.norms(&self.layer, &mut self.norms),
            None => {}
        }
        self.weigh_gradients(step);
        if let Some(gradients) = &mut self.gradients {
            gradients.combine(exec, &self.weights, &self.own);
        }
        self.learn(step);
        Ok(())
    }

    /// Whether the losses are wanted before the run whose gradients move.
    pub(crate) fn looks_first(&self) -> bool {
        self.method.access() == Access::Losses
    }

    /// Sets the weights, and the factors that the run gets, where both can be known before it.
    pub(crate) fn weigh_ahead(&mut self, step: u64) {
        if self.method.access() == Access::Gradients {
            return;
        }
        let seen = Seen { step, losses: &self.seen, ..Seen::default() };
        self.method.weigh(&seen, &mut self.weights);
        self.seeds.copy_from_slice(&self.factors);
        for (&loss, &weight) in self.losses.iter().zip(&self.weights) {
            self.seeds[loss] *= weight as f32;
        }
    }

    /// Takes the losses of the run, of all parts and unweighted.
    ///
    /// # Errors
    /// When the method cannot learn from them.
    pub(crate) fn see(&mut self, plan: &Plan, all: &[f64]) -> Result<()> {
        weighted(plan.losses(), &self.factors, &self.losses, all, &mut self.seen);
        self.check_signs(plan)
    }

    /// Sets the weights of gradients, where these are apart, once what the method asks of them is known.
    fn weigh_gradients(&mut self, step: u64) {
        if self.method.access() == Access::Gradients {
            let seen = Seen { step, losses: &self.seen, gram: &self.gram, ..Seen::default() };
            self.method.weigh(&seen, &mut self.weights);
        }
        if self.method.weighs_own() {
            self.own.copy_from_slice(&self.weights);
        }
    }

    /// Lets the method learn from the step.
    pub(crate) fn learn(&mut self, step: u64) {
        let seen = Seen { step, losses: &self.seen, gram: &self.gram, layer_norms: &self.norms };
        self.method.learn(&seen);
    }

    /// Weights that are learnt from losses mean nothing below 0, where counts have theirs.
    fn check_signs(&self, plan: &Plan) -> Result<()> {
        let negative = self.seen.iter().position(|&loss| loss < 0.0);
        match negative.filter(|_| self.method.access() != Access::Gradients) {
            None => Ok(()),
            Some(at) => {
                let (name, loss) = (&plan.losses()[self.losses[at]].name, self.seen[at]);
                let message = format!(
                    "learns from losses of at least 0, and that of {name} is {loss:.4}; use pcgrad or cagrad, or leave \
                     this loss out with balance.losses"
                );
                Err(Error::config("balance.method", message))
            }
        }
    }

    /// The combined gradients of the last run, where they are not in the workspace.
    pub fn gradients(&self) -> Option<&LossGradients> {
        self.gradients.as_ref()
    }

    /// After the parameters have moved: the losses of the same batch once more, where the method wants them.
    ///
    /// # Errors
    /// When a loss is not finite now.
    pub fn look_again(&mut self, exec: &dyn Executor, input: &Input<'_>, step: u64) -> Result<()> {
        if self.method.looks_again() {
            self.look(exec, input, true, step)?;
            self.method.learn_again(&self.seen, &self.again);
        }
        Ok(())
    }

    fn look(&mut self, exec: &dyn Executor, input: &Input<'_>, again: bool, step: u64) -> Result<()> {
        let Some((plan, ws)) = &mut self.losses_alone else { return Ok(()) };
        plan.pack(exec, ws, input.params);
        let input = Input { seeds: &self.factors, ..*input };
        plan.run(exec, ws, &input)?;
        plan.check_losses(ws, &input, step)?;
        let into = if again { &mut self.again } else { &mut self.seen };
        weighted(plan.losses(), &self.factors, &self.losses, ws.part_losses(), into);
        Ok(())
    }

    /// What a device keeps of the gradients of losses, where the method asks for them.
    #[cfg(feature = "cuda")]
    pub(crate) fn by_loss(&self, plan: &Plan) -> Option<manygate_device::ByLoss> {
        let mut by_loss = self.gradients.as_ref()?.on_device();
        if self.method.access() == Access::Layer {
            by_loss.measured = self.layer.clone();
            by_loss.measured_tables = vec![false; plan.tables().len()];
        }
        Some(by_loss)
    }

    /// Takes the inner products of gradients that a device has found, and sets the weights of each run of
    /// [`by_loss`](Balancer::by_loss): of what several losses share, and of what belongs to one.
    #[cfg(feature = "cuda")]
    pub(crate) fn weigh_products(&mut self, step: u64, products: &[f64], runs: usize) -> [Vec<f64>; 2] {
        let count = self.losses.len();
        let mut products = products.iter();
        for a in 0..count {
            for b in 0..=a {
                let product = products.next().copied().unwrap_or(0.0);
                (self.gram[a * count + b], self.gram[b * count + a]) = (product, product);
            }
            self.norms[a] = self.gram[a * count + a].sqrt();
        }
        self.weigh_gradients(step);
        [&self.weights, &self.own].map(|weights| {
            let rest = std::iter::repeat_n(1.0, runs - count);
            weights.iter().copied().chain(rest).collect()
        })
    }

    /// The plan whose losses are wanted without gradients, if any.
    #[cfg(feature = "cuda")]
    pub(crate) fn losses_alone(&self) -> Option<&Plan> {
        self.losses_alone.as_ref().map(|(plan, _)| plan)
    }

    /// The factor of each part of the loss, without weights.
    #[cfg(feature = "cuda")]
    pub(crate) fn factors(&self) -> &[f32] {
        &self.factors
    }

    /// The same with the weights, where these are known before the run.
    #[cfg(feature = "cuda")]
    pub(crate) fn seeds(&self) -> &[f32] {
        &self.seeds
    }

    /// Whether the losses are wanted once more after the parameters have moved.
    #[cfg(feature = "cuda")]
    pub(crate) fn looks_again(&self) -> bool {
        self.method.looks_again()
    }

    /// Takes them, of all parts and unweighted.
    #[cfg(feature = "cuda")]
    pub(crate) fn see_again(&mut self, plan: &Plan, all: &[f64]) {
        weighted(plan.losses(), &self.factors, &self.losses, all, &mut self.again);
        self.method.learn_again(&self.seen, &self.again);
    }

    /// Number and weight, in the last step, of each part of the loss that is balanced.
    pub fn weights(&self) -> impl Iterator<Item = (usize, f64)> {
        self.losses.iter().copied().zip(self.weights.iter().copied())
    }

    /// What the method has learnt.
    pub fn state(&self) -> Vec<f64> {
        self.method.state()
    }

    /// Takes over what [`state`](Balancer::state) gave.
    ///
    /// # Errors
    /// When it is that of another method or of other losses.
    pub fn restore(&mut self, state: &[f64]) -> Result<()> {
        self.method.restore(state)
    }
}

/// The losses of the batch as they count: weight · factor · mean.
fn weighted(parts: &[LossPart], factors: &[f32], losses: &[usize], all: &[f64], into: &mut [f64]) {
    for (to, &loss) in into.iter_mut().zip(losses) {
        *to = f64::from(parts[loss].weight * factors[loss]) * all[loss];
    }
}

/// The losses to balance: those named; otherwise those of the tasks, or all where none has a task's name. What counts
/// nothing is not balanced.
fn losses(balance: &Balance, parts: &[LossPart], factors: &[f32], tasks: &[Task]) -> Result<Vec<usize>> {
    let counts = |part: &usize| parts[*part].weight * factors[*part] != 0.0;
    if balance.losses().is_empty() {
        let of_tasks: Vec<usize> =
            (0..parts.len()).filter(|&p| tasks.iter().any(|task| task.name == parts[p].name)).collect();
        let chosen = if of_tasks.is_empty() { (0..parts.len()).collect() } else { of_tasks };
        return Ok(chosen.into_iter().filter(counts).collect());
    }
    let number = |name: &String| {
        parts.iter().position(|part| part.name == *name).ok_or_else(|| {
            let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
            let message = format!("there is no loss `{name}`; there are: {}", names.join(", "));
            Error::config("balance.losses", message)
        })
    };
    let named: Result<Vec<usize>> = balance.losses().iter().map(number).collect();
    Ok(named?.into_iter().filter(counts).collect())
}

/// What each of `losses` is the negative logarithm of: that of a regression task of a Gaussian.
fn likelihoods(parts: &[LossPart], losses: &[usize], tasks: &[Task]) -> Vec<Likelihood> {
    let of_loss = |&loss: &usize| {
        let task = tasks.iter().find(|task| task.name == parts[loss].name);
        match task.map(|task| task.kind) {
            Some(TaskKind::Regression) => Likelihood::Regression,
            Some(TaskKind::Binary | TaskKind::Poisson) | None => Likelihood::Classification,
        }
    };
    losses.iter().map(of_loss).collect()
}

/// Where the parameters lie whose gradient norms count: those named, or the last matrices that all losses reach.
fn layer(balance: &Balance, plan: &Plan, losses: &[usize]) -> Result<Vec<Range<usize>>> {
    let reached = |name: &str| losses.iter().all(|&loss| plan.reaches(loss, name));
    if balance.layer().is_empty() {
        let stacks = plan.layout().stacks().map(|stack| {
            let matrices = stack.filter(|(block, _)| block.shape.len() > 1 && reached(&block.name));
            matrices.map(|(_, range)| range).collect::<Vec<_>>()
        });
        let last = stacks.filter(|ranges| !ranges.is_empty()).last();
        let missing = "the losses share no matrix; name the parameters whose gradient norms count";
        return last.ok_or_else(|| Error::config("balance.layer", missing));
    }
    let mut ranges = Vec::new();
    for pattern in balance.layer() {
        let fits = |name: &str| manygate_graph::plan::matches(pattern, name);
        let blocks = plan.layout().blocks().filter(|(block, _)| fits(&block.name));
        let before = ranges.len();
        ranges.extend(blocks.filter(|(block, _)| reached(&block.name)).map(|(_, range)| range));
        if ranges.len() == before {
            let message = format!("`{pattern}` fits no dense parameter that all balanced losses reach");
            return Err(Error::config("balance.layer", message));
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use manygate_graph::Mode;
    use manygate_models::inputs::{Field, Inputs, Table};

    #[test]
    fn a_regression_task_is_weighed_as_a_gaussian() {
        let kinds = [TaskKind::Binary, TaskKind::Regression, TaskKind::Poisson];
        let tasks = ["click", "watch", "plays"].into_iter().zip(kinds);
        let tasks: Vec<Task> = tasks.map(|(name, kind)| Task { kind, ..Task::binary(name) }).collect();
        let part = |name: &str| LossPart::new(name, 1.0, manygate_graph::Over::Rows);
        let parts = ["orth", "plays", "watch", "click"].map(part);
        let (one, two) = (Likelihood::Classification, Likelihood::Regression);
        assert_eq!(likelihoods(&parts, &[0, 1, 2, 3], &tasks), [one, one, two, one]);
        assert_eq!(likelihoods(&parts, &[2], &tasks), [two]);
    }

    #[test]
    fn the_last_layer_that_all_share_is_that_of_the_experts() {
        let task = |name: &str| Task::binary(name);
        let inputs = Inputs {
            tables: vec![Table { name: "user".into(), rows: 5, dim: None }],
            fields: vec![Field { name: "user".into(), table: 0 }],
            tasks: vec![task("click"), task("buy")],
            ..Inputs::default()
        };
        let names = |units: &str| {
            let model = format!("name = \"mmoe\"\nexperts = 2\nexpert_units = {units}\ntower_units = [3]");
            let (_, mmoe) = manygate_models::from_table(&model.parse().unwrap()).unwrap();
            let graph = manygate_models::build(mmoe.as_ref(), &inputs, Mode::Training).unwrap();
            let plan = Plan::compile(graph, PlanOptions::default()).unwrap();
            let table = "method = \"gradnorm\"".parse().unwrap();
            let ranges = layer(&Balance::from_table(&table).unwrap(), &plan, &[0, 1]).unwrap();
            let inside = plan.layout().blocks().filter(|(_, range)| ranges.contains(range));
            inside.map(|(block, _)| block.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("[6, 4]"), ["experts.0.1.weight", "experts.1.1.weight"]);
        // Where gates stand in one matrix with the experts, they are left out.
        assert_eq!(names("[6]"), ["experts.0.0.weight", "experts.1.0.weight"]);
    }
}
