//! `y = act(x W_kᵀ + b_k)`, k the row's cluster: a fully connected layer by scenario, where the scenario is computed.
//!
//! x `[batch, in]`, W `[clusters · out, in]`, b `[clusters · out, 1]`, k `[batch, 1]`, y `[batch, out]`. k is a whole
//! number, as [`Route`](super::Route) gives it. Rows stand in the batch's order, which no cluster has told; so a tile
//! gathers the rows of each cluster, multiplies them by its weight and puts the products back. A row costs one product,
//! however many clusters there are, and a copy.
//!
//! Backward as [`linear`](super::linear), cluster by cluster; k has no gradient.

use crate::check::Case;
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Pack, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_kernels::activation::{self, Activation};
use manygate_kernels::gemm::{self, Packed};
use manygate_kernels::{Mat, MatMut};
use std::ops::Range;

/// A layer with a weight for each cluster, see the [module](self). Inputs: x, W, b, k.
#[derive(Clone, Debug)]
pub struct ClusterLinear {
    clusters: usize,
    out: usize,
    activation: Activation,
}

/// Copies the rows of cluster `k` into `to`, one behind the other. Gives the matrix of them.
fn gather<'a>(from: Mat<'_>, route: Mat<'_>, k: usize, clusters: usize, to: &'a mut [f32]) -> MatMut<'a> {
    let (cols, mut count) = (from.cols(), 0);
    for r in of_cluster(route, k, clusters) {
        to[count * cols..][..cols].copy_from_slice(from.row(r));
        count += 1;
    }
    MatMut::new(&mut to[..count * cols], count, cols)
}

/// The rows of cluster `k`.
fn of_cluster(route: Mat<'_>, k: usize, clusters: usize) -> impl Iterator<Item = usize> {
    (0..route.rows()).filter(move |&r| cluster(f64::from(route.row(r)[0]), clusters) == k)
}

fn cluster(route: f64, clusters: usize) -> usize {
    (route.max(0.0) as usize).min(clusters - 1)
}

impl ClusterLinear {
    /// `out` units for each of `clusters` clusters.
    pub fn new(clusters: usize, out: usize, activation: Activation) -> ClusterLinear {
        ClusterLinear { clusters, out, activation }
    }

    /// The packed weight of cluster `k`.
    fn weight<'a>(&self, packed: &'a [f32], k: usize, inner: usize, outer: usize) -> Packed<'a> {
        let len = gemm::packed_len(inner, outer);
        Packed::new(&packed[k * len..][..len], inner, outer)
    }
}

