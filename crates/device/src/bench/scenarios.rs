//! Kernels of models whose rows have something by their scenario or cluster: values scaled and shifted, experts fused and
//! attended to, sums over the rows of each scenario, rows in the order of clusters; and layer normalisation.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::layer::{Layer, Made, compare_rows, widths};
use super::mmoe::{Layers, tolerance};
use super::reference::{Error, dot, gate, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::cluster::{
    Moving, Order, gather_rows, keep_centers, move_centers, move_centers_backward, order_rows, route,
    scatter_rows,
};
use manygate_cuda::device::DeviceError;
use manygate_cuda::layer_norm::{Normal, layer_norm, layer_norm_backward};
use manygate_cuda::scenario::{
    Attention, Fusion, level_fusion, level_fusion_backward, scenario_affine, scenario_attention,
    scenario_sums, scenario_sums_scratch,
};
use manygate_cuda::{DeviceMat, Element, Precision};

/// Scenarios, or clusters.
const SCENARIOS: u32 = 5;
pub(super) const TASKS: u32 = 3;
const EPSILON: f32 = 1e-5;
/// Share of old centres, and the shortest length that new ones are divided by.
const BETA: f32 = 0.9;
const SHORTEST: f32 = 1e-12;
/// Columns of a sum that are compared.
const COMPARED: u32 = 16;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [Layers { batch: rows, .. }, _] = Layers::all(size);
    let [units, _, side] = widths(size);
    let (of_units, of_scenarios) =
        ([("units", units), ("width", 1)], [("scenarios", SCENARIOS), ("width", side)]);
    let of_elements = Layer::both(rows).into_iter().flat_map(|layer| {
        [
            layer.case("scenario_affine", 2 * units, of_units, scaled),
            sums(layer, units),
            layer.case("level_fusion", (3 * TASKS + SCENARIOS) * side, of_scenarios, fused),
            layer.case("level_fusion_backward", (2 * TASKS + SCENARIOS) * side, of_scenarios, fused_backward),
            layer.case("scenario_attention", (SCENARIOS + 2) * side, of_scenarios, attended),
            layer.case("layer_norm", 2 * units, of_units, normal),
            layer.case("layer_norm_dx", 3 * units, of_units, normal_backward),
            layer.case("route", SCENARIOS + 1, [("clusters", SCENARIOS), ("width", 1)], routed),
            layer.case("gather_rows", 2 * units, of_units, gathered),
            layer.case("scatter_rows", 2 * units, of_units, scattered),
        ]
    });
    let centers = Centers { units };
    let once = [order(rows), centers.moved(), centers.moved_backward(), centers.kept()];
    of_elements.chain(once).collect()
}

/// Scenarios of rows in turn.
pub(super) fn in_turn(rows: u32, bench: &mut Workbench) -> Result<u64, DeviceError> {
    bench.upload_u32((0..rows).map(|row| row % SCENARIOS))
}

