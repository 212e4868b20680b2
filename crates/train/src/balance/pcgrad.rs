//! Gradients that point against each other lose what conflicts: each is projected onto the normal planes of the
//! others.
//!
//! T. Yu, S. Kumar, A. Gupta, S. Levine, K. Hausman, C. Finn, *Gradient Surgery for Multi-Task Learning*, NeurIPS
//! 2020.
//!
//! ```text
//! for each a:  v_a = g_a
//!              for b ≠ a in random order: if <v_a, g_b> < 0: v_a ← v_a − <v_a, g_b> / |g_b|² g_b
//! d = Σ_a v_a, or their mean
//! ```
//!
//! `v_a = Σ_b C[a, b] g_b`, so that `<v_a, g_b> = (C K)[a, b]`: T² numbers instead of gradients, and the weights are
//! the sums of the columns of C. Parameters of one task take their own loss's plain gradient. The order is a pure
//! function of seed and step, another for each a.
//!
//! Public code leaves a itself in the loop, harmless until `v_a` turns against `g_a`; and some takes the mean, some the
//! sum. Easy to get wrong: projecting onto the others' projected gradients instead of the original ones, or in a fixed
//! order, which favours the losses that come last.

use super::registry::{keys, written};
use super::uncertainty::Likelihood;
use super::{Access, Entry, Method, Seen, Settings, check_state, dot};
use manygate_core::{Result, Stream};
use manygate_graph::param::name_hash;
use manygate_models::config::Key;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "pcgrad",
    summary: "each gradient loses what points against the others, in random order",
    paper: "Yu, Kumar, Gupta, Levine, Hausman, Finn, Gradient Surgery for Multi-Task Learning, NeurIPS 2020",
    own_keys: &[Key { name: "reduction", default: "\"sum\"", doc: "sum or mean of the projected gradients" }],
    parse: |table| Ok(Box::new(keys::<PcGradConfig>(table)?)),
};

/// How projected gradients become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their sum, as the authors.
    #[default]
    Sum,
    /// Their mean.
    Mean,
}

/// The keys of pcgrad.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PcGradConfig {
    /// How projected gradients become one.
    pub reduction: Reduction,
}

impl Settings for PcGradConfig {
    fn resolved(&self) -> toml::Table {
        written(self)
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn method(&self, losses: &[Likelihood], seed: u64) -> Result<Box<dyn Method>> {
        Ok(Box::new(PcGrad::new(self, losses.len(), seed)))
    }
}

/// PCGrad over T losses.
#[derive(Clone, Debug)]
pub struct PcGrad {
    reduction: Reduction,
    losses: usize,
    seed: u64,
    purpose: u64,
    /// `[T, T − 1]`: for each a, the others.
    order: Vec<usize>,
    /// `[T, T]`: C.
    coefficients: Vec<f64>,
}

impl PcGrad {
    /// Over `losses` losses (at least 1), its orders keyed by `seed`.
    pub fn new(config: &PcGradConfig, losses: usize, seed: u64) -> PcGrad {
        PcGrad {
            reduction: config.reduction,
            losses,
            seed,
            purpose: name_hash("balance.pcgrad"),
            order: vec![0; losses * losses.saturating_sub(1)],
            coefficients: vec![0.0; losses * losses],
        }
    }

    /// Writes the weights `[T]` that `gram` `[T, T]` gives when row a of `order` `[T, T − 1]` is the order of its
    /// others.
    ///
    /// # Panics
    /// When a shape is another, or `order` names a loss that does not exist.
    pub fn weigh_in_order(&mut self, gram: &[f64], order: &[usize], weights: &mut [f64]) {
        self.order.copy_from_slice(order);
        self.project(gram, weights);
    }

    /// `[T, T]`, row-major: `v_a = Σ_b C[a, b] g_b` of the last step.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The orders of a step.
    fn shuffle(&mut self, step: u64) {
        let others = self.losses.saturating_sub(1);
        for (a, order) in self.order.chunks_exact_mut(others.max(1)).enumerate() {
            for (i, b) in order.iter_mut().enumerate() {
                *b = if i < a { i } else { i + 1 };
            }
            Stream::new(self.seed, step, self.purpose.wrapping_add(a as u64)).shuffle(order);
        }
    }

