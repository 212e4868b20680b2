//! Kernels of single layers that move more than they multiply: gates over parts of a bank, vectors that score themselves,
//! amplitudes, learnt slopes, cross layers with a vector, interactions of fields, cross-stitch units, matrices by sample,
//! probabilities of rows. Each on its own, a row of the output being one of the input.

use super::Size;
use super::case::Case;
use super::layer::{Layer, Made, widths};
use super::mmoe::Layers;
use super::reference::{dot, gate};
use super::workbench::{Random, Workbench};
use manygate_cuda::activation::{Bend, BendGradients, dice, dice_backward};
use manygate_cuda::amplitude::{Of, amplify, amplify_backward, pruning_dr};
use manygate_cuda::cross::cross_vector;
use manygate_cuda::device::DeviceError;
use manygate_cuda::gate::{DeviceSeen, gate_combine_seen, seen_to_bytes, self_scored};
use manygate_cuda::interaction::{bi_interaction, bi_interaction_de, pair_products, pair_products_de};
use manygate_cuda::row::{row_normalise, softmax};
use manygate_cuda::row_product::{Start, Vectors, row_outer, row_product};
use manygate_cuda::stitch::{Weights, stitch};
use manygate_cuda::transfer::{Experts, transfer_mixture};
use manygate_cuda::{Element, Launch};
use manygate_kernels::activation::Activation;
use manygate_kernels::amplitude::{Amplitude, Pruning};
use manygate_kernels::gate::Seen;

/// Gates, each over two experts of its own and two that all see, as in PLE; and all experts.
pub(super) const GATES: u32 = 3;
pub(super) const EXPERTS: u32 = 2 * GATES + 2;
/// Networks that are stitched.
pub(super) const NETWORKS: u32 = 3;
/// Classes of a softmax.
pub(super) const CLASSES: u32 = 10;
/// Scenarios whose experts are mixed.
pub(super) const SCENARIOS: u32 = 5;
/// Width of a field.
pub(super) const FIELD: u32 = 16;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, width, .. }, _] = Layers::all(size);
    let [units, fields, side] = widths(size);
    let pairs = fields * (fields - 1) / 2;
    let (of_units, of_fields) = ([("units", units), ("width", 1)], [("fields", fields), ("width", FIELD)]);
    let (e, of_matrix, matrix) = (fields * FIELD, [("out", side), ("in", side)], side * side + 2 * side);
    let of_elements = Layer::both(rows).into_iter().flat_map(|layer| {
        [
            layer.case(
                "gate_combine_seen",
                (EXPERTS + GATES) * width,
                [("experts", EXPERTS), ("width", width)],
                seen,
            ),
            layer.case("amplify", 3 * units, of_units, amplitudes),
            layer.case("amplify_backward", 5 * units, of_units, amplitudes_backward),
            layer.case("pruning_dr", 2 * units, of_units, pruned),
            layer.case("dice", 2 * units, of_units, bent),
            layer.case("dice_backward", 3 * units, of_units, bent_backward),
            layer.case(
                "self_scored",
                7 * units + 2,
                [("vectors", 2), ("width", units)],
                scored_by_themselves,
            ),
            layer.case("cross_vector", 4 * units, [("units", 2 * units), ("width", 1)], crossed),
            layer.case("bi_interaction", e + FIELD, of_fields, sums_of_pairs),
            layer.case("bi_interaction_de", 2 * e + FIELD, of_fields, sums_of_pairs_de),
            layer.case("pair_products", e + pairs, of_fields, products_of_pairs),
            layer.case("pair_products_de", 2 * e + pairs, of_fields, products_of_pairs_de),
            layer.case("stitch", NETWORKS * units, [("networks", NETWORKS), ("width", units / 2)], stitched),
            layer.case("row_product", matrix, of_matrix, multiplied),
            layer.case("row_product_transposed", matrix, of_matrix, multiplied_transposed),
            layer.case("row_outer", matrix, of_matrix, multiplied_dweights),
            layer.case("softmax", 2 * CLASSES, [("classes", CLASSES), ("width", 1)], probable),
            layer.case("row_normalise", 2 * units, of_units, normalised),
            layer.case(
                "transfer_mixture",
                SCENARIOS + (SCENARIOS + 1) * side,
                [("scenarios", SCENARIOS), ("width", side)],
                transferred,
            ),
        ]
    });
    of_elements.collect()
}

