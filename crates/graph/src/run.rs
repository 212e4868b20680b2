//! Runs a plan: phases in order, lanes side by side, tiles one after the other.

use crate::op::{Backward, Facts, Forward, Gradient, Resolve, Rowset, TableSource};
use crate::param::Parameters;
use crate::plan::{PackedWeight, Place, Plan, SparseSource, Step};
use crate::workspace::Workspace;
use manygate_core::{Batch, Buffer, Error, Executor, Result};
use manygate_kernels::{Mat, MatMut, gemm};
use std::ops::Range;

/// What a plan reads.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Values of the parameters: any set with the plan's layout.
    pub params: &'a Parameters,
    /// Values of the state.
    pub state: &'a Parameters,
    /// The tables, in the plan's order.
    pub tables: &'a dyn TableSource,
    /// The rows.
    pub batch: &'a Batch,
    /// Factor of each loss part: ones train on the sum, a single one gives a task's own gradients.
    pub seeds: &'a [f32],
}

/// A pointer that lanes divide among themselves.
struct Shared<T>(*mut T);
// SAFETY: every use writes elements that belong to its lane alone.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `range` is in bounds of the slice behind the pointer, which outlives the result, and no other reference to
    /// those elements is alive.
    #[allow(clippy::mut_from_ref)]
    unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        // SAFETY: the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

impl Plan {
    /// Packs the weights that products read. Needed after every change of `params`, before the next run.
    pub fn pack(&self, exec: &dyn Executor, ws: &mut Workspace, params: &Parameters) {
        assert_eq!(params.layout(), self.layout(), "parameters of another plan");
        let packed = &ws.packed;
        exec.run(self.packed.len(), &|i, _| self.pack_one(&self.packed[i], packed, params));
    }

    fn pack_one(&self, weight: &PackedWeight, packed: &Buffer, params: &Parameters) {
        let Place::Param { offset, rows, cols, stride } = weight.source else {
            unreachable!("only parameters are packed: {:?}", weight.source)
        };
        let matrix = Mat::strided(&params.values[offset..], rows, cols, stride);
        let (mut row, mut at) = (0, weight.offset);
        for &group in &weight.groups {
            let part = matrix.row_range(row, group);
            let (inner, outer) = if weight.transposed { (cols, group) } else { (group, cols) };
            let len = gemm::packed_len(inner, outer);
            // SAFETY: packed weights have disjoint places, and `run` takes the workspace exclusively.
            let to = unsafe { packed.slice_mut(at, len) };
            if weight.transposed {
                gemm::pack_transposed(self.options.isa, part, to);
            } else {
                gemm::pack(self.options.isa, part, to);
            }
            row += group;
            at += len;
        }
    }

    /// Runs the plan over a batch: values, losses and, for a training plan, gradients. Parameters do not change.
    ///
    /// The bits of every result depend on the batch and the plan, not on the executor.
    ///
    /// # Errors
    /// When the batch does not fit the plan or the workspace. Losses are not judged here, see
    /// [`Plan::check_losses`].
    pub fn run(&self, exec: &dyn Executor, ws: &mut Workspace, input: &Input<'_>) -> Result<()> {
        self.check(exec, ws, input)?;
        self.find_facts(ws, input);
        let rows = input.batch.rows;
        let lanes = self.lanes(rows);
        ws.last_lanes = lanes;
        ws.losses.fill(0.0);
        ws.partials.fill(0.0);
        for phase in 0..self.phases.len() {
            self.run_phase(phase, exec, ws, input, lanes);
            self.join(phase, ws, rows, lanes);
        }
        self.sum_losses(ws, input.batch);
        Ok(())
    }

