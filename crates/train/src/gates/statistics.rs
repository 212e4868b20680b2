//! Sums over rows: means of a gate's weights by slice, and second moments of experts' outputs.

use super::Duplicate;
use manygate_core::Result;
use manygate_graph::{GateView, GateWeights, Plan, Workspace};
use manygate_kernels::Mat;

/// Mean weights by slice: slice 0 is of all rows, slice s + 1 of scenario s.
pub(super) struct Means {
    slices: usize,
    /// `[of][slice]`: sum, rows.
    sums: Vec<(f64, u64)>,
}

impl Means {
    pub(super) fn new(of: usize, slices: usize) -> Means {
        Means { slices, sums: vec![(0.0, 0); of * slices] }
    }

    /// Adds the rows of the last run, whose scenarios these are.
    pub(super) fn add(
        &mut self,
        plan: &Plan,
        ws: &Workspace,
        view: &GateView,
        scenario: &[u32],
    ) -> Result<()> {
        let of = view.of.len();
        let mut weights = vec![0.0; of];
        let mut add_row = |row: usize, weights: &[f64]| {
            let own = scenario.get(row).map(|&s| s as usize + 1);
            for (i, &weight) in weights.iter().enumerate() {
                for slice in [Some(0), own].into_iter().flatten() {
                    let (sum, rows) = &mut self.sums[i * self.slices + slice];
                    (*sum, *rows) = (*sum + weight, *rows + 1);
                }
            }
        };
        match view.weights {
            GateWeights::Softmax { top_k, .. } => {
                let logits = plan.output(ws, &view.output("logits"))?;
                for r in 0..logits.rows() {
                    shares(logits.row(r), top_k, &mut weights);
                    add_row(r, &weights);
                }
            }
            GateWeights::Factors { amplitude, ref widths, .. } => {
                let arguments = plan.output(ws, &view.output("arguments"))?;
                for r in 0..arguments.rows() {
                    let mut rest = arguments.row(r);
                    for (weight, &width) in weights.iter_mut().zip(widths) {
                        let (own, others) = rest.split_at(width);
                        rest = others;
                        let sum: f64 = own.iter().map(|&v| amplitude.of(f64::from(v))).sum();
                        *weight = sum / width.max(1) as f64;
                    }
                    add_row(r, &weights);
                }
            }
            GateWeights::Gain { .. } => {
                let [before, after] =
                    [plan.output(ws, &view.output("before"))?, plan.output(ws, &view.output("after"))?];
                for r in 0..before.rows() {
                    for (i, weight) in weights.iter_mut().enumerate() {
                        *weight = norm(part(after, r, i, of)) / norm(part(before, r, i, of)).max(1e-30);
                    }
                    add_row(r, &weights);
                }
            }
        }
        Ok(())
    }

    /// `[of][slice]`.
    pub(super) fn of_each(&self) -> Vec<Vec<Option<f64>>> {
        let mean = |&(sum, rows): &(f64, u64)| (rows > 0).then(|| sum / rows as f64);
        self.sums.chunks(self.slices).map(|slices| slices.iter().map(mean).collect()).collect()
    }
}

/// Softmax over the `top_k` largest logits, of equal ones the first; 0 for all.
fn shares(logits: &[f32], top_k: usize, weights: &mut [f64]) {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    for (e, weight) in weights.iter_mut().enumerate() {
        let before =
            |&(other, logit): &(usize, &f32)| *logit > logits[e] || (*logit == logits[e] && other < e);
        let chosen = top_k == 0 || logits.iter().enumerate().filter(before).count() < top_k;
        *weight = if chosen { (f64::from(logits[e]) - largest).exp() } else { 0.0 };
    }
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
}

