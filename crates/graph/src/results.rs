//! What a run leaves in the workspace: gradients, outputs, and whether the losses are finite.

use crate::graph::LossPart;
use crate::plan::{JoinStep, Place, Plan, SparseSource};
use crate::run::Input;
use crate::tile::Tile;
use crate::workspace::Workspace;
use manygate_core::{Error, Result, Serial};
use manygate_kernels::Mat;

impl Plan {
    /// Gradients of the parameters from the last run, `[lanes, parameters]`; their sum over lanes, in order, is the
    /// gradient. Those of frozen parameters are 0. A plan without a backward step has none: `[0, parameters]`.
    ///
    /// # Panics
    /// When the workspace was made for another plan.
    pub fn gradients<'w>(&self, ws: &'w Workspace) -> Mat<'w> {
        self.assert_made_for(ws);
        let lanes = if self.goes_back { ws.last_lanes } else { 0 };
        Mat::strided(&ws.lanes, lanes, self.layout.len(), ws.lane_len.max(self.layout.len()))
    }

    /// Gradient rows of a source of look-ups, from the last run: `[rows of the batch, dim]`, or `[ids, dim]`.
    ///
    /// # Panics
    /// When the workspace or the source belong to another plan.
    pub fn sparse_gradient<'w>(&self, ws: &'w Workspace, source: &SparseSource) -> Mat<'w> {
        self.result(ws, source.place)
    }

    /// Output `name` of the last run: `[rows of the batch, width]`, or the whole of a value that exists once.
    ///
    /// # Errors
    /// When the plan does not compute such an output.
    ///
    /// # Panics
    /// When the workspace was made for another plan.
    pub fn output<'w>(&self, ws: &'w Workspace, name: &str) -> Result<Mat<'w>> {
        let found = self.outputs.iter().find(|(n, _)| n == name);
        let missing = || Error::graph(name, "the plan does not compute an output of this name");
        found.map(|&(_, place)| self.result(ws, place)).ok_or_else(missing)
    }

    /// The same by its position among [`Plan::output_names`].
    ///
    /// # Errors
    /// When the plan does not compute as many outputs.
    ///
    /// # Panics
    /// When the workspace was made for another plan.
    pub fn output_at<'w>(&self, ws: &'w Workspace, index: usize) -> Result<Mat<'w>> {
        let missing = || Error::graph("run", format!("the plan does not compute an output number {index}"));
        self.outputs.get(index).map(|&(_, place)| self.result(ws, place)).ok_or_else(missing)
    }

    /// Gradient of the value tapped as `name`: `[rows of the batch, width]`.
    ///
    /// # Errors
    /// When there is no such tap, or no gradient reaches it.
    ///
    /// # Panics
    /// When the workspace was made for another plan.
    pub fn tapped_gradient<'w>(&self, ws: &'w Workspace, name: &str) -> Result<Mat<'w>> {
        self.tap(name).map(|place| self.result(ws, place))
    }

    /// Where the gradient of the value tapped as `name` lies.
    ///
    /// # Errors
    /// As [`Plan::tapped_gradient`].
    pub(crate) fn tap(&self, name: &str) -> Result<Place> {
        let found = self.taps.iter().find(|(n, _)| n == name);
        let missing = || Error::graph(name, "no gradient reaches a tap of this name");
        found.map(|&(_, place)| place).ok_or_else(missing)
    }

    fn result<'w>(&self, ws: &'w Workspace, place: Place) -> Mat<'w> {
        self.assert_made_for(ws);
        match place {
            Place::Kept { buffer, column, stride, cols, bag } => {
                let rows = bag.map_or(ws.facts.rows, |bag| ws.facts.positions[bag]);
                Mat::strided(&ws.kept[buffer][column.min(ws.kept[buffer].len())..], rows, cols, stride)
            }
            Place::Once { offset, rows, cols, stride } => {
                Mat::strided(&ws.once[offset..], rows, cols, stride)
            }
            other => unreachable!("results outlive the step, those in {other:?} do not"),
        }
    }

    /// Looks at the losses of the last run.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first task whose loss is not finite, and the first op in plan order whose output
    /// was not; the batch is run again, forward and op by op, to find it.
    ///
    /// # Panics
    /// When the workspace was made for another plan.
    pub fn check_losses(&self, ws: &mut Workspace, input: &Input<'_>, step: u64) -> Result<()> {
        self.assert_made_for(ws);
        let Some(part) = ws.part_losses.iter().position(|l| !l.is_finite()) else { return Ok(()) };
        let LossPart { name: task, .. } = self.graph.losses[part].clone();
        let loss = ws.part_losses[part];
        let op = self.first_non_finite(ws, input)?.unwrap_or_else(|| format!("the loss of {task}"));
        Err(Error::NonFinite { step, task, loss, op })
    }

    fn first_non_finite(&self, ws: &mut Workspace, input: &Input<'_>) -> Result<Option<String>> {
        self.check_fit(&Serial, ws, input)?;
        let mut losses = vec![0.0; self.loss_sums_len()];
        let mut partials = vec![0.0; self.partial_len];
        let ws: &Workspace = ws;
        let told =
            |node: usize| Ok(Some(format!("{} ({})", self.graph.nodes[node].name, self.op(node).0.name())));
        for (join, phase) in self.joins.iter().zip(&self.phases) {
            if let Some(node) = join.iter().find_map(|step| self.non_finite_at_join(ws, step)) {
                return told(node);
            }
            let mut first: Option<usize> = None;
            for rows in self.tiles(0..input.batch.rows, input.batch) {
                let at = self.rowset(ws, input, rows);
                // SAFETY: tiles run one after the other, and the caller borrowed the workspace exclusively.
                let tile = unsafe { Tile::new(self, ws, input, at, 0, 0, true) };
                for (position, step) in phase.iter().enumerate().filter(|(_, s)| !s.backward) {
                    tile.step(step, &mut losses, &mut partials);
                    if first.is_none_or(|f| position < f) && !tile.output_is_finite(step) {
                        first = Some(position);
                    }
                }
            }
            if let Some(position) = first {
                return told(phase[position].node);
            }
        }
        Ok(None)
    }

    /// The node of a step of a join whose value, as the run left it, is not finite.
    fn non_finite_at_join(&self, ws: &Workspace, step: &JoinStep) -> Option<usize> {
        let (JoinStep::Reduce(step) | JoinStep::Run(step)) = step else { return None };
        let Place::Once { offset, rows, cols, .. } = step.output else { return None };
        let values = &ws.once[offset..offset + rows * cols];
        (!step.backward && values.iter().any(|v| !v.is_finite())).then_some(step.node)
    }
}