    fn check(&self, exec: &dyn Executor, ws: &Workspace, input: &Input<'_>) -> Result<()> {
        let rows = input.batch.rows;
        let misfit = |message: String| Err(Error::graph("run", message));
        if rows > ws.capacity {
            return misfit(format!("{rows} rows, the workspace was made for {}", ws.capacity));
        }
        if exec.threads() > ws.arenas.len() {
            return misfit(format!(
                "{} threads, the workspace was made for {}",
                exec.threads(),
                ws.arenas.len()
            ));
        }
        if input.params.layout() != &self.layout || input.state.layout() != &self.state_layout {
            return misfit("the parameters belong to another model".into());
        }
        if input.seeds.len() != self.graph.losses.len() {
            return misfit(format!(
                "{} seeds for {} parts of the loss",
                input.seeds.len(),
                self.graph.losses.len()
            ));
        }
        let specs = &self.graph.tables;
        if input.tables.len() != specs.len()
            || specs.iter().enumerate().any(|(i, s)| (input.tables.rows(i).rows(), input.tables.rows(i).dim()) != (s.rows, s.dim))
        {
            return misfit("the tables belong to another model".into());
        }
        Ok(())
    }

    /// Denominators come from the labels, before the first tile.
    fn find_facts(&self, ws: &mut Workspace, input: &Input<'_>) {
        ws.facts.rows = input.batch.rows;
        for (part, loss) in self.graph.losses.iter().enumerate() {
            let counted = denominator(loss.counted, input.batch);
            ws.facts.scale[part] = input.seeds[part] * loss.weight / counted as f32;
        }
    }

    fn run_phase(
        &self,
        phase: usize,
        exec: &dyn Executor,
        ws: &mut Workspace,
        input: &Input<'_>,
        lanes: usize,
    ) {
        let parts = self.graph.losses.len();
        let losses = Shared(ws.losses.as_mut_ptr());
        let partials = Shared(ws.partials.as_mut_ptr());
        let ws: &Workspace = ws;
        exec.run(lanes, &|lane, worker| {
            // SAFETY: each lane has its own range of both, allocated for at least `lanes` lanes.
            let (losses, partials) = unsafe {
                let partial = lane * self.partial_len..(lane + 1) * self.partial_len;
                (losses.slice(lane * parts..(lane + 1) * parts), partials.slice(partial))
            };
            let rows = input.batch.rows;
            let (from, to) = (lane * rows / lanes, (lane + 1) * rows / lanes);
            let mut first_row = from;
            while first_row < to {
                let tile_rows = self.options.tile_rows.min(to - first_row);
                let at = Rowset {
                    isa: self.options.isa,
                    rows: tile_rows,
                    first_row,
                    batch: input.batch,
                    facts: &ws.facts,
                    tables: input.tables,
                    table_specs: &self.graph.tables,
                };
                let tile = Tile { plan: self, ws, input, at, lane, worker, lane_started: first_row > from };
                for step in &self.phases[phase].steps {
                    tile.step(step, losses, partials);
                }
                first_row += tile_rows;
            }
        });
    }

    /// Completes what the next phase waits for.
    fn join(&self, phase: usize, ws: &mut Workspace, rows: usize, lanes: usize) {
        for &(node, offset, len) in &self.phases[phase].reductions {
            // Lane 0's partial sums become the sums over the batch, in lane order.
            for lane in 1..lanes {
                for i in offset..offset + len {
                    ws.partials[i] += ws.partials[lane * self.partial_len + i];
                }
            }
            let (op, _) = self.op(node);
            let output =
                self.phases[phase].steps.iter().find(|s| s.node == node && !s.backward).map(|s| s.output);
            if let (Some(reduction), Some(Place::Once { offset: at, rows: r, cols, .. })) =
                (op.reduction(), output)
            {
                reduction.finish(rows, &ws.partials[offset..offset + len], &mut ws.once[at..at + r * cols]);
            }
        }
        for &(offset, len) in &self.phases[phase].once_gradients {
            let start = self.layout.len() + offset;
            for i in 0..len {
                ws.once_gradients[offset + i] =
                    (0..lanes).map(|l| ws.lanes[l * ws.lane_len + start + i]).sum();
            }
        }
    }

