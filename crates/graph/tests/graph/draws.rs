//! Random numbers inside a run: what they depend on, and what they do not.

use crate::support::{Setup, batch, linear, small, task, trunk};
use manygate_core::{Error, Result, Serial};
use manygate_graph::ops::Dropout;
use manygate_graph::{Draws, Graph, Input, PlanOptions, Value};
use manygate_kernels::activation::Activation::{Identity, Tanh};

fn dropped(g: &mut Graph, name: &str, x: Value) -> Result<Value> {
    g.add(name, Dropout::new(name, 0.4), &[x])
}

/// Two dropouts one after the other; with `beside`, a third one and a layer are declared before them.
fn model(g: &mut Graph, beside: bool) -> Result<()> {
    let x = trunk(g)?;
    if beside {
        let z = linear(g, "beside", x, 3, Tanh)?;
        let z = dropped(g, "beside.dropout", z)?;
        let like = linear(g, "like", z, 1, Identity)?;
        task(g, "like", 1, like)?;
    }
    let z = linear(g, "bottom", x, 6, Tanh)?;
    let z = dropped(g, "bottom.dropout", z)?;
    g.output("first", z);
    let z = linear(g, "top", z, 5, Tanh)?;
    let z = dropped(g, "top.dropout", z)?;
    g.output("second", z);
    let click = linear(g, "click", z, 1, Identity)?;
    task(g, "click", 0, click)
}

fn options(tile_rows: usize, lane_rows: usize) -> PlanOptions {
    PlanOptions { tile_rows, lane_rows, outputs: true, ..PlanOptions::default() }
}

fn setup(options: PlanOptions, beside: bool) -> Setup {
    Setup::new(40, options, |g| model(g, beside))
}

/// Both outputs, row by row, of a run with these draws.
fn outputs(setup: &Setup, draws: Draws<'_>) -> Vec<[Vec<f32>; 2]> {
    let mut ws = manygate_graph::Workspace::new(&setup.plan, 1, setup.batch.rows);
    setup.plan.pack(&Serial, &mut ws, &setup.params);
    setup.with_input(|input| setup.plan.run(&Serial, &mut ws, &Input { draws, ..*input })).unwrap();
    let of = |name: &str, row: usize| setup.plan.output(&ws, name).unwrap().row(row).to_vec();
    (0..setup.batch.rows).map(|row| ["first", "second"].map(|name| of(name, row))).collect()
}

/// Where values were dropped.
fn zeros(rows: &[[Vec<f32>; 2]]) -> Vec<bool> {
    rows.iter().flatten().flatten().map(|&v| v == 0.0).collect()
}

const DRAWS: Draws<'static> = Draws { seed: 3, step: 1, caller_rows: &[] };

#[test]
fn gradients_are_those_of_the_masks_of_the_run() {
    setup(small(), true).check();
    Setup { step: 2, ..setup(options(128, 256), false) }.check();
}

#[test]
fn a_value_s_fate_depends_on_seed_step_and_name_alone() {
    let whole = outputs(&setup(options(128, 256), false), DRAWS);
    for other in [setup(options(5, 16), false), setup(options(7, 40), true)] {
        assert_eq!(zeros(&outputs(&other, DRAWS)), zeros(&whole), "tiles, lanes and what else is declared");
    }
    let frozen = PlanOptions { frozen: vec!["*".into()], ..options(128, 256) };
    assert_eq!(outputs(&setup(frozen, false), DRAWS), whole, "a plan of losses alone");
    let [seed, step] = [Draws { seed: 4, ..DRAWS }, Draws { step: 2, ..DRAWS }];
    for draws in [seed, step] {
        assert_ne!(zeros(&outputs(&setup(options(128, 256), false), draws)), zeros(&whole));
    }
    let (first, second): (Vec<_>, Vec<_>) = whole.into_iter().map(|[a, b]| (a[..5].to_vec(), b)).unzip();
    assert_ne!(zeros(&[[first.concat(), Vec::new()]]), zeros(&[[second.concat(), Vec::new()]]));
}

/// The rows of a batch in another order, told as such: each keeps its values.
#[test]
fn the_caller_s_row_counts() {
    let one = setup(options(5, 16), false);
    let order: Vec<u32> = (0..40).map(|r| (r * 7 + 3) % 40).collect();
    let mut other = setup(options(5, 16), false);
    other.batch.gather(&batch(40), &order);
    let found = outputs(&other, Draws { caller_rows: &order, ..DRAWS });
    let expected = outputs(&one, DRAWS);
    for (row, &caller_row) in order.iter().enumerate() {
        assert_eq!(found[row], expected[caller_row as usize], "row {caller_row}");
    }
    let mut ws = manygate_graph::Workspace::new(&one.plan, 1, 40);
    one.plan.pack(&Serial, &mut ws, &one.params);
    let draws = Draws { caller_rows: &order[..39], ..DRAWS };
    let told = one.with_input(|input| one.plan.run(&Serial, &mut ws, &Input { draws, ..*input }));
    assert!(
        told.unwrap_err().to_string().contains("the caller's rows of 39 rows are told, the batch has 40")
    );
}

/// A kept value overflows by its factor, a dropped one does not: the second run must see the mask of the first.
#[test]
fn the_search_for_a_value_that_is_not_finite_sees_the_same_mask() {
    let mut setup = Setup::new(1, small(), |g| {
        let x = trunk(g)?;
        let large = linear(g, "large", x, 1, Identity)?;
        let kept = g.add("dropout", Dropout::new("dropout", 0.5), &[large])?;
        task(g, "click", 0, kept)
    });
    setup.params.set("large.weight", &[0.0; crate::support::TRUNK]).unwrap();
    setup.params.set("large.bias", &[f32::MAX]).unwrap();
    let mut found = [0, 0];
    for step in 0..30 {
        setup.step = step;
        let mut ws = setup.run();
        match setup.with_input(|input| setup.plan.check_losses(&mut ws, input, step)) {
            Err(Error::NonFinite { op, .. }) => {
                assert_eq!(op, "dropout (dropout)", "step {step}");
                found[1] += 1;
            }
            other => {
                other.unwrap();
                found[0] += 1;
            }
        }
    }
    assert!(found.iter().all(|&count| count > 5), "{found:?}");
}

#[test]
fn names_and_rates_that_cannot_be_are_told() {
    let told = |name: &'static str, rate: f64| {
        let mut g = Graph::new(manygate_graph::Mode::Training);
        let x = trunk(&mut g).unwrap();
        let x = dropped(&mut g, "first", x).unwrap();
        g.add("second", Dropout::new(name, rate), &[x]).unwrap_err().to_string()
    };
    let twice = told("first", 0.1);
    assert!(twice.contains("second: dropout: draws the random numbers of `first`"), "{twice}");
    for rate in [1.0, -0.1, f64::NAN] {
        assert!(told("other", rate).contains(&format!("its rate, {rate}, is not in [0, 1)")));
    }
}
