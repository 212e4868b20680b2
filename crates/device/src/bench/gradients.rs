//! Gradients of single layers that move more than they multiply, see `layers.rs` and `scenarios.rs`: a row of each is one of the
//! batch.

use super::Size;
use super::case::{Case, Prepared};
use super::layer::{Layer, Made, compare_rows, widths};
use super::layers::{CLASSES, EXPERTS, FIELD, GATES, SCENARIOS, amplitude, seen_by_gates, sums_of_fields};
use super::mmoe::Layers;
use super::reference::{dot, gate_dx};
use super::scenarios::in_turn;
use super::workbench::Workbench;
use manygate_cuda::Element;
use manygate_cuda::amplitude::{DeviceParts, Of, amplify, amplify_backward, parts_to_bytes};
use manygate_cuda::cross::cross_vector_dx;
use manygate_cuda::device::DeviceError;
use manygate_cuda::gate::{gate_combine_seen_dx, self_scored_dx};
use manygate_cuda::interaction::{sum_columns, sum_columns_dx};
use manygate_cuda::row::{row_normalise_dx, softmax_dz};
use manygate_cuda::row_product::{Vectors, row_sums};
use manygate_cuda::scenario::{scenario_affine_dx, scenario_attention_dgroups, scenario_attention_slopes};
use manygate_cuda::transfer::{Experts, transfer_mixture_dexperts, transfer_mixture_dq};
use manygate_kernels::amplitude::Amplitude;
use manygate_kernels::cross::Roles;

/// Vectors of a sample whose gradients are summed.
const VECTORS: u32 = 4;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, width, .. }, _] = Layers::all(size);
    let [units, fields, side] = widths(size);
    let of_units = [("units", units), ("width", 1)];
    let of_fields = [("fields", fields), ("width", FIELD)];
    let of_scenarios = [("scenarios", SCENARIOS), ("width", side)];
    let (e, all) = (fields * FIELD, SCENARIOS * side);
    let seen = (2 * EXPERTS + GATES) * width + 8 * GATES;
    let of_layer = |layer: Layer| {
        [
            layer.prepared(
                "gate_combine_seen_dx",
                seen,
                [("experts", EXPERTS), ("width", width)],
                gates_backward,
            ),
            layer.case("self_scored_dx", 13 * units + 2, [("vectors", 2), ("width", units)], scored_backward),
            layer.case("amplify_parts", 2 * e + fields, of_fields, parts),
            layer.prepared("amplify_parts_backward", 3 * e + 2 * fields, of_fields, parts_backward),
            layer.case("cross_vector_dx", 6 * units, [("units", 2 * units), ("width", 1)], crossed_backward),
            layer.case("sum_columns", units + 1, of_units, summed),
            layer.case("sum_columns_dx", units + 1, of_units, summed_backward),
            layer.case(
                "row_sums",
                (VECTORS + 1) * side,
                [("vectors", VECTORS), ("width", side)],
                summed_vectors,
            ),
            layer.case("softmax_dz", 3 * CLASSES, [("classes", CLASSES), ("width", 1)], probable_backward),
            layer.case("row_normalise_dx", 4 * units, of_units, normalised_backward),
            layer.case("transfer_mixture_dq", SCENARIOS + all + side, of_scenarios, transferred_dq),
            layer.case("transfer_mixture_dexperts", 1 + side + all, of_scenarios, transferred_dexperts),
            layer.case("scenario_affine_dx", 2 * units, of_units, scaled_backward),
            layer.case("scenario_attention_slopes", all + 2 * SCENARIOS, of_scenarios, slopes),
            layer.case(
                "scenario_attention_dgroups",
                SCENARIOS + all + 2 * side,
                of_scenarios,
                attended_backward,
            ),
        ]
    };
    Layer::both(rows).into_iter().flat_map(of_layer).collect()
}

