//! Mixtures of the experts of cross layers, which experts a gate may weigh, and logits of products of probabilities.

use super::Size;
use super::case::{Case, Prepared, Work};
use super::layer::{Layer, Made, compare_rows, widths};
use super::layers::{EXPERTS, GATES};
use super::losses::sigmoid;
use super::mmoe::Layers;
use super::reference::{Error, dot, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::mixture::{gate_groups, gate_groups_dg, gate_groups_dz, hard_tanh, hard_tanh_dx};
use manygate_cuda::random::{Selection, select_experts};
use manygate_cuda::row::{product_logit, product_logit_backward};
use manygate_cuda::{DeviceMat, Element};
use manygate_kernels::random::{Dropping, philox};

/// Low-rank experts of a cross layer.
const LOW_RANK: u32 = 4;
/// Experts of a gate that stay, before some of them are dropped at random.
const BEST: u32 = 3;
const DROPPED: f64 = 0.2;
const KEY: [u32; 2] = [7, 9];
/// Events that depend on another.
const EVENTS: u32 = 3;
/// What an expert that is left out counts as where results are compared.
const LEFT_OUT: f64 = -10.0;
/// Rows of selections that are compared.
const COMPARED: u32 = 200;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, .. }, _] = Layers::all(size);
    let [units, ..] = widths(size);
    let rank = units / 16;
    let (of_units, of_experts) = ([("units", units), ("width", 1)], [("experts", LOW_RANK), ("rank", rank)]);
    let (z, gates) = (LOW_RANK * rank, LOW_RANK);
    let of_layer = |layer: Layer| {
        [
            layer.case("gate_groups", 2 * z + gates + 1, of_experts, grouped),
            layer.case("gate_groups_dz", 2 * z + gates, of_experts, grouped_dz),
            layer.case("gate_groups_dg", 2 * z + gates + 1, of_experts, grouped_dg),
            layer.case("hard_tanh", 2 * units, of_units, bounded),
            layer.case("hard_tanh_dx", 3 * units, of_units, bounded_dx),
            selected(layer),
            layer.case("product_logit", 1 + 2 * EVENTS, [("events", EVENTS), ("width", 1)], both_happen),
            layer.prepared(
                "product_logit_backward",
                2 + 3 * EVENTS,
                [("events", EVENTS), ("width", 1)],
                both_happen_backward,
            ),
        ]
    };
    Layer::both(rows).into_iter().flat_map(of_layer).collect()
}