    fn project(&mut self, gram: &[f64], weights: &mut [f64]) {
        let losses = self.losses;
        assert_eq!((gram.len(), weights.len()), (losses * losses, losses), "gram and weights");
        let others = losses.saturating_sub(1);
        self.coefficients.fill(0.0);
        for (a, row) in self.coefficients.chunks_exact_mut(losses).enumerate() {
            row[a] = 1.0;
            for &b in &self.order[a * others..(a + 1) * others] {
                // K is symmetric: row b holds the products with g_b.
                let (along, square) = (dot(&gram[b * losses..(b + 1) * losses], row), gram[b * losses + b]);
                if along < 0.0 && square > 0.0 {
                    row[b] -= along / square;
                }
            }
        }
        let divisor = if self.reduction == Reduction::Mean { losses as f64 } else { 1.0 };
        for (b, weight) in weights.iter_mut().enumerate() {
            *weight = self.coefficients.iter().skip(b).step_by(losses).sum::<f64>() / divisor;
        }
    }
}

impl Method for PcGrad {
    fn access(&self) -> Access {
        Access::Gradients
    }

    fn weighs_own(&self) -> bool {
        false
    }

    fn weigh(&mut self, seen: &Seen<'_>, weights: &mut [f64]) {
        self.shuffle(seen.step);
        self.project(seen.gram, weights);
    }

    /// Nothing.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    fn restore(&mut self, state: &[f64]) -> Result<()> {
        check_state(ENTRY.name, state, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::{combine, gram};
    use proptest::prelude::*;

    fn weights(config: &PcGradConfig, gradients: &[Vec<f64>], step: u64) -> Vec<f64> {
        let mut weights = vec![0.0; gradients.len()];
        let mut method = PcGrad::new(config, gradients.len(), 7);
        method.weigh(&Seen { step, gram: &gram(gradients), ..Seen::default() }, &mut weights);
        weights
    }

    #[test]
    fn without_a_conflict_it_is_the_sum_or_the_mean() {
        let gradients = [vec![1.0, 0.0, 0.5], vec![0.0, 2.0, 0.0], vec![3.0, 1.0, 0.0]];
        assert_eq!(weights(&PcGradConfig::default(), &gradients, 1), [1.0; 3]);
        let mean = PcGradConfig { reduction: Reduction::Mean };
        assert_eq!(weights(&mean, &gradients, 1), [1.0 / 3.0; 3]);
    }

    #[test]
    fn opposite_gradients_cancel() {
        let gradients = [vec![1.0, -2.0], vec![-3.0, 6.0]];
        let d = combine(&gradients, &weights(&PcGradConfig::default(), &gradients, 1));
        assert!(d.iter().all(|x| x.abs() < 1e-12), "{d:?}");
    }

    #[test]
    fn a_zero_gradient_changes_nothing() {
        let gradients = [vec![1.0, 0.0], vec![0.0, 0.0], vec![-1.0, 1.0]];
        let all = weights(&PcGradConfig::default(), &gradients, 1);
        let two = weights(&PcGradConfig::default(), &[gradients[0].clone(), gradients[2].clone()], 1);
        assert_eq!([all[0], all[2]], two[..]);
    }

    #[test]
    fn orders_are_permutations_that_depend_on_seed_step_and_loss() {
        let orders = |seed, step| {
            let mut method = PcGrad::new(&PcGradConfig::default(), 9, seed);
            method.shuffle(step);
            method.order
        };
        let order = orders(1, 1);
        for (a, row) in order.chunks(8).enumerate() {
            let mut sorted = row.to_vec();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq((0..9).filter(|&b| b != a)));
        }
        assert_eq!(order, orders(1, 1));
        assert_ne!(order, orders(1, 2));
        assert_ne!(order, orders(2, 1));
        assert!(order.chunks(8).any(|row| !row.is_sorted()));
    }

    proptest! {
        /// Against the definition, on the gradients themselves.
        #[test]
        fn coefficients_are_the_projections(
            gradients in prop::collection::vec(prop::collection::vec(-1.0..1.0, 6), 1..5),
            step in 1u64..100,
        ) {
            let losses = gradients.len();
            let mut method = PcGrad::new(&PcGradConfig::default(), losses, 3);
            let mut weights = vec![0.0; losses];
            method.weigh(&Seen { step, gram: &gram(&gradients), ..Seen::default() }, &mut weights);
            let mut sum = vec![0.0; 6];
            for a in 0..losses {
                let mut v: Vec<f64> = gradients[a].clone();
                for &b in &method.order[a * (losses - 1)..(a + 1) * (losses - 1)] {
                    let along = dot(&v, &gradients[b]);
                    if along < 0.0 {
                        let by = along / dot(&gradients[b], &gradients[b]);
                        v.iter_mut().zip(&gradients[b]).for_each(|(v, g)| *v -= by * g);
                    }
                }
                sum.iter_mut().zip(&v).for_each(|(s, v)| *s += v);
            }
            for (ours, theirs) in combine(&gradients, &weights).iter().zip(&sum) {
                prop_assert!((ours - theirs).abs() < 1e-9);
            }
        }
    }
}
