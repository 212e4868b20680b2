//! Gradients of whole models against finite differences, and what may and may not flow.

use crate::support::{Setup, TRUNK, linear, segments, small, task, trunk};
use manygate_core::Result;
use manygate_graph::ops::{GateCombine, Segment, Sigmoid, Tap};
use manygate_graph::{Block, Graph, Init, ParamSpec, PlanOptions, ops};
use manygate_kernels::Isa;
use manygate_kernels::activation::Activation::{Identity, Relu, Tanh};

fn shared_bottom(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let h = linear(g, "bottom", x, 8, Tanh)?;
    for (t, name) in ["click", "like"].into_iter().enumerate() {
        let logit = linear(g, name, h, 1, Identity)?;
        let probability = g.add(format!("{name}.p"), Sigmoid, &[logit])?;
        g.output(name, probability);
        task(g, name, t, logit)?;
    }
    Ok(())
}

#[test]
fn a_model_agrees_with_its_references() {
    for isa in Isa::available() {
        for rows in [1, 4, 5, 6, 40] {
            for tile_rows in [1, 5, 128] {
                let options = PlanOptions { tile_rows, isa, outputs: true, ..small() };
                Setup::new(rows, options, shared_bottom).check();
            }
        }
    }
}

#[test]
fn gradients_of_the_tasks_add_up() {
    let mut setup = Setup::new(40, small(), shared_bottom);
    let mut seeded = |seeds: [f32; 2]| {
        setup.seeds = seeds.to_vec();
        setup.check();
        let ws = setup.run();
        setup.gradient(&ws, "bottom.weight")
    };
    let (click, like, both) = (seeded([1.0, 0.0]), seeded([0.0, 1.0]), seeded([1.0, 1.0]));
    let mixed = seeded([2.0, -0.5]);
    assert!(click.iter().any(|v| v.abs() > 1e-3) && like.iter().any(|v| v.abs() > 1e-3));
    for i in 0..both.len() {
        assert!((click[i] + like[i] - both[i]).abs() < 1e-6);
        assert!((2.0 * click[i] - 0.5 * like[i] - mixed[i]).abs() < 1e-6);
    }
}

#[test]
fn nothing_flows_through_a_stop() {
    let mut setup = Setup::new(12, small(), |g| {
        let x = trunk(g)?;
        let h = linear(g, "bottom", x, 8, Tanh)?;
        let stopped = g.stop_gradient(h);
        let part = g.columns(stopped, 2, 5)?;
        let (a, b) = (linear(g, "click", h, 1, Identity)?, linear(g, "like", part, 1, Identity)?);
        task(g, "click", 0, a)?;
        task(g, "like", 1, b)
    });
    setup.check();
    setup.seeds = vec![0.0, 1.0];
    let ws = setup.run();
    assert!(setup.gradient(&ws, "bottom.weight").iter().all(|&v| v == 0.0));
    assert!(setup.gradient(&ws, "like.weight").iter().any(|&v| v != 0.0));
}

#[test]
fn frozen_parameters_get_no_gradient_and_cost_nothing() {
    let frozen = |patterns: &[&str]| {
        let frozen = patterns.iter().map(|p| p.to_string()).collect();
        Setup::new(40, PlanOptions { frozen, ..small() }, shared_bottom)
    };
    let setup = frozen(&["bottom.*", "like.bias"]);
    setup.check();
    assert!(setup.plan.learns("click.bias") && !setup.plan.learns("bottom.weight"));
    let description = setup.plan.describe();
    let steps = || description.phases.iter().flat_map(|p| &p.steps).filter(|s| s.backward);
    let writes = |node: &str| steps().find(|s| s.node == node).map(|s| s.writes.len());
    // The tables below still learn: the bottom passes its gradient on.
    assert_eq!((writes("bottom"), writes("click"), writes("like")), (Some(1), Some(3), Some(2)));

    let setup = frozen(&["bottom.*", "user", "tag"]);
    setup.check();
    assert!(
        setup.plan.describe().phases.iter().flat_map(|p| &p.steps).all(|s| !s.backward || s.node != "bottom")
    );
    assert!(setup.plan.sparse_sources().is_empty());

    let setup = frozen(&["user"]);
    setup.check();
    assert_eq!(setup.plan.sparse_sources().len(), 1);

    let setup = frozen(&["*"]);
    setup.check();
    assert_eq!(setup.plan.gradients(&setup.run()).rows(), 0);
}