fn grouped(layer: Layer, experts: u32, rank: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, gates) = (layer.random(bench, experts * rank)?, layer.random(bench, experts)?);
    let found = layer.mat(bench, experts * rank + 1)?;
    let launch = gate_groups(experts, z.mat, Some(gates.mat), found);
    let expected = move |row| {
        let (z, gates) = (z.row(row), gates.row(row));
        let gated = z.chunks(rank as usize).zip(&gates).flat_map(|(z, g)| z.iter().map(move |z| g * z));
        gated.chain([gates.iter().sum()]).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn grouped_dz(layer: Layer, experts: u32, rank: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (dy, gates) = (layer.random(bench, experts * rank + 1)?, layer.random(bench, experts)?);
    let found = layer.mat(bench, experts * rank)?;
    let launch = gate_groups_dz(experts, Some(gates.mat), dy.mat, false, found);
    let expected = move |row| {
        let (dy, gates) = (dy.row(row), gates.row(row));
        dy.chunks(rank as usize).zip(&gates).flat_map(|(d, g)| d.iter().map(move |d| g * d)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn grouped_dg(layer: Layer, experts: u32, rank: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, dy) = (layer.random(bench, experts * rank)?, layer.random(bench, experts * rank + 1)?);
    let found = layer.mat(bench, experts)?;
    let launch = gate_groups_dg(z.mat, dy.mat, false, found);
    let expected = move |row| {
        let (z, dy) = (z.row(row), dy.row(row));
        let (parts, of_sum) = (z.chunks(rank as usize).zip(dy.chunks(rank as usize)), dy[z.len()]);
        parts.map(|(z, d)| dot(z, d) + of_sum).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Half of the values lie beyond the bounds.
fn twice_as_far(layer: Layer, units: u32, bench: &mut Workbench) -> Result<Random, DeviceError> {
    bench.random(layer.rows, units, layer.element, 2.0)
}

fn bounded(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found) = (twice_as_far(layer, units, bench)?, layer.mat(bench, units)?);
    let launch = hard_tanh(x.mat, found);
    let expected = move |row| x.row(row).into_iter().map(|x| x.clamp(-1.0, 1.0)).collect();
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn bounded_dx(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (y, dy) = (twice_as_far(layer, units, bench)?, layer.random(bench, units)?);
    let found = layer.mat(bench, units)?;
    let launch = hard_tanh_dx(y.mat, dy.mat, false, found);
    let expected = move |row| {
        let values = y.row(row).into_iter().zip(dy.row(row));
        values.map(|(y, d)| if y.abs() < 1.0 { d } else { 0.0 }).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The best of each gate, some of which are dropped; what is selected is f32.
fn selected(layer: Layer) -> Case {
    let logits = GATES * EXPERTS;
    let bytes = f64::from(layer.rows) * f64::from(logits) * (layer.element.bytes() + 4) as f64;
    let sizes = [("gates", GATES), ("experts", EXPERTS)];
    let case = layer.prepared("select_experts", logits, sizes, |layer, gates, experts, bench| {
        let logits = layer.random(bench, gates * experts)?;
        let found = bench.mat(layer.rows, gates * experts, Element::F32)?;
        let dropping = Some((Dropping::new(DROPPED).threshold, bench.upload_u32(KEY)?));
        let selection = Selection { experts, best: BEST, dropping, rows: None };
        let launch = select_experts(selection, logits.mat, found);
        Prepared::new(vec![launch], move |bench| compare_selected(bench, logits, found))
    });
    Case { tolerance: 0.0, work: Work { bytes, ..case.work }, ..case }
}

fn compare_selected(bench: &Workbench, logits: Random, found: DeviceMat) -> Result<f64, DeviceError> {
    let mut error = Error::default();
    for row in sample(found.rows, COMPARED) {
        let logits = logits.row(row);
        let gates = (0..).step_by(EXPERTS as usize).zip(logits.chunks(EXPERTS as usize));
        let expected: Vec<f64> = gates.flat_map(|(first, gate)| left_of(gate, row, first)).collect();
        let or_number = |value: f64| if value == f64::NEG_INFINITY { LEFT_OUT } else { value };
        let found: Vec<f64> = bench.row(found, row)?.into_iter().map(or_number).collect();
        error.add_all(&found, &expected);
    }
    Ok(error.relative())
}

/// The logits of a gate, those from column `first` on, that are selected in a row.
fn left_of(gate: &[f64], row: u32, first: u32) -> Vec<f64> {
    let is_before = |i: usize, e: usize| gate[i] > gate[e] || (gate[i] == gate[e] && i < e);
    let is_best = |e: usize| (0..gate.len()).filter(|&i| is_before(i, e)).count() < BEST as usize;
    let best: Vec<usize> = (0..gate.len()).filter(|&e| is_best(e)).collect();
    let number = |col: u32| philox([row, 0, col / 4, 0], KEY)[(col % 4) as usize];
    let is_left = |e: usize| number(first + e as u32) >= Dropping::new(DROPPED).threshold;
    let left: Vec<usize> = best.iter().copied().filter(|&e| is_left(e)).collect();
    let stay = if left.is_empty() { best } else { left };
    gate.iter().enumerate().map(|(e, &logit)| if stay.contains(&e) { logit } else { LEFT_OUT }).collect()
}

fn both_happen(layer: Layer, events: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (a, b, found) = (layer.random(bench, 1)?, layer.random(bench, events)?, layer.mat(bench, events)?);
    let launch = product_logit(a.mat, b.mat, found);
    let expected = move |row| {
        let first = sigmoid(a.row(row)[0]);
        let products = b.row(row).into_iter().map(|b| first * sigmoid(b));
        products.map(|p| (p / (1.0 - p)).ln()).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn both_happen_backward(
    layer: Layer,
    events: u32,
    _: u32,
    bench: &mut Workbench,
) -> Result<Prepared, DeviceError> {
    let (a, b, dz) = (layer.random(bench, 1)?, layer.random(bench, events)?, layer.random(bench, events)?);
    let (da, db) = (layer.mat(bench, 1)?, layer.mat(bench, events)?);
    let (to_a, to_b) = (Some((da, false)), Some((db, false)));
    let launch = product_logit_backward(a.mat, b.mat, dz.mat, to_a, to_b);
    // The gradients of the first event, one for each of the others, and of those.
    let slopes = move |row| {
        let a = a.row(row)[0];
        let slope = move |(b, d): (f64, f64)| {
            let rest = 1.0 - sigmoid(a) * sigmoid(b);
            (d * sigmoid(-a) / rest, d * sigmoid(-b) / rest)
        };
        b.row(row).into_iter().zip(dz.row(row)).map(slope).unzip::<f64, f64, Vec<f64>, Vec<f64>>()
    };
    Prepared::new(vec![launch], move |bench| {
        let of_a = compare_rows(bench, da, &|row| vec![slopes(row).0.iter().sum()])?;
        Ok(of_a.max(compare_rows(bench, db, &|row| slopes(row).1)?))
    })
}
