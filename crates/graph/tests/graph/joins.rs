//! Batch normalisation: what waits for the whole batch, in both directions.

use crate::support::{Setup, batch_norm, linear, small, task, trunk};
use manygate_core::Result;
use manygate_graph::{Graph, Mode, PlanOptions};
use manygate_kernels::Isa;
use manygate_kernels::activation::Activation::{Identity, Relu, Tanh};

fn normalised(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let z = linear(g, "bottom", x, 5, Identity)?;
    let h = batch_norm(g, "norm", z, Tanh)?;
    g.output("hidden", h);
    let logit = linear(g, "click", h, 1, Identity)?;
    task(g, "click", 0, logit)
}

/// Two norms, one behind the other, and a task that needs neither.
fn two_norms(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let first = linear(g, "first", x, 6, Identity)?;
    let first = batch_norm(g, "first.norm", first, Relu)?;
    let second = linear(g, "second", first, 4, Identity)?;
    let second = batch_norm(g, "second.norm", second, Tanh)?;
    let (early, late) = (linear(g, "click", x, 1, Identity)?, linear(g, "like", second, 1, Identity)?);
    // The first norm is read once more behind the second one's join.
    let third = linear(g, "share", first, 1, Identity)?;
    task(g, "click", 0, early)?;
    task(g, "like", 1, late)?;
    task(g, "share", 2, third)
}

#[test]
fn gradients_flow_through_the_statistics() {
    for isa in Isa::available() {
        for rows in [2, 5, 40] {
            for tile_rows in [5, 128] {
                let options = PlanOptions { tile_rows, isa, ..small() };
                Setup::new(rows, PlanOptions { outputs: true, ..options.clone() }, normalised).check();
                Setup::new(rows, options, two_norms).check();
            }
        }
    }
}

#[test]
fn a_norm_cuts_the_plan_in_both_directions() {
    let joins = |model: fn(&mut Graph) -> Result<()>| {
        let phases = Setup::new(8, small(), model).plan.describe().phases;
        phases.into_iter().map(|p| p.joins).collect::<Vec<_>>()
    };
    let one = [vec!["norm.moments"], vec!["gradient of norm.moments"], vec![]];
    assert_eq!(joins(normalised), one);
    assert_eq!(joins(two_norms).len(), 5);
}

#[test]
fn running_statistics_move_by_their_momentum() {
    let mut setup = Setup::new(40, PlanOptions { outputs: true, ..small() }, |g| {
        let x = trunk(g)?;
        let dense = g.columns(x, 5, 4)?;
        let h = batch_norm(g, "norm", dense, Identity)?;
        let logit = linear(g, "click", h, 1, Identity)?;
        task(g, "click", 0, logit)
    });
    let ws = setup.run();
    setup.plan.update_state(&ws, &mut setup.state);
    let tensors: Vec<Vec<f32>> = setup.state.tensors().map(|(_, values)| values.to_vec()).collect();
    for c in 0..4 {
        let column: Vec<f64> = setup.batch.dense.iter().skip(c).step_by(4).copied().map(f64::from).collect();
        let mean = column.iter().sum::<f64>() / 40.0;
        let unbiased = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 39.0;
        assert!((f64::from(tensors[0][c]) - 0.1 * mean).abs() < 1e-6);
        assert!((f64::from(tensors[1][c]) - (0.9 + 0.1 * unbiased)).abs() < 1e-6);
    }
}

#[test]
fn one_row_is_normalised_to_zero_and_leaves_the_running_variance() {
    let mut setup = Setup::new(1, PlanOptions { outputs: true, ..small() }, |g| {
        let x = trunk(g)?;
        let dense = g.columns(x, 5, 4)?;
        let h = batch_norm(g, "norm", dense, Identity)?;
        g.output("hidden", h);
        let logit = linear(g, "click", h, 1, Identity)?;
        task(g, "click", 0, logit)
    });
    setup.check();
    let ws = setup.run();
    let beta = setup.params.tensors().find(|(b, _)| b.name == "norm.beta").unwrap().1.to_vec();
    assert_eq!(setup.plan.output(&ws, "hidden").unwrap().row(0), beta);
    setup.plan.update_state(&ws, &mut setup.state);
    let tensors: Vec<Vec<f32>> = setup.state.tensors().map(|(_, values)| values.to_vec()).collect();
    assert_eq!(tensors[1], [1.0; 4]);
    for c in 0..4 {
        assert!((tensors[0][c] - 0.1 * setup.batch.dense[c]).abs() < 1e-7, "the running mean moves");
    }
}

#[test]
fn evaluation_takes_the_running_statistics() {
    let mut setup = Setup::of(Mode::Evaluation, 12, small(), normalised);
    setup.state.set("norm.mean", &[0.3, -0.2, 0.1, 0.0, 0.5]).unwrap();
    setup.state.set("norm.variance", &[0.5, 2.0, 1.0, 0.1, 0.7]).unwrap();
    setup.check();
    assert_eq!(setup.plan.describe().phases.len(), 1);
    let ws = setup.run();
    assert_eq!(setup.plan.gradients(&ws).rows(), 0);
}
