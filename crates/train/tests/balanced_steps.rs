//! Steps whose losses a method weighs: what moves, by how much, and that threads do not change it.

mod support;

use manygate_core::{Executor, Pool, Serial};
use manygate_embedding::SparseGradients;
use manygate_graph::{Draws, Input, PlanOptions, Workspace};
use manygate_train::balance::uncertainty::Likelihood;
use manygate_train::balance::{Balance, METHODS, Seen};
use manygate_train::{Learner, LossGradients};
use support::{ROWS, batch, graph, learner, tasks};

const SGD: &str = "[dense]\nmethod = \"sgd\"\nrate = 0.25\n[tables]\nmethod = \"sgd\"\nrate = 0.25";

fn balance(text: &str) -> Balance {
    Balance::from_table(&text.parse().unwrap()).unwrap()
}

fn balanced(text: &str, optimizer: &str, exec: &dyn Executor) -> Learner {
    let mut learner = learner(optimizer);
    learner.balance_by(&balance(text), graph(), &tasks(), 3, exec).unwrap();
    learner
}

fn values(learner: &Learner) -> Vec<f32> {
    let tables = learner.tables.0.iter().flat_map(|table| table.weights());
    learner.params.values.iter().copied().chain(tables).collect()
}

/// pcgrad and cagrad: shared parameters move along the weighted sum, those of one loss along its own gradient.
#[test]
fn combined_gradients_move_what_is_shared() {
    for (text, scale) in [("method = \"pcgrad\"", 1.0), ("method = \"cagrad\"\nc = 0.4", 1.0)] {
        let (plain, batch) = (learner(SGD), batch(0));
        let Learner { plan, params, state, tables, .. } = &plain;
        let mut ws = Workspace::new(plan, 1, ROWS);
        plan.pack(&Serial, &mut ws, params);
        let mut sparse = SparseGradients::new(plan, ROWS);
        sparse.sort(&Serial, &batch);
        let mut gradients = LossGradients::new(plan, &[0, 1, 2], &[1.0; 3]);
        let draws = Draws { seed: 3, step: 1, caller_rows: &[] };
        let input = Input { params, state, tables, batch: &batch, seeds: &[], draws };
        gradients.compute(&Serial, plan, &mut ws, &sparse, &input, 1).unwrap();
        let (mut gram, mut weights) = ([0.0; 9], [0.0; 3]);
        gradients.gram(&Serial, &mut gram);
        let mut method = balance(text).method(&[Likelihood::Classification; 3], 3).unwrap();
        method.weigh(&Seen { step: 1, losses: &[1.0; 3], gram: &gram, ..Seen::default() }, &mut weights);
        gradients.combine(&Serial, &weights, &[scale; 3]);

        let mut stepped = balanced(text, SGD, &Serial);
        stepped.step(&Serial, &batch).unwrap();
        for (i, (&after, &before)) in stepped.params.values.iter().zip(&params.values[..]).enumerate() {
            assert_eq!(after, before - 0.25 * gradients.sum().row(0)[i], "{text}: {i}");
        }
        assert_ne!(stepped.tables.0[0].weights(), tables.0[0].weights());
    }
}

/// Weights of losses are factors of one backward pass, those of the step before it for methods that learn them.
#[test]
fn weights_of_losses_are_factors_of_the_step() {
    for (method, own_weights) in [("uncertainty", false), ("famo", true), ("gradnorm", false)] {
        let text = format!("method = \"{method}\"\nlosses = [\"click\", \"buy\"]");
        let mut weighed = balanced(&text, SGD, &Serial);
        let mut plain = learner(SGD);
        weighed.step(&Serial, &batch(0)).unwrap();
        for (loss, weight) in weighed.balancer().unwrap().weights() {
            assert_eq!(weight != 1.0, own_weights, "{method}: {weight}");
            plain.seeds_mut()[loss] = weight as f32;
        }
        plain.step(&Serial, &batch(0)).unwrap();
        let close = |(a, b): (f32, f32)| (a - b).abs() <= 1e-6;
        assert!(values(&weighed).into_iter().zip(values(&plain)).all(close), "{method}");
        weighed.step(&Serial, &batch(1)).unwrap();
        assert!(weighed.balancer().unwrap().weights().all(|(_, weight)| weight != 1.0), "{method} learns");
    }
}

#[test]
fn every_method_steps_alike_on_any_number_of_threads() {
    for entry in &METHODS {
        let text = format!("method = \"{}\"", entry.name);
        let run = |exec: &dyn Executor| {
            // A learner has memory for the threads that a stage began on.
            let mut learner = learner("");
            let options = learner.plan.options().clone();
            learner.begin_stage(graph(), options, &Default::default()).unwrap();
            learner.balance_by(&balance(&text), graph(), &tasks(), 3, exec).unwrap();
            let step = |number| learner.step(exec, &batch(number)).unwrap().to_vec();
            let losses: Vec<Vec<f64>> = (0..4).map(step).collect();
            (values(&learner), losses, learner.balancer().unwrap().state())
        };
        let one = run(&Serial);
        for threads in [2, 3] {
            let several = Pool::new(threads).unwrap().enter(|exec| run(exec));
            assert_eq!(several, one, "{}: {threads} threads", entry.name);
        }
    }
}

/// Where nothing learns, famo's second look at the losses finds what its first did: dropout dropped the same.
#[test]
fn a_second_look_sees_the_masks_of_the_step() {
    let mut learner = learner("");
    let options = PlanOptions { frozen: vec!["*".into()], ..learner.plan.options().clone() };
    learner.begin_stage(graph(), options, &Default::default()).unwrap();
    learner.balance_by(&balance("method = \"famo\""), graph(), &tasks(), 3, &Serial).unwrap();
    let losses = [0, 0].map(|number| learner.step(&Serial, &batch(number)).unwrap().to_vec());
    assert_ne!(losses[0], losses[1], "another step drops others");
    let learnt = learner.balancer().unwrap().state();
    assert!(learnt[..9].iter().all(|&v| v == 0.0), "{learnt:?}");
}

#[test]
fn losses_and_layers_that_do_not_exist_are_told() {
    let told = |text: &str| {
        let mut learner = learner("");
        learner.balance_by(&balance(text), graph(), &tasks(), 3, &Serial).unwrap_err().to_string()
    };
    let loss = told("method = \"pcgrad\"\nlosses = [\"share\"]");
    assert!(loss.contains("balance.losses: there is no loss `share`; there are: click, like, buy"), "{loss}");
    let layer = told("method = \"gradnorm\"\nlayer = [\"towers.click.*\"]");
    assert!(layer.contains("balance.layer: `towers.click.*` fits no dense parameter that all"), "{layer}");
}
