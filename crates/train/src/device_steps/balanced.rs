//! A step whose losses a method weighs, on a device. It is taken to its end: what comes next depends on its losses.

use super::checked;
use crate::balancer::Balancer;
use crate::steps::Stepped;
use manygate_core::{Batch, Result};
use manygate_device::{DeviceModel, Finished, LossWeights, StepConstants};
use manygate_graph::Draws;

/// Takes step number `step` of `model` on `batch`; `looks` tells the losses alone, where `balancer` asks for that. Where it
/// looks again, `model` has its state apart: what was seen before is seen again with the state as it was.
pub(super) fn step(
    model: &mut DeviceModel,
    mut looks: Option<&mut DeviceModel>,
    balancer: &mut Balancer,
    step: u64,
    batch: &Batch,
    draws: Draws<'_>,
    constants: &StepConstants,
) -> Result<Stepped> {
    if let Some(looks) = looks.as_mut().filter(|_| balancer.looks_first()) {
        looks.run(batch, balancer.factors(), draws, None)?;
        let before = last(looks, step)?;
        balancer.see(looks.plan(), &before.losses)?;
    }
    balancer.weigh_ahead(step);
    let runs = model.runs_of_losses();
    for run in 0..runs {
        if !model.has_room() {
            finish(model, step)?;
        }
        model.run_of_loss(run, batch, draws)?;
    }
    if runs == 0 {
        model.run(batch, balancer.seeds(), draws, Some(constants))?;
    }
    let Finished { losses, products, .. } = last(model, step)?;
    balancer.see(model.plan(), &losses)?;
    if runs > 0 {
        let [shared, own] = balancer.weigh_products(step, &products, runs);
        model.move_by(LossWeights { shared: &shared, own: &own }, batch, draws, constants)?;
        last(model, step)?;
    }
    balancer.learn(step);
    if let Some(looks) = looks.filter(|_| balancer.looks_again()) {
        looks.run(batch, balancer.factors(), draws, None)?;
        let after = last(looks, step)?;
        balancer.see_again(looks.plan(), &after.losses);
        model.move_state(batch, draws)?;
        last(model, step)?;
    }
    Ok(Stepped { step, rows: batch.rows, losses })
}

/// Waits for the oldest run under way.
fn finish(model: &mut DeviceModel, step: u64) -> Result<Option<Finished>> {
    model.finish()?.map(|finished| checked(model, finished, step)).transpose()
}

/// Waits for all runs under way, of which there is one at least; gives what the last one told.
fn last(model: &mut DeviceModel, step: u64) -> Result<Finished> {
    let mut found = finish(model, step)?;
    while let Some(next) = finish(model, step)? {
        found = Some(next);
    }
    Ok(found.expect("a run under way"))
}
