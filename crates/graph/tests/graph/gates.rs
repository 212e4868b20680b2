//! Gates that weigh some of their experts (their weights are read off a bank whose experts are unit vectors), and experts
//! that compete for samples.

use crate::support::{Setup, TRUNK, linear, small, task, trunk};
use manygate_core::Result;
use manygate_graph::ops::{GateCombine, MixtureLikelihood};
use manygate_graph::{Graph, LossPart, Over, PlanOptions};
use manygate_kernels::activation::Activation::Identity;

const ROWS: usize = 40;

/// The weights of one gate with these logits in every row.
fn weights(logits: [f32; 4], choose: impl Fn(GateCombine) -> GateCombine) -> Vec<Vec<f32>> {
    let declare = |g: &mut Graph| -> Result<()> {
        let x = trunk(g)?;
        let (z, bank) = (linear(g, "gate", x, 4, Identity)?, linear(g, "bank", x, 16, Identity)?);
        let mixed = g.add("mixed", choose(GateCombine::new(1, 4)), &[z, bank])?;
        g.output("weights", mixed);
        let click = linear(g, "click", mixed, 1, Identity)?;
        task(g, "click", 0, click)
    };
    let mut setup = Setup::new(ROWS, PlanOptions { outputs: true, ..small() }, declare);
    setup.params.set("gate.weight", &[0.0; 4 * TRUNK]).unwrap();
    setup.params.set("gate.bias", &logits).unwrap();
    setup.params.set("bank.weight", &[0.0; 16 * TRUNK]).unwrap();
    let units: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
    setup.params.set("bank.bias", &units).unwrap();
    let ws = setup.run();
    let found = setup.plan.output(&ws, "weights").unwrap();
    (0..ROWS).map(|row| found.row(row).to_vec()).collect()
}

fn softmax(logits: [f32; 4], left: [bool; 4]) -> [f32; 4] {
    let terms = [0, 1, 2, 3].map(|e| if left[e] { logits[e].exp() } else { 0.0 });
    terms.map(|term| term / terms.iter().sum::<f32>())
}

fn assert_close(found: &[f32], expected: [f32; 4]) {
    assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6), "{found:?}, not {expected:?}");
    assert!(found.iter().zip(expected).all(|(f, e)| (*f == 0.0) == (e == 0.0)), "what is left out weighs 0");
}

#[test]
fn the_best_are_those_with_the_largest_logits_and_of_equal_ones_the_first() {
    let cases = [
        ([1.0, 3.0, 2.5, 2.0], 2, [false, true, true, false]),
        ([3.0, 1.0, 3.0, 3.0], 2, [true, false, true, false]),
        ([0.0, 0.0, 0.0, 0.0], 1, [true, false, false, false]),
        ([-4.0, 2.0, -1.0, 0.0], 4, [true; 4]),
    ];
    for (logits, k, left) in cases {
        for row in weights(logits, |op| op.best(k)) {
            assert_close(&row, softmax(logits, left));
        }
    }
}

#[test]
fn dropped_weights_leave_the_others_renormalised_and_never_none() {
    let logits = [1.0, 0.0, 0.5, -1.0];
    for (k, best) in [(4, [true; 4]), (2, [true, false, true, false])] {
        let rows = weights(logits, |op| op.best(k).dropping("gate_dropout", 0.5));
        let left = |row: &Vec<f32>| [0, 1, 2, 3].map(|e| row[e] != 0.0);
        for row in &rows {
            assert_close(row, softmax(logits, left(row)));
            assert!(left(row).iter().zip(best).all(|(left, best)| best || !left));
        }
        let sets: std::collections::BTreeSet<[bool; 4]> = rows.iter().map(left).collect();
        assert!(sets.len() >= k, "rows differ: {sets:?}");
        // All are dropped: all stay.
        for row in weights(logits, |op| op.best(k).dropping("gate_dropout", 1.0 - 1e-9)) {
            assert_close(&row, softmax(logits, best));
        }
    }
}

#[test]
fn a_logit_that_is_not_finite_is_not_dropped() {
    for row in weights([0.0, f32::NAN, 1.0, 2.0], |op| op.best(2).dropping("gate_dropout", 0.9)) {
        assert!(row.iter().any(|w| w.is_nan()));
    }
}

/// Far from every expert, where each likelihood is 0 in f64.
#[test]
fn a_far_target_has_a_loss_and_pulls_the_nearest_expert() {
    let mut setup = Setup::new(ROWS, small(), |g| {
        let x = trunk(g)?;
        let (z, o) = (linear(g, "gate", x, 2, Identity)?, linear(g, "experts", x, 2, Identity)?);
        let loss = g.loss(LossPart::new("far", 1.0, Over::Rows))?;
        g.add("loss", MixtureLikelihood::new(loss, 0, None), &[z, o]).map(drop)
    });
    setup.batch.labels[0].fill(1000.0);
    setup.params.set("experts.weight", &[0.0; 2 * TRUNK]).unwrap();
    setup.params.set("experts.bias", &[-1.0, 2.0]).unwrap();
    setup.params.set("gate.weight", &[0.0; 2 * TRUNK]).unwrap();
    setup.params.set("gate.bias", &[0.0; 2]).unwrap();
    let ws = setup.run();
    let expected = 0.5 * 998.0f64.powi(2) + 2.0f64.ln();
    assert!((ws.part_losses()[0] / expected - 1.0).abs() < 1e-9, "{}", ws.part_losses()[0]);
    let (experts, gate) = (setup.gradient(&ws, "experts.bias"), setup.gradient(&ws, "gate.bias"));
    assert!(experts[0] == 0.0 && (experts[1] + 998.0).abs() < 1e-2, "{experts:?}");
    assert!((gate[0] - 0.5).abs() < 1e-5 && (gate[1] + 0.5).abs() < 1e-5, "{gate:?}");
}

#[test]
fn a_choice_that_cannot_be_is_told() {
    let told = |op: GateCombine| {
        let mut g = Graph::new(manygate_graph::Mode::Training);
        let x = trunk(&mut g).unwrap();
        let (z, bank) = (linear(&mut g, "gate", x, 4, Identity), linear(&mut g, "bank", x, 8, Identity));
        g.add("mixed", op, &[z.unwrap(), bank.unwrap()]).unwrap_err().to_string()
    };
    assert!(told(GateCombine::new(1, 4).best(5)).contains("the best 5 of 4 experts cannot be chosen"));
    assert!(told(GateCombine::new(1, 4).best(0)).contains("the best 0 of 4"));
    assert!(told(GateCombine::new(1, 4).dropping("mixed", 1.0)).contains("its rate, 1, is not in [0, 1)"));
}
