//! Clipping: a gradient that is too long is made shorter before the optimisers see it (R. Pascanu, T. Mikolov,
//! Y. Bengio, *On the Difficulty of Training Recurrent Neural Networks*, ICML 2013).
//!
//! Of a step's gradient counts what learns, of all groups, also of those that do not move at this step; where a method
//! balances losses, it is the combined gradient. L2 terms and weight decay come after it. Sums are f64, by fixed pieces
//! and in their order, so that threads do not change a bit.

use super::OptimizerConfig;
use super::dense::pieces;
use manygate_core::{Buffer, Error, Executor, Result, run_parts};
use manygate_embedding::{GradientsByLoss, SparseGradients};
use manygate_graph::{Plan, Workspace};
use manygate_kernels::optim::{clamp, scale, sum_lanes, sum_squares};
use manygate_kernels::{Isa, Mat};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// How long a gradient may be.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// In Euclidean norm, all values together.
    Norm(f64),
    /// In each value.
    Value(f32),
}

/// The gradients of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gradients<'a> {
    /// `[lanes, parameters]`, to be summed over lanes.
    pub(crate) dense: Mat<'a>,
    /// Of tables by distinct id, where they have been summed up; elsewhere they lie in the workspace by look-up.
    pub(crate) tables: Option<&'a GradientsByLoss>,
}

/// Clips the gradients of one plan.
#[derive(Debug)]
pub(crate) struct Clip {
    limit: Limit,
    sum: Summed,
    /// With `clip_tables`: the gradients of tables, where no method has summed them up.
    rows: Option<GradientsByLoss>,
}

/// What counts of a gradient, summed over lanes.
#[derive(Debug)]
struct Summed {
    isa: Isa,
    /// The dense gradient, laid out as the parameters.
    dense: Buffer,
    /// Pieces of the parameters that learn.
    pieces: Vec<Range<usize>>,
    /// Tables that count; none without `clip_tables`.
    tables: Vec<usize>,
    /// Sums of squares: of each piece, then of each table that counts.
    squares: Vec<Mutex<f64>>,
}

impl Clip {
    /// The same for a device, of a plan with so many tables.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(&self, tables: usize) -> manygate_device::Clip {
        let limit = match self.limit {
            Limit::Norm(limit) => manygate_device::Limit::Norm(limit),
            Limit::Value(limit) => manygate_device::Limit::Value(limit),
        };
        let tables = (0..tables).map(|t| self.sum.tables.contains(&t)).collect();
        manygate_device::Clip { limit, tables }
    }

    /// As `config` says; [`None`] where it says nothing of clipping.
    pub(crate) fn new(plan: &Plan, config: &OptimizerConfig) -> Option<Clip> {
        let limit = match (config.clip_norm, config.clip_value) {
            (Some(norm), _) => Limit::Norm(norm),
            (None, Some(value)) => Limit::Value(value as f32),
            (None, None) => return None,
        };
        let pieces: Vec<_> = pieces(plan).map(|(_, range)| range).collect();
        let learns = |t: &usize| config.clip_tables && plan.learns(&plan.tables()[*t].name);
        let tables: Vec<usize> = (0..plan.tables().len()).filter(learns).collect();
        let sum = Summed {
            isa: plan.isa(),
            dense: Buffer::zeroed(plan.layout().len()),
            squares: (0..pieces.len() + tables.len()).map(|_| Mutex::new(0.0)).collect(),
            pieces,
            tables,
        };
        Some(Clip { limit, sum, rows: config.clip_tables.then(|| GradientsByLoss::new(plan, 1)) })
    }

    /// Makes room for as many look-ups as `sparse` has room for.
    pub(crate) fn reserve_for(&mut self, sparse: &SparseGradients, plan: &Plan) {
        if let Some(rows) = &mut self.rows {
            rows.reserve_for(sparse, plan);
        }
    }

    /// Clips `gradients`, those of the plan's last run; `sparse` has sorted its batch.
    ///
    /// # Errors
    /// [`Error::NonFiniteGradient`] when a value is not finite: it would make every other 0, or be hidden.
    pub(crate) fn clip<'a>(
        &'a mut self,
        exec: &dyn Executor,
        plan: &Plan,
        ws: &Workspace,
        sparse: &SparseGradients,
        gradients: Gradients<'a>,
        step: u64,
    ) -> Result<Gradients<'a>> {
        let Clip { limit, sum, rows } = self;
        let rows = match (rows, gradients.tables) {
            (Some(rows), None) => {
                rows.record(exec, plan, ws, sparse, 0);
                exec.run(sum.tables.len(), &|i, _| rows.combine(sum.tables[i], &[1.0]));
                Some(&*rows)
            }
            (_, summed) => summed,
        };
        let squares = sum.measure(exec, gradients.dense, rows);
        if !squares.is_finite() {
            return Err(Error::NonFiniteGradient { step, tensor: sum.first_non_finite(plan) });
        }
        let isa = sum.isa;
        match *limit {
            Limit::Norm(limit) if squares.sqrt() <= limit => {}
            Limit::Norm(limit) => {
                let factor = (limit / squares.sqrt()) as f32;
                sum.shorten(exec, rows, |values| scale(isa, values, factor));
            }
            Limit::Value(limit) => sum.shorten(exec, rows, |values| clamp(isa, values, limit)),
        }
        let dense = Mat::new(&sum.dense, 1, sum.dense.len());
        Ok(Gradients { dense, tables: rows })
    }
}