/// Which experts each gate sees, on the device and here.
pub(super) fn seen_by_gates(
    experts: u32,
    bench: &mut Workbench,
) -> Result<(DeviceSeen, Vec<Vec<usize>>), DeviceError> {
    let of_gate = |gate: usize| vec![2 * gate, 2 * gate + 1, experts as usize - 2, experts as usize - 1];
    let gates: Vec<Vec<usize>> = (0..GATES as usize).map(of_gate).collect();
    let Ok(list) = Seen::new(experts as usize, &gates) else { unreachable!("every expert is seen") };
    let table = bench.upload(&seen_to_bytes(&list))?;
    Ok((DeviceSeen::new(&list, table), gates))
}

fn seen(layer: Layer, experts: u32, width: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (list, gates) = seen_by_gates(experts, bench)?;
    let (logits, bank) = (layer.random(bench, 4 * GATES)?, layer.random(bench, experts * width)?);
    let weights = bench.mat(layer.rows, 4 * GATES, Element::F32)?;
    let found = layer.mat(bench, GATES * width)?;
    let launch = gate_combine_seen(list, logits.mat, [bank.mat, bank.mat], weights, found);
    let expected = move |row| {
        let (logits, bank) = (logits.row(row), bank.row(row));
        let mixed = |(logits, seen): (&[f64], &Vec<usize>)| {
            let own = seen.iter().flat_map(|&e| bank[e * width as usize..][..width as usize].to_vec());
            gate(1, logits, &own.collect::<Vec<_>>()).1
        };
        logits.chunks(4).zip(&gates).flat_map(mixed).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// What amplitudes are of the numbers that gates give, and the derivative.
pub(super) fn amplitude(r: f64) -> (f64, f64) {
    let share = 1.0 / (1.0 + (-r).exp());
    (2.0 * share, 2.0 * share * (1.0 - share))
}

fn amplitudes(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, r, found) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.mat(bench, units)?);
    let launch = amplify(Amplitude::Sigmoid(2.0), x.mat, Of { values: r.mat, parts: None }, found);
    let expected =
        move |row| x.row(row).into_iter().zip(r.row(row)).map(|(x, r)| x * amplitude(r).0).collect();
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn amplitudes_backward(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, r, dy) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.random(bench, units)?);
    let (dx, found) = (layer.mat(bench, units)?, layer.mat(bench, units)?);
    let of = Of { values: r.mat, parts: None };
    let (to_dx, to_dr) = (Some((dx, false)), Some((found, false)));
    let launch = amplify_backward(Amplitude::Sigmoid(2.0), x.mat, of, dy.mat, to_dx, None, to_dr);
    let expected = move |row| {
        let values = x.row(row).into_iter().zip(r.row(row)).zip(dy.row(row));
        values.map(|((x, r), dy)| dy * x * amplitude(r).1).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// What is half pruned.
pub(super) const PRUNING: Pruning = Pruning { scale: 2.0, steepness: 1.0, threshold: 1.0 };

fn pruned(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (r, found) = (layer.random(bench, units)?, layer.mat(bench, units)?);
    let values = f64::from(layer.rows) * f64::from(units);
    let d_share = bench.upload_f32([-values as f32])?;
    let launch = pruning_dr(PRUNING, r.mat, d_share, false, found);
    Ok(Made {
        launch,
        found,
        expected: Box::new(move |row| r.row(row).into_iter().map(|r| amplitude(r).1).collect()),
    })
}

/// Means of 0, variances of 1.
pub(super) fn bend(units: u32, bench: &mut Workbench) -> Result<(Bend, Random), DeviceError> {
    let slopes = bench.random(1, units, Element::F32, 1.0)?;
    let moments = bench.upload_f32((0..2 * units).map(|i| if i < units { 0.0 } else { 1.0 }))?;
    Ok((Bend { moments: Some((moments, 0.0)), slopes: slopes.mat.address }, slopes))
}

fn bent(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found) = (layer.random(bench, units)?, layer.mat(bench, units)?);
    let (bend, slopes) = bend(units, bench)?;
    let expected = move |row| {
        let y = |(x, a): (f64, f64)| {
            let p = amplitude(x).0 / 2.0;
            x * (p + (1.0 - p) * a)
        };
        x.row(row).into_iter().zip(slopes.row(0)).map(y).collect()
    };
    Ok(Made { launch: dice(x.mat, bend, found), found, expected: Box::new(expected) })
}

