//! `y = act(x W_kᵀ + b_k)`, k the row's cluster: a fully connected layer by scenario, where the scenario is computed.
//!
//! x `[batch, in]`, W `[clusters · out, in]`, b `[clusters · out, 1]`, k `[batch, 1]`, y `[batch, out]`. k is a whole
//! number, as [`Route`](super::Route) gives it. Rows stand in the batch's order, which no cluster has told; so a tile
//! gathers the rows of each cluster, multiplies them by its weight and puts the products back. A row costs one product,
//! however many clusters there are, and a copy.
//!
//! Backward as [`linear`](super::linear), cluster by cluster; k has no gradient.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves, copy_bytes, layers_refused};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Pack, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::cluster::{self as cuda, Order};
use manygate_cuda::gemm::{BiasGradient, Heads};
use manygate_cuda::gemm_by_scenario::{
    Layers, column_sums_by_scenario, linear_by_scenario, linear_dw_by_scenario,
    linear_dw_by_scenario_scratch, linear_dx_by_scenario,
};
use manygate_cuda::{DeviceMat, activation as activate, elementwise};
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

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
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

/// The rows of the whole batch in the order of their clusters are multiplied as those of scenarios are.
impl DeviceOp for ClusterLinear {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        let (clusters, most) = (self.clusters, cuda::MOST);
        let message = format!("{clusters} clusters, and its kernels take {most}");
        (clusters > most).then_some(message).or_else(|| layers_refused(clusters))
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let (rows, inner) = (capacity.rows as u32, inputs[0].cols as u32);
        let dw = linear_dw_by_scenario_scratch(rows, inner, self.out as u32, self.layers(0));
        let weight = copy_bytes(inputs[1].rows, inputs[1].cols);
        self.ordered(0, rows, inner).rest + weight.max(4 * dw as u64)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, bias, y) = (step.input(0), step.input(2).address, step.output());
        let own = self.order(step, x);
        let (own_x, own_y) = (ordered(own.x, x), ordered(own.y, y));
        step.launch(cuda::gather_rows(own.order, x, own_x));
        let (precision, weight) = (step.precision(x.element), step.weight(1, x.element, own.rest));
        let heads = Heads::one(self.out as u32, bias, self.activation);
        step.launch(linear_by_scenario(
            precision,
            self.layers(own.order.starts),
            own_x,
            weight,
            &heads,
            own_y,
        ));
        step.launch(cuda::scatter_rows(own.order, own_y, false, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, dy) = (step.input(0), step.output_gradient());
        if !step.activation_done() && self.activation != Activation::Identity {
            step.launch(activate::activation_dx(self.activation, step.output(), dy));
        }
        let own = self.order(step, x);
        let (own_x, own_dy) = (ordered(own.x, x), ordered(own.y, dy));
        let (precision, layers) = (step.precision(x.element), self.layers(own.order.starts));
        step.launch(cuda::gather_rows(own.order, dy, own_dy));
        let [dw, db] = [1, 2].map(|i| step.take_gradient(i));
        let db = db.map(|db| BiasGradient { dy: own_dy, accumulate: db.accumulate, to: db.to.address });
        let own_dy = step.stored_as(x.element, own_dy);
        if let Some(dw) = dw {
            let (add, to) = (dw.accumulate, dw.to);
            step.launch(cuda::gather_rows(own.order, x, own_x));
            step.launch_all(linear_dw_by_scenario(precision, layers, own_dy, own_x, add, to, db, own.rest));
        } else if let Some(db) = db {
            step.launch_all(column_sums_by_scenario(layers, db, own.rest));
        }
        if let Some(dx) = step.take_gradient(0) {
            // What was summed up there is not needed any more, nor are the rows of x.
            let (weight, own_dx) = (step.weight(1, x.element, own.rest), ordered(own.x, dx.to));
            step.launch(linear_dx_by_scenario(precision, layers, own_dy, weight, false, None, own_dx));
            step.launch(cuda::scatter_rows(own.order, own_dx, dx.accumulate, dx.to));
        }
        if let Some(d_route) = step.take_gradient(3).filter(|d_route| !d_route.accumulate) {
            step.launch(elementwise::fill(0.0, d_route.to));
        }
    }
}

/// Where launches work: behind the copy of a gradient, rows in the order of their clusters.
struct Ordered {
    x: u64,
    y: u64,
    order: Order,
    /// Where weights are copied to, and sums left.
    rest: u64,
}

impl ClusterLinear {
    /// Rows of clusters whose starts lie at an address.
    fn layers(&self, starts: u64) -> Layers {
        Layers::new(starts, self.clusters, 1, false)
    }

    /// In scratch from an address on, for so many rows.
    fn ordered(&self, scratch: u64, rows: u32, inner: u32) -> Ordered {
        let [of_x, of_y] = [inner as usize, self.out].map(|cols| copy_bytes(rows as usize, cols));
        let (x, y) = (scratch + of_y, scratch + of_y + of_x);
        let order = Order::at(y + of_y, rows, self.clusters);
        Ordered { x, y, order, rest: y + of_y + Order::bytes(rows, self.clusters) }
    }

    /// Launches what finds the order of the rows.
    fn order(&self, step: &mut DeviceStep<'_>, x: DeviceMat) -> Ordered {
        let own = self.ordered(step.scratch(), x.rows, x.cols);
        step.launch_all(cuda::order_rows(step.input(3), own.order));
        own
    }
}

/// As many rows as those of `like`, at an address.
fn ordered(address: u64, like: DeviceMat) -> DeviceMat {
    DeviceMat { address, stride: like.cols.next_multiple_of(8), ..like }
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
