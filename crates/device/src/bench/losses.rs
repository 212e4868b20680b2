//! Losses of a few numbers a row, by their gradients, and what scores are fused to. All in f32.

use super::Size;
use super::case::{Case, Prepared};
use super::layer::{Layer, Made, compare_rows};
use super::mmoe::Layers;
use super::reference::gate;
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::loss::{
    Event, Link, Risk, Target, bce_of_product, counterfactual_risk, fuse_scores, fuse_scores_backward,
    learner_loss, mixture_likelihood, order_penalty, weighted_loss,
};
use manygate_cuda::peak::Stream;
use manygate_cuda::{Element, Launch, Precision};

/// Learners of a task.
const LEARNERS: u32 = 3;
/// Events in a row.
const EVENTS: u32 = 4;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, .. }, _] = Layers::all(size);
    let layer = Layer { rows, precision: Precision::F32, element: Element::F32 };
    let learners = [("learners", LEARNERS), ("width", 1)];
    vec![
        layer.case("fuse_scores", LEARNERS + 1, learners, fused),
        layer.prepared("fuse_scores_backward", 4 * LEARNERS + 1, learners, fused_backward),
        layer.case("learner_loss", 2 * LEARNERS + 1, learners, learnt),
        layer.case("mixture_likelihood", 3 * LEARNERS + 1, [("experts", LEARNERS), ("width", 1)], mixed),
        layer.case("weighted_loss", 4, [("learners", 1), ("width", 1)], weighted),
        layer.case("counterfactual_risk", 5, [("events", 2), ("width", 1)], risked),
        layer.case("bce_of_product", 5, [("events", 2), ("width", 1)], both),
        layer.case("order_penalty", EVENTS + 1, [("events", EVENTS), ("width", 1)], ordered),
    ]
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A label of 0 or 1 for each row: column `column`.
pub(super) fn label(column: u32, row: u32) -> f32 {
    Stream((1 << 16) + column).id(row.into(), 2) as f32
}

pub(super) fn labels(layer: Layer, column: u32, bench: &mut Workbench) -> Result<u64, DeviceError> {
    bench.upload_f32((0..layer.rows).map(|row| label(column, row)))
}

/// The only launch of a loss that adds nothing up.
fn only(launches: Vec<Launch>) -> Launch {
    let Ok([launch]) = <[Launch; 1]>::try_from(launches) else { unreachable!("no sum is asked for") };
    launch
}

