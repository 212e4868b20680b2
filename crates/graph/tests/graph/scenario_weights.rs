//! Losses in which the rows of scenarios count unlike: as if rows were there as often as their weight says.

use crate::support::{Setup, linear, small, trunk};
use manygate_graph::ops::{BceWithLogits, SquaredError};
use manygate_graph::{Graph, LossPart, Mode, Over};
use manygate_kernels::activation::Activation::Identity;

/// A click over all rows and a number over clicked ones.
fn model(g: &mut Graph, weights: &[f32]) -> manygate_core::Result<()> {
    let x = trunk(g)?;
    let (click, spent) = (linear(g, "click", x, 1, Identity)?, linear(g, "spent", x, 1, Identity)?);
    let loss = g.loss(LossPart::new("click", 1.5, Over::Rows).weighing(weights))?;
    g.add("loss.click", BceWithLogits::new(loss, 0, None), &[click])?;
    let loss = g.loss(LossPart::new("spent", 0.5, Over::Labelled(0)).weighing(weights))?;
    g.add("loss.spent", SquaredError::new(loss, 1, Some(0)), &[spent]).map(|_| ())
}

/// The model over rows of scenarios 0, 1 and 3 out of four, in order.
fn over(rows: usize, weights: &[f32]) -> Setup {
    let mut setup = Setup::new(rows, small(), |g| model(g, weights));
    setup.batch.scenario = (0..rows).map(|r| [0, 1, 3][3 * r / rows]).collect();
    setup
}

#[track_caller]
fn same(one: &Setup, two: &Setup) {
    let (a, b) = (one.run(), two.run());
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} and {b}");
    a.part_losses().iter().zip(b.part_losses()).for_each(|(a, b)| near(*a, *b));
    for name in ["click.weight", "spent.weight", "spent.bias"] {
        let gradients = [one.gradient(&a, name), two.gradient(&b, name)];
        gradients[0].iter().zip(&gradients[1]).for_each(|(a, b)| near(f64::from(*a), f64::from(*b)));
    }
}

#[test]
fn a_weight_is_how_often_a_row_is_there() {
    let weighted = over(36, &[3.0, 1.0, 7.0, 0.0]);
    weighted.check();
    // Three times the first twelve rows, once the next, never the last.
    let rows: Vec<u32> = (0..36).flat_map(|r| vec![r; [3, 1, 0][r as usize / 12]]).collect();
    let mut repeated = Setup::new(rows.len(), small(), |g| model(g, &[]));
    repeated.batch.gather(&weighted.batch, &rows);
    same(&weighted, &repeated);
}

#[test]
fn a_factor_that_all_scenarios_have_changes_nothing() {
    let even = over(36, &[]);
    same(&over(36, &[0.25; 4]), &even);
    same(&over(36, &[5.0; 4]), &even);
}

#[test]
fn a_batch_of_rows_without_weight_has_no_loss() {
    let mut setup = over(20, &[0.0, 1.0, 1.0, 1.0]);
    setup.batch.scenario.fill(0);
    setup.check();
    let ws = setup.run();
    assert_eq!(ws.part_losses(), [0.0, 0.0]);
    assert!(setup.gradient(&ws, "click.weight").iter().all(|&v| v == 0.0));
}

#[test]
fn a_sum_over_scenarios_weighs_their_means() {
    let each = |weights: &[f32]| {
        let over = Over::EachScenario { scenarios: 4, labelled: None };
        let mut setup = Setup::new(36, small(), |g| {
            let x = trunk(g)?;
            let click = linear(g, "click", x, 1, Identity)?;
            let loss = g.loss(LossPart::new("click", 1.0, over).weighing(weights))?;
            g.add("loss.click", BceWithLogits::new(loss, 0, None), &[click]).map(|_| ())
        });
        setup.batch.scenario = (0..36).map(|r| [0, 0, 0, 1, 3, 3][r / 6]).collect();
        setup.check();
        setup.run().part_losses()[0]
    };
    let alone = |s: usize| each(&[0, 1, 2, 3].map(|other| if other == s { 1.0 } else { 0.0 }));
    let wanted = 2.0 * alone(0) + 0.5 * alone(1) + 4.0 * alone(3);
    assert!((each(&[2.0, 0.5, 9.0, 4.0]) - wanted).abs() < 1e-9);
    assert!((each(&[]) - alone(0) - alone(1) - alone(3)).abs() < 1e-9);
}

#[test]
fn weights_that_cannot_be_are_told() {
    let told = |part: LossPart| Graph::new(Mode::Training).loss(part).unwrap_err().to_string();
    let negative = told(LossPart::new("a", 1.0, Over::Rows).weighing(&[1.0, -1.0]));
    assert!(negative.contains("a: -1 is no weight of a scenario"), "{negative}");
    assert!(told(LossPart::new("a", 1.0, Over::Once).weighing(&[1.0])).contains("1 weights of scenarios"));
    let each = Over::EachScenario { scenarios: 3, labelled: None };
    assert!(
        told(LossPart::new("a", 1.0, each).weighing(&[1.0; 2])).contains("2 weights of scenarios do not fit")
    );
}
