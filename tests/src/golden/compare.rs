//! How far the engine may be from the reference.

use super::contents::Expected;
use super::engine::{Computed, Named};
use std::collections::BTreeMap;
use std::fmt;

/// An error as a share of what is allowed, and where it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Margin {
    /// |a − b| / allowed.
    pub share: f64,
    /// The tensor.
    pub tensor: String,
}

impl Margin {
    /// The larger of the two.
    pub fn max(self, other: Margin) -> Margin {
        if other.share > self.share { other } else { self }
    }
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} of what is allowed, in {}", self.share, self.tensor)
    }
}

/// Result of one variant.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// A line for each tensor that differs.
    pub(crate) mismatches: Vec<String>,
    pub(crate) worst: Margin,
}

/// The tolerance of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    /// 1, or 10 where a model normalises by the statistics of a batch: it divides by small deviations.
    factor: f64,
    /// Largest of all expected gradients.
    largest_gradient: f64,
}

impl Tolerance {
    pub(crate) fn new(expected: &BTreeMap<String, Expected>, normalises: bool) -> Tolerance {
        let gradients = expected.iter().filter(|(name, _)| is_gradient(name));
        Tolerance {
            factor: if normalises { 10.0 } else { 1.0 },
            largest_gradient: gradients.map(|(_, e)| largest(&e.values)).fold(0.0, f64::max),
        }
    }

    /// What value `b` of tensor `name`, whose largest is `largest`, may be off by.
    fn allowed(&self, name: &str, b: f64, largest: f64) -> f64 {
        self.factor
            * if name.starts_with("grad_of.") {
                // A part's gradient may be far below that of the total: it is judged by itself.
                1e-4 * largest + 1e-8
            } else if is_gradient(name) {
                1e-4 * b.abs() + 1e-6 * self.largest_gradient
            } else {
                1e-5 * largest + 1e-6
            }
    }

    /// Compares all of `expected` with what the engine computed, and its gradients with their sum over loss parts.
    pub(crate) fn compare(&self, expected: &BTreeMap<String, Expected>, computed: &Computed) -> Comparison {
        let mut result = Comparison::default();
        // Values before gradients: what is wrong in the forward pass explains the rest.
        let (gradients, values): (Vec<_>, Vec<_>) = expected.iter().partition(|(name, _)| is_gradient(name));
        for (name, theirs) in values {
            self.tensor(name, &theirs.shape, &wide(&theirs.values), computed.values.get(name), &mut result);
        }
        for (name, theirs) in gradients {
            let together = computed.values.get(name);
            self.tensor(name, &theirs.shape, &wide(&theirs.values), together, &mut result);
            let (label, one_by_one) =
                (format!("{name} (sum of one part at a time)"), computed.summed.get(name));
            let together = together.map_or(&[][..], Vec::as_slice);
            self.tensor(&label, &theirs.shape, together, one_by_one, &mut result);
        }
        self.nothing_more(expected, &computed.values, &mut result);
        result
    }

    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        theirs: &[f64],
        ours: Option<&Vec<f64>>,
        result: &mut Comparison,
    ) {
        let Some(ours) = ours.filter(|ours| ours.len() == theirs.len()) else {
            let (got, want) = (ours.map_or(0, Vec::len), theirs.len());
            result.mismatches.push(format!("{name}: {got} values were computed for {want}"));
            return;
        };
        let largest = theirs.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let (mut first, mut differ) = (None, 0);
        for (i, &a) in ours.iter().enumerate() {
            let b = theirs[i];
            let allowed = self.allowed(name, b, largest);
            let error = (a - b).abs();
            if error.is_nan() || error > allowed {
                differ += 1;
                first.get_or_insert((i, a, b, allowed));
            }
            if error / allowed > result.worst.share {
                result.worst = Margin { share: error / allowed, tensor: name.to_owned() };
            }
        }
        if let Some((i, a, b, allowed)) = first {
            let (at, of) = (index(i, shape), ours.len());
            result.mismatches.push(format!(
                "{name}{at}: ours {a:e}, theirs {b:e}, allowed {allowed:.1e} ({differ} of {of} values differ)"
            ));
        }
    }

    /// What the engine computed and nobody compared would be a hole in the harness.
    fn nothing_more(&self, expected: &BTreeMap<String, Expected>, values: &Named, result: &mut Comparison) {
        let more = values.keys().filter(|name| !expected.contains_key(*name));
        result.mismatches.extend(more.map(|name| format!("{name} was computed and not compared")));
    }
}

fn is_gradient(name: &str) -> bool {
    name.starts_with("grad.")
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |m: f64, &v| m.max(f64::from(v).abs()))
}

/// `[3, 7]` for a flat index.
fn index(flat: usize, shape: &[usize]) -> String {
    let mut rest = flat;
    let mut at: Vec<usize> = Vec::with_capacity(shape.len());
    for &size in shape.iter().skip(1).rev() {
        at.push(rest % size.max(1));
        rest /= size.max(1);
    }
    at.push(rest);
    at.reverse();
    format!("{at:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_the_tensors_axes() {
        assert_eq!(index(17, &[3, 7]), "[2, 3]");
        assert_eq!(index(5, &[3]), "[5]");
        assert_eq!(index(0, &[1]), "[0]");
    }

    #[test]
    fn gradients_are_judged_value_by_value_and_outputs_by_their_tensor() {
        let gradient = Expected { shape: vec![2], values: vec![-4.0, 1.0] };
        let expected = BTreeMap::from([("grad.w".to_owned(), gradient)]);
        let plain = Tolerance::new(&expected, false);
        assert_eq!(plain.allowed("grad.w", 1.0, 4.0), 1e-4 + 4e-6);
        assert_eq!(plain.allowed("out.click", 0.1, 0.5), 1e-5 * 0.5 + 1e-6);
        let normed = Tolerance::new(&expected, true);
        assert_eq!(normed.allowed("out.click", 0.1, 0.5), 10.0 * (1e-5 * 0.5 + 1e-6));
    }
}
