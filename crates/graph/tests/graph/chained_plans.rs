//! Plans in a chain: an output of one is the numbers that another reads, and a gradient goes the other way.

use crate::support::{DENSE, Setup, USERS, linear, small, task};
use manygate_core::{Batch, Result};
use manygate_graph::ops::{Concat, LookupTrunk, MeanSquare, OuterGradient, Piece, Tap};
use manygate_graph::{Graph, Init, LossPart, Mode, Over, PlanOptions, TableSpec, Value, Workspace};
use manygate_kernels::Mat;
use manygate_kernels::activation::Activation::{Identity, Tanh};

const ACTION: usize = 2;
/// Width of what two heads share.
const SHARED: usize = 3;

const HIDDEN: usize = 6;

/// The numbers of the batch.
fn numbers(g: &mut Graph, width: usize) -> Result<Value> {
    g.add("numbers", LookupTrunk::new(vec![Piece::Dense { width }]), &[])
}

/// User and the first [`DENSE`] numbers through two layers: `[batch, out]`.
fn body(g: &mut Graph, numbers: Value, out: usize) -> Result<Value> {
    let spec = TableSpec { name: "user".into(), rows: USERS, dim: 3, init: Init::Normal(0.5) };
    let table = g.table(spec)?;
    let user = g.add("user", LookupTrunk::new(vec![Piece::Field { field: 0, table, dim: 3 }]), &[])?;
    let state = g.columns(numbers, 0, DENSE)?;
    let x = g.add("body.input", Concat::new(vec![3, DENSE]), &[user, state])?;
    let h = linear(g, "body.0", x, HIDDEN, Tanh)?;
    linear(g, "body.1", h, out, Tanh)
}

/// The body alone. In training it reads the gradient of its output behind the numbers of the batch.
fn body_alone(g: &mut Graph, out: usize) -> Result<()> {
    let gradients = if g.is_training() { out } else { 0 };
    let numbers = numbers(g, DENSE + gradients)?;
    let y = body(g, numbers, out)?;
    g.output("y", y);
    if g.is_training() {
        let gradient = g.columns(numbers, DENSE, out)?;
        let gradient = g.stop_gradient(gradient);
        let loss = g.loss(LossPart::new("outer", 1.0, Over::Once))?;
        g.add("outer", OuterGradient::new(loss), &[y, gradient])?;
    }
    Ok(())
}

/// Q of state and action, and the loss that the actor is to lower: half the mean of Q².
fn critic(g: &mut Graph, state: Value, action: Value) -> Result<()> {
    let x = g.add("critic.input", Concat::new(vec![DENSE, ACTION]), &[state, action])?;
    let h = linear(g, "critic.0", x, HIDDEN, Tanh)?;
    let q = linear(g, "critic.1", h, 1, Identity)?;
    let loss = g.loss(LossPart::new("q", 0.5, Over::Rows))?;
    g.add("loss", MeanSquare::new(loss), &[q]).map(|_| ())
}

/// The critic alone: the action stands behind the numbers of the batch.
fn critic_alone(g: &mut Graph) -> Result<()> {
    let numbers = numbers(g, DENSE + ACTION)?;
    let (state, action) = (g.columns(numbers, 0, DENSE)?, g.columns(numbers, DENSE, ACTION)?);
    let action = g.add("action", Tap, &[action])?;
    critic(g, state, action)
}

fn heads(g: &mut Graph, h: Value) -> Result<()> {
    for (t, name) in ["click", "like"].into_iter().enumerate() {
        let tower = linear(g, &format!("{name}.0"), h, 4, Tanh)?;
        let logit = linear(g, &format!("{name}.1"), tower, 1, Identity)?;
        task(g, name, t, logit)?;
    }
    Ok(())
}

/// The heads alone, over numbers that are the shared representation.
fn heads_alone(g: &mut Graph) -> Result<()> {
    let h = numbers(g, SHARED)?;
    let h = g.add("h", Tap, &[h])?;
    heads(g, h)
}

/// `batch` with other numbers: the first `keep` of its own, then `more`.
fn with_numbers(batch: &Batch, keep: usize, more: &[f32], width: usize) -> Batch {
    let own = batch.dense.chunks_exact(batch.dense_width);
    let rows = own.zip(more.chunks_exact(width));
    let dense = rows.flat_map(|(own, more)| own[..keep].iter().chain(more)).copied().collect();
    Batch { dense, dense_width: keep + width, ..batch.clone() }
}

fn flat(view: Mat<'_>) -> Vec<f32> {
    (0..view.rows()).flat_map(|r| view.row(r)).copied().collect()
}

fn frozen() -> PlanOptions {
    PlanOptions { frozen: vec!["*".into()], ..small() }
}

/// Gradients of all parameters of the body and of the rows of `user`.
fn body_gradients(setup: &Setup, ws: &Workspace) -> Vec<f32> {
    let names = ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"];
    let mut all: Vec<f32> = names.iter().flat_map(|name| setup.gradient(ws, name)).collect();
    for source in setup.plan.sparse_sources() {
        all.extend(flat(setup.plan.sparse_gradient(ws, source)));
    }
    all
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |scale, v| scale.max(v.abs()));
    assert!(scale > 0.0);
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e-5 * scale, "{i}: {found}, {expected} is expected");
    }
}

