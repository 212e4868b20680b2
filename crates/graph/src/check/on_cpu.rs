//! A case on the CPU.

use super::Case;
use super::expected::Data;
use super::found::{Found, Results, Rounding, with_input};
use super::setting::Setting;
use crate::plan::{Plan, SparseSource};
use crate::workspace::Workspace;
use manygate_core::{Result, Serial};
use manygate_kernels::Mat;
use std::ops::Range;

/// Runs a case in one setting, twice, and compares everything.
pub(super) fn run(case: &Case, data: &Data, setting: &Setting) -> std::result::Result<(), String> {
    let text = |e: manygate_core::Error| e.to_string();
    let Some(plan) = setting.plan(case, data).map_err(text)? else { return Ok(()) };
    let (first, second) = with_input(case, data, &plan, |input| {
        let mut ws = Workspace::new(&plan, 1, data.rows);
        plan.pack(&Serial, &mut ws, input.params);
        ws.spoil();
        let mut once = || {
            plan.run(&Serial, &mut ws, input)?;
            let mut results = OnCpu { plan: &plan, ws: &ws, seeds: input.seeds };
            Found::read(case, data, setting, &plan, &mut results)
        };
        Ok((once()?, once()?))
    })
    .flatten()
    .map_err(text)?;
    first.compare(case, data, setting, Rounding::F32)?;
    if first.bits() != second.bits() {
        return Err("a second run gives other values".into());
    }
    Ok(())
}

/// What a run left in a workspace.
struct OnCpu<'a> {
    plan: &'a Plan,
    ws: &'a Workspace,
    seeds: &'a [f32],
}

impl Results for OnCpu<'_> {
    fn output(&mut self) -> Result<Vec<f32>> {
        self.plan.output_at(self.ws, 0).map(flat)
    }

    fn loss(&mut self, part: usize) -> Option<f64> {
        Some(self.ws.part_losses()[part] * f64::from(self.seeds[part]))
    }

    fn tapped(&mut self, name: &str) -> Result<Vec<f32>> {
        self.plan.tapped_gradient(self.ws, name).map(flat)
    }

    fn parameters(&mut self, range: Range<usize>) -> Vec<f32> {
        lane_sum(self.plan, self.ws, range)
    }

    fn rows(&mut self, source: &SparseSource) -> Vec<f32> {
        flat(self.plan.sparse_gradient(self.ws, source))
    }
}

pub(super) fn flat(view: Mat<'_>) -> Vec<f32> {
    (0..view.rows()).flat_map(|r| view.row(r)).copied().collect()
}

/// The gradient of some parameters.
pub(super) fn lane_sum(plan: &Plan, ws: &Workspace, range: Range<usize>) -> Vec<f32> {
    let lanes = plan.gradients(ws);
    range.map(|at| (0..lanes.rows()).map(|lane| lanes.row(lane)[at]).sum()).collect()
}
