//! The gradients of several losses of one batch, one for each, before anything moves: of dense parameters and, on the
//! rows that the batch looks up, of tables.
//!
//! Each loss is one run of the plan, seeded with it alone; the losses that nobody asked for share one more. What several
//! of the asked-for losses reach is shared (`Plan::reached_by`); inner products are over shared parameters, and methods
//! that balance tasks combine gradients there. Everything else belongs to one loss.

use manygate_core::{Buffer, Executor, Result, run_parts};
use manygate_embedding::{GradientsByLoss, SparseGradients};
use manygate_graph::{Input, Plan, Workspace};
use manygate_kernels::Mat;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Values that a thread takes at a time; fixed, so that sums never depend on threads.
const PIECE: usize = 16 * 1024;

/// Gradients by loss, with what is needed to take their inner products and to sum them up.
#[derive(Debug)]
pub struct LossGradients {
    /// The parts of the loss that are asked for.
    losses: Vec<usize>,
    /// By run: the factor of each part of the loss.
    seeds: Vec<Vec<f32>>,
    /// By run: gradients laid out as the parameters.
    dense: Vec<Buffer>,
    sparse: GradientsByLoss,
    /// Of the last [`combine`](LossGradients::combine).
    sum: Buffer,
    /// Pieces of the parameters that learn, and whether they are shared.
    pieces: Vec<(Range<usize>, bool)>,
    shared_tables: Vec<bool>,
    /// The same without that.
    ranges: Vec<Range<usize>>,
    /// By piece: `[losses, losses]` inner products.
    products: Vec<Mutex<Vec<f64>>>,
    /// By run; that of the losses nobody asked for is 1.
    shared_weights: Vec<f64>,
    own_weights: Vec<f64>,
}

impl LossGradients {
    /// Of the parts `losses` of the loss of `plan`, by their numbers; `factors` are those of all parts.
    ///
    /// # Panics
    /// When there is no such part, or the factors are not one a part.
    pub fn new(plan: &Plan, losses: &[usize], factors: &[f32]) -> LossGradients {
        assert_eq!(factors.len(), plan.losses().len(), "one factor a part of the loss");
        let only = |chosen: &dyn Fn(usize) -> bool| -> Vec<f32> {
            let factors = factors.iter().enumerate();
            factors.map(|(part, &factor)| if chosen(part) { factor } else { 0.0 }).collect()
        };
        let mut seeds: Vec<Vec<f32>> = losses.iter().map(|&loss| only(&|part| part == loss)).collect();
        let rest = only(&|part| !losses.contains(&part));
        if rest.iter().any(|&factor| factor != 0.0) {
            seeds.push(rest);
        }
        let pieces = pieces(plan, losses);
        let tables = 0..plan.tables().len();
        let reach = |t: usize| losses.iter().filter(|&&loss| plan.reached_by(loss).tables()[t]).count();
        LossGradients {
            dense: seeds.iter().map(|_| Buffer::zeroed(plan.layout().len())).collect(),
            sparse: GradientsByLoss::new(plan, seeds.len()),
            sum: Buffer::zeroed(plan.layout().len()),
            products: pieces.iter().map(|_| Mutex::new(vec![0.0; losses.len().pow(2)])).collect(),
            ranges: pieces.iter().map(|(range, _)| range.clone()).collect(),
            shared_weights: vec![1.0; seeds.len()],
            own_weights: vec![1.0; seeds.len()],
            pieces,
            shared_tables: tables.map(|t| reach(t) > 1).collect(),
            losses: losses.to_vec(),
            seeds,
        }
    }

    /// Makes room for as many look-ups as `sparse` has room for.
    pub fn reserve_for(&mut self, sparse: &SparseGradients, plan: &Plan) {
        self.sparse.reserve_for(sparse, plan);
    }