#[test]
fn part_of_a_stacked_weight_can_be_frozen() {
    let options = PlanOptions { frozen: vec!["b.*".into()], ..small() };
    let setup = Setup::new(40, options, |g| {
        let x = trunk(g)?;
        let block = |name: &str| Block::weight(format!("{name}.weight"), 4, TRUNK, Init::XavierUniform);
        let w = g.param(ParamSpec::new(vec![block("a"), block("b"), block("c")])?)?;
        let h = g.add("wide", ops::Linear::new(12, false, Tanh), &[x, w])?;
        let logit = linear(g, "click", h, 1, Identity)?;
        task(g, "click", 0, logit)
    });
    setup.check();
    let ws = setup.run();
    assert!(setup.gradient(&ws, "b.weight").iter().all(|&v| v == 0.0));
    assert!(setup.gradient(&ws, "c.weight").iter().any(|&v| v != 0.0));
}

#[test]
fn a_tap_shows_the_gradient_of_an_intermediate_value() {
    let model = |g: &mut Graph| {
        let x = trunk(g)?;
        let h = linear(g, "bottom", x, 8, Tanh)?;
        let tapped = g.add("hidden", Tap, &[h])?;
        let (a, b) = (linear(g, "click", tapped, 1, Identity)?, linear(g, "like", tapped, 1, Identity)?);
        task(g, "click", 0, a)?;
        task(g, "like", 1, b)
    };
    let setup = Setup::new(40, small(), model);
    setup.check();
    let ws = setup.run();
    assert_eq!(setup.plan.tapped_gradient(&ws, "hidden").unwrap().rows(), 40);
    let missing = setup.plan.tapped_gradient(&ws, "other").unwrap_err().to_string();
    assert!(missing.contains("no gradient reaches a tap of this name"));
    // The caller gets it even where nothing learns.
    Setup::new(40, PlanOptions { frozen: vec!["*".into()], ..small() }, model).check();
}

#[test]
fn values_read_by_several_ops_and_in_parts() {
    let setup = Setup::new(40, small(), |g| {
        let x = trunk(g)?;
        let relu = |out| Segment { out, bias: true, activation: Relu };
        let h = segments(g, "heads", x, vec![relu(9), Segment { activation: Tanh, ..relu(6) }])?;
        // Columns 4 to 6 are read twice, 12 to 15 never.
        let (left, right) = (g.columns(h, 0, 7)?, g.columns(h, 4, 8)?);
        let (a, b) = (linear(g, "click", left, 1, Identity)?, linear(g, "like", right, 1, Identity)?);
        task(g, "click", 0, a)?;
        task(g, "like", 1, b)
    });
    setup.check();
}

#[test]
fn one_op_may_start_the_gradients_of_two_values_that_are_read_in_part() {
    let setup = Setup::new(40, small(), |g| {
        let x = trunk(g)?;
        let (gates, bank) = (linear(g, "gates", x, 7, Identity)?, linear(g, "experts", x, 11, Tanh)?);
        let (logits, experts) = (g.columns(gates, 1, 4)?, g.columns(bank, 2, 6)?);
        let mixed = g.add("mixtures", GateCombine::new(2, 2), &[logits, experts])?;
        let logit = linear(g, "click", mixed, 1, Identity)?;
        task(g, "click", 0, logit)
    });
    setup.check();
}

#[test]
fn the_last_reader_of_an_activated_value_multiplies_by_the_slope() {
    let setup = Setup::new(40, small(), |g| {
        let x = trunk(g)?;
        let h = linear(g, "bottom", x, 8, Relu)?;
        let (a, b) = (linear(g, "click", h, 1, Identity)?, linear(g, "like", h, 1, Identity)?);
        task(g, "click", 0, a)?;
        task(g, "like", 1, b)
    });
    setup.check();
    let description = setup.plan.describe();
    let steps = || description.phases.iter().flat_map(|p| &p.steps).filter(|s| s.backward);
    let first =
        |node: &str| steps().find(|s| s.node == node).map(|s| (s.writes[0].accumulates, s.writes[0].masks));
    assert_eq!((first("like"), first("click")), (Some((false, false)), Some((true, true))));
}
