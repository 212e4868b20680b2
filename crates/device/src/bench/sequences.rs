//! What is made along lists, and attention: samples with lists of one length.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::mmoe::tolerance;
use super::reference::{Error, dot, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::attention::{
    Heads, Tokens, attend, self_attention, self_attention_backward, self_attention_scratch,
};
use manygate_cuda::device::DeviceError;
use manygate_cuda::sequence::{Lists, compare, sequence_pool, sequence_pool_dx};
use manygate_cuda::{DeviceMat, Element, Precision};
use manygate_kernels::embedding::Pooling;

/// Samples that are compared.
const COMPARED: u32 = 8;
const HEADS: u32 = 2;
const SCALE: f32 = 0.35;

/// All cases.
pub(super) fn cases(size: Size) -> Vec<Case> {
    let [batch, ids, width] = match size {
        Size::Full => [16_384, 50, 16],
        Size::Small => [20, 5, 12],
    };
    let elements = [(Precision::F32, Element::F32), (Precision::Bf16, Element::Bf16)];
    let of = |(precision, element)| Sequences { batch, ids, width, precision, element };
    elements.map(of).into_iter().flat_map(Sequences::cases).collect()
}

/// Lists, and matrices of `element`.
#[derive(Clone, Copy)]
struct Sequences {
    batch: u32,
    ids: u32,
    width: u32,
    precision: Precision,
    element: Element,
}

type Make = fn(Sequences, &mut Workbench) -> Result<Prepared, DeviceError>;

impl Sequences {
    fn cases(self) -> Vec<Case> {
        let [samples, rows] = [f64::from(self.batch), self.rows().into()];
        let pairs = rows * f64::from(self.ids);
        let case = |kernel, of_samples: f64, of_ids: f64, products: f64, make: Make| {
            let values = f64::from(self.width) * (of_samples * samples + of_ids * rows);
            Case {
                kernel,
                shape: Shape::new(&[("batch", self.batch), ("ids", self.ids), ("width", self.width)]),
                precision: self.precision,
                work: Work {
                    bytes: values * self.element.bytes() as f64,
                    flops: 2.0 * products * f64::from(self.width),
                },
                tolerance: tolerance(self.precision),
                prepare: Box::new(move |bench| make(self, bench)),
            }
        };
        vec![
            case("sequence_pool", 1.0, 1.0, 0.0, pooled),
            case("sequence_pool_dx", 1.0, 1.0, 0.0, spread),
            case("compare", 1.0, 5.0, 0.0, compared),
            case("attend", 2.0, 2.0, 2.0 * rows, attended),
            case("self_attention", 0.0, 4.0, 2.0 * pairs, among_themselves),
            case("self_attention_backward", 0.0, 7.0, 5.0 * pairs, backwards),
        ]
    }

    fn rows(&self) -> u32 {
        self.batch * self.ids
    }

    fn lists(&self, bench: &mut Workbench) -> Result<Lists, DeviceError> {
        let offsets = bench.upload_u32((0..=self.batch).map(|r| r * self.ids))?;
        Ok(Lists { offsets, samples: bench.upload_u32([self.batch])?, most: self.batch })
    }

    fn random<const N: usize>(
        &self,
        bench: &mut Workbench,
        rows: [u32; N],
    ) -> Result<[Random; N], DeviceError> {
        let made: Result<Vec<Random>, DeviceError> =
            rows.into_iter().map(|rows| bench.random(rows, self.width, self.element, 1.0)).collect();
        let made = made?;
        Ok(std::array::from_fn(|i| made[i]))
    }

    fn of_sample(&self, sample: u32) -> std::ops::Range<u32> {
        sample * self.ids..(sample + 1) * self.ids
    }

    fn heads(&self, tokens: Tokens) -> Heads {
        Heads { tokens, heads: HEADS, scale: SCALE }
    }

    /// What attention makes of a query and the ids of a sample.
    fn mixed(&self, q: &[f64], sample: u32, k: Random, v: Random) -> Vec<f64> {
        let width = (self.width / HEADS) as usize;
        let keys: Vec<[Vec<f64>; 2]> = self.of_sample(sample).map(|id| [k.row(id), v.row(id)]).collect();
        let of_head = |head: usize| {
            let own = head * width..(head + 1) * width;
            let score =
                |key: &[Vec<f64>; 2]| (f64::from(SCALE) * dot(&q[own.clone()], &key[0][own.clone()])).exp();
            let weights: Vec<f64> = keys.iter().map(score).collect();
            let sum: f64 = weights.iter().sum();
            let column = |c: usize| keys.iter().zip(&weights).map(|(key, w)| w / sum * key[1][c]).sum();
            own.map(column).collect::<Vec<f64>>()
        };
        (0..HEADS as usize).flat_map(of_head).collect()
    }
}

fn pooled(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [x], y) =
        (of.lists(bench)?, of.random(bench, [of.rows()])?, bench.mat(of.batch, of.width, of.element)?);
    let launch = sequence_pool(lists, Pooling::Mean, x.mat, y);
    Prepared::new(vec![launch], move |bench| {
        let mut error = Error::default();
        for r in sample(of.batch, COMPARED) {
            let mean =
                |c: u32| of.of_sample(r).map(|id| f64::from(x.at(id, c))).sum::<f64>() / f64::from(of.ids);
            error.add_all(&bench.row(y, r)?, &(0..of.width).map(mean).collect::<Vec<f64>>());
        }
        Ok(error.relative())
    })
}