/// An actor, the critic that reads its action, and the actor that takes the critic's gradient.
struct ActorCritic {
    acts: Setup,
    judges: Setup,
    learns: Setup,
}

impl ActorCritic {
    fn new() -> ActorCritic {
        ActorCritic {
            acts: Setup::of(Mode::Evaluation, 40, small(), |g| body_alone(g, ACTION)),
            judges: Setup::new(40, frozen(), critic_alone),
            learns: Setup::new(40, small(), |g| body_alone(g, ACTION)),
        }
    }

    /// The critic's run on what the actor does.
    fn judge(&mut self) -> Workspace {
        let ws = self.acts.run();
        let action = flat(self.acts.plan.output(&ws, "y").unwrap());
        self.judges.batch = with_numbers(&self.acts.batch, DENSE, &action, ACTION);
        self.judges.run()
    }

    fn loss(&mut self) -> f64 {
        0.5 * self.judge().part_losses()[0]
    }

    /// The actor's run backward from the critic's gradient at its action.
    fn learn(&mut self) -> Workspace {
        let judged = self.judge();
        let gradient = flat(self.judges.plan.tapped_gradient(&judged, "action").unwrap());
        self.learns.batch = with_numbers(&self.acts.batch, DENSE, &gradient, ACTION);
        self.learns.run()
    }
}

#[test]
fn an_actor_learns_from_the_gradient_of_a_critic_that_reads_its_action() {
    let mut chain = ActorCritic::new();
    let ws = chain.learn();
    let uncut = Setup::new(40, PlanOptions { frozen: vec!["critic.*".into()], ..small() }, |g| {
        let numbers = numbers(g, DENSE)?;
        let (state, action) = (g.columns(numbers, 0, DENSE)?, body(g, numbers, ACTION)?);
        critic(g, state, action)
    });
    uncut.check();
    assert_close(&body_gradients(&chain.learns, &ws), &body_gradients(&uncut, &uncut.run()));

    // And it is the slope of the two together.
    const STEP: f32 = 1e-2;
    for (name, at) in [("body.0.weight", 5), ("body.0.bias", 2), ("body.1.weight", 9), ("body.1.bias", 0)] {
        let found = chain.learns.gradient(&ws, name)[at];
        let (_, range) = chain.acts.plan.layout().blocks().find(|(block, _)| block.name == name).unwrap();
        let here = chain.acts.params.values[range.start + at];
        let [above, below] = [STEP, -STEP].map(|step| {
            chain.acts.params.values[range.start + at] = here + step;
            chain.loss()
        });
        chain.acts.params.values[range.start + at] = here;
        let slope = ((above - below) / f64::from(2.0 * STEP)) as f32;
        assert!((found - slope).abs() < 1e-3 * slope.abs() + 1e-5, "{name}: {found}, the slope is {slope}");
    }
}

#[test]
fn plans_of_a_chain_agree_with_their_references() {
    let mut chain = ActorCritic::new();
    chain.learn();
    for setup in [&chain.acts, &chain.judges, &chain.learns] {
        setup.check();
    }
    // Of the critic nothing learns, and yet its tap has a gradient; numbers that nobody taps get none.
    let writes = |setup: &Setup, node: &str| {
        let description = setup.plan.describe();
        description.phases.iter().flat_map(|p| &p.steps).any(|s| s.backward && s.node == node)
    };
    assert!(writes(&chain.judges, "action") && !writes(&chain.judges, "numbers"));
    assert!(chain.learns.plan.tapped_gradient(&chain.learns.run(), "numbers").is_err());
}

#[test]
fn a_backward_pass_cut_at_a_value_goes_on_from_a_weighted_sum() {
    const WEIGHTS: [f32; 2] = [0.7, 1.6];
    let body_of = |mode| Setup::of(mode, 40, small(), |g| body_alone(g, SHARED));
    let (shares, mut learns) = (body_of(Mode::Evaluation), body_of(Mode::Training));
    let mut tasks = Setup::new(40, small(), heads_alone);
    let ws = shares.run();
    let h = flat(shares.plan.output(&ws, "y").unwrap());
    tasks.batch = with_numbers(&shares.batch, 0, &h, SHARED);

    let mut sum = vec![0.0; h.len()];
    for (t, weight) in WEIGHTS.into_iter().enumerate() {
        tasks.seeds = (0..2).map(|part| if part == t { 1.0 } else { 0.0 }).collect();
        let dh = flat(tasks.plan.tapped_gradient(&tasks.run(), "h").unwrap());
        sum.iter_mut().zip(dh).for_each(|(sum, d)| *sum += weight * d);
    }
    learns.batch = with_numbers(&shares.batch, DENSE, &sum, SHARED);

    let mut uncut = Setup::new(40, small(), |g| {
        let numbers = numbers(g, DENSE)?;
        let h = body(g, numbers, SHARED)?;
        heads(g, h)
    });
    uncut.seeds = WEIGHTS.to_vec();
    assert_close(&body_gradients(&learns, &learns.run()), &body_gradients(&uncut, &uncut.run()));
}
