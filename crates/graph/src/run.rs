//! Runs a plan: phases in order, lanes side by side, tiles one after the other.

use crate::draws::Draws;
use crate::op::{Facts, Reduction, Rowset, TableSource};
use crate::param::Parameters;
use crate::plan::{GradientPlace, JoinStep, OnceGradient, PackedWeight, Place, Plan, Step};
use crate::tile::Tile;
use crate::workspace::{Prepared, Workspace};
use manygate_core::{Batch, Buffer, Error, Executor, Result};
use manygate_kernels::{Mat, gemm};
use std::ops::Range;
use std::sync::Arc;

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
    /// What its random numbers are keyed by; the default where the plan draws none.
    pub draws: Draws<'a>,
}

/// Numbers that lanes divide among themselves: `len` of them for each lane, one lane after the other.
struct Lanes {
    first: *mut f64,
    len: usize,
}

// SAFETY: each lane reaches its own numbers alone, see `Lanes::of`.
unsafe impl Sync for Lanes {}

impl Lanes {
    fn new(values: &mut [f64], lanes: usize, len: usize) -> Lanes {
        assert!(lanes * len <= values.len(), "the workspace has too few lanes");
        Lanes { first: values.as_mut_ptr(), len }
    }

    /// # Safety
    /// `lane` is below the number of lanes, the slice behind the pointer outlives the result, and nobody else uses this
    /// lane's numbers.
    #[allow(clippy::mut_from_ref)]
    unsafe fn of(&self, lane: usize) -> &mut [f64] {
        // SAFETY: in bounds by the check in `new`, exclusive by the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(lane * self.len), self.len) }
    }
}

impl Plan {
    /// Packs the parameters that products read. Needed after every change of `params`, before the next run; of the
    /// state, too, for an evaluation plan, whose next run computes its weights once for all runs that follow.
    ///
    /// # Panics
    /// When the workspace or the parameters were made for another plan.
    pub fn pack(&self, exec: &dyn Executor, ws: &mut Workspace, params: &Parameters) {
        self.assert_made_for(ws);
        assert!(params.has_layout(&self.layout), "parameters of another plan");
        (ws.is_packed, ws.has_computed) = (true, false);
        ws.own_weights();
        let packed: &Buffer = &ws.packed;
        exec.run(self.packed.len(), &|i, _| {
            if let Place::Param { offset, rows, cols, stride } = self.packed[i].source {
                let matrix = Mat::strided(&params.values[offset..], rows, cols, stride);
                // SAFETY: each weight is packed by one piece of work, and the workspace is borrowed exclusively.
                unsafe { self.pack_one(&self.packed[i], packed, matrix, &|_| true) };
            }
        });
    }

    /// Packs and computes once, for any number of workspaces, what depends on the weights alone: for an evaluation plan.
    ///
    /// # Errors
    /// When the parameters or the state are those of another plan, or the plan is one of training.
    pub fn prepare(
        &self,
        exec: &dyn Executor,
        params: &Parameters,
        state: &Parameters,
        tables: &dyn TableSource,
    ) -> Result<Prepared> {
        if self.graph.is_training() {
            return Err(Error::graph("prepare", "weights that training moves are packed for each step"));
        }
        self.check_weights(params, state, tables)?;
        let mut ws = Workspace::new(self, 1, 1);
        self.pack(exec, &mut ws, params);
        let (batch, draws) = (&Batch::default(), Draws::default());
        let input = Input { params, state, tables, batch, seeds: &[], draws };
        self.compute_weights(&mut ws, &input, 1);
        Ok(Prepared { plan: self.id, packed: ws.packed, once: ws.once })
    }

    /// The first join of an evaluation plan, which depends on no batch.
    fn compute_weights(&self, ws: &mut Workspace, input: &Input<'_>, lanes: usize) {
        ws.facts.scenario_rows.fill(1);
        self.join(0, ws, input, lanes);
        ws.has_computed = true;
    }

    /// Packs the groups of the scenarios that are wanted.
    ///
    /// # Safety
    /// Nobody else uses the place of the packed weight.
    unsafe fn pack_one(
        &self,
        weight: &PackedWeight,
        packed: &Buffer,
        matrix: Mat<'_>,
        wanted: &dyn Fn(usize) -> bool,
    ) {
        // SAFETY: packed weights have places one behind the other; exclusive by the caller's contract.
        let mut to = unsafe { packed.slice_mut(weight.offset, weight.len) };
        let (mut row, cols) = (0, matrix.cols());
        let each = weight.groups.len() / weight.scenarios;
        for (i, &group) in weight.groups.iter().enumerate() {
            let part = matrix.row_range(row, group);
            let (inner, outer) = if weight.transposed { (cols, group) } else { (group, cols) };
            let (this, rest) = to.split_at_mut(gemm::packed_len(inner, outer));
            if wanted(i / each.max(1)) {
                if weight.transposed {
                    gemm::pack_transposed(self.options.isa, part, this);
                } else {
                    gemm::pack(self.options.isa, part, this);
                }
            }
            (row, to) = (row + group, rest);
        }
    }

