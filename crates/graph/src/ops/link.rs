//! What the number z that a network ends in says of a label, by the label's kind: the mean μ(z), the loss, and how far
//! the mean of one network is from that of another. From z itself, never from a rounded mean.
//!
//! | link | μ | loss ℓ(z, y) | divergence of z from a teacher z' |
//! |---|---|---|---|
//! | probability | σ(z) | cross-entropy | that of two coins |
//! | rate | e^z | e^z − y z | that of two Poisson laws |
//! | value | z | (z − y)² | (z' − z)² |

use super::bce_of_product::log_sigmoid;
use manygate_cuda::loss as cuda;

/// How z gives the mean of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Of a binary label.
    Probability,
    /// Of a count.
    Rate,
    /// Of any number.
    Value,
}

impl Link {
    /// The same for kernels.
    pub(super) fn on_device(self) -> cuda::Link {
        match self {
            Link::Probability => cuda::Link::Probability,
            Link::Rate => cuda::Link::Rate,
            Link::Value => cuda::Link::Value,
        }
    }

    /// μ(z).
    pub(super) fn mean(self, z: f64) -> f64 {
        match self {
            Link::Probability => log_sigmoid(z).exp(),
            Link::Rate => z.exp(),
            Link::Value => z,
        }
    }

    /// μ'(z).
    pub(super) fn slope(self, z: f64) -> f64 {
        match self {
            Link::Probability => (log_sigmoid(z) + log_sigmoid(-z)).exp(),
            Link::Rate => z.exp(),
            Link::Value => 1.0,
        }
    }

    /// ℓ(z, y).
    pub(super) fn loss(self, z: f64, y: f64) -> f64 {
        match self {
            Link::Probability => -y * log_sigmoid(z) - (1.0 - y) * log_sigmoid(-z),
            Link::Rate => z.exp() - y * z,
            Link::Value => (z - y) * (z - y),
        }
    }

    /// dℓ/dz.
    pub(super) fn loss_slope(self, z: f64, y: f64) -> f64 {
        self.factor() * (self.mean(z) - y)
    }

    /// How far the mean of `z` is from that of `teacher`.
    pub(super) fn divergence(self, teacher: f64, z: f64) -> f64 {
        match self {
            Link::Probability => {
                let side = |sign: f64| {
                    let log = log_sigmoid(sign * teacher);
                    log.exp() * (log - log_sigmoid(sign * z))
                };
                side(1.0) + side(-1.0)
            }
            Link::Rate => teacher.exp() * (teacher - z - 1.0) + z.exp(),
            Link::Value => (teacher - z) * (teacher - z),
        }
    }

    /// Its slopes at `teacher` and at `z`.
    pub(super) fn divergence_slopes(self, teacher: f64, z: f64) -> [f64; 2] {
        let at_teacher = self.slope(teacher) * (teacher - z);
        [at_teacher, self.mean(z) - self.mean(teacher)].map(|slope| self.factor() * slope)
    }

    /// A square is twice what the other two are, whose slope is a plain difference.
    fn factor(self) -> f64 {
        if self == Link::Value { 2.0 } else { 1.0 }
    }
}

/// ln Σ e^x.
pub(super) fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    largest + terms.map(|x| (x - largest).exp()).sum::<f64>().ln()
}
