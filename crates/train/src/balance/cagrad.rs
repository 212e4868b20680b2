//! The update near the mean gradient that helps the worst-off loss most.
//!
//! B. Liu, X. Liu, X. Jin, P. Stone, Q. Liu, *Conflict-Averse Gradient Descent for Multi-task Learning*, NeurIPS
//! 2021.
//!
//! ```text
//! d   = argmax min_t <g_t, d> subject to |d − g_0| ≤ c |g_0|, g_0 = mean g; by its dual:
//! w   = argmin over the simplex of F(w) = w'b + r sqrt(w'Kw), b = K 1/T, r = c |g_0|
//! d   = g_0 + r g_w / |g_w|, g_w = G'w          rescale: square divides by 1 + c², linear by 1 + c
//! ```
//!
//! So the weights are `1/T + r w_t / |g_w|`. At c = 0 they are the mean's, for one loss `1 + c`. Where `|g_w|` is
//! about 0 no direction helps all losses, and d is `g_0`. A loss whose gradient is exactly 0 cannot be helped: it is
//! left out of the minimum, which it would hold at 0. Parameters of one task take their own loss's plain gradient.
//!
//! The minimiser is exact. F depends on `g_w` alone, so some minimiser lies inside the hull of affinely independent
//! gradients; each such set S is tried, and the lowest feasible F wins. With `w_0` the weights of S (summing to 1)
//! whose `g_w` is shortest and `y` (summing to 0) that of the projection of `g_0` onto the differences of S's
//! gradients, Lagrange's conditions give
//!
//! ```text
//! w = w_0 − ρ y, ρ² = |G'w_0|² / (r² − |G'y|²)     no minimum inside S where the divisor is not positive
//! ```
//!
//! Public code solves with SLSQP, to about 1e-4 in w; divides by 1 + c² by default, which the
//! paper does not; and adds 1e-8 inside the root, which decides everything once gradients are small.

use super::registry::{keys, written};
use super::uncertainty::Likelihood;
use super::{Access, Entry, Method, Seen, Settings, check_state, dot, not_negative, quadratic, wrong};
use manygate_core::Result;
use manygate_models::config::Key;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "cagrad",
    summary: "the update near the mean gradient that helps the worst-off loss most",
    paper: "Liu, Liu, Jin, Stone, Liu, Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021",
    own_keys: &[
        Key {
            name: "c",
            default: "0.5",
            doc: "how far from the mean gradient, as a share of its length; 0: the mean",
        },
        Key {
            name: "rescale",
            default: "\"none\"",
            doc: "none as the paper, square: by 1/(1 + c²), linear: by 1/(1 + c)",
        },
    ],
    parse: |table| Ok(Box::new(keys::<CaGradConfig>(table)?)),
};

/// Most losses: every set of them is tried.
const MOST: usize = 12;

/// A pivot below this share of its diagonal means dependent gradients: what is left of it is rounding.
const DEPENDENT: f64 = 1e-12;

/// `w'Kw` below this share of K's trace is taken as 0: the direction of `g_w` would be rounding.
const STATIONARY: f64 = 1e-12;

/// What divides the update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rescale {
    /// 1, as the paper.
    #[default]
    None,
    /// 1 + c²
    Square,
    /// 1 + c
    Linear,
}

/// The keys of cagrad.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaGradConfig {
    /// Distance from the mean gradient, as a share of its length.
    pub c: f64,
    /// What divides the update.
    pub rescale: Rescale,
}

impl Default for CaGradConfig {
    fn default() -> Self {
        CaGradConfig { c: 0.5, rescale: Rescale::None }
    }
}

impl Settings for CaGradConfig {
    fn resolved(&self) -> toml::Table {
        written(self)
    }

    fn check(&self) -> Result<()> {
        not_negative("c", self.c)
    }

    fn method(&self, losses: &[Likelihood], _seed: u64) -> Result<Box<dyn Method>> {
        Ok(Box::new(CaGrad::new(self, losses.len())?))
    }
}

/// CAGrad over T losses.
#[derive(Clone, Debug)]
pub struct CaGrad {
    c: f64,
    divisor: f64,
    /// `[T, T]`: K divided by its trace.
    gram: Vec<f64>,
    /// `[T]`: b.
    mean_products: Vec<f64>,
    /// `[T]`: w.
    simplex: Vec<f64>,
    /// `[T]`: the w of one set.
    candidate: Vec<f64>,
    hull: Hull,
}