    /// Runs the plan over a batch: values, losses and, for a training plan, gradients. Parameters do not change.
    ///
    /// The bits of every result depend on the batch and the plan, not on the executor.
    ///
    /// # Errors
    /// When the batch has no rows or does not fit the plan or the workspace, or nothing was packed. Losses are not
    /// judged here, see [`Plan::check_losses`].
    pub fn run(&self, exec: &dyn Executor, ws: &mut Workspace, input: &Input<'_>) -> Result<()> {
        self.check_fit(exec, ws, input)?;
        let lanes = self.lanes(input.batch.rows);
        ws.last_lanes = lanes;
        ws.losses.fill(0.0);
        ws.partials.fill(0.0);
        if !self.graph.is_training() && !ws.has_computed {
            self.compute_weights(ws, input, lanes);
        }
        self.find_facts(ws, input);
        for phase in 0..self.phases.len() {
            if phase > 0 || self.graph.is_training() {
                self.join(phase, ws, input, lanes);
            }
            self.run_phase(phase, exec, ws, input, lanes);
        }
        self.join(self.phases.len(), ws, input, lanes);
        self.zero_frozen(ws, lanes);
        self.sum_losses(ws);
        Ok(())
    }

    /// Denominators come from the labels, before the first tile.
    fn find_facts(&self, ws: &mut Workspace, input: &Input<'_>) {
        ws.facts.rows = input.batch.rows;
        for (positions, bag) in ws.facts.positions.iter_mut().zip(&input.batch.bags) {
            *positions = bag.ids.len();
        }
        if self.reads.scenarios.is_some() {
            ws.facts.scenario_rows.fill(0);
            input.batch.scenario.iter().for_each(|&s| ws.facts.scenario_rows[s as usize] += 1);
        }
        if self.graph.is_training() {
            for (part, loss) in self.graph.losses.iter().enumerate() {
                let Facts { divisors, scale, .. } = &mut ws.facts;
                loss.find_divisors(input.batch, &mut divisors[part]);
                for (scale, &divisor) in scale[part].iter_mut().zip(&divisors[part]) {
                    *scale = input.seeds[part] * loss.weight / divisor as f32;
                }
            }
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
        let losses = Lanes::new(&mut ws.losses, lanes, self.loss_sums_len());
        let partials = Lanes::new(&mut ws.partials, lanes, self.partial_len);
        let ws: &Workspace = ws;
        let rows = input.batch.rows;
        exec.run(lanes, &|lane, worker| {
            // SAFETY: the executor runs each lane once, and the workspace is borrowed for the whole phase.
            let (losses, partials) = unsafe { (losses.of(lane), partials.of(lane)) };
            let own = lane * rows / lanes..(lane + 1) * rows / lanes;
            for tile in self.tiles(own.clone(), input.batch) {
                let lane_started = tile.start > own.start;
                let at = self.rowset(ws, input, tile);
                // SAFETY: a worker has one lane at a time, each lane has its own rows and sums, and `run` borrows the
                // workspace exclusively.
                let tile = unsafe { Tile::new(self, ws, input, at, lane, worker, lane_started) };
                for step in &self.phases[phase] {
                    tile.step(step, losses, partials);
                }
            }
        });
    }

    pub(crate) fn rowset<'a>(
        &'a self,
        ws: &'a Workspace,
        input: &Input<'a>,
        rows: Range<usize>,
    ) -> Rowset<'a> {
        Rowset {
            isa: self.options.isa,
            rows: rows.len(),
            first_row: rows.start,
            batch: input.batch,
            facts: &ws.facts,
            draws: input.draws,
            tables: input.tables,
            table_specs: &self.graph.tables,
        }
    }

    /// `rows` in tiles: of at most [`tile_rows`](crate::PlanOptions::tile_rows) rows and, where the plan orders rows, of
    /// one scenario each.
    pub(crate) fn tiles<'a>(
        &'a self,
        rows: Range<usize>,
        batch: &'a Batch,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        let mut from = rows.start;
        std::iter::from_fn(move || {
            if from == rows.end {
                return None;
            }
            let mut to = rows.end.min(from + self.options.tile_rows);
            if self.reads.by_scenario {
                let column = &batch.scenario[from..to];
                to = from + column.partition_point(|&s| s == column[0]);
            }
            let tile = from..to;
            from = to;
            Some(tile)
        })
    }

    /// Completes what the next phase waits for.
    fn join(&self, join: usize, ws: &mut Workspace, input: &Input<'_>, lanes: usize) {
        if !self.joins[join].is_empty() {
            ws.own_weights();
        }
        for step in &self.joins[join] {
            match step {
                JoinStep::Reduce(step) => self.reduce(step, ws, lanes),
                JoinStep::Run(step) => self.run_once(step, ws, input, lanes),
                JoinStep::Pack(index) => self.pack_at_join(&self.packed[*index], ws, input),
                JoinStep::Gradient(OnceGradient { offset, len, .. }) => {
                    let start = self.layout.len() + offset;
                    for i in 0..*len {
                        ws.once_gradients[offset + i] =
                            (0..lanes).map(|l| ws.lanes[l * ws.lane_len + start + i]).sum();
                    }
                }
            }
        }
    }

    fn reduce(&self, step: &Step, ws: &mut Workspace, lanes: usize) {
        // Lane 0's partial sums become the sums over the batch, in lane order.
        for lane in 1..lanes {
            for i in step.partial.clone() {
                ws.partials[i] += ws.partials[lane * self.partial_len + i];
            }
        }
        if let Some((reduction, output)) = self.reduction(step) {
            let once = Arc::make_mut(&mut ws.once);
            reduction.finish(&ws.facts, &ws.partials[step.partial.clone()], &mut once[output]);
        }
    }

    /// Runs an op on values that exist once. Its gradients go to the sums of lane 0.
    fn run_once(&self, step: &Step, ws: &mut Workspace, input: &Input<'_>, lanes: usize) {
        for gradient in step.gradients.iter().flatten().filter(|g| !g.accumulate) {
            let GradientPlace { place, .. } = gradient;
            let (start, len) = match *place {
                Place::Param { offset, rows, cols, .. } => (offset, rows * cols),
                Place::Once { offset, rows, cols, .. } => (self.layout.len() + offset, rows * cols),
                _ => unreachable!("an op without rows has inputs without rows, not {place:?}"),
            };
            for lane in 1..lanes {
                ws.lanes[lane * ws.lane_len + start..][..len].fill(0.0);
            }
        }
        let losses = Lanes::new(&mut ws.losses, 1, self.loss_sums_len());
        let ws: &Workspace = ws;
        let at = self.rowset(ws, input, 0..input.batch.rows);
        // SAFETY: no lane runs during a join, and `run` borrows the workspace exclusively.
        let (tile, losses) = unsafe { (Tile::new(self, ws, input, at, 0, 0, false), losses.of(0)) };
        tile.step(step, losses, &mut []);
    }

    fn pack_at_join(&self, weight: &PackedWeight, ws: &mut Workspace, input: &Input<'_>) {
        let matrix = match weight.source {
            Place::Once { offset, rows, cols, stride } => {
                Mat::strided(&ws.once[offset..], rows, cols, stride)
            }
            Place::State { offset, rows, cols, stride } => {
                Mat::strided(&input.state.values[offset..], rows, cols, stride)
            }
            source => unreachable!("a join packs state and what it computed: {source:?}"),
        };
        let Facts { scenario_rows, .. } = &ws.facts;
        let wanted = |scenario: usize| weight.scenarios == 1 || scenario_rows[scenario] > 0;
        // SAFETY: no lane runs during a join, and `run` borrows the workspace exclusively.
        unsafe { self.pack_one(weight, &ws.packed, matrix, &wanted) };
    }

    /// The reduction of a forward step, with the range of its output among the values of joins.
    pub(crate) fn reduction(&self, step: &Step) -> Option<(&dyn Reduction, Range<usize>)> {
        match (self.op(step.node).0.reduction(), step.output) {
            (Some(reduction), Place::Once { offset, rows, cols, .. }) if step.reduces && !step.backward => {
                Some((reduction, offset..offset + rows * cols))
            }
            _ => None,
        }
    }

    /// A frozen tensor inside of a parameter that learns gets no gradient either.
    fn zero_frozen(&self, ws: &mut Workspace, lanes: usize) {
        for lane in 0..lanes {
            for range in &self.frozen {
                ws.lanes[lane * ws.lane_len + range.start..lane * ws.lane_len + range.end].fill(0.0);
            }
        }
    }

    fn sum_losses(&self, ws: &mut Workspace) {
        if !self.graph.is_training() {
            return;
        }
        let len = self.loss_sums_len();
        for (part, sums) in self.loss_sums.iter().enumerate() {
            let means = sums.clone().zip(&ws.facts.divisors[part]).map(|(at, &divisor)| {
                let sum: f64 = (0..ws.last_lanes).map(|lane| ws.losses[lane * len + at]).sum();
                sum / divisor
            });
            ws.part_losses[part] = means.sum();
        }
    }

    /// Moves the state by what the last run saw (running statistics).
    ///
    /// # Panics
    /// When the workspace or the state were made for another plan.
    pub fn update_state(&self, ws: &Workspace, state: &mut Parameters) {
        self.assert_made_for(ws);
        assert!(state.has_layout(&self.state_layout), "state of another plan");
        for step in self.phases.iter().flatten() {
            let Some((reduction, output)) = self.reduction(step) else { continue };
            if let Some(index) = reduction.state() {
                let start = self.state_layout.offset(index);
                let len = self.graph.states[index].shape().len();
                let state = &mut state.values[start..start + len];
                reduction.update_state(&ws.facts, &ws.once[output], state);
            }
        }
        for join in self.joins.iter().flatten() {
            let JoinStep::Run(step) = join else { continue };
            let next = self.op(step.node).0.next_state().filter(|_| !step.backward);
            if let (Some(index), Place::Once { offset, rows, cols, .. }) = (next, step.output) {
                let (start, len) = (self.state_layout.offset(index), rows * cols);
                state.values[start..start + len].copy_from_slice(&ws.once[offset..offset + len]);
            }
        }
    }
}
