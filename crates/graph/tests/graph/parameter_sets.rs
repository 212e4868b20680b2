//! One plan runs on every set of parameters and tables of its layout: online and target networks, averages, θ'.

use crate::support::{Setup, linear, small, task, trunk};
use manygate_core::{Result, Serial};
use manygate_graph::{Graph, Input, Parameters, PlanOptions, Workspace};
use manygate_kernels::activation::Activation::{Identity, Tanh};
use manygate_kernels::embedding::Rows;
use std::sync::Arc;

fn model(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let h = linear(g, "bottom", x, 8, Tanh)?;
    let logit = linear(g, "click", h, 1, Identity)?;
    g.output("click", logit);
    task(g, "click", 0, logit)
}

fn setup() -> Setup {
    Setup::new(40, PlanOptions { outputs: true, ..small() }, model)
}

/// What training moves.
#[derive(Clone)]
struct Set {
    params: Parameters,
    tables: Vec<Vec<f32>>,
}

impl Set {
    fn new(setup: &Setup, seed: u64) -> Set {
        let params = Parameters::initial(Arc::clone(setup.plan.layout()), seed);
        let tables = setup.tables.iter().map(|table| table.iter().map(|v| v / seed as f32).collect());
        Set { params, tables: tables.collect() }
    }

    fn bits(&self) -> Vec<u32> {
        self.params.values.iter().chain(self.tables.iter().flatten()).map(|v| v.to_bits()).collect()
    }
}

/// Runs a plan on a set; bits of everything that it leaves.
fn run(setup: &Setup, ws: &mut Workspace, set: &Set) -> Vec<u64> {
    let specs = setup.plan.tables().iter().zip(&set.tables);
    let tables: Vec<Rows<'_>> = specs.map(|(t, v)| Rows::new(v, t.rows, t.dim, t.dim)).collect();
    setup.plan.pack(&Serial, ws, &set.params);
    let run = |input: &Input<'_>| {
        setup.plan.run(&Serial, ws, &Input { params: &set.params, tables: &tables, ..*input })
    };
    setup.with_input(run).unwrap();
    let output = setup.plan.output(ws, "click").unwrap();
    let output = (0..output.rows()).flat_map(|r| output.row(r)).map(|v| u64::from(v.to_bits()));
    setup.bits(ws).into_iter().chain(output).collect()
}

#[test]
fn a_plan_runs_on_several_sets_in_any_order() {
    let setup = setup();
    let (online, target) = (Set::new(&setup, 3), Set::new(&setup, 4));
    let before = [online.bits(), target.bits()];
    let alone = |set| run(&setup, &mut Workspace::new(&setup.plan, 1, 40), set);
    let expected = [alone(&online), alone(&target)];
    assert_ne!(expected[0], expected[1]);
    let mut ws = Workspace::new(&setup.plan, 1, 40);
    for which in [0, 1, 1, 0, 1, 0] {
        assert_eq!(run(&setup, &mut ws, [&online, &target][which]), expected[which]);
    }
    assert_eq!(before, [online.bits(), target.bits()], "a run moves no set");
}

#[test]
fn a_set_follows_another() {
    let setup = setup();
    let (online, mut target) = (Set::new(&setup, 3).params, Set::new(&setup, 4).params);
    let (before, followed) = (target.clone(), online.clone());
    target.move_towards(&online, 0.1).unwrap();
    for ((old, new), online) in before.values.iter().zip(&target.values[..]).zip(&online.values[..]) {
        assert!((0.9 * old + 0.1 * online - new).abs() < 1e-6);
    }
    assert_eq!(online.values[..], followed.values[..]);

    let here = target.clone();
    target.move_towards(&online, 0.0).unwrap();
    assert_eq!(target.values[..], here.values[..]);
    target.move_towards(&online, 1.0).unwrap();
    assert_eq!(target.values[..], online.values[..]);
}

#[test]
fn an_average_takes_in_one_set_after_the_other() {
    let setup = setup();
    let sets: Vec<Parameters> = (1..=4).map(|seed| Set::new(&setup, seed).params).collect();
    let mut average = sets[0].clone();
    for (n, set) in sets.iter().enumerate() {
        average.move_towards(set, 1.0 / (n + 1) as f32).unwrap();
    }
    for (i, average) in average.values.iter().enumerate() {
        let mean = sets.iter().map(|set| set.values[i]).sum::<f32>() / 4.0;
        assert!((average - mean).abs() < 1e-6);
    }
}

#[test]
fn a_set_of_another_layout_is_no_target() {
    let mut params = setup().params;
    let other = Setup::new(8, small(), |g| {
        let x = trunk(g)?;
        let logit = linear(g, "click", x, 1, Identity)?;
        task(g, "click", 0, logit)
    });
    let message = params.move_towards(&other.params, 0.5).unwrap_err().to_string();
    assert!(message.contains("the target is laid out in another way"), "{message}");
}

#[test]
fn a_step_on_a_copy_leaves_the_set_that_it_started_from() {
    const RATE: f32 = 0.01;
    let setup = setup();
    let set = Set::new(&setup, 3);
    let mut ws = Workspace::new(&setup.plan, 1, 40);
    let first = run(&setup, &mut ws, &set);
    let loss = ws.part_losses()[0];
    let (mut ahead, mut slope) = (set.clone(), 0.0);
    let lanes = setup.plan.gradients(&ws);
    for (i, value) in ahead.params.values.iter_mut().enumerate() {
        let gradient: f32 = (0..lanes.rows()).map(|lane| lanes.row(lane)[i]).sum();
        *value -= RATE * gradient;
        slope += f64::from(gradient).powi(2);
    }
    run(&setup, &mut ws, &ahead);
    let fall = loss - ws.part_losses()[0];
    let expected = f64::from(RATE) * slope;
    assert!(fall > 0.0 && (fall - expected).abs() < 0.05 * expected, "{fall}, {expected} is expected");
    assert_eq!(run(&setup, &mut ws, &set), first);
}