    fn sum_losses(&self, ws: &mut Workspace, batch: &Batch) {
        let parts = self.graph.losses.len();
        for (part, loss) in self.graph.losses.iter().enumerate() {
            let sum: f64 = (0..ws.last_lanes).map(|lane| ws.losses[lane * parts + part]).sum();
            ws.part_losses[part] = sum / denominator(loss.counted, batch) as f64;
        }
    }

    /// Moves the state by what the last run saw (running statistics).
    pub fn update_state(&self, ws: &Workspace, state: &mut Parameters) {
        for step in self.phases.iter().flat_map(|p| &p.steps).filter(|s| !s.backward) {
            let (op, _) = self.op(step.node);
            let (Some(reduction), Place::Once { offset, rows, cols, .. }) = (op.reduction(), step.output)
            else {
                continue;
            };
            if let Some(index) = reduction.state() {
                let start = self.state_layout.offset(index);
                let len = self.graph.states[index].shape().len();
                let output = &ws.once[offset..offset + rows * cols];
                reduction.update_state(ws.facts.rows, output, &mut state.values[start..start + len]);
            }
        }
    }

    /// Gradients of the parameters from the last run, `[lanes, parameters]`; their sum over lanes, in order, is the
    /// gradient.
    pub fn gradients<'w>(&self, ws: &'w Workspace) -> Mat<'w> {
        Mat::strided(&ws.lanes, ws.last_lanes, self.layout.len(), ws.lane_len)
    }

    /// Gradient rows `[rows of the batch, dim]` of a source of look-ups, from the last run.
    pub fn sparse_gradient<'w>(&self, ws: &'w Workspace, source: &SparseSource) -> Mat<'w> {
        kept(ws, source.place)
    }

    /// Output `name` of the last run: `[rows of the batch, width]`.
    ///
    /// # Errors
    /// When the plan does not compute such an output.
    pub fn output<'w>(&self, ws: &'w Workspace, name: &str) -> Result<Mat<'w>> {
        let found = self.outputs.iter().find(|(n, _)| n == name);
        let missing = || Error::graph(name, "the plan does not compute an output of this name");
        found.map(|&(_, place)| kept(ws, place)).ok_or_else(missing)
    }

    /// Gradient of the value tapped as `name`: `[rows of the batch, width]`.
    ///
    /// # Errors
    /// When there is no such tap, or no gradient reaches it.
    pub fn tapped_gradient<'w>(&self, ws: &'w Workspace, name: &str) -> Result<Mat<'w>> {
        let found = self.taps.iter().find(|(n, _)| n == name);
        found
            .map(|&(_, place)| kept(ws, place))
            .ok_or_else(|| Error::graph(name, "no gradient reaches such a tap"))
    }

    /// Looks at the losses of the last run.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first task whose loss is not finite, and the first op in plan order whose output
    /// was not; the batch is run again, forward and op by op, to find it.
    pub fn check_losses(&self, ws: &mut Workspace, input: &Input<'_>, step: u64) -> Result<()> {
        let Some(part) = ws.part_losses.iter().position(|l| !l.is_finite()) else { return Ok(()) };
        let (task, loss) = (self.graph.losses[part].name.clone(), ws.part_losses[part]);
        let op = self.first_non_finite(ws, input).unwrap_or_else(|| format!("loss of {task}"));
        Err(Error::NonFinite { step, task, loss, op })
    }

    fn first_non_finite(&self, ws: &mut Workspace, input: &Input<'_>) -> Option<String> {
        let rows = input.batch.rows;
        let mut losses = vec![0.0; self.graph.losses.len()];
        let mut partials = vec![0.0; self.partial_len];
        for phase in &self.phases {
            let mut first: Option<usize> = None;
            let mut first_row = 0;
            while first_row < rows {
                let tile_rows = self.options.tile_rows.min(rows - first_row);
                let at = Rowset {
                    isa: self.options.isa,
                    rows: tile_rows,
                    first_row,
                    batch: input.batch,
                    facts: &ws.facts,
                    tables: input.tables,
                    table_specs: &self.graph.tables,
                };
                let tile = Tile { plan: self, ws, input, at, lane: 0, worker: 0, lane_started: true };
                for (position, step) in phase.steps.iter().enumerate().filter(|(_, s)| !s.backward) {
                    tile.step(step, &mut losses, &mut partials);
                    if !tile.output_is_finite(step) && first.is_none_or(|f| position < f) {
                        first = Some(position);
                    }
                }
                first_row += tile_rows;
            }
            if let Some(position) = first {
                let node = phase.steps[position].node;
                return Some(format!("{} ({})", self.graph.nodes[node].name, self.op(node).0.name()));
            }
        }
        None
    }
}