impl CaGrad {
    /// Over `losses` losses (at least 1).
    ///
    /// # Errors
    /// [`manygate_core::Error::Config`] when there are more than 12.
    pub fn new(config: &CaGradConfig, losses: usize) -> Result<CaGrad> {
        if losses > MOST {
            let message =
                format!("cagrad tries every set of losses, at most {MOST} of them; name fewer than {losses}");
            return Err(wrong("losses", message));
        }
        let c = config.c;
        Ok(CaGrad {
            c,
            divisor: match config.rescale {
                Rescale::None => 1.0,
                Rescale::Square => 1.0 + c * c,
                Rescale::Linear => 1.0 + c,
            },
            gram: vec![0.0; losses * losses],
            mean_products: vec![0.0; losses],
            simplex: vec![0.0; losses],
            candidate: vec![0.0; losses],
            hull: Hull::new(losses),
        })
    }

    /// `[T]`: the minimiser w over the simplex, of the last step.
    pub fn simplex(&self) -> &[f64] {
        &self.simplex
    }

    /// Scales `gram` and takes its products with the mean; the radius r, or nothing where d is the mean whatever w
    /// is.
    fn prepare(&mut self, gram: &[f64]) -> Option<f64> {
        let losses = self.simplex.len() as f64;
        let trace: f64 = gram.iter().step_by(self.simplex.len() + 1).sum();
        // All gradients 0, or one of them not finite.
        if !(trace > 0.0 && trace.is_finite()) {
            return None;
        }
        self.gram.iter_mut().zip(gram).for_each(|(scaled, k)| *scaled = k / trace);
        for (b, row) in self.mean_products.iter_mut().zip(self.gram.chunks_exact(self.simplex.len())) {
            *b = row.iter().sum::<f64>() / losses;
        }
        let radius = self.c * (self.mean_products.iter().sum::<f64>() / losses).max(0.0).sqrt();
        (radius > 0.0).then_some(radius)
    }

    /// Sets w to the minimiser of F.
    fn minimise(&mut self, radius: f64) {
        let losses = self.simplex.len();
        let lost = (0..losses).filter(|t| self.gram[t * losses + t] == 0.0).fold(0, |mask, t| mask | 1 << t);
        let mut lowest = f64::INFINITY;
        for set in (1..1u32 << losses).filter(|set| set & lost == 0) {
            if !self.hull.minimise(set, &self.gram, &self.mean_products, radius, &mut self.candidate) {
                continue;
            }
            let length = quadratic(&self.gram, &self.candidate).sqrt();
            let value = dot(&self.mean_products, &self.candidate) + radius * length;
            if value < lowest {
                lowest = value;
                self.simplex.copy_from_slice(&self.candidate);
            }
        }
    }
}

impl Method for CaGrad {
    fn access(&self) -> Access {
        Access::Gradients
    }

    fn weighs_own(&self) -> bool {
        false
    }

    fn weigh(&mut self, seen: &Seen<'_>, weights: &mut [f64]) {
        let losses = self.simplex.len();
        assert_eq!((seen.gram.len(), weights.len()), (losses * losses, losses), "gram and weights");
        let mean = 1.0 / losses as f64;
        self.simplex.fill(mean);
        weights.fill(mean / self.divisor);
        let Some(radius) = self.prepare(seen.gram) else { return };
        self.minimise(radius);
        let square = quadratic(&self.gram, &self.simplex);
        if square > STATIONARY {
            let step = radius / square.sqrt();
            for (weight, w) in weights.iter_mut().zip(&self.simplex) {
                *weight = (mean + step * w) / self.divisor;
            }
        }
    }

    /// Nothing.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    fn restore(&mut self, state: &[f64]) -> Result<()> {
        check_state(ENTRY.name, state, 0)
    }
}

/// Finds the minimum of F inside the hull of a set of gradients.
#[derive(Clone, Debug)]
struct Hull {
    /// The set: first the loss with the shortest gradient, from which the differences are taken.
    members: Vec<usize>,
    /// Cholesky factor of the differences' Gram matrix, `[n − 1, n − 1]`, lower.
    factor: Vec<f64>,
    /// w_0 without its first member.
    shortest: Vec<f64>,
    /// y without its first member.
    slope: Vec<f64>,
}

impl Hull {
    fn new(losses: usize) -> Hull {
        Hull {
            members: Vec::with_capacity(losses),
            factor: vec![0.0; losses * losses],
            shortest: vec![0.0; losses],
            slope: vec![0.0; losses],
        }
    }

