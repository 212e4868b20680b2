//! A batch run again: on other parameters, for its losses alone, and what stays as it was.

use crate::support::{Setup, batch_norm, linear, small, task, trunk};
use manygate_core::{Result, Serial};
use manygate_graph::ops::GateCombine;
use manygate_graph::{Graph, Parameters, PlanOptions, Workspace};
use manygate_kernels::activation::Activation::{Identity, Relu, Tanh};
use std::sync::Arc;

/// Two tasks over a mixture of experts with a norm: joins in both directions, and values left for the backward pass.
fn model(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let z = linear(g, "bottom", x, 6, Identity)?;
    let h = batch_norm(g, "norm", z, Relu)?;
    let (gates, experts) = (linear(g, "gates", h, 4, Identity)?, linear(g, "experts", h, 10, Tanh)?);
    let mixed = g.add("mixtures", GateCombine::new(2, 2), &[gates, experts])?;
    for (t, name) in ["click", "like"].into_iter().enumerate() {
        let own = g.columns(mixed, 5 * t, 5)?;
        let logit = linear(g, name, own, 1, Identity)?;
        task(g, name, t, logit)?;
    }
    Ok(())
}

#[test]
fn a_batch_run_again_has_the_losses_of_the_parameters_it_is_run_on() {
    let mut setup = Setup::new(40, small(), model);
    let (first, state) = (setup.params.clone(), setup.state.clone());
    let second = Parameters::initial(Arc::clone(setup.plan.layout()), 4);
    let mut ws = Workspace::new(&setup.plan, 1, 40);
    let mut run = |setup: &mut Setup, params: &Parameters| {
        setup.params = params.clone();
        setup.plan.pack(&Serial, &mut ws, &setup.params);
        setup.with_input(|input| setup.plan.run(&Serial, &mut ws, input)).unwrap();
        setup.bits(&ws)
    };
    let before = run(&mut setup, &first);
    let changed = run(&mut setup, &second);
    assert_ne!(before, changed);
    assert_eq!(changed, setup.bits(&setup.run()), "nothing of the first run is left");
    assert_eq!(run(&mut setup, &first), before);
    assert_eq!(setup.state.values[..], state.values[..], "a run moves no state");

    // Training takes the batch's own statistics: moving the running ones does not change its losses.
    setup.plan.update_state(&ws, &mut setup.state);
    assert_ne!(setup.state.values[..], state.values[..]);
    setup.with_input(|input| setup.plan.run(&Serial, &mut ws, input)).unwrap();
    assert_eq!(setup.bits(&ws), before);
}

#[test]
fn losses_alone_are_those_of_training_and_cost_a_forward_pass() {
    for (rows, options) in [(1, small()), (40, small()), (600, PlanOptions::default())] {
        let trains = Setup::new(rows, options.clone(), model);
        let alone = Setup::new(rows, PlanOptions { frozen: vec!["*".into()], ..options }, model);
        let workspaces = [trains.run(), alone.run()];
        let [losses, expected] = [1, 0].map(|i: usize| {
            let losses = workspaces[i].part_losses().iter();
            losses.map(|loss| loss.to_bits()).collect::<Vec<_>>()
        });
        assert_eq!(losses, expected, "{rows} rows");

        let [all, forward] = [trains.plan.describe(), alone.plan.describe()];
        assert_eq!(forward.phases.len(), 2);
        assert!(forward.phases.iter().flat_map(|phase| &phase.steps).all(|step| !step.backward));
        let joins = forward.phases.iter().flat_map(|phase| &phase.joins);
        assert!(joins.chain(forward.buffers.iter().map(|b| &b.name)).all(|name| !name.contains("gradient")));
        assert!(all.buffers.iter().any(|buffer| buffer.name.contains("gradient")));
        assert_eq!(3 * forward.flops_a_row, all.flops_a_row);
        assert!(workspaces[1].bytes() < workspaces[0].bytes());
        assert_eq!(alone.plan.gradients(&workspaces[1]).rows(), 0);
        assert!(alone.plan.sparse_sources().is_empty() && !alone.plan.learns("bottom.weight"));
    }
}
