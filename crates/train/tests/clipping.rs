//! Gradients that are too long are made shorter before anything moves.

mod support;

use manygate_core::{Executor, Pool, Serial};
use manygate_train::Learner;
use manygate_train::balance::Balance;
use support::{batch, graph, learner, tasks};

/// Plain descent: a step is the rate times the gradient.
const RATE: f32 = 0.5;

fn descent(clip: &str) -> String {
    format!("{clip}\n[dense]\nmethod = \"sgd\"\nrate = 0.5\n[tables]\nmethod = \"sgd\"\nrate = 0.5")
}

/// The gradient that a first step took, from how far it moved: of dense parameters, and of tables.
fn taken(mut learner: Learner, balance: &str) -> [Vec<f64>; 2] {
    if !balance.is_empty() {
        let balance = Balance::from_table(&balance.parse().unwrap()).unwrap();
        learner.balance_by(&balance, graph(), &tasks(), 3, &Serial).unwrap();
    }
    let weights = |learner: &Learner| {
        let tables = learner.tables.0.iter().flat_map(|table| table.weights()).collect();
        [learner.params.values.to_vec(), tables]
    };
    let before = weights(&learner);
    learner.step(&Serial, &batch(0)).unwrap();
    let after = weights(&learner);
    [0, 1].map(|i| {
        let pairs = before[i].iter().zip(&after[i]);
        pairs.map(|(&before, &after)| f64::from((before - after) / RATE)).collect()
    })
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn assert_close(found: &[f64], expected: impl Iterator<Item = f64>) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 2e-6, "{found} {expected}");
    }
}

#[test]
fn a_long_gradient_is_scaled_to_the_norm() {
    for balance in ["", "method = \"pcgrad\"", "method = \"uncertainty\""] {
        let plain = taken(learner(&descent("")), balance);
        let [dense, tables] = plain.each_ref().map(|gradient| norm(gradient));
        assert!(dense > 1e-2 && tables > 1e-3, "{dense} {tables}");

        let half = taken(learner(&descent(&format!("clip_norm = {}", dense / 2.0))), balance);
        assert_close(&half[0], plain[0].iter().map(|g| g / 2.0));
        assert_eq!(half[1], plain[1], "tables are left alone");

        let all = dense.hypot(tables);
        let clip = format!("clip_norm = {}\nclip_tables = true", all / 4.0);
        let quarter = taken(learner(&descent(&clip)), balance);
        for (found, plain) in quarter.iter().zip(&plain) {
            assert_close(found, plain.iter().map(|g| g / 4.0));
        }
    }
}

#[test]
fn a_gradient_within_the_limit_keeps_its_bits() {
    let plain = taken(learner(&descent("")), "");
    for clip in ["clip_norm = 100", "clip_value = 100"] {
        assert_eq!(taken(learner(&descent(clip)), ""), plain, "{clip}");
        assert_eq!(taken(learner(&descent(&format!("{clip}\nclip_tables = true"))), ""), plain, "{clip}");
    }
}

#[test]
fn values_are_cut_at_the_limit() {
    let plain = taken(learner(&descent("")), "");
    let largest = plain[0].iter().fold(0.0, |largest: f64, g| largest.max(g.abs()));
    let limit = largest / 3.0;
    let dense = taken(learner(&descent(&format!("clip_value = {limit}"))), "");
    assert_close(&dense[0], plain[0].iter().map(|g| g.clamp(-limit, limit)));
    assert_eq!(dense[1], plain[1]);
    let limit = 1e-4;
    let all = taken(learner(&descent(&format!("clip_value = {limit}\nclip_tables = true"))), "");
    for (found, plain) in all.iter().zip(&plain) {
        assert_close(found, plain.iter().map(|g| g.clamp(-limit, limit)));
    }
}

/// The norm is over all that learns, also of groups that do not move at this step.
#[test]
fn groups_are_clipped_together() {
    let towers = "\n[[group]]\nnames = [\"towers.*\"]\nmethod = \"sgd\"\nrate = 0.5\nevery = 2";
    let grouped = |clip: &str| taken(learner(&format!("{}{towers}", descent(clip))), "")[0].clone();
    let all = norm(&taken(learner(&descent("")), "")[0]);
    let (plain, half) = (grouped(""), grouped(&format!("clip_norm = {}", all / 2.0)));
    assert!(norm(&plain) < 0.99 * all, "towers have a share");
    assert_close(&half, plain.iter().map(|g| g / 2.0));
}

#[test]
fn threads_do_not_change_a_bit() {
    let clip = descent("clip_norm = 0.01\nclip_tables = true");
    let run = |exec: &dyn Executor| {
        // A learner has memory for the threads that a stage began on.
        let mut learner = learner(&clip);
        let options = learner.plan.options().clone();
        learner.begin_stage(graph(), options, &clip.parse().unwrap()).unwrap();
        (0..4).for_each(|step| drop(learner.step(exec, &batch(step)).unwrap().to_vec()));
        let tables: Vec<Vec<f32>> = learner.tables.0.iter().map(|table| table.weights()).collect();
        (learner.params.values.to_vec(), tables)
    };
    let alone = run(&Serial);
    for threads in [2, 3] {
        assert!(Pool::new(threads).unwrap().enter(|exec| run(exec)) == alone, "{threads} threads");
    }
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() {
    for clip in ["clip_norm = 1", "clip_value = 1\nclip_tables = true"] {
        let mut learner = learner(&descent(clip));
        let before = learner.params.values.to_vec();
        let mut batch = batch(0);
        batch.dense.iter_mut().for_each(|x| *x *= 1e3);
        learner.seeds_mut()[0] = f32::MAX;
        let told = learner.step(&Serial, &batch).unwrap_err().to_string();
        assert!(told.contains("the gradient of `") && told.contains("is not finite at step 1"), "{told}");
        assert_eq!(learner.params.values[..], before);
        assert_eq!(learner.step, 0);
    }
}