/// Of the logits and of the bank.
fn gates_backward(
    layer: Layer,
    experts: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Prepared, DeviceError> {
    let (list, gates) = seen_by_gates(experts, bench)?;
    // The formula holds for any weights.
    let weights = bench.random(layer.rows, 4 * GATES, Element::F32, 1.0)?;
    let (bank, d_mixed) = (layer.random(bench, experts * width)?, layer.random(bench, GATES * width)?);
    let (d_logits, d_bank) = (layer.mat(bench, 4 * GATES)?, layer.mat(bench, experts * width)?);
    let to_banks = [Some((false, d_bank)), None];
    let banks = [bank.mat, bank.mat];
    let launch =
        gate_combine_seen_dx(list, weights.mat, banks, false, d_mixed.mat, false, d_logits, to_banks);
    let width = width as usize;
    let expected = move |row| {
        let (weights, bank, d_mixed) = (weights.row(row), bank.row(row), d_mixed.row(row));
        let (mut of_logits, mut of_bank) = (Vec::new(), vec![0.0; bank.len()]);
        for ((weights, d_mixed), seen) in weights.chunks(4).zip(d_mixed.chunks(width)).zip(&gates) {
            let own: Vec<f64> = seen.iter().flat_map(|&e| bank[e * width..][..width].to_vec()).collect();
            let (d_logits, d_own) = gate_dx(1, weights, &own, d_mixed);
            of_logits.extend(d_logits);
            for (&e, d) in seen.iter().zip(d_own.chunks(width)) {
                of_bank[e * width..][..width].iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
            }
        }
        (of_logits, of_bank)
    };
    Prepared::new(vec![launch], move |bench| {
        let of_logits = compare_rows(bench, d_logits, &|row| expected(row).0)?;
        Ok(of_logits.max(compare_rows(bench, d_bank, &|row| expected(row).1)?))
    })
}

fn scored_backward(
    layer: Layer,
    vectors: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let (kqv, dy) = (layer.random(bench, 3 * vectors * width)?, layer.random(bench, width)?);
    let weights = bench.random(layer.rows, vectors, Element::F32, 1.0)?;
    let found = layer.mat(bench, 3 * vectors * width)?;
    let scale = (width as f32).sqrt().recip();
    let launch = self_scored_dx(vectors, scale, kqv.mat, weights.mat, dy.mat, false, found);
    let expected = move |row| {
        let (kqv, weights, dy) = (kqv.row(row), weights.row(row), dy.row(row));
        let parts: Vec<&[f64]> = kqv.chunks(width as usize).collect();
        let at_weights: Vec<f64> = parts.chunks(3).map(|part| dot(&dy, part[2])).collect();
        let mean = dot(&weights, &at_weights);
        let of_vector = |((part, w), dw): ((&[&[f64]], &f64), &f64)| {
            let factor = f64::from(scale) * w * (dw - mean);
            let times = |factor: f64, values: &[f64]| values.iter().map(|v| factor * v).collect::<Vec<_>>();
            [times(factor, part[1]), times(factor, part[0]), times(*w, &dy)].concat()
        };
        parts.chunks(3).zip(&weights).zip(&at_weights).flat_map(of_vector).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Fields, each of which has one amplitude.
fn fields_of_a_row(fields: u32, width: u32, bench: &mut Workbench) -> Result<DeviceParts, DeviceError> {
    let parts = vec![width as usize; fields as usize];
    let table = bench.upload(&parts_to_bytes(&parts))?;
    Ok(DeviceParts::new(&parts, table))
}

fn parts(layer: Layer, fields: u32, width: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, r) = (layer.random(bench, fields * width)?, layer.random(bench, fields)?);
    let found = layer.mat(bench, fields * width)?;
    let of = Of { values: r.mat, parts: Some(fields_of_a_row(fields, width, bench)?) };
    let launch = amplify(Amplitude::Sigmoid(2.0), x.mat, of, found);
    let expected = move |row| {
        let (x, r) = (x.row(row), r.row(row));
        x.chunks(width as usize).zip(r).flat_map(|(x, r)| x.iter().map(move |x| x * amplitude(r).0)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Of the fields and of what their amplitudes are of.
fn parts_backward(
    layer: Layer,
    fields: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Prepared, DeviceError> {
    let (x, r) = (layer.random(bench, fields * width)?, layer.random(bench, fields)?);
    let dy = layer.random(bench, fields * width)?;
    let (dx, dr) = (layer.mat(bench, fields * width)?, layer.mat(bench, fields)?);
    let of = Of { values: r.mat, parts: Some(fields_of_a_row(fields, width, bench)?) };
    let (to_x, to_r) = (Some((dx, false)), Some((dr, false)));
    let launch = amplify_backward(Amplitude::Sigmoid(2.0), x.mat, of, dy.mat, to_x, None, to_r);
    let width = width as usize;
    Prepared::new(vec![launch], move |bench| {
        let of_x = compare_rows(bench, dx, &|row| {
            let (r, dy) = (r.row(row), dy.row(row));
            dy.chunks(width).zip(r).flat_map(|(d, r)| d.iter().map(move |d| d * amplitude(r).0)).collect()
        })?;
        let of_r = compare_rows(bench, dr, &|row| {
            let (x, dy) = (x.row(row), dy.row(row));
            let of_fields = x.chunks(width).zip(dy.chunks(width)).zip(r.row(row));
            of_fields.map(|((x, dy), r)| dot(x, dy) * amplitude(r).1).collect()
        })?;
        Ok(of_x.max(of_r))
    })
}

/// Of the first layer: what it crosses, crosses with and adds is one. The formula holds for any numbers of rows.
fn crossed_backward(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, dy, found) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.mat(bench, units)?);
    let w = bench.random(1, units, Element::F32, (units as f32).sqrt().recip())?;
    let dots = bench.random(layer.rows, 1, Element::F32, 1.0)?;
    let inner = bench.mat(layer.rows, 1, Element::F32)?;
    let all = Roles { factor: true, inner: true, residual: true };
    let launch = cross_vector_dx(x.mat, w.mat, dots.mat, dy.mat, inner, &[(all, Some((found, false)))]);
    let expected = move |row| {
        let (dy, times) = (dy.row(row), dots.row(row)[0]);
        let along = dot(&dy, &x.row(row));
        dy.iter().zip(w.row(0)).map(|(d, w)| times * d + along * w + d).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn summed(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found) = (layer.random(bench, units)?, bench.mat(layer.rows, 1, Element::F32)?);
    let launch = sum_columns(x.mat, false, found);
    Ok(Made { launch, found, expected: Box::new(move |row| vec![x.row(row).iter().sum()]) })
}

fn summed_backward(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (dy, found) = (bench.random(layer.rows, 1, Element::F32, 1.0)?, layer.mat(bench, units)?);
    let launch = sum_columns_dx(dy.mat, false, found);
    Ok(Made { launch, found, expected: Box::new(move |row| vec![dy.row(row)[0]; units as usize]) })
}

/// Of the biases of products with vectors that stand side by side.
fn summed_vectors(
    layer: Layer,
    vectors: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let (x, found) = (layer.random(bench, vectors * width)?, layer.mat(bench, width)?);
    let launch = row_sums(x.mat, Vectors { groups: vectors, offsets: None }, false, found);
    Ok(Made { launch, found, expected: Box::new(move |row| sums_of_fields(&x.row(row), width)) })
}

/// The formula holds for any probabilities.
fn probable_backward(layer: Layer, classes: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (q, dq) = (layer.random(bench, classes)?, layer.random(bench, classes)?);
    let found = layer.mat(bench, classes)?;
    let launch = softmax_dz(q.mat, dq.mat, false, found);
    let expected = move |row| {
        let (q, dq) = (q.row(row), dq.row(row));
        let mean = dot(&q, &dq);
        q.iter().zip(&dq).map(|(q, d)| q * (d - mean)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The formula holds for any y; this one is about as long as a row that was normalised.
fn normalised_backward(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, dy, found) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.mat(bench, units)?);
    let y = bench.random(layer.rows, units, layer.element, (3.0 / units as f32).sqrt())?;
    let launch = row_normalise_dx(1e-12, x.mat, y.mat, dy.mat, false, found);
    let expected = move |row| {
        let (x, y, dy) = (x.row(row), y.row(row), dy.row(row));
        let (length, along) = (dot(&x, &x).sqrt(), dot(&y, &dy));
        dy.iter().zip(&y).map(|(d, y)| (d - y * along) / length).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Rows of all scenarios in turn.
fn transferred_dq(
    layer: Layer,
    scenarios: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let own = layer.random(bench, scenarios * width)?;
    let others = layer.random(bench, scenarios * width)?;
    let (dy, found) = (layer.random(bench, width)?, bench.mat(layer.rows, scenarios, Element::F32)?);
    let scenario = in_turn(layer.rows, bench)?;
    let experts = Experts { own: own.mat, others: others.mat, scenario, scenarios };
    let launch = transfer_mixture_dq(experts, dy.mat, false, found);
    let expected = move |row: u32| {
        let (own, others, dy) = (own.row(row), others.row(row), dy.row(row));
        let expert = |p: u32| if p == row % scenarios { &own } else { &others };
        (0..scenarios).map(|p| dot(&expert(p)[(p * width) as usize..][..width as usize], &dy)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Of the bank of own experts.
fn transferred_dexperts(
    layer: Layer,
    scenarios: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let q = bench.random(layer.rows, scenarios, Element::F32, 1.0)?;
    let (dy, found) = (layer.random(bench, width)?, layer.mat(bench, scenarios * width)?);
    let scenario = in_turn(layer.rows, bench)?;
    let launch = transfer_mixture_dexperts(scenario, true, q.mat, dy.mat, false, found);
    let expected = move |row: u32| {
        let (q, dy) = (q.row(row), dy.row(row));
        let weight = |p: u32| if p == row % scenarios { q[p as usize] } else { 0.0 };
        (0..scenarios).flat_map(|p| dy.iter().map(|d| weight(p) * d).collect::<Vec<_>>()).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn scaled_backward(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (dy, found) = (layer.random(bench, units)?, layer.mat(bench, units)?);
    let m = bench.random_contiguous(SCENARIOS, units, Element::F32, 1.0)?;
    let launch = scenario_affine_dx(in_turn(layer.rows, bench)?, m.mat, dy.mat, false, found);
    let expected = move |row: u32| {
        let own = m.row(row % SCENARIOS);
        dy.row(row).iter().zip(own).map(|(d, m)| m * d).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The formula holds for any weights.
fn slopes(layer: Layer, scenarios: u32, width: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (groups, dy) = (layer.random(bench, scenarios * width)?, layer.random(bench, 2 * width)?);
    let weights = bench.random(layer.rows, scenarios, Element::F32, 1.0)?;
    let found = bench.mat(layer.rows, scenarios, Element::F32)?;
    let scenario = in_turn(layer.rows, bench)?;
    let launch = scenario_attention_slopes(scenario, groups.mat, weights.mat, dy.mat, found);
    let expected = move |row: u32| {
        let (groups, dy, weights) = (groups.row(row), dy.row(row), weights.row(row));
        let (of_others, own) = (&dy[width as usize..], (row % scenarios) as usize);
        let products = groups.chunks(width as usize).enumerate();
        let products: Vec<f64> =
            products.map(|(m, group)| if m == own { 0.0 } else { dot(group, of_others) }).collect();
        let mean = dot(&weights, &products);
        weights.iter().zip(&products).map(|(weight, product)| weight * (product - mean)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn attended_backward(
    layer: Layer,
    scenarios: u32,
    width: u32,
    bench: &mut Workbench,
) -> Result<Made, DeviceError> {
    let (dy, found) = (layer.random(bench, 2 * width)?, layer.mat(bench, scenarios * width)?);
    let weights = bench.random(layer.rows, scenarios, Element::F32, 1.0)?;
    let scenario = in_turn(layer.rows, bench)?;
    let launch = scenario_attention_dgroups(scenario, weights.mat, dy.mat, false, found);
    let expected = move |row: u32| {
        let (dy, weights) = (dy.row(row), weights.row(row));
        let (of_own, of_others) = dy.split_at(width as usize);
        let group = |m: u32| match m == row % scenarios {
            true => of_own.to_vec(),
            false => of_others.iter().map(|d| weights[m as usize] * d).collect(),
        };
        (0..scenarios).flat_map(group).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}