fn fused(layer: Layer, learners: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, found) = (layer.random(bench, learners)?, layer.mat(bench, 1)?);
    let launch = fuse_scores(Link::Probability, z.mat, None, found);
    let expected = move |row| {
        let sum = |sign: f64| z.row(row).into_iter().map(|z| sigmoid(sign * z)).sum::<f64>();
        vec![(sum(1.0) / sum(-1.0)).ln()]
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// By a gate; the gradients at the scores and at its logits.
fn fused_backward(
    layer: Layer,
    learners: u32,
    _: u32,
    bench: &mut Workbench,
) -> Result<Prepared, DeviceError> {
    let (z, logits) = (layer.random(bench, learners)?, layer.random(bench, learners)?);
    let d_fused = layer.random(bench, 1)?;
    let (dz, d_logits) = (layer.mat(bench, learners)?, layer.mat(bench, learners)?);
    let (to_z, to_gate) = (Some((dz, false)), Some((d_logits, false)));
    let launch = fuse_scores_backward(Link::Probability, z.mat, Some(logits.mat), d_fused.mat, to_z, to_gate);
    // Of a row by the weight of each learner, its probability, and the mean of all.
    let of_learners = move |row, slope: fn(f64, f64, f64) -> f64| {
        let probabilities: Vec<f64> = z.row(row).into_iter().map(sigmoid).collect();
        let (weights, mean) = gate(1, &logits.row(row), &probabilities);
        let d = d_fused.row(row)[0];
        weights.iter().zip(&probabilities).map(|(w, p)| d * slope(*w, *p, mean[0])).collect::<Vec<_>>()
    };
    Prepared::new(vec![launch], move |bench| {
        let of_scores = compare_rows(bench, dz, &|row| {
            of_learners(row, |w, p, mean| w * p * (1.0 - p) / (mean * (1.0 - mean)))
        })?;
        let of_gate = compare_rows(bench, d_logits, &|row| {
            of_learners(row, |w, p, mean| w * p / mean - w * (1.0 - p) / (1.0 - mean))
        })?;
        Ok(of_scores.max(of_gate))
    })
}

fn learnt(layer: Layer, learners: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, found) = (layer.random(bench, learners)?, layer.mat(bench, learners)?);
    let target = Target::Label { labels: labels(layer, 0, bench)?, counted: None };
    let scale = bench.upload_f32([learners as f32])?;
    let gradient = Some((found, false));
    let launch = only(learner_loss(Link::Probability, target, z.mat, scale, gradient, None, None));
    let expected = move |row| z.row(row).into_iter().map(|z| sigmoid(z) - f64::from(label(0, row))).collect();
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The gradient at the outputs of the experts.
fn mixed(layer: Layer, experts: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, o) = (layer.random(bench, experts)?, layer.random(bench, experts)?);
    let (found, labels, scale) =
        (layer.mat(bench, experts)?, labels(layer, 0, bench)?, bench.upload_f32([1.0])?);
    let to = Some((found, false));
    let launch = only(mixture_likelihood(z.mat, o.mat, labels, None, scale, None, to, None));
    let expected = move |row| {
        let distances = o.row(row).into_iter().map(|o| o - f64::from(label(0, row)));
        let shares: Vec<(f64, f64)> =
            z.row(row).into_iter().zip(distances).map(|(z, d)| ((z - 0.5 * d * d).exp(), d)).collect();
        let sum: f64 = shares.iter().map(|(share, _)| share).sum();
        shares.into_iter().map(|(share, d)| share / sum * d).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Of counts.
fn weighted(layer: Layer, _: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, weights, found) = (layer.random(bench, 1)?, layer.random(bench, 1)?, layer.mat(bench, 1)?);
    let (labels, scale) = (labels(layer, 0, bench)?, bench.upload_f32([1.0])?);
    let to = Some((found, false));
    let launch = only(weighted_loss(Link::Rate, z.mat, labels, None, weights.mat, scale, to, None));
    let expected = move |row| vec![weights.row(row)[0] * (z.row(row)[0].exp() - f64::from(label(0, row)))];
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// By inverse propensity; the gradient at the conversion.
fn risked(layer: Layer, _: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (c, u, found) = (layer.random(bench, 1)?, layer.random(bench, 1)?, layer.mat(bench, 1)?);
    let click = Event { logits: c.mat, labels: labels(layer, 0, bench)?, gradient: None };
    let conversion =
        Event { logits: u.mat, labels: labels(layer, 1, bench)?, gradient: Some((found, false)) };
    let scale = bench.upload_f32([1.0])?;
    let launch = only(counterfactual_risk(Risk::Inverse, 1e-6, &[click, conversion], scale, None));
    let expected = move |row| {
        let [clicked, converted] = [0, 1].map(|column| f64::from(label(column, row)));
        vec![clicked * (sigmoid(u.row(row)[0]) - converted) / sigmoid(c.row(row)[0])]
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The gradient at the second event.
fn both(layer: Layer, _: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (a, b, found) = (layer.random(bench, 1)?, layer.random(bench, 1)?, layer.mat(bench, 1)?);
    let first = Event { logits: a.mat, labels: labels(layer, 0, bench)?, gradient: None };
    let second = Event { logits: b.mat, labels: labels(layer, 1, bench)?, gradient: Some((found, false)) };
    let launch = only(bce_of_product(&[first, second], bench.upload_f32([1.0])?, None));
    let expected = move |row| {
        let (a, b) = (a.row(row)[0], b.row(row)[0]);
        let (product, happened) = (sigmoid(a) * sigmoid(b), f64::from(label(0, row) * label(1, row)));
        vec![(product - happened) * sigmoid(-b) / (1.0 - product)]
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The gradient at the second event.
fn ordered(layer: Layer, events: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let found = layer.mat(bench, 1)?;
    let mut logits = Vec::new();
    for _ in 0..events {
        logits.push(layer.random(bench, 1)?);
    }
    let event = |(t, z): (usize, &Random)| Event {
        logits: z.mat,
        labels: 0,
        gradient: (t == 1).then_some((found, false)),
    };
    let all: Vec<Event> = logits.iter().enumerate().map(event).collect();
    let launch = only(order_penalty(&all, bench.upload_f32([1.0])?, None));
    let expected = move |row| {
        let [before, z, next] = [0, 1, 2].map(|t: usize| logits[t].row(row)[0]);
        let slope = sigmoid(z) * sigmoid(-z);
        vec![slope * (f64::from(z > before) - f64::from(next > z))]
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}