    /// The same for a device, with products over what several losses share.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(&self) -> manygate_device::ByLoss {
        let shared = self.pieces.iter().filter(|(_, shared)| *shared);
        manygate_device::ByLoss {
            seeds: self.seeds.clone(),
            losses: self.losses.len(),
            pieces: self.pieces.clone(),
            shared_tables: self.shared_tables.clone(),
            measured: shared.map(|(range, _)| range.clone()).collect(),
            measured_tables: self.shared_tables.clone(),
        }
    }

    /// Number of losses that are asked for.
    pub fn len(&self) -> usize {
        self.losses.len()
    }

    /// Whether no loss is asked for.
    pub fn is_empty(&self) -> bool {
        self.losses.is_empty()
    }

    /// Runs `plan` once for each loss on the batch of `input`, whose own seeds are not used, and keeps the gradients.
    /// `sparse` has sorted the batch. Nothing moves.
    ///
    /// # Errors
    /// When the batch does not fit, or a loss is not finite.
    pub fn compute(
        &mut self,
        exec: &dyn Executor,
        plan: &Plan,
        ws: &mut Workspace,
        sparse: &SparseGradients,
        input: &Input<'_>,
        step: u64,
    ) -> Result<()> {
        for (run, seeds) in self.seeds.iter().enumerate() {
            let input = Input { seeds, ..*input };
            plan.run(exec, ws, &input)?;
            plan.check_losses(ws, &input, step)?;
            sum_lanes(exec, &self.ranges, plan.gradients(ws), &mut self.dense[run]);
            self.sparse.record(exec, plan, ws, sparse, run);
        }
        Ok(())
    }

    /// Inner products of the gradients over shared parameters, `[losses, losses]`, f64.
    ///
    /// # Panics
    /// When `gram` has another size.
    pub fn gram(&self, exec: &dyn Executor, gram: &mut [f64]) {
        let count = self.losses.len();
        assert_eq!(gram.len(), count * count, "products of {count} losses");
        exec.run(self.pieces.len(), &|i, _| {
            let (range, shared) = &self.pieces[i];
            if *shared {
                let mut products = self.products[i].lock().unwrap_or_else(PoisonError::into_inner);
                self.products_of(range, &mut products);
            }
        });
        gram.fill(0.0);
        // In the order of the pieces, whichever thread had them.
        for (products, _) in self.products.iter().zip(&self.pieces).filter(|(_, (_, shared))| *shared) {
            let products = products.lock().unwrap_or_else(PoisonError::into_inner);
            gram.iter_mut().zip(&*products).for_each(|(to, product)| *to += product);
        }
        for (t, _) in self.shared_tables.iter().enumerate().filter(|(_, shared)| **shared) {
            self.sparse.add_products(t, count, gram);
        }
    }

    fn products_of(&self, range: &Range<usize>, products: &mut [f64]) {
        let count = self.losses.len();
        for a in 0..count {
            for b in 0..=a {
                let pairs = self.dense[a][range.clone()].iter().zip(&self.dense[b][range.clone()]);
                let product: f64 = pairs.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                products[a * count + b] = product;
                products[b * count + a] = product;
            }
        }
    }

    /// The norm of each loss's gradient over some parameters, `[losses]`.
    ///
    /// # Panics
    /// When a range leaves the parameters, or `norms` has another length.
    pub fn norms(&self, ranges: &[Range<usize>], norms: &mut [f64]) {
        assert_eq!(norms.len(), self.losses.len(), "one norm a loss");
        for (norm, gradient) in norms.iter_mut().zip(&self.dense) {
            let values = ranges.iter().flat_map(|range| &gradient[range.clone()]);
            *norm = values.map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        }
    }

    /// Sums the gradients: shared parameters take `shared[loss]` of each, the others `own[loss]`; the losses that nobody
    /// asked for count as they are.
    ///
    /// # Panics
    /// When there is not one weight a loss.
    pub fn combine(&mut self, exec: &dyn Executor, shared: &[f64], own: &[f64]) {
        let count = self.losses.len();
        assert!(shared.len() == count && own.len() == count, "one weight a loss");
        for (weights, given) in [(&mut self.shared_weights, shared), (&mut self.own_weights, own)] {
            weights[..count].copy_from_slice(given);
        }
        let (dense, pieces) = (&self.dense, &self.pieces);
        let weights = [&self.own_weights, &self.shared_weights];
        run_parts(exec, &self.ranges, [&mut self.sum[..]], |i, [to]| {
            let (range, is_shared) = &pieces[i];
            let weights = weights[usize::from(*is_shared)];
            for (at, to) in range.clone().zip(to) {
                let terms =
                    dense.iter().zip(weights).map(|(gradient, weight)| weight * f64::from(gradient[at]));
                *to = terms.sum::<f64>() as f32;
            }
        });
        for (t, &is_shared) in self.shared_tables.iter().enumerate() {
            self.sparse.combine(t, if is_shared { &self.shared_weights } else { &self.own_weights });
        }
    }

    /// What [`combine`](LossGradients::combine) made of the dense gradients: `[1, parameters]`.
    pub fn sum(&self) -> Mat<'_> {
        Mat::new(&self.sum, 1, self.sum.len())
    }

    /// What it made of those of tables, and those of each loss.
    pub fn sparse(&self) -> &GradientsByLoss {
        &self.sparse
    }

    /// The dense gradient of loss number `loss` of those asked for, laid out as the parameters.
    pub fn dense(&self, loss: usize) -> &[f32] {
        &self.dense[loss]
    }
}

/// The parameters that learn in pieces, cut where sharing begins or ends.
fn pieces(plan: &Plan, losses: &[usize]) -> Vec<(Range<usize>, bool)> {
    let mut pieces = Vec::new();
    for (tensor, (block, range)) in plan.layout().blocks().enumerate() {
        if plan.learns(&block.name) {
            let reach = losses.iter().filter(|&&loss| plan.reached_by(loss).tensors()[tensor]).count();
            let cuts = range.clone().step_by(PIECE);
            pieces.extend(cuts.map(|from| (from..range.end.min(from + PIECE), reach > 1)));
        }
    }
    pieces
}

/// Sums over lanes, in order, as the optimiser does.
fn sum_lanes(exec: &dyn Executor, ranges: &[Range<usize>], lanes: Mat<'_>, to: &mut [f32]) {
    run_parts(exec, ranges, [to], |i, [to]| {
        for (at, to) in ranges[i].clone().zip(to) {
            *to = (0..lanes.rows()).map(|lane| lanes.row(lane)[at]).sum();
        }
    });
}
