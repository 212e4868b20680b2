//! Weights that are prepared once and shared by workspaces.

use crate::support::{Setup, linear, small, trunk};
use manygate_core::{Result, Serial};
use manygate_graph::ops::{BatchMoments, Fold, Linear, Normalise};
use manygate_graph::{Block, Graph, Init, Mode, ParamSpec, Parameters, Workspace};
use manygate_kernels::activation::Activation::{Identity, Tanh};
use std::sync::Arc;
use std::thread;

const ROWS: usize = 20;

/// A weight that is packed as it is, and one that is computed of two.
fn folded(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let h = linear(g, "bottom", x, 6, Tanh)?;
    let [shared, own] = ["shared", "own"].map(|name| {
        let block = Block::weight(format!("{name}.weight"), 2, 6, Init::XavierUniform);
        ParamSpec::new(vec![block]).and_then(|spec| g.param(spec))
    });
    let weight = g.add("fold", Fold::sum(1), &[shared?, own?])?;
    let z = g.add("top", Linear::new(2, false, Identity), &[h, weight])?;
    g.output("z", z);
    Ok(())
}

/// Values that exist once and are those of the batch, not of the weights.
fn normalised_by_the_batch(g: &mut Graph) -> Result<()> {
    let x = trunk(g)?;
    let z = linear(g, "bottom", x, 6, Identity)?;
    let [gamma, beta] = ["gamma", "beta"].map(|name| {
        let spec = ParamSpec::new(vec![Block::vector(name, 6, Init::Normal(1.0))]);
        spec.and_then(|spec| g.param(spec))
    });
    let moments = g.add("moments", BatchMoments::new(None), &[z])?;
    let z = g.add("norm", Normalise::new(1e-3, Identity), &[z, moments, gamma?, beta?])?;
    g.output("z", z);
    Ok(())
}

fn setup(declare: fn(&mut Graph) -> Result<()>) -> Setup {
    let mut setup = Setup::of(Mode::Evaluation, ROWS, small(), declare);
    setup.batch.scenario = vec![0; ROWS];
    setup
}

fn output(setup: &Setup, ws: &Workspace) -> Vec<u32> {
    let z = setup.plan.output(ws, "z").unwrap();
    (0..z.rows()).flat_map(|r| z.row(r)).map(|v| v.to_bits()).collect()
}

fn run(setup: &Setup, ws: &mut Workspace) -> Vec<u32> {
    setup.with_input(|input| setup.plan.run(&Serial, ws, input)).unwrap();
    output(setup, ws)
}

#[test]
fn workspaces_that_share_weights_give_the_bits_of_one_that_packs() {
    for model in [folded, normalised_by_the_batch] {
        let setup = setup(model);
        let expected = output(&setup, &setup.run());
        let weights = setup
            .with_input(|input| setup.plan.prepare(&Serial, input.params, input.state, input.tables))
            .unwrap();
        let session = || {
            let mut ws = Workspace::sharing(&setup.plan, 1, ROWS, &weights).unwrap();
            [(); 3].map(|()| run(&setup, &mut ws))
        };
        thread::scope(|scope| {
            let sessions = [(); 4].map(|()| scope.spawn(session));
            for bits in sessions.into_iter().flat_map(|session| session.join().unwrap()) {
                assert_eq!(bits, expected);
            }
        });
    }
}

#[test]
fn a_workspace_that_packs_other_weights_leaves_the_shared_ones_alone() {
    let mut setup = setup(folded);
    let weights = setup
        .with_input(|input| setup.plan.prepare(&Serial, input.params, input.state, input.tables))
        .unwrap();
    let [mut stays, mut goes] = [(); 2].map(|()| Workspace::sharing(&setup.plan, 1, ROWS, &weights).unwrap());
    let before = run(&setup, &mut stays);
    let first = setup.params.clone();
    setup.params = Parameters::initial(Arc::clone(setup.plan.layout()), 9);
    setup.plan.pack(&Serial, &mut goes, &setup.params);
    assert_ne!(run(&setup, &mut goes), before);
    setup.params = first;
    assert_eq!(run(&setup, &mut stays), before);
}

#[test]
fn only_an_evaluation_plan_prepares_and_only_for_itself() {
    let [one, other] = [folded, normalised_by_the_batch].map(setup);
    let weights =
        one.with_input(|input| one.plan.prepare(&Serial, input.params, input.state, input.tables)).unwrap();
    let message = Workspace::sharing(&other.plan, 1, ROWS, &weights).unwrap_err().to_string();
    assert!(message.contains("prepared for another plan"), "{message}");
    let strangers =
        one.with_input(|input| other.plan.prepare(&Serial, input.params, input.state, input.tables));
    assert!(strangers.unwrap_err().to_string().contains("belong to another model"));
    let trains = Setup::new(ROWS, small(), |g| {
        let x = trunk(g)?;
        let logit = linear(g, "click", x, 1, Identity)?;
        crate::support::task(g, "click", 0, logit)
    });
    let told = trains.with_input(|i| trains.plan.prepare(&Serial, i.params, i.state, i.tables)).unwrap_err();
    assert!(told.to_string().contains("training moves"), "{told}");
}
