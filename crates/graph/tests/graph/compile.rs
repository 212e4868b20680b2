//! Graphs that cannot be, told when they are built or compiled.

use crate::support::{TRUNK, linear, task, trunk};
use manygate_core::Result;
use manygate_graph::ops::{BatchMoments, BceWithLogits, Linear, LookupTrunk, Piece, Running, Sigmoid, Tap};
use manygate_graph::{Block, Graph, Init, LossPart, Mode, Over, ParamSpec, Plan, PlanOptions, TableSpec};
use manygate_kernels::activation::Activation::Identity;

fn says(what: &str, declare: impl FnOnce(&mut Graph) -> Result<()>) {
    let mut g = Graph::new(Mode::Training);
    let options = PlanOptions { outputs: true, ..PlanOptions::default() };
    let result = declare(&mut g).and_then(|()| Plan::compile(g, options)).map(|_| ());
    let message = result.unwrap_err().to_string();
    assert!(message.contains(what), "{message}");
}

fn model(g: &mut Graph) -> Result<manygate_graph::Value> {
    let x = trunk(g)?;
    let logit = linear(g, "click", x, 1, Identity)?;
    task(g, "click", 0, logit)?;
    Ok(x)
}

#[test]
fn graphs_that_cannot_be_are_told() {
    says("neither a loss nor an output", |_| Ok(()));
    says("two outputs have this name", |g| {
        let x = model(g)?;
        g.output("p", x);
        g.output("p", x);
        Ok(())
    });
    says("only what an op computes can be an output", |g| {
        model(g)?;
        let w = g.param(ParamSpec::new(vec![Block::vector("w", 3, Init::Constant(0.0))])?)?;
        g.output("w", w);
        Ok(())
    });
    says("two taps have this name", |g| {
        let mut x = trunk(g)?;
        for _ in 0..2 {
            x = g.add("tap", Tap, &[x])?;
        }
        let logit = linear(g, "click", x, 1, Identity)?;
        task(g, "click", 0, logit)
    });
    says("this weight is neither a parameter, state, nor computed before", |g| {
        let (x, start) = (trunk(g)?, Init::Constant(0.0));
        let row = g.param(ParamSpec::new(vec![Block::weight("row", 1, TRUNK, start.clone())])?)?;
        let (w, _) = g.state(ParamSpec::new(vec![Block::weight("w", TRUNK, TRUNK, start)])?)?;
        // No join packs what it multiplies by itself.
        let row = g.add("row", Linear::new(TRUNK, false, Identity), &[row, w])?;
        let logit = g.add("click", Linear::new(1, false, Identity), &[x, row])?;
        task(g, "click", 0, logit)
    });
    says("two inputs share columns of one value", |g| {
        let x = model(g)?;
        let (a, b) = (g.columns(x, 0, 4)?, g.columns(x, 3, 4)?);
        g.add("mixed", manygate_graph::ops::GateCombine::new(1, 4), &[a, b]).map(|_| ())
    });
    says("one op reads 4 numbers a row, another 3", |g| {
        model(g)?;
        let other = g.add("other", LookupTrunk::new(vec![Piece::Dense { width: 3 }]), &[])?;
        let logit = linear(g, "like", other, 1, Identity)?;
        task(g, "like", 1, logit)
    });
}

#[test]
fn references_to_what_is_not_there_are_told() {
    says("rows of `user` have 3 values, not 5", |g| {
        trunk(g)?;
        g.add("x", LookupTrunk::new(vec![Piece::Field { field: 0, table: 0, dim: 5 }]), &[]).map(|_| ())
    });
    says("there is no table 4", |g| {
        g.add("x", LookupTrunk::new(vec![Piece::Field { field: 0, table: 4, dim: 5 }]), &[]).map(|_| ())
    });
    says("its part of the loss is one of another graph", |g| {
        let part = LossPart::new("a", 1.0, Over::Rows);
        let loss = Graph::new(Mode::Training).loss(part)?;
        let x = trunk(g)?;
        let logit = linear(g, "click", x, 1, Identity)?;
        g.add("loss", BceWithLogits::new(loss, 0, None), &[logit]).map(|_| ())
    });
    says("the state that [18, 1] moves needs as many values", |g| {
        let x = trunk(g)?;
        g.add("moments", BatchMoments::new(Some(Running { state: 3, momentum: 0.1, unbiased: true })), &[x])
            .map(|_| ())
    });
    says("is declared as [3, 2] and as [4, 2]", |g| {
        let table = |rows| TableSpec { name: "t".into(), rows, dim: 2, init: Init::Constant(0.0) };
        g.table(table(3))?;
        g.table(table(4)).map(|_| ())
    });
    says("columns 8 to 10 of [batch, 9] are asked for", |g| {
        let x = trunk(g)?;
        let part = g.columns(x, 8, 2)?;
        g.add("p", Sigmoid, &[part]).map(|_| ())
    });
}