/// Rows that count in a loss part, at least 1.
fn denominator(counted: Option<usize>, batch: &Batch) -> usize {
    let rows = match counted {
        None => batch.rows,
        Some(task) => batch.labels[task].iter().filter(|&&y| y == 1.0).count(),
    };
    rows.max(1)
}

fn kept(ws: &Workspace, place: Place) -> Mat<'_> {
    match place {
        Place::Kept { buffer, column, stride, cols } => {
            Mat::strided(&ws.kept[buffer][column..], ws.facts.rows, cols, stride)
        }
        other => unreachable!("results are kept for the whole batch, not in {other:?}"),
    }
}

/// One tile of a running phase.
struct Tile<'a> {
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
    losses: Shared<f64>,
    parts: usize,
}

impl<'a> Tile<'a> {
    fn step(&self, step: &Step, losses: &mut [f64], partials: &mut [f64]) {
        let (op, _) = self.plan.op(step.node);
        let views = Views { tile: self, step, parts: losses.len(), losses: Shared(losses.as_mut_ptr()) };
        if step.backward {
            if let Some(place) = step.gradients.iter().flatten().find_map(|g| g.zero_first) {
                // SAFETY: gradients have their own places; nothing else runs on this tile.
                unsafe { self.write(place) }.fill(0.0);
            }
            let activation_done = step.activation_done;
            op.backward(&mut Backward { at: self.at, activation_done, views: &views, taken: 0 });
        } else {
            let mut forward = Forward { at: self.at, views: &views, taken: 0 };
            match op.reduction() {
                Some(reduction) => {
                    let place =
                        self.plan.phases.iter().flat_map(|p| &p.reductions).find(|r| r.0 == step.node);
                    if let Some(&(_, offset, len)) = place {
                        reduction.accumulate(&forward, &mut partials[offset..offset + len]);
                    }
                }
                None => op.forward(&mut forward),
            }
        }
    }

    fn read(&self, place: Place) -> Mat<'a> {
        let ws = self.ws;
        match place {
            // SAFETY: the plan gives values that are alive together disjoint places in the arena, and no other lane
            // uses this worker's arena while the tile runs.
            Place::Tile { offset, stride, cols } => unsafe {
                ws.arenas[self.worker].view(offset, self.at.rows, cols, stride)
            },
            // SAFETY: rows of a kept buffer are written only by the lane that owns them, before this step.
            Place::Kept { buffer, column, stride, cols } => unsafe {
                ws.kept[buffer].view(column + self.at.first_row * stride, self.at.rows, cols, stride)
            },
            Place::Param { offset, rows, cols, stride } => {
                Mat::strided(&self.input.params.values[offset..], rows, cols, stride)
            }
            Place::State { offset, rows, cols, stride } => {
                Mat::strided(&self.input.state.values[offset..], rows, cols, stride)
            }
            Place::Once { offset, rows, cols, stride } => {
                Mat::strided(&ws.once[offset..], rows, cols, stride)
            }
            Place::Nothing => Mat::new(&[], self.at.rows, 0),
        }
    }

    /// # Safety
    /// No other view of the place is alive.
    unsafe fn write(&self, place: Place) -> MatMut<'a> {
        let ws = self.ws;
        match place {
            // SAFETY: as `read`; exclusive by the caller's contract.
            Place::Tile { offset, stride, cols } => unsafe {
                ws.arenas[self.worker].view_mut(offset, self.at.rows, cols, stride)
            },
            // SAFETY: as `read`; exclusive by the caller's contract.
            Place::Kept { buffer, column, stride, cols } => unsafe {
                ws.kept[buffer].view_mut(column + self.at.first_row * stride, self.at.rows, cols, stride)
            },
            // SAFETY: a lane's sums are written by that lane alone; exclusive by the caller's contract.
            Place::Param { offset, rows, cols, stride } => unsafe {
                ws.lanes.view_mut(self.lane * ws.lane_len + offset, rows, cols, stride)
            },
            // SAFETY: as above; the values of joins stand behind the parameters.
            Place::Once { offset, rows, cols, stride } => unsafe {
                let start = self.lane * ws.lane_len + self.plan.layout.len() + offset;
                ws.lanes.view_mut(start, rows, cols, stride)
            },
            Place::State { .. } | Place::Nothing => MatMut::new(&mut [], self.at.rows, 0),
        }
    }

    fn output_is_finite(&self, step: &Step) -> bool {
        if matches!(step.output, Place::Once { .. }) {
            return true;
        }
        let output = self.read(step.output);
        (0..output.rows()).all(|r| output.row(r).iter().all(|v| v.is_finite()))
    }
}

