//! A new stage of training: other names frozen, other losses, fresh optimisers, the same parameters.

mod support;

use manygate_core::Serial;
use manygate_graph::{Block, Init, ParamSpec, PlanOptions};
use manygate_train::optim::OptimizerConfig;
use support::{batch, graph, learner};

fn frozen(names: &[&str]) -> PlanOptions {
    PlanOptions { frozen: names.iter().map(|n| n.to_string()).collect(), ..PlanOptions::default() }
}

#[test]
fn parameters_go_on_and_what_is_frozen_or_left_out_stays() {
    let mut learner = learner("");
    learner.step(&Serial, &batch(0)).unwrap();
    let before = (learner.params.clone(), learner.tables.clone());
    let optimizer: OptimizerConfig = "[tables]\nmethod = \"rowwise_adagrad\"".parse().unwrap();
    learner.begin_stage(graph(), frozen(&["experts.*", "embedding.user.*"]), &optimizer).unwrap();
    assert_eq!(learner.params.values[..], before.0.values[..], "a stage begins where the one before ended");
    assert_eq!(learner.step, 0);
    for (table, old) in learner.tables.0.iter().zip(&before.1.0) {
        assert_eq!((table.weights(), table.state_width()), (old.weights(), 1));
        assert!(table.state().iter().all(|&v| v == 0.0), "fresh optimisers");
    }
    // Without the loss of buying.
    learner.seeds_mut()[2] = 0.0;
    learner.step(&Serial, &batch(1)).unwrap();
    for ((block, values), (_, old)) in learner.params.tensors().zip(before.0.tensors()) {
        let stays = block.name.starts_with("experts.") || block.name.contains(".buy.");
        assert_eq!(values == old, stays, "{}", block.name);
    }
    assert_eq!(learner.tables.0[0].weights(), before.1.0[0].weights(), "a frozen table");
    assert_ne!(learner.tables.0[1].weights(), before.1.0[1].weights());
}

/// Dropout draws by the step of the run: a stage does not begin again with the masks of the first steps.
#[test]
fn masks_go_on_through_stages() {
    let all = || frozen(&["*"]);
    let run = |stages: &[u64]| -> Vec<Vec<f64>> {
        let mut learner = learner("");
        let mut losses = Vec::new();
        for &steps in stages {
            learner.begin_stage(graph(), all(), &OptimizerConfig::default()).unwrap();
            losses.extend((0..steps).map(|_| learner.step(&Serial, &batch(0)).unwrap().to_vec()));
        }
        losses
    };
    let whole = run(&[5]);
    assert_eq!(run(&[2, 0, 3]), whole);
    assert!((1..5).all(|step| !whole[..step].contains(&whole[step])), "every step has its own masks");
}

#[test]
fn a_stage_that_declares_other_parameters_is_refused() {
    let mut learner = learner("");
    let mut other = graph();
    let block = Block::vector("more", 3, Init::Constant(0.0));
    other.param(ParamSpec::new(vec![block]).unwrap()).unwrap();
    let refused = learner.begin_stage(other, PlanOptions::default(), &OptimizerConfig::default());
    assert!(refused.unwrap_err().to_string().contains("must declare the parameters"));
}