    /// Writes the minimiser over `set` into `weights`; false when it is not inside, or another set has it too.
    fn minimise(
        &mut self,
        set: u32,
        gram: &[f64],
        products: &[f64],
        radius: f64,
        weights: &mut [f64],
    ) -> bool {
        let losses = products.len();
        let k = |a: usize, b: usize| gram[a * losses + b];
        self.members.clear();
        self.members.extend((0..losses).filter(|t| set >> t & 1 == 1));
        // Differences from a long gradient would lose the digits of short ones.
        let shortest = (0..self.members.len()).min_by(|&i, &j| {
            k(self.members[i], self.members[i]).total_cmp(&k(self.members[j], self.members[j]))
        });
        self.members.swap(0, shortest.unwrap_or(0));
        let (first, rest) = (self.members[0], self.members.len() - 1);
        if !self.factorise(&k) {
            return false;
        }
        for i in 0..rest {
            let member = self.members[i + 1];
            self.shortest[i] = k(first, first) - k(member, first);
            self.slope[i] = products[member] - products[first];
        }
        solve(&self.factor, &mut self.shortest[..rest]);
        solve(&self.factor, &mut self.slope[..rest]);
        self.spread(&self.slope[..rest], 0.0, weights);
        let room = radius * radius - quadratic(gram, weights);
        self.spread(&self.shortest[..rest], 1.0, weights);
        if rest > 0 {
            // A NaN, from gradients that are all but dependent, is no room either.
            if room.is_nan() || room <= 0.0 {
                return false;
            }
            let by = (quadratic(gram, weights) / room).sqrt();
            self.shortest.iter_mut().zip(&self.slope).take(rest).for_each(|(w, y)| *w -= by * y);
            self.spread(&self.shortest[..rest], 1.0, weights);
        }
        weights.iter().all(|&w| w >= 0.0)
    }

    /// Weights of all losses that sum to `sum`, from those of all members but the first.
    fn spread(&self, rest: &[f64], sum: f64, weights: &mut [f64]) {
        weights.fill(0.0);
        weights[self.members[0]] = sum - rest.iter().sum::<f64>();
        for (member, w) in self.members[1..].iter().zip(rest) {
            weights[*member] = *w;
        }
    }

    /// Factorises the Gram matrix of the differences; false when they are dependent.
    fn factorise(&mut self, k: &impl Fn(usize, usize) -> f64) -> bool {
        let (first, rest) = (self.members[0], self.members.len() - 1);
        for i in 0..rest {
            for j in 0..=i {
                let (a, b) = (self.members[i + 1], self.members[j + 1]);
                let product = k(a, b) - k(a, first) - k(first, b) + k(first, first);
                let (row, other) =
                    (&self.factor[i * rest..i * rest + j], &self.factor[j * rest..j * rest + j]);
                let left = product - dot(row, other);
                self.factor[i * rest + j] = if i > j {
                    left / self.factor[j * rest + j]
                } else if left > DEPENDENT * (k(a, a) + k(first, first)) {
                    left.sqrt()
                } else {
                    return false;
                };
            }
        }
        true
    }
}