impl Summed {
    /// Sums the dense gradient over lanes; the sum of the squares of everything that counts.
    fn measure(&mut self, exec: &dyn Executor, gradients: Mat<'_>, rows: Option<&GradientsByLoss>) -> f64 {
        let (isa, pieces, tables) = (self.isa, &self.pieces, &self.tables);
        let (of_pieces, of_tables) = self.squares.split_at(pieces.len());
        run_parts(exec, pieces, [&mut self.dense[..]], |i, [sum]| {
            sum_lanes(isa, gradients.columns(pieces[i].start, pieces[i].len()), sum);
            set(&of_pieces[i], sum_squares(isa, sum));
        });
        if let Some(rows) = rows {
            exec.run(tables.len(), &|i, _| set(&of_tables[i], rows.sum_squares(tables[i])));
        }
        // In the order of the pieces, whichever thread had them.
        self.squares.iter().map(|squares| *squares.lock().unwrap_or_else(PoisonError::into_inner)).sum()
    }

    /// Changes everything that counts.
    fn shorten(
        &mut self,
        exec: &dyn Executor,
        rows: Option<&GradientsByLoss>,
        change: impl Fn(&mut [f32]) + Sync,
    ) {
        run_parts(exec, &self.pieces, [&mut self.dense[..]], |_, [sum]| change(sum));
        if let Some(rows) = rows {
            exec.run(self.tables.len(), &|i, _| rows.change_sum(self.tables[i], &change));
        }
    }

    /// Name of the first tensor whose gradient is not finite.
    fn first_non_finite(&self, plan: &Plan) -> String {
        let tables = self.tables.iter().zip(&self.squares[self.pieces.len()..]);
        let table = tables
            .map(|(&t, squares)| (t, *squares.lock().unwrap_or_else(PoisonError::into_inner)))
            .find(|(_, squares)| !squares.is_finite())
            .map(|(t, _)| plan.tables()[t].name.clone());
        first_non_finite(plan, &self.dense).or(table).unwrap_or_default()
    }
}

/// Name of the first tensor that learns and has a value in `gradients`, laid out as the parameters, that is not finite.
pub(crate) fn first_non_finite(plan: &Plan, gradients: &[f32]) -> Option<String> {
    let is_wrong = |name: &str, range: &Range<usize>| {
        plan.learns(name) && gradients[range.clone()].iter().any(|g| !g.is_finite())
    };
    let mut blocks = plan.layout().blocks();
    blocks.find(|(block, range)| is_wrong(&block.name, range)).map(|(block, _)| block.name.clone())
}

fn set(squares: &Mutex<f64>, value: f64) {
    *squares.lock().unwrap_or_else(PoisonError::into_inner) = value;
}