impl<'a> Resolve<'a> for Views<'a, '_> {
    fn input(&self, i: usize) -> Mat<'a> {
        self.tile.read(self.step.inputs[i])
    }

    fn packed(&self, slot: usize) -> &'a [f32] {
        let (offset, len) = self.step.packs[slot];
        &self.tile.ws.packed[offset..offset + len]
    }

    fn output(&self) -> Mat<'a> {
        self.tile.read(self.step.output)
    }

    fn output_mut(&self) -> MatMut<'a> {
        // SAFETY: an op takes its output once a tile, and inputs have other places.
        unsafe { self.tile.write(self.step.output) }
    }

    fn output_gradient(&self) -> MatMut<'a> {
        match self.step.output_gradient {
            // The gradient of a join's value is complete and shared by all lanes: each gets a view to read.
            Place::Once { .. } | Place::Nothing => MatMut::new(&mut [], 0, 0),
            // SAFETY: an op takes it once a tile, and it has its own place.
            place => unsafe { self.tile.write(place) },
        }
    }

    fn once_gradient(&self) -> Mat<'a> {
        match self.step.output_gradient {
            Place::Once { offset, rows, cols, stride } => {
                Mat::strided(&self.tile.ws.once_gradients[offset..], rows, cols, stride)
            }
            other => unreachable!("only reductions read the gradient of a join, not of {other:?}"),
        }
    }

    fn extra(&self) -> MatMut<'a> {
        // SAFETY: an op takes it once a tile, and it has its own place.
        unsafe { self.tile.write(self.step.extra) }
    }

    fn gradient(&self, i: usize) -> Option<Gradient<'a>> {
        let place = self.step.gradients[i].as_ref()?;
        let lane_sum = matches!(place.place, Place::Param { .. } | Place::Once { .. });
        Some(Gradient {
            // SAFETY: an op takes each gradient once a tile, and inputs that share columns are refused by the graph.
            to: unsafe { self.tile.write(place.place) },
            accumulate: place.accumulate || (lane_sum && self.tile.lane_started),
            mask: place.mask.map(|(a, output)| (a, self.tile.read(output))),
        })
    }

    fn scratch(&self) -> &'a mut [f32] {
        let arena = &self.tile.ws.arenas[self.tile.worker];
        let offset = self.tile.plan.scratch_offset;
        // SAFETY: scratch lies behind every value of the arena, and an op takes it once a tile.
        unsafe { arena.slice_mut(offset, arena.len() - offset) }
    }

    fn loss(&self, part: usize) -> &'a mut f64 {
        assert!(part < self.parts);
        // SAFETY: in bounds; the lane owns its losses, and an op takes one once a tile.
        unsafe { &mut *self.losses.0.add(part) }
    }
}

impl Facts {
    /// Factor of each row's gradient in loss part `part`.
    pub fn loss_scale(&self, part: usize) -> f32 {
        self.scale[part]
    }
}