/// Solves `L L'x = x`, L lower triangular `[n, n]` for n values.
fn solve(factor: &[f64], x: &mut [f64]) {
    let n = x.len();
    for i in 0..n {
        let known = dot(&factor[i * n..i * n + i], &x[..i]);
        x[i] = (x[i] - known) / factor[i * n + i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| factor[j * n + i] * x[j]).sum();
        x[i] = (x[i] - known) / factor[i * n + i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::{combine, gram};
    use proptest::prelude::*;

    fn cagrad(c: f64, rescale: Rescale, gradients: &[Vec<f64>]) -> (CaGrad, Vec<f64>) {
        let mut method = CaGrad::new(&CaGradConfig { c, rescale }, gradients.len()).unwrap();
        let mut weights = vec![0.0; gradients.len()];
        method.weigh(&Seen { step: 1, gram: &gram(gradients), ..Seen::default() }, &mut weights);
        (method, weights)
    }

    /// F on gradients, not on their Gram matrix.
    fn objective(c: f64, gradients: &[Vec<f64>], w: &[f64]) -> f64 {
        let mean = combine(gradients, &vec![1.0 / gradients.len() as f64; gradients.len()]);
        let g_w = combine(gradients, w);
        dot(&mean, &g_w) + c * (dot(&mean, &mean) * dot(&g_w, &g_w)).sqrt()
    }

    #[test]
    fn without_room_it_is_the_mean() {
        let gradients = [vec![1.0, 0.3], vec![-0.2, 2.0], vec![0.5, -1.0]];
        for rescale in [Rescale::None, Rescale::Square, Rescale::Linear] {
            assert_eq!(cagrad(0.0, rescale, &gradients).1, [1.0 / 3.0; 3]);
        }
    }

    #[test]
    fn one_loss_goes_further_along_its_gradient() {
        let weight = |rescale| cagrad(0.5, rescale, &[vec![3.0, -4.0]]).1[0];
        assert!((weight(Rescale::None) - 1.5).abs() < 1e-12);
        assert!((weight(Rescale::Square) - 1.2).abs() < 1e-12);
        assert!((weight(Rescale::Linear) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn where_nothing_helps_all_it_is_the_mean() {
        let opposite = [vec![1.0, -2.0], vec![-3.0, 6.0]];
        assert_eq!(cagrad(2.0, Rescale::None, &opposite).1, [0.5; 2]);
        assert_eq!(cagrad(0.5, Rescale::None, &[vec![0.0; 2], vec![0.0; 2]]).1, [0.5; 2]);
        assert_eq!(cagrad(0.5, Rescale::None, &[vec![f64::NAN], vec![1.0]]).1, [0.5; 2]);
    }

    #[test]
    fn equal_and_zero_gradients_are_no_obstacle() {
        let (a, b) = (vec![1.0, 0.2, 0.0], vec![-0.3, 0.8, 0.1]);
        let d = |gradients: &[Vec<f64>]| combine(gradients, &cagrad(0.5, Rescale::None, gradients).1);
        let twice = d(&[a.clone(), b.clone(), a.clone(), b.clone()]);
        let once = d(&[a.clone(), b.clone()]);
        let beside_zero = d(&[a, vec![0.0; 3], b]);
        for i in 0..3 {
            assert!((twice[i] - once[i]).abs() < 1e-9);
            assert!((beside_zero[i] - once[i] * 2.0 / 3.0).abs() < 1e-9, "the mean is over all three");
        }
    }

    fn some_gradients() -> impl Strategy<Value = Vec<Vec<f64>>> {
        // Fewer parameters than losses make dependent gradients; scales make some far shorter than others.
        let gradient = |size| (prop::collection::vec(-1.0..1.0, size), -4..1);
        (1usize..6, 1usize..7).prop_flat_map(move |(losses, size)| {
            let scaled =
                gradient(size).prop_map(|(g, e)| g.iter().map(|x: &f64| x * 10f64.powi(e)).collect());
            prop::collection::vec(scaled, losses)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_point_of_the_simplex_is_lower(
            gradients in some_gradients(),
            c in 0.01..1.5,
            points in prop::collection::vec(prop::collection::vec(0.0..1.0f64, 6), 50),
        ) {
            let (method, _) = cagrad(c, Rescale::None, &gradients);
            let w = method.simplex();
            prop_assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-9 && w.iter().all(|&w| w >= 0.0));
            let ours = objective(c, &gradients, w);
            let longest = gradients.iter().map(|g| dot(g, g)).fold(0.0, f64::max);
            for point in points {
                // Cubed, they come close to the edges too, and half way to ours they come close to it.
                let cubes: Vec<f64> = point[..w.len()].iter().map(|x| x * x * x + 1e-9).collect();
                let sum: f64 = cubes.iter().sum();
                for near in [0.0, 0.5, 0.99] {
                    let mixed = cubes.iter().zip(w).map(|(x, w)| near * w + (1.0 - near) * x / sum);
                    let other: Vec<f64> = mixed.collect();
                    prop_assert!(ours <= objective(c, &gradients, &other) + 1e-9 * longest);
                }
            }
        }

        /// The primal problem: d stays in its ball, and its worst loss gains as much as the dual says.
        #[test]
        fn the_update_is_what_the_dual_promises(gradients in some_gradients(), c in 0.01..0.99) {
            let (method, weights) = cagrad(c, Rescale::None, &gradients);
            let d = combine(&gradients, &weights);
            let mean = combine(&gradients, &vec![1.0 / gradients.len() as f64; gradients.len()]);
            let off: Vec<f64> = d.iter().zip(&mean).map(|(d, m)| d - m).collect();
            let (distance, radius) = (dot(&off, &off).sqrt(), c * dot(&mean, &mean).sqrt());
            prop_assert!(distance <= radius * (1.0 + 1e-6));
            let g_w = combine(&gradients, method.simplex());
            let longest = gradients.iter().map(|g| dot(g, g)).fold(0.0, f64::max);
            if dot(&g_w, &g_w) > 1e-6 * longest {
                let worst = gradients.iter().map(|g| dot(g, &d)).fold(f64::INFINITY, f64::min);
                prop_assert!((worst - objective(c, &gradients, method.simplex())).abs() < 1e-6 * longest);
            }
        }
    }
}
