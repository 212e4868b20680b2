//! Gradients by loss: those of one-hot runs, their inner products and sums, without moving anything.

mod support;

use manygate_core::{Batch, Executor, Pool, Serial};
use manygate_embedding::SparseGradients;
use manygate_graph::{Draws, Input, Plan, Workspace};
use manygate_train::{Learner, LossGradients};
use support::{IDS, ROWS, batch, learner};

const DRAWS: Draws<'static> = Draws { seed: 3, step: 1, caller_rows: &[] };

/// Everything in one vector: dense gradients, then those of tables, `[rows, dim]`, without the unknown row.
fn all(plan: &Plan, dense: &[f32], tables: &[(Vec<u32>, Vec<f32>)]) -> Vec<f32> {
    let mut values = dense.to_vec();
    for (spec, (ids, rows)) in plan.tables().iter().zip(tables) {
        let mut table = vec![0.0; spec.rows * spec.dim];
        for (&id, row) in ids.iter().zip(rows.chunks_exact(spec.dim)).filter(|(id, _)| **id != 0) {
            table[id as usize * spec.dim..][..spec.dim].copy_from_slice(row);
        }
        values.extend(table);
    }
    values
}

/// The gradient of one run with these seeds.
fn of_run(learner: &Learner, batch: &Batch, seeds: &[f32]) -> Vec<f32> {
    let Learner { plan, params, state, tables, .. } = learner;
    let mut ws = Workspace::new(plan, 1, ROWS);
    plan.pack(&Serial, &mut ws, params);
    plan.run(&Serial, &mut ws, &Input { params, state, tables, batch, seeds, draws: DRAWS }).unwrap();
    let lanes = plan.gradients(&ws);
    assert!(lanes.rows() > 1, "several lanes");
    let dense: Vec<f32> =
        (0..lanes.cols()).map(|i| (0..lanes.rows()).map(|lane| lanes.row(lane)[i]).sum()).collect();
    let mut sparse = SparseGradients::new(plan, ROWS);
    sparse.sort(&Serial, batch);
    let tables: Vec<_> = (0..plan.tables().len()).map(|t| sparse.coalesced(plan, &ws, t)).collect();
    all(plan, &dense, &tables)
}

fn computed(learner: &Learner, batch: &Batch, losses: &[usize], exec: &dyn Executor) -> LossGradients {
    let Learner { plan, params, state, tables, .. } = learner;
    let mut ws = Workspace::new(plan, exec.threads(), ROWS);
    plan.pack(exec, &mut ws, params);
    let mut sparse = SparseGradients::new(plan, ROWS);
    sparse.sort(exec, batch);
    let mut gradients = LossGradients::new(plan, losses, &[1.0; 3]);
    let input = Input { params, state, tables, batch, seeds: &[], draws: DRAWS };
    gradients.compute(exec, plan, &mut ws, &sparse, &input, 1).unwrap();
    gradients
}

fn of_loss(learner: &Learner, gradients: &LossGradients, loss: usize) -> Vec<f32> {
    let tables: Vec<_> =
        (0..learner.plan.tables().len()).map(|t| gradients.sparse().gradient(t, loss)).collect();
    all(&learner.plan, gradients.dense(loss), &tables)
}

/// By value: whether several of these losses reach it.
fn is_shared(learner: &Learner, losses: &[usize]) -> Vec<bool> {
    let plan = &learner.plan;
    let mut shared = vec![false; plan.layout().len()];
    for (tensor, (_, range)) in plan.layout().blocks().enumerate() {
        let reach = losses.iter().filter(|&&loss| plan.reached_by(loss).tensors()[tensor]).count();
        shared[range].fill(reach > 1);
    }
    shared.resize(shared.len() + 2 * IDS * 5, true);
    shared
}

