//! Losses that the CPU computes in f64, one row at a time: those of learners, counterfactual risks, penalties; and scores that
//! are fused.

use manygate_cuda::loss::{self, Event, Link, LossSum, Risk, Target};
use manygate_cuda::{DeviceMat, Launch};
use manygate_cuda_tests::{Gpu, Window, first_difference, values};
use proptest::prelude::*;

/// A gradient that a kernel may be asked for.
struct Gradient {
    window: Window,
    before: Vec<f32>,
    is_wanted: bool,
    accumulate: bool,
}

impl Gradient {
    fn new(window: Window, seed: u64, [is_wanted, accumulate]: [bool; 2]) -> Gradient {
        Gradient { window, before: window.values(seed, 1.0), is_wanted, accumulate }
    }

    /// All of it, and as a kernel is asked for it.
    fn upload(&self, gpu: &mut Gpu) -> (DeviceMat, Option<(DeviceMat, bool)>) {
        let mat = self.window.upload(gpu, &self.before);
        (mat, self.is_wanted.then_some((mat, self.accumulate)))
    }

    /// What is wrong with `found`, where `expected` is what was to be written or added, row by row.
    fn difference(&self, found: &[f32], expected: &[f64]) -> Option<String> {
        if !self.is_wanted {
            return first_difference(found, &self.before);
        }
        let base = self.window.live_values(&self.before);
        let base = |i: usize| if self.accumulate { f64::from(base[i]) } else { 0.0 };
        let sums: Vec<f32> = expected.iter().enumerate().map(|(i, d)| (base(i) + d) as f32).collect();
        let scale: Vec<f32> =
            expected.iter().enumerate().map(|(i, d)| (base(i).abs() + d.abs() + 0.1) as f32).collect();
        self.window.difference(&self.before, found, &sums, &scale, 2e-6)
    }
}

/// Runs what `launches` gives of the scale, 0.7 / 3, and of where losses go: `gradients` as they are then, and the sum of
/// the losses, which begins at 2.5.
fn run(
    order: u64,
    rows: usize,
    gradients: &[Gradient],
    launches: impl FnOnce(&mut Gpu, &[Option<(DeviceMat, bool)>], u64, LossSum) -> Vec<Launch>,
) -> (Vec<Vec<f32>>, f64) {
    let mut gpu = Gpu::with_order(order);
    let (scale, sum) = (gpu.upload(&[SCALE]), gpu.upload(&[2.5f64]));
    let partials = gpu.allocate::<f64>(loss::partials_of(rows as u32) as usize);
    let (mats, asked): (Vec<_>, Vec<_>) = gradients.iter().map(|gradient| gradient.upload(&mut gpu)).unzip();
    for launch in launches(&mut gpu, &asked, scale, LossSum { sum, partials }) {
        gpu.launch(&launch);
    }
    let found = gradients.iter().zip(mats).map(|(gradient, mat)| gradient.window.download(&mut gpu, mat));
    (found.collect(), gpu.download::<f64>(sum, 1)[0])
}

/// The factor of gradients.
const SCALE: f32 = 0.7 / 3.0;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The mean of a number, and the derivative.
fn mean(link: Link, z: f64) -> (f64, f64) {
    match link {
        Link::Probability => (sigmoid(z), sigmoid(z) * sigmoid(-z)),
        Link::Rate => (z.exp(), z.exp()),
        Link::Value => (z, 1.0),
    }
}

fn cross_entropy(z: f64, y: f64) -> f64 {
    z.max(0.0) - z * y + (-z.abs()).exp().ln_1p()
}

fn any_link() -> impl Strategy<Value = Link> {
    prop_oneof![Just(Link::Probability), Just(Link::Rate), Just(Link::Value)]
}

