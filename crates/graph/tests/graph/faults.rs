//! Losses that are not finite: where they come from.

use crate::support::{Setup, batch_norm, linear, small, task, trunk};
use manygate_core::{Error, Result, Serial};
use manygate_graph::Graph;
use manygate_kernels::activation::Activation::{Identity, Relu, Tanh};

fn model(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let z = linear(g, "bottom", x, 5, Relu)?;
    let h = batch_norm(g, "norm", z, Tanh)?;
    let (click, like) = (linear(g, "click", x, 1, Identity)?, linear(g, "like", h, 1, Identity)?);
    task(g, "click", 0, click)?;
    task(g, "like", 1, like)
}

/// Step, task and op of what is found.
fn found(setup: &Setup) -> Option<(u64, String, String)> {
    let mut ws = setup.run();
    let checked = setup.with_input(|input| setup.plan.check_losses(&mut ws, input, 17));
    match checked {
        Ok(()) => None,
        Err(Error::NonFinite { step, task, loss, op }) => {
            assert!(!loss.is_finite());
            Some((step, task, op))
        }
        Err(other) => panic!("{other}"),
    }
}

fn fault(task: &str, op: &str) -> Option<(u64, String, String)> {
    Some((17, task.into(), op.into()))
}

#[test]
fn finite_losses_pass() {
    assert_eq!(found(&Setup::new(40, small(), model)), None);
}

#[test]
fn an_infinite_parameter_is_found_by_its_op() {
    let planted = |name: &str, value: f32| {
        let mut setup = Setup::new(40, small(), model);
        let tensor = setup.params.tensors().find(|(b, _)| b.name == name).map(|(_, v)| v.to_vec());
        let mut tensor = tensor.unwrap();
        tensor[0] = value;
        setup.params.set(name, &tensor).unwrap();
        found(&setup)
    };
    assert_eq!(planted("bottom.weight", f32::INFINITY), fault("like", "bottom (linear)"));
    assert_eq!(planted("norm.gamma", f32::NAN), fault("like", "norm (normalise)"));
    assert_eq!(planted("click.bias", f32::NEG_INFINITY), fault("click", "click (linear)"));
    assert_eq!(planted("like.weight", f32::NAN), fault("like", "like (linear)"));
}

#[test]
fn a_nan_in_the_batch_is_found_in_the_trunk() {
    // In the first tile and in the last.
    for row in [0, 39] {
        let mut setup = Setup::new(40, small(), model);
        setup.batch.dense[row * 4 + 1] = f32::NAN;
        assert_eq!(found(&setup), fault("click", "trunk (lookup)"));
    }
}

#[test]
fn a_label_is_told_by_its_task() {
    let mut setup = Setup::new(40, small(), model);
    setup.batch.labels[1][5] = f32::NAN;
    assert_eq!(found(&setup), fault("like", "the loss of like"));
}

#[test]
fn an_overflow_inside_of_a_join_is_found() {
    let mut setup = Setup::new(40, small(), model);
    setup.params.set("norm.gamma", &[f32::MAX; 5]).unwrap();
    setup.params.set("like.weight", &[f32::MAX; 5]).unwrap();
    let (_, task, op) = found(&setup).unwrap();
    assert_eq!((task.as_str(), op.as_str()), ("like", "like (linear)"));
    // The same batch is run again to find the op: it must still fit.
    let mut ws = setup.run();
    setup.batch.ids[0][0] = 1000;
    let refused = setup.with_input(|input| setup.plan.check_losses(&mut ws, input, 1)).unwrap_err();
    assert!(refused.to_string().contains("id column 0 has id 1000"));
    assert!(setup.with_input(|input| setup.plan.run(&Serial, &mut ws, input)).is_err());
}
