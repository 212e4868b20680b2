//! One tile of a running phase: turns the places of a plan into views, and hands them to ops.
//!
//! Views are made from raw memory here, and only here. Why that is sound, case by case:
//!
//! - *Arena.* `Place::Tile` values that are alive at a step have disjoint offsets (verified for every plan when it is
//!   compiled), scratch lies behind them, and an arena belongs to one worker, which runs one tile at a time.
//! - *Kept buffers.* Values and gradients have buffers of their own; a tile reaches its own rows alone (samples, or the
//!   ids of its samples: no sample has more than its sequence allows), and rows belong to one lane.
//! - *Lane sums.* A lane writes its own alone; nobody reads them before the phase has ended.
//! - *Values that exist once.* They have places of their own. Joins write them, and their summed gradients, one step
//!   after the other, in buffers that no other workspace shares any more; phases only read.
//! - *Within a step.* An op takes each writable view once ([`Backward`], [`Forward`] count), its inputs, its output, the
//!   gradients and scratch are all alive at that step, and the graph refuses inputs that share columns where both get a
//!   gradient. What it reads is what its step may read: a value that was not saved is `Place::Gone`.

use crate::op::{Backward, Forward, Gradient, Reduction, Resolve, Rowset};
use crate::plan::{Place, Plan, Step};
use crate::run::Input;
use crate::workspace::Workspace;
use manygate_kernels::{Mat, MatMut};
use std::ops::Range;

/// One tile of a running phase.
pub(crate) struct Tile<'a> {
    plan: &'a Plan,
    ws: &'a Workspace,
    input: &'a Input<'a>,
    at: Rowset<'a>,
    lane: usize,
    worker: usize,
    /// Whether the lane's sums already hold an earlier tile.
    lane_started: bool,
}

/// One step of a tile: hands the op its views.
struct Views<'a, 't> {
    tile: &'t Tile<'a>,
    step: &'t Step,
    losses: *mut f64,
    sums: usize,
}

impl<'a> Tile<'a> {
    /// # Safety
    /// While the tile is used, nothing else uses the arena of `worker`, the rows `at` of kept buffers, or the sums of
    /// `lane`; joins do not run. The workspace was made for the plan and has this lane and this worker.
    pub(crate) unsafe fn new(
        plan: &'a Plan,
        ws: &'a Workspace,
        input: &'a Input<'a>,
        at: Rowset<'a>,
        lane: usize,
        worker: usize,
        lane_started: bool,
    ) -> Tile<'a> {
        Tile { plan, ws, input, at, lane, worker, lane_started }
    }

    /// Runs one step, with the lane's sums of losses and of reductions.
    pub(crate) fn step(&self, step: &Step, losses: &mut [f64], partials: &mut [f64]) {
        let (op, _) = self.plan.op(step.node);
        let views = Views { tile: self, step, sums: losses.len(), losses: losses.as_mut_ptr() };
        if step.backward {
            for &place in &step.zero {
                // SAFETY: a gradient that starts at this step; no view of it has been handed out.
                unsafe { self.write(place) }.fill(0.0);
            }
            let activation_done = step.activation_done;
            let mut backward = Backward { at: self.at, activation_done, views: &views, taken: 0 };
            op.backward(&mut backward);
            let dropped = step.wanted & !backward.taken;
            assert!(dropped == 0, "{}: its backward pass drops the gradient of an input", self.name(step));
        } else {
            let mut forward = Forward { at: self.at, views: &views, taken: 0 };
            if step.reduces {
                self.reduction(step).accumulate(&forward, &mut partials[step.partial.clone()]);
            } else {
                op.forward(&mut forward);
            }
        }
    }

    fn reduction(&self, step: &Step) -> &dyn Reduction {
        let reduction = self.plan.op(step.node).0.reduction();
        reduction.unwrap_or_else(|| panic!("{} is no reduction any more", self.name(step)))
    }

    fn name(&self, step: &Step) -> String {
        format!("{} ({})", self.plan.graph.nodes[step.node].name, self.plan.op(step.node).0.name())
    }

    /// The tile's rows of a value: those of samples, or of the ids of a list.
    fn rows_of(&self, bag: Option<usize>) -> Range<usize> {
        bag.map_or(self.at.range(), |bag| self.at.positions(bag))
    }

    fn read(&self, place: Place) -> Mat<'a> {
        let ws = self.ws;
        match place {
            // SAFETY: alive and not written at this step, see the module.
            Place::Tile { offset, stride, cols, bag } => unsafe {
                ws.arenas[self.worker].view(offset, self.rows_of(bag).len(), cols, stride)
            },
            // SAFETY: this tile's rows, not written at this step, see the module.
            Place::Kept { buffer, column, stride, cols, bag } => unsafe {
                let rows = self.rows_of(bag);
                ws.kept[buffer].view(column + rows.start * stride, rows.len(), cols, stride)
            },
            Place::Param { offset, rows, cols, stride } => {
                Mat::strided(&self.input.params.values[offset..], rows, cols, stride)
            }
            Place::State { offset, rows, cols, stride } => {
                Mat::strided(&self.input.state.values[offset..], rows, cols, stride)
            }
            // SAFETY: written at a join, by the step that computes it alone, see the module.
            Place::Once { offset, rows, cols, stride } => unsafe { ws.once.view(offset, rows, cols, stride) },
            Place::Nothing | Place::Gone => Mat::new(&[], self.at.rows, 0),
        }
    }

    /// # Safety
    /// No other view of the place is alive.
    unsafe fn write(&self, place: Place) -> MatMut<'a> {
        let ws = self.ws;
        match place {
            // SAFETY: this worker's arena; exclusive by the caller's contract.
            Place::Tile { offset, stride, cols, bag } => unsafe {
                ws.arenas[self.worker].view_mut(offset, self.rows_of(bag).len(), cols, stride)
            },
            // SAFETY: this tile's rows; exclusive by the caller's contract.
            Place::Kept { buffer, column, stride, cols, bag } => unsafe {
                let rows = self.rows_of(bag);
                ws.kept[buffer].view_mut(column + rows.start * stride, rows.len(), cols, stride)
            },
            // SAFETY: this lane's sums; exclusive by the caller's contract.
            Place::Param { offset, rows, cols, stride } => unsafe {
                ws.lanes.view_mut(self.lane * ws.lane_len + offset, rows, cols, stride)
            },
            // SAFETY: as above; gradients of what joins compute stand behind those of the parameters.
            Place::Once { offset, rows, cols, stride } => unsafe {
                let start = self.lane * ws.lane_len + self.plan.layout.len() + offset;
                ws.lanes.view_mut(start, rows, cols, stride)
            },
            Place::State { .. } | Place::Nothing | Place::Gone => MatMut::new(&mut [], self.at.rows, 0),
        }
    }

    pub(crate) fn output_is_finite(&self, step: &Step) -> bool {
        if matches!(step.output, Place::Once { .. }) {
            return true;
        }
        let output = self.read(step.output);
        (0..output.rows()).all(|r| output.row(r).iter().all(|v| v.is_finite()))
    }
}