impl Op for ClusterLinear {
    fn name(&self) -> &'static str {
        "cluster_linear"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let units = self.clusters * self.out;
        match inputs {
            [x, w, b, route]
                if x.space == Space::Batch
                    && units > 0
                    && *w == Shape::once(units, x.cols)
                    && b.space == Space::Once
                    && b.len() == units
                    && *route == Shape::batch(1) =>
            {
                Ok(Shape::batch(self.out))
            }
            _ => Err(format!(
                "x, a weight and a bias of {units} units, and a cluster a row are needed, not {inputs:?}"
            )),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1001, output: self.activation != Activation::Identity }
    }

    fn activated(&self) -> Option<(Activation, Range<usize>)> {
        (self.activation != Activation::Identity).then_some((self.activation, 0..self.out))
    }

    fn packs(&self) -> Vec<Pack> {
        let groups = vec![self.out; self.clusters];
        vec![
            Pack { input: 1, groups: groups.clone(), transposed: true, backward: false },
            Pack { input: 1, groups, transposed: false, backward: true },
        ]
    }

    fn scratch(&self, rows: usize, inputs: &[Shape]) -> usize {
        let inner = inputs[0].cols;
        rows * (2 * inner + self.out) + gemm::linear_dw_scratch(rows, inner)
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        self.out * inputs[0].cols
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let units =
            || reach::marked(output).flat_map(|unit| (0..self.clusters).map(move |k| k * self.out + unit));
        match i {
            0 => reached.fill(true),
            1 => units().for_each(|unit| reached[unit] = true),
            2 => reach::rows_of(units(), inputs[2].cols, reached),
            _ => {}
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.tie((Axis::Columns(0), 0), (Axis::Columns(1), 0), inputs[0].cols);
        growth.zero((Axis::Columns(1), 0), inputs[0].cols);
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, bias, route) = (tile.input(0), tile.input(2).contiguous(), tile.input(3));
        let (packed, mut y) = (tile.packed(0), tile.take_output());
        let (own_x, own_y) = tile.take_scratch().split_at_mut(x.rows() * x.cols());
        for k in 0..self.clusters {
            let own = gather(x, route, k, self.clusters, own_x);
            let mut product = MatMut::new(&mut own_y[..own.rows() * self.out], own.rows(), self.out);
            let weight = self.weight(packed, k, x.cols(), self.out);
            let bias = &bias[k * self.out..][..self.out];
            gemm::linear(tile.at.isa, own.as_mat(), weight, bias, self.activation, product.reborrow());
            for (at, r) in of_cluster(route, k, self.clusters).enumerate() {
                y.row_mut(r).copy_from_slice(product.row(at));
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let isa = tile.at.isa;
        let (x, route) = (tile.input(0), tile.input(3));
        let mut dy = tile.take_output_gradient();
        if !tile.activation_done && self.activation != Activation::Identity {
            activation::activation_dx(isa, self.activation, tile.output(), dy.reborrow());
        }
        let (rows, inner, out) = (x.rows(), x.cols(), self.out);
        let [mut dx, mut dw, mut db, d_route] = [0, 1, 2, 3].map(|i| tile.take_gradient(i));
        let (own_x, rest) = tile.take_scratch().split_at_mut(rows * inner);
        let (own_dx, rest) = rest.split_at_mut(rows * inner);
        let (own_dy, scratch) = rest.split_at_mut(rows * out);
        for k in 0..self.clusters {
            let own_dy = gather(dy.as_mat(), route, k, self.clusters, own_dy);
            let units = k * out..(k + 1) * out;
            if let Some(db) = &mut db {
                let sums = &mut db.to.reborrow().into_contiguous()[units.clone()];
                gemm::column_sums(isa, own_dy.as_mat(), db.accumulate, sums);
            }
            if let Some(dw) = &mut dw {
                let mut to = dw.to.row_range(units.start, out);
                if own_dy.rows() > 0 {
                    let own_x = gather(x, route, k, self.clusters, own_x);
                    gemm::linear_dw(isa, own_dy.as_mat(), own_x.as_mat(), dw.accumulate, to, scratch);
                } else if !dw.accumulate {
                    to.fill(0.0);
                }
            }
            if let Some(dx) = &mut dx {
                let weight = self.weight(tile.packed(1), k, out, inner);
                let mut own = MatMut::new(&mut own_dx[..own_dy.rows() * inner], own_dy.rows(), inner);
                gemm::linear_dx(isa, own_dy.as_mat(), weight, false, None, own.reborrow());
                for (at, r) in of_cluster(route, k, self.clusters).enumerate() {
                    dx.put(r, own.row(at).iter().copied());
                }
            }
        }
        if let Some(mut d_route) = d_route {
            (0..rows).for_each(|r| d_route.put(r, std::iter::once(0.0)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let [x, w, b, route] = [0, 1, 2, 3].map(|i| &inputs[i]);
        let mut y = Matrix::zeros(x.rows, self.out);
        for (r, c) in (0..x.rows).flat_map(|r| (0..self.out).map(move |c| (r, c))) {
            let unit = cluster(route.at(r, 0), self.clusters) * self.out + c;
            let z = b.data[unit] + (0..x.cols).map(|i| x.at(r, i) * w.at(unit, i)).sum::<f64>();
            y.set(r, c, activate_f64(self.activation, z));
        }
        y
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, clusters: usize, input: usize, out: usize, activation| {
        let op = ClusterLinear::new(clusters, out, activation);
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        // Numbers between two whole ones stand for the lower one, so that no difference reaches the next.
        let case = case.rows(input).once(clusters * out, input).once(clusters, out).rows(1);
        case.between(0.0, clusters as f32)
    };
    vec![
        case("cluster_linear/one", 1, 5, 3, Activation::Relu),
        case("cluster_linear/relu", 3, 9, 17, Activation::Relu),
        case("cluster_linear/logit", 4, 7, 1, Activation::Identity),
    ]
}