/// Part `i` of `parts` equal ones of a row.
fn part(values: Mat<'_>, row: usize, i: usize, parts: usize) -> &[f32] {
    let width = values.cols() / parts;
    &values.row(row)[i * width..(i + 1) * width]
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

/// The outputs of the experts that a gate sees, summed up. Gates that see the same experts share one.
pub(super) struct Bank {
    /// Names of the experts.
    names: Vec<String>,
    /// Name of the gate whose bank is read.
    gate: String,
    rows: u64,
    /// By expert and unit: `[experts][width]`.
    sums: Vec<Vec<f64>>,
    /// Sums over units of products, `[experts][experts]`.
    products: Vec<f64>,
}

impl Bank {
    /// Adds the rows of the last run to the bank of what `view` sees, once for all gates that see the same.
    pub(super) fn add(banks: &mut Vec<Bank>, plan: &Plan, ws: &Workspace, view: &GateView) -> Result<()> {
        let GateWeights::Softmax { experts, ref sees, .. } = view.weights else { return Ok(()) };
        let values = plan.output(ws, &view.output("bank"))?;
        let found = banks.iter().position(|bank| bank.names == view.of);
        let bank = match found {
            Some(at) if banks[at].gate != view.name => return Ok(()),
            Some(at) => &mut banks[at],
            None => {
                let (seen, width) = (sees.len(), values.cols() / experts);
                banks.push(Bank {
                    names: view.of.clone(),
                    gate: view.name.clone(),
                    rows: 0,
                    sums: vec![vec![0.0; width]; seen],
                    products: vec![0.0; seen * seen],
                });
                let last = banks.len() - 1;
                &mut banks[last]
            }
        };
        bank.rows += values.rows() as u64;
        for r in 0..values.rows() {
            for (i, &e) in sees.iter().enumerate() {
                let own = part(values, r, e, experts);
                bank.sums[i].iter_mut().zip(own).for_each(|(sum, &v)| *sum += f64::from(v));
                for (j, &other) in sees.iter().enumerate().take(i + 1) {
                    let other = part(values, r, other, experts);
                    let dot: f64 = own.iter().zip(other).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                    bank.products[i * sees.len() + j] += dot;
                }
            }
        }
        Ok(())
    }

    /// Sum over units of the covariance over rows of two experts, `i` not before `j`.
    fn covariance(&self, i: usize, j: usize) -> f64 {
        let rows = self.rows.max(1) as f64;
        let means: f64 = self.sums[i].iter().zip(&self.sums[j]).map(|(a, b)| a / rows * (b / rows)).sum();
        let product = self.products[i * self.names.len() + j] / rows;
        let covariance = product - means;
        // What rounding leaves of equal numbers is no variation.
        if covariance.abs() <= 1e-12 * product.abs() { 0.0 } else { covariance }
    }

    /// Root mean square over units of the standard deviation over rows of an expert's output.
    pub(super) fn deviation(&self, name: &str) -> Option<f64> {
        let i = self.names.iter().position(|n| n == name)?;
        Some((self.covariance(i, i).max(0.0) / self.sums[i].len().max(1) as f64).sqrt())
    }

    /// Pairs whose outputs correlate at least `least`.
    pub(super) fn duplicates(&self, least: f64) -> Vec<Duplicate> {
        let mut found = Vec::new();
        for i in 0..self.names.len() {
            for j in 0..i {
                let variances = self.covariance(i, i) * self.covariance(j, j);
                let correlation = self.covariance(i, j) / variances.sqrt();
                if variances > 0.0 && correlation >= least {
                    let experts = [self.names[j].clone(), self.names[i].clone()];
                    found.push(Duplicate { experts, correlation });
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_largest_logits() {
        let of = |logits: &[f32], top_k| {
            let mut weights = vec![0.0; logits.len()];
            shares(logits, top_k, &mut weights);
            weights
        };
        assert_eq!(of(&[2.0, 2.0], 0), [0.5, 0.5]);
        assert_eq!(of(&[2.0, 2.0, 1.0], 1), [1.0, 0.0, 0.0]);
        let two = of(&[0.0, 3f32.ln(), -100.0], 2);
        assert!((two[0] - 0.25).abs() < 1e-7 && (two[1] - 0.75).abs() < 1e-7 && two[2] == 0.0, "{two:?}");
    }

    #[test]
    fn experts_that_do_the_same_or_nothing_are_found() {
        // Three experts of one unit over three rows: x, 2 x + 1, and a constant.
        let bank = Bank {
            names: ["a", "b", "c"].map(str::to_owned).to_vec(),
            gate: "gate".into(),
            rows: 3,
            sums: vec![vec![6.0], vec![15.0], vec![3.0]],
            products: vec![14.0, 0.0, 0.0, 34.0, 83.0, 0.0, 6.0, 15.0, 3.0],
        };
        let duplicates = bank.duplicates(0.99);
        assert_eq!(duplicates.len(), 1);
        assert_eq!(duplicates[0].experts, ["a", "b"]);
        assert!((duplicates[0].correlation - 1.0).abs() < 1e-12);
        assert_eq!(bank.deviation("c"), Some(0.0));
        assert!((bank.deviation("a").unwrap() - (2f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
