//! What kernels should find, in f64, and how far they are from it.

/// The largest error so far, as a share of the largest value that was expected.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Error {
    difference: f64,
    largest: f64,
}

impl Error {
    /// Takes in a value that was found where `expected` should be.
    pub(super) fn add(&mut self, found: impl Into<f64>, expected: f64) {
        let difference = (found.into() - expected).abs();
        // `max` would pass over what is not a number.
        self.difference = if difference.is_nan() { f64::INFINITY } else { self.difference.max(difference) };
        self.largest = self.largest.max(expected.abs());
    }

    /// Takes in values side by side.
    pub(super) fn add_all(&mut self, found: &[f64], expected: &[f64]) {
        debug_assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(&found, &expected)| self.add(found, expected));
    }

    /// The error; infinite where something is not a number.
    pub(super) fn relative(self) -> f64 {
        if self.difference == 0.0 { 0.0 } else { self.difference / self.largest }
    }
}

/// `count` numbers below `below`, evenly spread from 0 to the last, as many as there are.
pub(super) fn sample(below: u32, count: u32) -> impl Iterator<Item = u32> + Clone {
    let (below, count) = (u64::from(below), u64::from(count.min(below)));
    (0..count).map(move |i| (i * (below - 1) / (count - 1).max(1)) as u32)
}

/// The sum of products of two rows.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A gate over a row: the softmax of each gate's logits, and the experts mixed by it. `experts` are as many as logits a
/// gate has.
pub(super) fn gate(gates: usize, logits: &[f64], experts: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let count = logits.len() / gates;
    let width = experts.len() / count;
    let (mut weights, mut mixed) = (Vec::new(), Vec::new());
    for logits in logits.chunks(count) {
        let most = logits.iter().copied().fold(f64::MIN, f64::max);
        let powers: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        let own: Vec<f64> = powers.iter().map(|power| power / sum).collect();
        mixed.extend((0..width).map(|h| (0..count).map(|e| own[e] * experts[e * width + h]).sum::<f64>()));
        weights.extend(own);
    }
    (weights, mixed)
}

/// The gradients of [`gate`] at a row's logits and experts.
pub(super) fn gate_dx(
    gates: usize,
    weights: &[f64],
    experts: &[f64],
    d_mixed: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let count = weights.len() / gates;
    let width = experts.len() / count;
    let (mut d_logits, mut d_experts) = (Vec::new(), vec![0.0; experts.len()]);
    for (weights, d_mixed) in weights.chunks(count).zip(d_mixed.chunks(width)) {
        let at_weights: Vec<f64> = experts.chunks(width).map(|expert| dot(d_mixed, expert)).collect();
        let mean = dot(weights, &at_weights);
        d_logits.extend(weights.iter().zip(&at_weights).map(|(weight, d)| weight * (d - mean)));
        for (weight, d_expert) in weights.iter().zip(d_experts.chunks_mut(width)) {
            d_expert.iter_mut().zip(d_mixed).for_each(|(to, d)| *to += weight * d);
        }
    }
    (d_logits, d_experts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_share_of_the_largest_value() {
        let mut error = Error::default();
        error.add_all(&[1.0, -4.1], &[1.0, -4.0]);
        assert!((error.relative() - 0.025).abs() < 1e-12);
        error.add(f32::NAN, 1.0);
        assert_eq!(error.relative(), f64::INFINITY);
        assert_eq!(Error::default().relative(), 0.0);
    }

    #[test]
    fn a_sample_has_the_first_and_the_last() {
        assert_eq!(sample(10, 4).collect::<Vec<_>>(), [0, 3, 6, 9]);
        assert_eq!(sample(2, 4).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(sample(1, 4).collect::<Vec<_>>(), [0]);
        assert_eq!(sample(0, 4).count(), 0);
    }

    #[test]
    fn gradients_of_a_gate_are_its_differences() {
        let (logits, experts) = (vec![0.3, -0.2, 0.9, 0.1], vec![0.5, -1.0, 0.25, 2.0]);
        let d_mixed = [0.7, -0.4, 1.1, 0.2];
        let loss = |logits: &[f64], experts: &[f64]| dot(&gate(2, logits, experts).1, &d_mixed);
        let (d_logits, d_experts) = gate_dx(2, &gate(2, &logits, &experts).0, &experts, &d_mixed);
        let moved = |values: &[f64], i: usize, by: f64| {
            let mut values = values.to_vec();
            values[i] += by;
            values
        };
        for i in 0..4 {
            let slope = |by: f64| loss(&moved(&logits, i, by), &experts);
            assert!(((slope(1e-6) - slope(-1e-6)) / 2e-6 - d_logits[i]).abs() < 1e-8);
            let slope = |by: f64| loss(&logits, &moved(&experts, i, by));
            assert!(((slope(1e-6) - slope(-1e-6)) / 2e-6 - d_experts[i]).abs() < 1e-8);
        }
    }
}