/// Without the sums over rows, which other launches end.
fn bent_backward(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, dy, found) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.mat(bench, units)?);
    let (bend, slopes) = bend(units, bench)?;
    let launches = dice_backward(x.mat, bend, dy.mat, Some((found, false)), BendGradients::default());
    let Ok([launch]) = <[Launch; 1]>::try_from(launches) else { unreachable!("no sums are asked for") };
    let expected = move |row| {
        let dx = |((x, dy), a): ((f64, f64), f64)| {
            let p = amplitude(x).0 / 2.0;
            dy * (p + (1.0 - p) * a + x * (1.0 - a) * p * (1.0 - p))
        };
        x.row(row).into_iter().zip(dy.row(row)).zip(slopes.row(0)).map(dx).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn scored_by_themselves(
    layer: Layer,
    vectors: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let (kqv, found) = (layer.random(bench, 3 * vectors * width)?, layer.mat(bench, width)?);
    let weights = bench.mat(layer.rows, vectors, Element::F32)?;
    let scale = (width as f32).sqrt().recip();
    let launch = self_scored(vectors, scale, kqv.mat, weights, found);
    let expected = move |row| {
        let kqv = kqv.row(row);
        let parts: Vec<&[f64]> = kqv.chunks(width as usize).collect();
        let scores: Vec<f64> = parts.chunks(3).map(|part| f64::from(scale) * dot(part[0], part[1])).collect();
        let values: Vec<f64> = parts.chunks(3).flat_map(|part| part[2].to_vec()).collect();
        gate(1, &scores, &values).1
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The first layer: what it crosses, crosses with and adds is one.
fn crossed(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let x = layer.random(bench, units)?;
    let scale = (units as f32).sqrt().recip();
    let w = bench.random(1, units, Element::F32, scale)?;
    let bias = bench.random(1, units, Element::F32, 1.0)?;
    let (dots, found) = (bench.mat(layer.rows, 1, Element::F32)?, layer.mat(bench, units)?);
    let launch = cross_vector(x.mat, x.mat, x.mat, w.mat, bias.mat, dots, found);
    let expected = move |row| {
        let x = x.row(row);
        let times = dot(&x, &w.row(0));
        x.iter().zip(bias.row(0)).map(|(x, bias)| x * times + bias + x).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Sums over the fields of a row, column by column.
pub(super) fn sums_of_fields(e: &[f64], width: u32) -> Vec<f64> {
    (0..width as usize).map(|col| e.iter().skip(col).step_by(width as usize).sum()).collect()
}

fn sums_of_pairs(layer: Layer, fields: u32, width: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (e, found) = (layer.random(bench, fields * width)?, layer.mat(bench, width)?);
    let launch = bi_interaction(fields, e.mat, found);
    let expected = move |row| {
        let e = e.row(row);
        let squares = sums_of_fields(&e.iter().map(|e| e * e).collect::<Vec<_>>(), width);
        sums_of_fields(&e, width)
            .into_iter()
            .zip(squares)
            .map(|(sum, square)| (sum * sum - square) / 2.0)
            .collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn sums_of_pairs_de(
    layer: Layer,
    fields: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let (e, dy) = (layer.random(bench, fields * width)?, layer.random(bench, width)?);
    let found = layer.mat(bench, fields * width)?;
    let launch = bi_interaction_de(fields, e.mat, dy.mat, false, found);
    let expected = move |row| {
        let (e, dy) = (e.row(row), dy.row(row));
        let sums = sums_of_fields(&e, width);
        let columns = sums.iter().zip(&dy).cycle();
        e.iter().zip(columns).map(|(e, (sum, dy))| dy * (sum - e)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Pairs of fields, in their order.
fn pairs(fields: u32) -> impl Iterator<Item = (usize, usize)> {
    (0..fields as usize).flat_map(move |f| (f + 1..fields as usize).map(move |g| (f, g)))
}

fn products_of_pairs(
    layer: Layer,
    fields: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let e = layer.random(bench, fields * width)?;
    let found = layer.mat(bench, fields * (fields - 1) / 2)?;
    let launch = pair_products(e.mat, fields, found);
    let expected = move |row| {
        let e = e.row(row);
        let field = |f: usize| &e[f * width as usize..][..width as usize];
        pairs(fields).map(|(f, g)| dot(field(f), field(g))).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn products_of_pairs_de(
    layer: Layer,
    fields: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let e = layer.random(bench, fields * width)?;
    let dy = layer.random(bench, fields * (fields - 1) / 2)?;
    let found = layer.mat(bench, fields * width)?;
    let launch = pair_products_de(e.mat, fields, dy.mat, false, found);
    let expected = move |row| {
        let (e, width) = (e.row(row), width as usize);
        let mut de = vec![0.0; e.len()];
        for ((f, g), dy) in pairs(fields).zip(dy.row(row)) {
            for col in 0..width {
                de[f * width + col] += dy * e[g * width + col];
                de[g * width + col] += dy * e[f * width + col];
            }
        }
        de
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// One weight for each pair of networks.
fn stitched(layer: Layer, networks: u32, units: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found) = (layer.random(bench, networks * units)?, layer.mat(bench, networks * units)?);
    let weights = bench.random_contiguous(networks, networks, Element::F32, 1.0)?;
    let launch = stitch(Weights::new(weights.mat), false, x.mat, false, None, found);
    let expected = move |row| {
        let x = x.row(row);
        let unit = |at: usize| -> f64 {
            let (t, u) = (at as u32 / units, at % units as usize);
            (0..networks).map(|j| f64::from(weights.at(t, j)) * x[j as usize * units as usize + u]).sum()
        };
        (0..x.len()).map(unit).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// A matrix `[out, inner]` for each row.
fn multiplied(layer: Layer, out: u32, inner: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, weight) = (layer.random(bench, inner)?, layer.random(bench, out * inner)?);
    let found = layer.mat(bench, out)?;
    let act = Activation::Identity;
    let launch = row_product(x.mat, weight.mat, Vectors::ONE, false, Start::Zero, act, found);
    let expected = move |row| {
        let x = x.row(row);
        weight.row(row).chunks(inner as usize).map(|weight| dot(weight, &x)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn multiplied_transposed(
    layer: Layer,
    out: u32,
    inner: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let (x, weight) = (layer.random(bench, out)?, layer.random(bench, out * inner)?);
    let found = layer.mat(bench, inner)?;
    let act = Activation::Identity;
    let launch = row_product(x.mat, weight.mat, Vectors::ONE, true, Start::Zero, act, found);
    let expected = move |row| {
        let (x, weight) = (x.row(row), weight.row(row));
        let column =
            |col: usize| weight.iter().skip(col).step_by(inner as usize).copied().collect::<Vec<_>>();
        (0..inner as usize).map(|col| dot(&column(col), &x)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn multiplied_dweights(
    layer: Layer,
    out: u32,
    inner: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let (dy, x, found) =
        (layer.random(bench, out)?, layer.random(bench, inner)?, layer.mat(bench, out * inner)?);
    let launch = row_outer(dy.mat, x.mat, Vectors::ONE, false, found);
    let expected = move |row| {
        let x = x.row(row);
        dy.row(row).into_iter().flat_map(|dy| x.iter().map(move |x| dy * x).collect::<Vec<_>>()).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn probable(layer: Layer, classes: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, found) = (layer.random(bench, classes)?, layer.mat(bench, classes)?);
    let launch = softmax(z.mat, found);
    let expected = move |row| gate(1, &z.row(row), &vec![0.0; classes as usize]).0;
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn normalised(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found) = (layer.random(bench, units)?, layer.mat(bench, units)?);
    let launch = row_normalise(1e-12, x.mat, found);
    let expected = move |row| {
        let x = x.row(row);
        let length = dot(&x, &x).sqrt();
        x.iter().map(|x| x / length).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Rows of all scenarios in turn.
fn transferred(layer: Layer, scenarios: u32, width: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let own = layer.random(bench, scenarios * width)?;
    let others = layer.random(bench, scenarios * width)?;
    let (q, found) = (bench.random(layer.rows, scenarios, Element::F32, 1.0)?, layer.mat(bench, width)?);
    let scenario = bench.upload_u32((0..layer.rows).map(|row| row % scenarios))?;
    let launch =
        transfer_mixture(q.mat, Experts { own: own.mat, others: others.mat, scenario, scenarios }, found);
    let expected = move |row: u32| {
        let (q, own, others) = (q.row(row), own.row(row), others.row(row));
        let expert = |p: usize| if p as u32 == row % scenarios { &own } else { &others };
        let unit = |i: usize| q.iter().enumerate().map(|(p, q)| q * expert(p)[p * width as usize + i]).sum();
        (0..width as usize).map(unit).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}
