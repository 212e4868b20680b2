//! `y = act(γ ⊙ (x − mean) / sqrt(var + ε) + β)`: the second half of batch normalisation.
//!
//! x `[batch, n]`, moments `[2n, 1]` (of the batch in training, running in evaluation), γ and β `[n]`.
//! S. Ioffe, C. Szegedy, *Batch Normalization*, ICML 2015. By scenario, moments are `[2 · scenarios, n]`, γ and β
//! `[scenarios, n]`, and a row takes those of its own: the partitioned normalisation of X.-R. Sheng et al., *One Model to
//! Serve All*, CIKM 2021.
//!
//! Backward, with x̂ the normalised value and dz = dy ⊙ act': `dβ = Σ dz`, `dγ = Σ dz x̂`, `dx = dz γ / σ`,
//! `d_mean = −γ/σ Σ dz`, `d_var = −½ γ/σ² Σ dz x̂`. What flows through the moments is their op's part.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves, groups_refused};
use crate::graph::{Graph, Value};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Reads, Rowset, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation as activate;
use manygate_cuda::norm as cuda;
use manygate_kernels::activation::{self, Activation};
use manygate_kernels::{Mat, norm};
use std::ops::Range;

/// Normalisation by given moments, see the [module](self). Inputs: x, moments, γ, β.
#[derive(Clone, Debug)]
pub struct Normalise {
    epsilon: f32,
    activation: Activation,
    scenarios: Option<usize>,
}

/// Columns that are treated together: their f64 sums stand on the stack.
const BLOCK: usize = 64;

impl Normalise {
    /// Adds `epsilon` to the variance and ends in `activation`.
    pub fn new(epsilon: f32, activation: Activation) -> Normalise {
        Normalise { epsilon, activation, scenarios: None }
    }

    /// With moments, γ and β for each of `scenarios` scenarios.
    pub fn by_scenario(self, scenarios: usize) -> Normalise {
        Normalise { scenarios: Some(scenarios), ..self }
    }

    fn groups(&self) -> usize {
        self.scenarios.unwrap_or(1)
    }

    /// Where the rows of a tile find their n means, and γ and β; and their n variances.
    fn selected(&self, at: &Rowset<'_>, n: usize) -> (usize, usize) {
        let group = self.scenarios.map_or(0, |_| at.scenario());
        (group * n, (self.groups() + group) * n)
    }

    fn inverse_deviation(&self, variance: &[f32]) -> [f32; BLOCK] {
        let mut inverse = [0.0; BLOCK];
        for (to, v) in inverse.iter_mut().zip(variance) {
            *to = 1.0 / (v + self.epsilon).sqrt();
        }
        inverse
    }
}

fn blocks(cols: usize) -> impl Iterator<Item = Range<usize>> {
    (0..cols).step_by(BLOCK).map(move |from| from..cols.min(from + BLOCK))
}

/// A gradient as a slice, ready to be added to.
fn sums(gradient: Option<Gradient<'_>>) -> Option<&mut [f32]> {
    let Gradient { to, accumulate, .. } = gradient?;
    let values = to.into_contiguous();
    if !accumulate {
        values.fill(0.0);
    }
    Some(values)
}

fn add(gradient: &mut Option<&mut [f32]>, first: usize, values: impl Iterator<Item = f32>) {
    if let Some(to) = gradient {
        to[first..].iter_mut().zip(values).for_each(|(to, value)| *to += value);
    }
}