#[test]
fn each_is_that_of_a_run_with_its_loss_alone() {
    let (learner, batch) = (learner(""), batch(0));
    let before = (learner.params.values.to_vec(), learner.tables.0[0].weights());
    for losses in [&[0, 1, 2][..], &[2, 0], &[1]] {
        let gradients = computed(&learner, &batch, losses, &Serial);
        assert_eq!((gradients.len(), gradients.is_empty()), (losses.len(), false));
        for (number, &loss) in losses.iter().enumerate() {
            let mut seeds = [0.0; 3];
            seeds[loss] = 1.0;
            let found = of_loss(&learner, &gradients, number);
            assert_eq!(found, of_run(&learner, &batch, &seeds), "loss {loss} of {losses:?}");
            assert!(found.iter().any(|&v| v != 0.0));
        }
    }
    assert_eq!(before, (learner.params.values.to_vec(), learner.tables.0[0].weights()), "nothing moves");
}

#[test]
fn inner_products_are_over_shared_parameters_and_touched_rows() {
    let (learner, batch) = (learner(""), batch(0));
    let losses = [2, 0];
    let gradients = computed(&learner, &batch, &losses, &Serial);
    let shared = is_shared(&learner, &losses);
    assert!(shared.contains(&true) && shared.contains(&false));
    let mut gram = [0.0; 4];
    gradients.gram(&Serial, &mut gram);
    for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (x, y) = (of_loss(&learner, &gradients, a), of_loss(&learner, &gradients, b));
        let pairs = x.iter().zip(&y).zip(&shared).filter(|(_, shared)| **shared);
        let expected: f64 = pairs.map(|((&x, &y), _)| f64::from(x) * f64::from(y)).sum();
        let size = (gram[a * 3 % 4].abs() * gram[b * 3 % 4].abs()).sqrt();
        assert!((gram[a * 2 + b] - expected).abs() <= 1e-12 * size.max(1.0), "{a} {b}");
    }
    let mut norms = [0.0; 2];
    let (_, range) = learner.plan.layout().blocks().next().unwrap();
    gradients.norms(std::slice::from_ref(&range), &mut norms);
    let expected: f64 = gradients.dense(1)[range].iter().map(|&v| f64::from(v).powi(2)).sum();
    assert!((norms[1] - expected.sqrt()).abs() < 1e-12);
}

#[test]
fn sums_weigh_shared_and_own_parameters_apart() {
    let (learner, batch) = (learner(""), batch(0));
    let losses = [2, 0];
    let mut gradients = computed(&learner, &batch, &losses, &Serial);
    let (shared_weights, own_weights) = ([0.5, -2.0], [1.0, 3.0]);
    gradients.combine(&Serial, &shared_weights, &own_weights);
    let dense = gradients.sum().row(0);
    let parts = [0, 1].map(|loss| of_loss(&learner, &gradients, loss));
    // The loss that nobody asked for counts as it is.
    let rest = of_run(&learner, &batch, &[0.0, 1.0, 0.0]);
    for (i, shared) in is_shared(&learner, &losses).iter().enumerate().take(dense.len()) {
        let weights = if *shared { shared_weights } else { own_weights };
        let expected =
            weights[0] * f64::from(parts[0][i]) + weights[1] * f64::from(parts[1][i]) + f64::from(rest[i]);
        assert_eq!(dense[i], expected as f32, "{i}");
    }
    gradients.combine(&Serial, &[1.0; 2], &[1.0; 2]);
    let whole = of_run(&learner, &batch, &[1.0; 3]);
    let scale = whole.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let differs = |i: &usize| (gradients.sum().row(0)[*i] - whole[*i]).abs() > 1e-5 * scale;
    assert_eq!((0..learner.plan.layout().len()).find(differs), None, "the gradient of the sum");
}

#[test]
fn threads_do_not_change_a_bit() {
    let (learner, batch) = (learner(""), batch(0));
    let found = |exec: &dyn Executor| {
        let mut gradients = computed(&learner, &batch, &[0, 1, 2], exec);
        let mut gram = [0.0; 9];
        gradients.gram(exec, &mut gram);
        gradients.combine(exec, &[0.1, 0.2, 0.3], &[1.0; 3]);
        (gram.map(f64::to_bits), gradients.sum().row(0).to_vec())
    };
    let one = found(&Serial);
    for threads in [2, 3] {
        assert_eq!(Pool::new(threads).unwrap().enter(|exec| found(exec)), one, "{threads} threads");
    }
}