fn scaled(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found) = (layer.random(bench, units)?, layer.mat(bench, units)?);
    let m = bench.random_contiguous(SCENARIOS, units, Element::F32, 1.0)?;
    let b = bench.random_contiguous(SCENARIOS, units, Element::F32, 1.0)?;
    let launch = scenario_affine(in_turn(layer.rows, bench)?, x.mat, m.mat, b.mat, found);
    let expected = move |row| {
        let own = m.row(row % SCENARIOS).into_iter().zip(b.row(row % SCENARIOS));
        x.row(row).into_iter().zip(own).map(|(x, (m, b))| m * x + b).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Both sums of each column over the rows of each scenario.
fn sums(layer: Layer, units: u32) -> Case {
    let Layer { rows, precision, element } = layer;
    Case {
        kernel: "scenario_sums",
        shape: Shape::new(&[("rows", rows), ("units", units)]),
        precision,
        work: Work { bytes: 2.0 * f64::from(rows) * f64::from(units) * element.bytes() as f64, flops: 0.0 },
        // Sums are f64 whatever they are of.
        tolerance: tolerance(Precision::F32),
        prepare: Box::new(move |bench| {
            let (x, dy) = (layer.random(bench, units)?, layer.random(bench, units)?);
            let scenario = in_turn(rows, bench)?;
            let products = bench.mat_with(SCENARIOS, units, units, Element::F32)?;
            let of_dy = bench.mat_with(SCENARIOS, units, units, Element::F32)?;
            let count = SCENARIOS as usize;
            let scratch = bench.allocate(scenario_sums_scratch(count, rows, units))?;
            let [to_dy, to_products] = [of_dy, products].map(|to| Some((to.address, false)));
            let launches = scenario_sums(scenario, count, Some(x.mat), dy.mat, to_dy, to_products, scratch);
            Prepared::new(launches, move |bench| {
                let mut error = Error::default();
                for scenario in 0..SCENARIOS {
                    let found = bench.row(products, scenario)?;
                    for col in sample(units, COMPARED) {
                        let own = (scenario..rows).step_by(count);
                        let terms = own.map(|row| f64::from(x.at(row, col)) * f64::from(dy.at(row, col)));
                        error.add(found[col as usize], terms.sum());
                    }
                }
                Ok(error.relative())
            })
        }),
    }
}

/// Levels whose shares are all a half.
pub(super) fn halves(layer: Layer, bench: &mut Workbench) -> Result<Fusion, DeviceError> {
    let (scenario, numbers) = (in_turn(layer.rows, bench)?, bench.upload_f32([0.0; 4])?);
    Ok(Fusion { scenario, numbers, domains: SCENARIOS, tasks: TASKS })
}

/// What an expert of so many weighs, own or other, by shares of a half.
fn half_weight(count: u32, is_own: bool) -> f64 {
    if is_own { 0.25 } else { 0.25 / f64::from(count - 1) }
}

/// Column `col` of experts `width` wide, mixed by shares of a half.
fn half_mixed(experts: &[f64], width: usize, own: usize, col: usize) -> f64 {
    let count = (experts.len() / width) as u32;
    let weighed = experts.iter().skip(col).step_by(width).enumerate();
    weighed.map(|(e, value)| half_weight(count, e == own) * value).sum()
}

fn fused(layer: Layer, _: u32, width: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (shared, tasks) = (layer.random(bench, TASKS * width)?, layer.random(bench, TASKS * width)?);
    let (domains, found) = (layer.random(bench, SCENARIOS * width)?, layer.mat(bench, TASKS * width)?);
    let launch = level_fusion(halves(layer, bench)?, shared.mat, domains.mat, tasks.mat, found);
    let expected = move |row: u32| {
        let (shared, domains, tasks) = (shared.row(row), domains.row(row), tasks.row(row));
        let (width, own) = (width as usize, (row % SCENARIOS) as usize);
        let unit = |at: usize| {
            let of_domains = half_mixed(&domains, width, own, at % width);
            shared[at] + of_domains + half_mixed(&tasks, width, at / width, at % width)
        };
        (0..shared.len()).map(unit).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// Gradients of the experts of domains and of tasks.
fn fused_backward(layer: Layer, _: u32, width: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (dy, found) = (layer.random(bench, TASKS * width)?, layer.mat(bench, SCENARIOS * width)?);
    let (fusion, d_tasks) = (halves(layer, bench)?, layer.mat(bench, TASKS * width)?);
    let (to_domains, to_tasks) = (Some((found, false)), Some((d_tasks, false)));
    let Some(launch) = level_fusion_backward(fusion, dy.mat, None, to_domains, to_tasks) else {
        unreachable!("gradients are asked for")
    };
    let expected = move |row: u32| {
        let dy = dy.row(row);
        let all = |col: usize| -> f64 { dy.iter().skip(col).step_by(width as usize).sum() };
        let of_domain = |d: u32| (0..width as usize).map(move |col| (d, col));
        let units = (0..SCENARIOS).flat_map(of_domain);
        units.map(|(d, col)| half_weight(SCENARIOS, d == row % SCENARIOS) * all(col)).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

fn attended(layer: Layer, scenarios: u32, width: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (groups, found) = (layer.random(bench, scenarios * width)?, layer.mat(bench, 2 * width)?);
    let logits = bench.random_contiguous(scenarios, scenarios, Element::F32, 1.0)?;
    let weights = bench.mat(layer.rows, scenarios, Element::F32)?;
    let attention = Attention { scenario: in_turn(layer.rows, bench)?, drops: false };
    let launch = scenario_attention(attention, logits.mat, groups.mat, weights, found);
    let expected = move |row: u32| {
        let (own, width) = ((row % scenarios) as usize, width as usize);
        let (mut logits, mut others) = (logits.row(row % scenarios), groups.row(row));
        let own_values: Vec<f64> = others.drain(own * width..(own + 1) * width).collect();
        logits.remove(own);
        own_values.into_iter().chain(gate(1, &logits, &others).1).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// What a row is normalised with, and the values of γ and β: one and none.
pub(super) fn plain(units: u32, bench: &mut Workbench) -> Result<(Normal, u64), DeviceError> {
    let gamma = bench.upload_f32((0..units).map(|_| 1.0))?;
    Ok((Normal { groups: 1, epsilon: EPSILON, gamma }, bench.zeros(4 * u64::from(units))?))
}

/// A row normalised, and its deviation.
pub(super) fn normalised(x: &[f64]) -> (Vec<f64>, f64) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64;
    let deviation = (variance + f64::from(EPSILON)).sqrt();
    (x.iter().map(|v| (v - mean) / deviation).collect(), deviation)
}

fn normal(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found) = (layer.random(bench, units)?, layer.mat(bench, units)?);
    let (normal, beta) = plain(units, bench)?;
    let launch = layer_norm(normal, x.mat, beta, found);
    Ok(Made { launch, found, expected: Box::new(move |row| normalised(&x.row(row)).0) })
}

/// Without the sums over rows, which other launches end.
fn normal_backward(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, dy, found) = (layer.random(bench, units)?, layer.random(bench, units)?, layer.mat(bench, units)?);
    let (normal, _) = plain(units, bench)?;
    let moments = bench.allocate(8 * u64::from(layer.rows))?;
    let launches = layer_norm_backward(normal, x.mat, dy.mat, Some((found, false)), None, None, moments);
    let Ok([launch]) = <[_; 1]>::try_from(launches) else { unreachable!("no sums are asked for") };
    let expected = move |row| {
        let ((normal, deviation), dy) = (normalised(&x.row(row)), dy.row(row));
        let (mean, along) = (dy.iter().sum::<f64>(), dot(&dy, &normal));
        let units = dy.len() as f64;
        dy.iter().zip(&normal).map(|(d, n)| (d - mean / units - n * along / units) / deviation).collect()
    };
    Ok(Made { launch, found, expected: Box::new(expected) })
}

/// The first of the largest.
fn routed(layer: Layer, clusters: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (z, found) = (layer.random(bench, clusters)?, layer.mat(bench, 1)?);
    let expected = move |row| {
        let z = z.row(row);
        let largest = z.iter().copied().fold(f64::MIN, f64::max);
        vec![z.iter().take_while(|&&z| z < largest).count() as f64]
    };
    Ok(Made { launch: route(z.mat, found), found, expected: Box::new(expected) })
}

/// Where a row stands by clusters in turn: those of the first before those of the second.
fn place(row: u32, rows: u32) -> u32 {
    let of = |cluster: u32| (rows - cluster).div_ceil(SCENARIOS);
    (0..row % SCENARIOS).map(of).sum::<u32>() + row / SCENARIOS
}

/// The cluster of each row, in turn, and memory for their order.
fn clusters(rows: u32, bench: &mut Workbench) -> Result<(DeviceMat, Order), DeviceError> {
    let route = bench.upload_f32((0..rows).map(|row| (row % SCENARIOS) as f32))?;
    let memory = bench.allocate(Order::bytes(rows, SCENARIOS as usize))?;
    Ok((DeviceMat::new(route, rows, 1), Order::at(memory, rows, SCENARIOS as usize)))
}

/// The order of rows by cluster.
fn order(rows: u32) -> Case {
    Case {
        kernel: "order_rows",
        shape: Shape::new(&[("rows", rows), ("clusters", SCENARIOS)]),
        precision: Precision::F32,
        work: Work { bytes: 8.0 * f64::from(rows), flops: 0.0 },
        tolerance: 0.0,
        prepare: Box::new(move |bench| {
            let (route, order) = clusters(rows, bench)?;
            Prepared::new(order_rows(route, order), move |bench| {
                let found: Vec<u32> = bench.download(order.rows, rows as usize)?;
                let mut error = Error::default();
                (0..rows).for_each(|row| error.add(found[place(row, rows) as usize], row.into()));
                Ok(error.relative())
            })
        }),
    }
}

/// Rows that were put in order.
fn in_order(layer: Layer, bench: &mut Workbench) -> Result<Order, DeviceError> {
    let (route, order) = clusters(layer.rows, bench)?;
    bench.run(&order_rows(route, order))?;
    Ok(order)
}

fn scattered(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found, rows) = (layer.random(bench, units)?, layer.mat(bench, units)?, layer.rows);
    let launch = scatter_rows(in_order(layer, bench)?, x.mat, false, found);
    Ok(Made { launch, found, expected: Box::new(move |row| x.row(place(row, rows))) })
}

fn gathered(layer: Layer, units: u32, _: u32, bench: &mut Workbench) -> Result<Made, DeviceError> {
    let (x, found, rows) = (layer.random(bench, units)?, layer.mat(bench, units)?, layer.rows);
    let launch = gather_rows(in_order(layer, bench)?, x.mat, found);
    let row_at = move |at| (0..rows).find(|&row| place(row, rows) == at).unwrap_or(0);
    Ok(Made { launch, found, expected: Box::new(move |at| x.row(row_at(at))) })
}

/// Centres of clusters.
#[derive(Clone, Copy)]
struct Centers {
    units: u32,
}

impl Centers {
    /// A case that reads or writes as many matrices of centres.
    fn case(
        self,
        kernel: &'static str,
        matrices: f64,
        prepare: fn(Centers, &mut Workbench) -> Result<Prepared, DeviceError>,
    ) -> Case {
        let sizes = [("clusters", SCENARIOS), ("units", self.units)];
        let bytes = 4.0 * matrices * f64::from(SCENARIOS) * f64::from(self.units);
        Case::once(kernel, &sizes, bytes, move |bench| prepare(self, bench))
    }

    fn random(self, bench: &mut Workbench) -> Result<Random, DeviceError> {
        bench.random_contiguous(SCENARIOS, self.units, Element::F32, 1.0)
    }

    fn mat(self, bench: &mut Workbench) -> Result<DeviceMat, DeviceError> {
        bench.mat_with(SCENARIOS, self.units, self.units, Element::F32)
    }

    /// Where a centre is to go before it gets the length 1, and how long that is.
    fn between(old: Random, pull: Random, cluster: u32) -> (Vec<f64>, f64) {
        let beta = f64::from(BETA);
        let both = old.row(cluster).into_iter().zip(pull.row(cluster));
        let between: Vec<f64> = both.map(|(old, pull)| beta * old + (1.0 - beta) * pull).collect();
        let length = dot(&between, &between).sqrt();
        (between, length)
    }

    fn moved(self) -> Case {
        self.case("move_centers", 3.0, |of, bench| {
            let (old, pull, to) = (of.random(bench)?, of.random(bench)?, of.mat(bench)?);
            let moving = Moving { beta: BETA, shortest: SHORTEST, old: old.mat, pull: pull.mat };
            Prepared::new(vec![move_centers(moving, to)], move |bench| {
                compare_rows(bench, to, &|cluster| {
                    let (between, length) = Centers::between(old, pull, cluster);
                    between.iter().map(|v| v / length).collect()
                })
            })
        })
    }

    /// Of the old centres and of what pulls them. The formula holds for any result.
    fn moved_backward(self) -> Case {
        self.case("move_centers_backward", 6.0, |of, bench| {
            let (old, pull) = (of.random(bench)?, of.random(bench)?);
            let (unit, dy) = (of.random(bench)?, of.random(bench)?);
            let (d_old, d_pull) = (of.mat(bench)?, of.mat(bench)?);
            let moving = Moving { beta: BETA, shortest: SHORTEST, old: old.mat, pull: pull.mat };
            let [to_old, to_pull] = [d_old, d_pull].map(|to| Some((to, false)));
            let Some(launch) = move_centers_backward(moving, unit.mat, dy.mat, to_old, to_pull) else {
                unreachable!("gradients are asked for")
            };
            Prepared::new(vec![launch], move |bench| {
                let share = |share: f64, cluster| {
                    let (unit, dy) = (unit.row(cluster), dy.row(cluster));
                    let (along, (_, length)) = (dot(&unit, &dy), Centers::between(old, pull, cluster));
                    let of_unit = dy.iter().zip(&unit).map(|(d, unit)| share / length * (d - unit * along));
                    of_unit.collect::<Vec<_>>()
                };
                let beta = f64::from(BETA);
                let of_old = compare_rows(bench, d_old, &|cluster| share(beta, cluster))?;
                Ok(of_old.max(compare_rows(bench, d_pull, &|cluster| share(1.0 - beta, cluster))?))
            })
        })
    }

    fn kept(self) -> Case {
        let case = self.case("keep_centers", 2.0, |of, bench| {
            let (centers, state) = (of.random(bench)?, of.mat(bench)?);
            let launch = keep_centers(bench.upload_u32([1])?, centers.mat, state.address);
            Prepared::new(vec![launch], move |bench| {
                compare_rows(bench, state, &|cluster| centers.row(cluster))
            })
        });
        Case { tolerance: 0.0, ..case }
    }
}