fn spread(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [dy]) = (of.lists(bench)?, of.random(bench, [of.batch])?);
    let dx = bench.mat(of.rows(), of.width, of.element)?;
    let launch = sequence_pool_dx(lists, Pooling::Sum, dy.mat, false, dx);
    Prepared::new(vec![launch], move |bench| {
        let mut error = Error::default();
        for id in sample(of.rows(), COMPARED) {
            error.add_all(&bench.row(dx, id)?, &dy.row(id / of.ids));
        }
        Ok(error.relative())
    })
}

fn compared(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [q, k]) = (of.lists(bench)?, of.random(bench, [of.batch, of.rows()])?);
    let z = bench.mat(of.rows(), 4 * of.width, of.element)?;
    let launch = compare(lists, q.mat, k.mat, z);
    Prepared::new(vec![launch], move |bench| {
        let mut error = Error::default();
        for id in sample(of.rows(), COMPARED) {
            let (q, k) = (q.row(id / of.ids), k.row(id));
            let both =
                |f: fn(f64, f64) -> f64| q.iter().zip(&k).map(|(q, k)| f(*q, *k)).collect::<Vec<f64>>();
            let parts = [q.clone(), k.clone(), both(|q, k| q - k), both(|q, k| q * k)];
            error.add_all(&bench.row(z, id)?, &parts.concat());
        }
        Ok(error.relative())
    })
}

fn attended(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [q, k, v]) = (of.lists(bench)?, of.random(bench, [of.batch, of.rows(), of.rows()])?);
    let (out, sums) = (bench.mat(of.batch, of.width, of.element)?, bench.mat(of.batch, HEADS, Element::F32)?);
    let launch = attend(of.heads(Tokens::Sample(lists)), [q, k, v].map(|m| m.mat), out, sums);
    Prepared::new(vec![launch], move |bench| {
        let mut error = Error::default();
        for r in sample(of.batch, COMPARED) {
            error.add_all(&bench.row(out, r)?, &of.mixed(&q.row(r), r, k, v));
        }
        Ok(error.relative())
    })
}

fn among_themselves(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [q, k, v]) = (of.lists(bench)?, of.random(bench, [of.rows(); 3])?);
    let out = bench.mat(of.rows(), of.width, of.element)?;
    let launch = self_attention(of.heads(Tokens::List(lists)), [q, k, v].map(|m| m.mat), out);
    Prepared::new(vec![launch], move |bench| {
        let mut error = Error::default();
        for id in sample(of.rows(), COMPARED) {
            error.add_all(&bench.row(out, id)?, &of.mixed(&q.row(id), id / of.ids, k, v));
        }
        Ok(error.relative())
    })
}

/// Gradients of what attends to each other. Those of values are compared: a column of them, summed over a sample, is that of
/// the gradient at the results, because weights sum to 1.
fn backwards(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [q, k, v, dout]) = (of.lists(bench)?, of.random(bench, [of.rows(); 4])?);
    let mut gradient = || bench.mat(of.rows(), of.width, of.element);
    let [dq, dk, dv] = [gradient()?, gradient()?, gradient()?];
    let scratch = bench.allocate(self_attention_scratch(of.rows() as usize, HEADS as usize))?;
    let to = [dq, dk, dv].map(|mat: DeviceMat| Some((mat, false)));
    let inputs = [q, k, v].map(|m| m.mat);
    let launches = self_attention_backward(of.heads(Tokens::List(lists)), inputs, dout.mat, to, scratch);
    Prepared::new(launches, move |bench| {
        let mut error = Error::default();
        for r in sample(of.batch, COMPARED) {
            let (mut found, mut expected) = (vec![0.0; of.width as usize], vec![0.0; of.width as usize]);
            for id in of.of_sample(r) {
                found.iter_mut().zip(bench.row(dv, id)?).for_each(|(sum, d)| *sum += d);
                expected.iter_mut().zip(dout.row(id)).for_each(|(sum, d)| *sum += d);
            }
            error.add_all(&found, &expected);
        }
        Ok(error.relative())
    })
}