impl Op for Normalise {
    fn name(&self) -> &'static str {
        "normalise"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let [x, moments, gamma, beta] = inputs else {
            return Err(format!("x, moments, gamma and beta are needed, not {inputs:?}"));
        };
        let n = self.groups() * x.cols;
        let once = |shape: &Shape, len| shape.space == Space::Once && shape.len() == len;
        if x.space != Space::Batch || !once(moments, 2 * n) || !once(gamma, n) || !once(beta, n) {
            let message = format!("{x} needs {} moments, {n} values of gamma and of beta", 2 * n);
            return Err(format!("{message}, not {moments}, {gamma}, {beta}"));
        }
        Ok(*x)
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: self.scenarios, by_scenario: self.scenarios.is_some(), ..Reads::default() }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1111, output: self.activation != Activation::Identity }
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let n = inputs[0].cols;
        let groups = if i == 1 { 2 * self.groups() } else { self.groups() };
        if i == 0 {
            reach::same(output, reached);
        } else {
            let values = reach::marked(output).flat_map(|c| (0..groups).map(move |group| group * n + c));
            reach::rows_of(values, inputs[i].cols, reached);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
        (1..4).for_each(|i| growth.vectors(inputs[i], i, (Axis::OutColumns, 0), inputs[0].cols));
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let x = tile.input(0);
        let (own, own_variance) = self.selected(&tile.at, x.cols());
        let (mean, variance) =
            (&tile.input(1).contiguous()[own..], &tile.input(1).contiguous()[own_variance..]);
        let (gamma, beta) = (&tile.input(2).contiguous()[own..], &tile.input(3).contiguous()[own..]);
        let mut y = tile.take_output();
        for b in blocks(x.cols()) {
            let inverse = self.inverse_deviation(&variance[b.clone()]);
            norm::normalise(
                tile.at.isa,
                x.columns(b.start, b.len()),
                &mean[b.clone()],
                &inverse[..b.len()],
                &gamma[b.clone()],
                &beta[b.clone()],
                self.activation,
                y.columns(b.start, b.len()),
            );
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let isa = tile.at.isa;
        let x = tile.input(0);
        let (own, own_variance) = self.selected(&tile.at, x.cols());
        let (mean, variance) =
            (&tile.input(1).contiguous()[own..], &tile.input(1).contiguous()[own_variance..]);
        let gamma = &tile.input(2).contiguous()[own..];
        let mut dz = tile.take_output_gradient();
        if self.activation != Activation::Identity {
            activation::activation_dx(isa, self.activation, tile.output(), dz.reborrow());
        }
        let dz: Mat<'_> = dz.as_mat();
        let mut dx = tile.take_gradient(0);
        let (mut d_moments, mut d_gamma, mut d_beta) =
            (sums(tile.take_gradient(1)), sums(tile.take_gradient(2)), sums(tile.take_gradient(3)));
        for b in blocks(x.cols()) {
            let (dz, x) = (dz.columns(b.start, b.len()), x.columns(b.start, b.len()));
            let inverse = self.inverse_deviation(&variance[b.clone()]);
            let inverse = &inverse[..b.len()];
            let (mut sum, mut sum_xhat) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
            let (sum, sum_xhat) = (&mut sum[..b.len()], &mut sum_xhat[..b.len()]);
            norm::norm_gradient_sums(isa, dz, x, &mean[b.clone()], inverse, sum, sum_xhat);
            add(&mut d_beta, own + b.start, sum.iter().map(|&s| s as f32));
            add(&mut d_gamma, own + b.start, sum_xhat.iter().map(|&s| s as f32));
            let scale = |i: usize| f64::from(gamma[b.start + i] * inverse[i]);
            add(&mut d_moments, own + b.start, (0..b.len()).map(|i| (-scale(i) * sum[i]) as f32));
            let d_variance = |i: usize| (-0.5 * scale(i) * f64::from(inverse[i]) * sum_xhat[i]) as f32;
            add(&mut d_moments, own_variance + b.start, (0..b.len()).map(d_variance));
            if let Some(g) = &mut dx {
                let zeros = [0.0; BLOCK];
                let zeros = &zeros[..b.len()];
                let to = g.to.columns(b.start, b.len());
                norm::norm_dx(
                    isa,
                    dz,
                    x,
                    &mean[b.clone()],
                    inverse,
                    &gamma[b.clone()],
                    zeros,
                    zeros,
                    g.accumulate,
                    to,
                );
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (x, moments) = (&inputs[0], &inputs[1]);
        let mut y = x.clone();
        for (r, c) in (0..x.rows).flat_map(|r| (0..x.cols).map(move |c| (r, c))) {
            let group = self.scenarios.map_or(0, |_| batch.scenario[r] as usize);
            let own = group * x.cols + c;
            let variance = moments.data[self.groups() * x.cols + own];
            let normal = (x.at(r, c) - moments.data[own]) / (variance + f64::from(self.epsilon)).sqrt();
            y.set(r, c, activate_f64(self.activation, inputs[2].data[own] * normal + inputs[3].data[own]));
        }
        y
    }
}

impl DeviceOp for Normalise {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        cuda::normalise_sums_scratch(self.groups(), capacity.rows as u32, inputs[0].cols as u32)
    }

    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        groups_refused(self.groups())
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let [moments, gamma, beta] = [1, 2, 3].map(|i| step.input(i).address);
        let (x, y, groups) = (step.input(0), step.output(), step.groups(self.scenarios));
        step.launch(cuda::normalise(groups, x, moments, gamma, beta, self.epsilon, self.activation, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, dz, groups) = (step.input(0), step.output_gradient(), step.groups(self.scenarios));
        let [moments, gamma] = [1, 2].map(|i| step.input(i).address);
        if self.activation != Activation::Identity {
            step.launch(activate::activation_dx(self.activation, step.output(), dz));
        }
        let [d_moments, d_gamma, d_beta] = [1, 2, 3].map(|i| {
            let gradient = step.take_gradient(i);
            gradient.map(|gradient| (gradient.to.address, gradient.accumulate))
        });
        let (epsilon, scratch) = (self.epsilon, step.scratch());
        if [d_moments, d_gamma, d_beta].iter().any(Option::is_some) {
            step.launch_all(cuda::normalise_sums(
                groups, x, moments, gamma, epsilon, dz, d_moments, d_gamma, d_beta, scratch,
            ));
        }
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::normalise_dx(groups, x, moments, gamma, epsilon, dz, dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize, activation: Activation| {
        let case = Case::new(name, move |g, x| g.add("op", Normalise::new(1e-3, activation), x));
        // Variances are positive.
        case.rows(cols).once(2 * cols, 1).between(0.3, 1.5).once(cols, 1).once(cols, 1)
    };
    let by_scenario = |name: &str, cols: usize, scenarios: usize| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            g.add("op", Normalise::new(1e-3, Activation::Tanh).by_scenario(scenarios), x)
        };
        let case = Case::new(name, declare).rows(cols).once(2 * scenarios, cols).between(0.3, 1.5);
        case.once(scenarios, cols).once(scenarios, cols)
    };
    vec![
        by_scenario("normalise/by_scenario", BLOCK + 3, 3),
        case("normalise/one", 1, Activation::Identity),
        case("normalise/relu", 7, Activation::Relu),
        case("normalise/several_blocks", BLOCK + 5, Activation::Tanh),
    ]
}