/// Some rows of `learners` numbers each, at times of more than a block.
fn any_learners() -> impl Strategy<Value = Window> {
    let rows = prop_oneof![3 => 0usize..9, 1 => 250usize..260];
    (rows, 0usize..3, 1usize..6, 0usize..3).prop_map(|(rows, missing, cols, behind)| Window {
        rows,
        live: rows.saturating_sub(missing),
        before: missing,
        behind,
        ..Window::whole(rows, cols)
    })
}

/// The rows of what is there.
fn rows_of(window: Window, all: &[f32]) -> Vec<Vec<f64>> {
    let values = window.live_values(all);
    (0..window.live)
        .map(|r| values[r * window.cols..][..window.cols].iter().map(|&v| v.into()).collect())
        .collect()
}

/// What numbers are fused to, and the slopes at them and at the logits of their gate.
fn fused_in_f64(link: Link, z: &[f64], gate: &[f64]) -> (f64, [Vec<f64>; 2]) {
    let total: f64 = gate.iter().map(|g| g.exp()).sum();
    let terms = || z.iter().zip(gate).map(|(&z, g)| (g.exp() / total, mean(link, z)));
    let all: f64 = terms().map(|(w, (m, _))| w * m).sum();
    let fused = match link {
        Link::Probability => (all / terms().zip(z).map(|((w, _), &z)| w * sigmoid(-z)).sum::<f64>()).ln(),
        Link::Rate => all.ln(),
        Link::Value => all,
    };
    let (_, steepness) = mean(link, fused);
    let of_z = terms().map(|(w, (_, slope))| w * slope / steepness).collect();
    (fused, [of_z, terms().map(|(w, (m, _))| w * (m - all) / steepness).collect()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn weighted_losses_agree_with_f64(
        window in any_learners(), link in any_link(), counted: bool, asked: [bool; 2], seed: u64,
    ) {
        let z = Window { cols: 1, ..window };
        let weights = Window { before: z.behind, behind: z.before, ..z };
        let (numbers, of_rows) = (z.values(seed, 3.0), weights.values(seed ^ 1, 1.0));
        let labels: Vec<f32> = (0..z.rows).map(|r| (r % 2) as f32).collect();
        let counts: Vec<f32> = (0..z.rows).map(|r| (r % 3) as f32).collect();
        let gradients = [Gradient::new(z, seed ^ 2, asked)];
        let (found, sum) = run(seed, z.rows, &gradients, |gpu, to, scale, loss| {
            let (on_z, on_weights) = (z.upload(gpu, &numbers), weights.upload(gpu, &of_rows));
            let (labels, counts) = (gpu.upload(&labels), gpu.upload(&counts));
            loss::weighted_loss(link, on_z, labels, counted.then_some(counts), on_weights, scale, to[0], Some(loss))
        });
        let (mut wanted, mut slopes) = (2.5, Vec::new());
        for (r, (z, weight)) in rows_of(z, &numbers).iter().zip(rows_of(weights, &of_rows)).enumerate() {
            let (z, y, counts) = (z[0], f64::from(labels[r]), !counted || counts[r] > 0.0);
            let weight = if counts { weight[0] } else { 0.0 };
            let (value, slope) = match link {
                Link::Probability => (cross_entropy(z, y), sigmoid(z) - y),
                Link::Rate => (z.exp() - y * z, z.exp() - y),
                Link::Value => ((z - y).powi(2), 2.0 * (z - y)),
            };
            wanted += weight * value;
            slopes.push(f64::from(SCALE) * weight * slope);
        }
        prop_assert!((sum - wanted).abs() <= 1e-5 * (1.0 + z.live as f64), "{sum}, not {wanted}");
        prop_assert_eq!(gradients[0].difference(&found[0], &slopes), None);
    }

    #[test]
    fn likelihoods_of_mixtures_agree_with_f64(
        z in any_learners(), counted: bool, asked: [[bool; 2]; 2], distance in 1.0f32..100.0, seed: u64,
    ) {
        let o = Window { before: z.behind, behind: z.before, ..z };
        let (logits, outputs) = (z.values(seed, 3.0), o.values(seed ^ 1, distance));
        let labels: Vec<f32> = (0..z.rows).map(|r| (r % 5) as f32 - 2.0).collect();
        let counts: Vec<f32> = (0..z.rows).map(|r| (r % 3) as f32).collect();
        let gradients = [0, 1].map(|i| Gradient::new([z, o][i], seed ^ (2 + i as u64), asked[i]));
        let (found, sum) = run(seed, z.rows, &gradients, |gpu, to, scale, loss| {
            let (on_z, on_o) = (z.upload(gpu, &logits), o.upload(gpu, &outputs));
            let (labels, counts) = (gpu.upload(&labels), gpu.upload(&counts));
            let counts = counted.then_some(counts);
            loss::mixture_likelihood(on_z, on_o, labels, counts, scale, to[0], to[1], Some(loss))
        });
        let softmax = |z: &[f64]| {
            let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = z.iter().map(|z| (z - largest).exp()).sum();
            let weights: Vec<f64> = z.iter().map(|z| (z - largest).exp() / sum).collect();
            (largest + sum.ln(), weights)
        };
        let (mut wanted, mut slopes) = (2.5, [Vec::new(), Vec::new()]);
        for (r, (z, o)) in rows_of(z, &logits).iter().zip(rows_of(o, &outputs)).enumerate() {
            let y = f64::from(labels[r]);
            let factor = if !counted || counts[r] > 0.0 { 1.0 } else { 0.0 };
            let with_label: Vec<f64> = z.iter().zip(&o).map(|(z, o)| z - 0.5 * (y - o).powi(2)).collect();
            let ((total, weights), (total_with_label, shares)) = (softmax(z), softmax(&with_label));
            wanted += factor * (total - total_with_label);
            let factor = f64::from(SCALE) * factor;
            slopes[0].extend(weights.iter().zip(&shares).map(|(g, h)| factor * (g - h)));
            slopes[1].extend(shares.iter().zip(&o).map(|(h, o)| factor * h * (o - y)));
        }
        prop_assert!((sum - wanted).abs() <= 1e-6 * (1.0 + wanted.abs()) * z.cols as f64, "{sum}, not {wanted}");
        for (i, gradient) in gradients.iter().enumerate() {
            prop_assert_eq!(gradient.difference(&found[i], &slopes[i]), None, "gradient {}", i);
        }
    }

    #[test]
    fn fused_scores_agree_with_f64(
        z in any_learners(), link in any_link(), gated: bool, asked: [[bool; 2]; 2], seed: u64,
    ) {
        let one = Window { cols: 1, ..z };
        let [numbers, logits] = [0, 1].map(|i| z.values(seed ^ i, 3.0));
        let d = one.values(seed ^ 2, 1.0);
        let before = one.values(seed ^ 3, 1.0);
        let gradients = [0, 1].map(|i| Gradient::new(z, seed ^ (4 + i as u64), asked[i]));
        let mut fused = Vec::new();
        let (found, _) = run(seed, z.rows, &gradients, |gpu, to, _, _| {
            let (numbers, d, out) = (z.upload(gpu, &numbers), one.upload(gpu, &d), one.upload(gpu, &before));
            let gate = gated.then(|| z.upload(gpu, &logits));
            gpu.launch(&loss::fuse_scores(link, numbers, gate, out));
            fused = one.download(gpu, out);
            vec![loss::fuse_scores_backward(link, numbers, gate, d, to[0], if gated { to[1] } else { None })]
        });
        let equal = vec![vec![0.0; z.cols]; z.live];
        let gates = if gated { rows_of(z, &logits) } else { equal };
        let rows: Vec<_> =
            rows_of(z, &numbers).iter().zip(&gates).map(|(z, gate)| fused_in_f64(link, z, gate)).collect();
        let expected: Vec<f32> = rows.iter().map(|row| row.0 as f32).collect();
        prop_assert_eq!(one.difference(&before, &fused, &expected, &vec![4.0; z.live], 1e-6), None);
        let d = one.live_values(&d);
        for i in 0..=usize::from(gated) {
            let slopes = rows.iter().zip(&d).flat_map(|(row, &d)| row.1[i].iter().map(move |s| s * f64::from(d)));
            prop_assert_eq!(gradients[i].difference(&found[i], &slopes.collect::<Vec<_>>()), None, "input {}", i);
        }
    }

    #[test]
    fn losses_of_learners_agree_with_f64(
        z in any_learners(), link in any_link(), kind in 0usize..4, asked: [[bool; 2]; 2], seed: u64,
    ) {
        let one = Window { cols: 1, ..z };
        let (numbers, teachers) = (z.values(seed, 2.5), one.values(seed ^ 1, 2.5));
        let labels: Vec<f32> = values(seed ^ 2, z.rows, 1.0).iter().map(|v| v.abs()).collect();
        let counted = values(seed ^ 3, z.rows, 1.0);
        let has_teacher = kind > 1;
        let of_teacher = Gradient::new(one, seed ^ 5, asked[1].map(|bit| bit && has_teacher));
        let gradients = [Gradient::new(z, seed ^ 4, asked[0]), of_teacher];
        let on_device = |order| run(order, z.rows, &gradients, |gpu, to, scale, sum| {
            let teacher = one.upload(gpu, &teachers);
            let target = match kind {
                2 => Target::Divergence(teacher),
                3 => Target::Square(teacher),
                _ => Target::Label {
                    labels: gpu.upload(&labels),
                    counted: (kind == 1).then(|| gpu.upload(&counted)),
                },
            };
            loss::learner_loss(link, target, z.upload(gpu, &numbers), scale, to[0], to[1], Some(sum))
        });
        let (found, sum) = on_device(seed);

        let (mut total, mut of_z, mut of_teacher) = (2.5, Vec::new(), Vec::new());
        for (r, row) in rows_of(z, &numbers).iter().enumerate() {
            let teacher = f64::from(one.live_values(&teachers)[r]);
            let (share, mut all) = (f64::from(SCALE) / z.cols as f64, 0.0);
            for &z in row {
                let ((m, steepness), (aim, teachers)) = (mean(link, z), mean(link, teacher));
                let twice = if link == Link::Value { 2.0 } else { 1.0 };
                let y = f64::from(labels[r]);
                let (term, slope, slope_of_teacher) = match (kind, link) {
                    (1, _) if counted[r] <= 0.0 => (0.0, 0.0, 0.0),
                    (0 | 1, Link::Probability) => (cross_entropy(z, y), m - y, 0.0),
                    (0 | 1, Link::Rate) => (m - y * z, m - y, 0.0),
                    (0 | 1, Link::Value) => ((z - y).powi(2), 2.0 * (z - y), 0.0),
                    (2, Link::Probability) => {
                        let coins = aim * (aim / m).ln() + (1.0 - aim) * ((1.0 - aim) / (1.0 - m)).ln();
                        (coins, m - aim, teachers * (teacher - z))
                    }
                    (2, Link::Rate) => (aim * (teacher - z - 1.0) + m, m - aim, teachers * (teacher - z)),
                    _ => {
                        let twice = if kind == 3 { 2.0 } else { twice };
                        ((aim - m).powi(2), twice * (m - aim) * steepness, twice * (aim - m) * teachers)
                    }
                };
                total += term / row.len() as f64;
                of_z.push(share * slope);
                all += share * slope_of_teacher;
            }
            of_teacher.push(all);
        }
        prop_assert!((sum - total).abs() <= 2e-6 * (1.0 + total.abs()), "{} {}", sum, total);
        prop_assert_eq!(gradients[0].difference(&found[0], &of_z), None, "learners");
        prop_assert_eq!(gradients[1].difference(&found[1], &of_teacher), None, "teacher");
        prop_assert_eq!(on_device(seed ^ 1), (found, sum), "the order of warps shows");
    }

    #[test]
    fn counterfactual_risks_agree_with_f64(
        learners in any_learners(), kind in 0usize..5, asked: [[bool; 2]; 3], least in 0.01f32..0.5, seed: u64,
    ) {
        let one = Window { cols: 1, ..learners };
        let softplus = [loss::Imputed::Sigmoid, loss::Imputed::Softplus][kind % 2];
        let risk = match kind {
            0 => Risk::Inverse,
            1 | 2 => Risk::Error(softplus),
            _ => Risk::Imputation(softplus),
        };
        let inputs = if risk == Risk::Inverse { 2 } else { 3 };
        let logits: Vec<_> = (0..inputs as u64).map(|i| one.values(seed ^ i, 3.0)).collect();
        let labels = [5, 6].map(|i| values(seed ^ i, one.rows, 1.0).iter().map(|&v| f32::from(v > 0.0)).collect());
        let gradients: Vec<_> =
            (0..inputs).map(|i| Gradient::new(one, seed ^ (8 + i as u64), asked[i])).collect();
        let labels: [Vec<f32>; 2] = labels;
        let (found, sum) = run(seed, one.rows, &gradients, |gpu, to, scale, sum| {
            let event = |i: usize| Event {
                logits: one.upload(gpu, &logits[i]),
                labels: labels.get(i).map_or(0, |labels| gpu.upload(labels)),
                gradient: to[i],
            };
            let events: Vec<_> = (0..inputs).map(event).collect();
            loss::counterfactual_risk(risk, least, &events, scale, Some(sum))
        });
        let term = |o: f64, r: f64, at: &[f64]| {
            let v = 1.0 / sigmoid(at[0]).max(f64::from(least));
            let (e, i) = (cross_entropy(at[1], r), at.get(2).copied().unwrap_or(0.0));
            let d = if softplus == loss::Imputed::Softplus { i.exp().ln_1p() } else { sigmoid(i) };
            match risk {
                Risk::Inverse => o * e * v,
                Risk::Error(_) => d + o * (e - d) * v,
                Risk::Imputation(_) => o * (e - d).powi(2) * v,
            }
        };
        let live: Vec<_> = logits.iter().map(|all| one.live_values(all)).collect();
        let mut total = 2.5;
        let mut expected = vec![Vec::new(); inputs];
        for row in 0..one.live {
            let (o, r) = (f64::from(labels[0][row]), f64::from(labels[1][row]));
            let at: Vec<f64> = live.iter().map(|of| f64::from(of[row])).collect();
            total += term(o, r, &at);
            for (i, expected) in expected.iter_mut().enumerate() {
                let moved = |by: f64| {
                    let mut at = at.clone();
                    at[i] += by;
                    term(o, r, &at)
                };
                expected.push(f64::from(SCALE) * (moved(1e-5) - moved(-1e-5)) / 2e-5);
            }
        }
        prop_assert!((sum - total).abs() <= 2e-6 * (1.0 + total.abs()), "{} {}", sum, total);
        for (gradient, (found, expected)) in gradients.iter().zip(found.iter().zip(&expected)) {
            prop_assert_eq!(gradient.difference(found, expected), None);
        }
    }

    #[test]
    fn penalties_on_order_agree_with_f64(
        learners in any_learners(), count in 1usize..=loss::MOST_EVENTS, asked: [[bool; 2]; loss::MOST_EVENTS],
        seed: u64,
    ) {
        let one = Window { cols: 1, ..learners };
        let logits: Vec<_> = (0..count as u64).map(|t| one.values(seed ^ t, 3.0)).collect();
        let gradients: Vec<_> =
            (0..count).map(|t| Gradient::new(one, seed ^ (20 + t as u64), asked[t])).collect();
        let (found, sum) = run(seed, one.rows, &gradients, |gpu, to, scale, sum| {
            let event = |t: usize| Event { logits: one.upload(gpu, &logits[t]), labels: 0, gradient: to[t] };
            let events: Vec<_> = (0..count).map(event).collect();
            loss::order_penalty(&events, scale, Some(sum))
        });
        let live: Vec<_> = logits.iter().map(|all| one.live_values(all)).collect();
        let z = |t: usize, r: usize| f64::from(live[t][r]);
        let too_likely = |t: usize, r: usize| f64::from(t > 0 && t < count && z(t, r) > z(t - 1, r));
        let rises = (0..one.live).flat_map(|r| (1..count).map(move |t| (t, r)));
        let total = 2.5 + rises.map(|(t, r)| (sigmoid(z(t, r)) - sigmoid(z(t - 1, r))).max(0.0)).sum::<f64>();
        prop_assert!((sum - total).abs() <= 2e-6 * total, "{} {}", sum, total);
        for (t, (gradient, found)) in gradients.iter().zip(&found).enumerate() {
            let slope = |r: usize| (too_likely(t, r) - too_likely(t + 1, r)) * mean(Link::Probability, z(t, r)).1;
            let expected: Vec<f64> = (0..one.live).map(|r| f64::from(SCALE) * slope(r)).collect();
            prop_assert_eq!(gradient.difference(found, &expected), None, "event {}", t);
        }
    }
}

#[test]
fn numbers_outside_of_a_range_are_drawn_in() {
    let count = 300;
    let range = loss::Range { low: -0.25, high: 0.5, factor: 1.5 };
    let (s, f) = (values(1, count, 1.0), values(2, count, 1.0));
    let mut gpu = Gpu::new();
    let [at_s, at_f, ds, df] =
        [&s, &f, &vec![7.0; count], &vec![7.0; count]].map(|values| gpu.upload(values));
    let (scale, sum) = (gpu.upload(&[SCALE]), gpu.upload(&[2.5f64]));
    let (to, addends) = (Some((ds, false)), Some((df, true)));
    gpu.launch(&loss::range_penalty(range, at_s, at_f, count as u32, scale, to, addends, Some(sum)));
    let share = f64::from(SCALE) / count as f64;
    let mut total = 0.0;
    let [ds, df] = [ds, df].map(|at| gpu.download::<f32>(at, count));
    for i in 0..count {
        let (distance, beyond) = (f64::from(s[i]) - 0.125, f64::from(f[i]) - 0.125);
        let factor = if beyond.abs() <= 0.375 { 0.0 } else { range.factor };
        total += factor * beyond.abs() * distance.abs() / count as f64;
        assert_eq!(ds[i], (share * factor * beyond.abs() * distance.signum()) as f32, "s {i}");
        let added = 7.0 + (share * factor * beyond.signum() * distance.abs()) as f32;
        assert_eq!(df[i], added, "f {i}");
    }
    let found = gpu.download::<f64>(sum, 1)[0];
    assert!((found - 2.5 - total).abs() < 1e-12, "{found} {total}");
}

#[test]
fn saturated_learners_have_finite_losses_and_slopes() {
    for (teacher, z) in [(900.0, -900.0), (-900.0, 900.0), (60.0, 55.0)] {
        let (one, target) =
            (Window::whole(1, 1), |gpu: &mut Gpu| Target::Divergence(gpu.upload_mat(&[teacher], 1, 1, 1)));
        let gradients = [Gradient::new(one, 1, [true, false]), Gradient::new(one, 2, [true, false])];
        let (found, sum) = run(0, 1, &gradients, |gpu, to, scale, sum| {
            let (target, z) = (target(gpu), gpu.upload_mat(&[z], 1, 1, 1));
            loss::learner_loss(Link::Probability, target, z, scale, to[0], to[1], Some(sum))
        });
        assert!(sum.is_finite() && sum >= 2.5, "{teacher} {z}: {sum}");
        assert!(found.iter().flatten().all(|slope| slope.is_finite()), "{teacher} {z}: {found:?}");
    }
}