impl<'a> Views<'a, '_> {
    fn saved(&self, place: Place, what: &str) -> Mat<'a> {
        assert!(
            place != Place::Gone,
            "{} did not save {what} for its backward pass",
            self.tile.name(self.step)
        );
        self.tile.read(place)
    }
}

impl<'a> Resolve<'a> for Views<'a, '_> {
    fn input(&self, i: usize) -> Mat<'a> {
        self.saved(self.step.inputs[i], "an input")
    }

    fn packed(&self, slot: usize) -> &'a [f32] {
        let (offset, len) = self.step.packs[slot];
        &self.tile.ws.packed[offset..offset + len]
    }

    fn output(&self) -> Mat<'a> {
        self.saved(self.step.output, "its output")
    }

    fn output_mut(&self) -> MatMut<'a> {
        match self.step.output {
            // SAFETY: only an op that runs at a join takes such an output, once, and inputs have other places.
            Place::Once { offset, rows, cols, stride } => unsafe {
                self.tile.ws.once.view_mut(offset, rows, cols, stride)
            },
            // SAFETY: an op takes its output once, and inputs have other places.
            place => unsafe { self.tile.write(place) },
        }
    }

    fn output_gradient(&self) -> MatMut<'a> {
        match self.step.output_gradient {
            // That of a reduction is complete and shared by all lanes, see `once_gradient`.
            Place::Once { .. } if self.step.reduces => MatMut::new(&mut [], 0, 0),
            // SAFETY: an op that runs at a join takes it once, and nobody else runs.
            Place::Once { offset, rows, cols, stride } => unsafe {
                self.tile.ws.once_gradients.view_mut(offset, rows, cols, stride)
            },
            // SAFETY: an op takes it once, and it has its own place.
            place => unsafe { self.tile.write(place) },
        }
    }

    fn once_gradient(&self) -> Mat<'a> {
        match self.step.output_gradient {
            Place::Once { offset, rows, cols, stride } => {
                Mat::strided(&self.tile.ws.once_gradients[offset..], rows, cols, stride)
            }
            _ => panic!("{} is no reduction", self.tile.name(self.step)),
        }
    }

    fn extra(&self) -> MatMut<'a> {
        // SAFETY: an op takes it once, and it has its own place.
        unsafe { self.tile.write(self.step.extra) }
    }

    fn gradient(&self, i: usize) -> Option<Gradient<'a>> {
        let place = self.step.gradients[i].as_ref()?;
        let lane_sum = matches!(place.place, Place::Param { .. } | Place::Once { .. });
        Some(Gradient {
            // SAFETY: an op takes each gradient once, and inputs that share columns are refused by the graph.
            to: unsafe { self.tile.write(place.place) },
            accumulate: place.accumulate || (lane_sum && self.tile.lane_started),
            mask: place.mask.map(|(a, output)| (a, self.tile.read(output))),
        })
    }

    fn scratch(&self) -> &'a mut [f32] {
        let Plan { scratch_offset, arena_len, .. } = *self.tile.plan;
        // SAFETY: behind every value of the arena, and an op takes it once.
        unsafe { self.tile.ws.arenas[self.tile.worker].slice_mut(scratch_offset, arena_len - scratch_offset) }
    }

    fn loss(&self, part: usize) -> &'a mut f64 {
        let sums = self.tile.plan.loss_sums[part].clone();
        let at = sums.start + if sums.len() > 1 { self.tile.at.scenario() } else { 0 };
        assert!(at < sums.end && at < self.sums, "there is no such sum of losses");
        // SAFETY: in bounds; the lane owns its losses, and an op takes one of them once.
        unsafe { &mut *self.losses.add(at) }
    }
}
