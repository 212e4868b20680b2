//! What is made along lists, and attention: samples with lists of one length.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::layer::compare_rows;
use super::mmoe::tolerance;
use super::reference::{Error, dot, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::attention::{
    Attended, Heads, Tokens, attend, attend_backward, self_attention, self_attention_backward,
    self_attention_scratch,
};
use manygate_cuda::device::DeviceError;
use manygate_cuda::sequence::{
    Lists, Weights, compare, compare_dk, compare_dq, position_embedding, position_sums,
    position_sums_scratch, sequence_pool, sequence_pool_dx, sequence_softmax, sequence_softmax_dx,
    weighted_pool, weighted_pool_dw, weighted_pool_dx,
};
use manygate_cuda::{DeviceMat, Element, Precision};
use manygate_kernels::embedding::Pooling;
use std::ops::Range;

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
        let (pairs, one) = (rows * f64::from(self.ids), 1.0 / f64::from(self.width));
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
            case("sequence_softmax", 0.0, 2.0, 0.0, probable),
            case("sequence_softmax_dx", 0.0, 3.0, 0.0, probable_dx),
            case("weighted_pool", 1.0, 1.0 + one, 0.0, weighed),
            case("weighted_pool_dx", 1.0, 1.0 + one, 0.0, weighed_dx),
            case("weighted_pool_dw", 1.0, 1.0 + one, 0.0, weighed_dw),
            case("compare", 1.0, 5.0, 0.0, compared),
            case("compare_dk", 1.0, 4.0, 0.0, compared_dk),
            case("compare_dq", 1.0, 4.0, 0.0, compared_dq),
            case("position_embedding", 0.0, 2.0, 0.0, placed),
            // Sums are f64 whatever they are of.
            Case { tolerance: tolerance(Precision::F32), ..case("position_sums", 0.0, 1.0, 0.0, places) },
            case("attend", 2.0, 2.0, 2.0 * rows, attended),
            case("attend_backward", 4.0, 4.0, 5.0 * rows, attended_backward),
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

    fn of_sample(&self, sample: u32) -> Range<u32> {
        sample * self.ids..(sample + 1) * self.ids
    }

    fn heads(&self, tokens: Tokens) -> Heads {
        Heads { tokens, heads: HEADS, scale: SCALE }
    }

    /// How much each id of a sample weighs for a query, in a head whose columns are `own`.
    fn weights(&self, q: &[f64], sample: u32, k: Random, own: &Range<usize>) -> Vec<f64> {
        let score = |id| (f64::from(SCALE) * dot(&q[own.clone()], &k.row(id)[own.clone()])).exp();
        let weights: Vec<f64> = self.of_sample(sample).map(score).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    }

    /// The columns of each head.
    fn columns_of_heads(&self) -> impl Iterator<Item = Range<usize>> {
        let width = (self.width / HEADS) as usize;
        (0..HEADS as usize).map(move |head| head * width..(head + 1) * width)
    }

    /// What attention makes of a query and the ids of a sample.
    fn mixed(&self, q: &[f64], sample: u32, k: Random, v: Random) -> Vec<f64> {
        let values: Vec<Vec<f64>> = self.of_sample(sample).map(|id| v.row(id)).collect();
        let of_head = |own: Range<usize>| {
            let weights = self.weights(q, sample, k, &own);
            let column = |c: usize| values.iter().zip(&weights).map(|(value, w)| w * value[c]).sum();
            own.map(column).collect::<Vec<f64>>()
        };
        self.columns_of_heads().flat_map(of_head).collect()
    }

    /// The gradients of that, of `dout`: at the query, and at the keys of all ids and at their values.
    fn mixed_backward(
        &self,
        q: &[f64],
        sample: u32,
        [k, v]: [Random; 2],
        dout: &[f64],
    ) -> (Vec<f64>, [Vec<Vec<f64>>; 2]) {
        let (mut dq, mut dk) = (vec![0.0; q.len()], vec![vec![0.0; q.len()]; self.ids as usize]);
        let mut dv = dk.clone();
        for own in self.columns_of_heads() {
            let weights = self.weights(q, sample, k, &own);
            let along = |id| dot(&dout[own.clone()], &v.row(id)[own.clone()]);
            let along: Vec<f64> = self.of_sample(sample).map(along).collect();
            let mean = dot(&weights, &along);
            for (i, id) in self.of_sample(sample).enumerate() {
                let (ds, key) = (f64::from(SCALE) * weights[i] * (along[i] - mean), k.row(id));
                for c in own.clone() {
                    dq[c] += ds * key[c];
                    dk[i][c] = ds * q[c];
                    dv[i][c] = weights[i] * dout[c];
                }
            }
        }
        (dq, [dk, dv])
    }

    /// A number of each id.
    fn numbers(&self, bench: &mut Workbench) -> Result<Random, DeviceError> {
        bench.random(self.rows(), 1, self.element, 1.0)
    }
}

fn pooled(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [x], y) =
        (of.lists(bench)?, of.random(bench, [of.rows()])?, bench.mat(of.batch, of.width, of.element)?);
    let launch = sequence_pool(lists, Pooling::Mean, x.mat, y);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, y, &|r| {
            let mean =
                |c: u32| of.of_sample(r).map(|id| f64::from(x.at(id, c))).sum::<f64>() / f64::from(of.ids);
            (0..of.width).map(mean).collect()
        })
    })
}

fn spread(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [dy]) = (of.lists(bench)?, of.random(bench, [of.batch])?);
    let dx = bench.mat(of.rows(), of.width, of.element)?;
    let launch = sequence_pool_dx(lists, Pooling::Sum, dy.mat, false, dx);
    Prepared::new(vec![launch], move |bench| compare_rows(bench, dx, &|id| dy.row(id / of.ids)))
}

/// Over the ids of a sample, column by column.
fn probable(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [x]) = (of.lists(bench)?, of.random(bench, [of.rows()])?);
    let p = bench.mat(of.rows(), of.width, of.element)?;
    let launch = sequence_softmax(lists, x.mat, p);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, p, &|id| {
            let power = |id: u32, c: u32| f64::from(x.at(id, c)).exp();
            let sum = |c: u32| of.of_sample(id / of.ids).map(|other| power(other, c)).sum::<f64>();
            (0..of.width).map(|c| power(id, c) / sum(c)).collect()
        })
    })
}

/// The formula holds for any probabilities.
fn probable_dx(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [p, dp]) = (of.lists(bench)?, of.random(bench, [of.rows(); 2])?);
    let dx = bench.mat(of.rows(), of.width, of.element)?;
    let launch = sequence_softmax_dx(lists, p.mat, dp.mat, false, dx);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, dx, &|id| {
            let product = |id: u32, c: u32| f64::from(p.at(id, c)) * f64::from(dp.at(id, c));
            let mean = |c: u32| of.of_sample(id / of.ids).map(|other| product(other, c)).sum::<f64>();
            (0..of.width).map(|c| f64::from(p.at(id, c)) * (f64::from(dp.at(id, c)) - mean(c))).collect()
        })
    })
}

fn weighed(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [x], w) = (of.lists(bench)?, of.random(bench, [of.rows()])?, of.numbers(bench)?);
    let y = bench.mat(of.batch, of.width, of.element)?;
    let launch = weighted_pool(lists, Weights { w: w.mat, beside: None }, x.mat, y);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, y, &|r| {
            let term = |id: u32, c: u32| f64::from(w.at(id, 0)) * f64::from(x.at(id, c));
            (0..of.width).map(|c| of.of_sample(r).map(|id| term(id, c)).sum()).collect()
        })
    })
}

fn weighed_dx(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [dy], w) = (of.lists(bench)?, of.random(bench, [of.batch])?, of.numbers(bench)?);
    let dx = bench.mat(of.rows(), of.width, of.element)?;
    let launch = weighted_pool_dx(lists, Weights { w: w.mat, beside: None }, dy.mat, false, dx);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, dx, &|id| {
            dy.row(id / of.ids).iter().map(|d| f64::from(w.at(id, 0)) * d).collect()
        })
    })
}

fn weighed_dw(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [x, dy], w) =
        (of.lists(bench)?, of.random(bench, [of.rows(), of.batch])?, of.numbers(bench)?);
    let dw = bench.mat(of.rows(), 1, of.element)?;
    let weights = Weights { w: w.mat, beside: None };
    let launch = weighted_pool_dw(lists, weights, x.mat, dy.mat, Some((dw, false)), None);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, dw, &|id| vec![dot(&x.row(id), &dy.row(id / of.ids))])
    })
}

fn compared(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [q, k]) = (of.lists(bench)?, of.random(bench, [of.batch, of.rows()])?);
    let z = bench.mat(of.rows(), 4 * of.width, of.element)?;
    let launch = compare(lists, q.mat, k.mat, z);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, z, &|id| {
            let (q, k) = (q.row(id / of.ids), k.row(id));
            let both =
                |f: fn(f64, f64) -> f64| q.iter().zip(&k).map(|(q, k)| f(*q, *k)).collect::<Vec<f64>>();
            [q.clone(), k.clone(), both(|q, k| q - k), both(|q, k| q * k)].concat()
        })
    })
}

/// The gradient at the four parts of a comparison.
fn of_parts(of: Sequences, bench: &mut Workbench) -> Result<Random, DeviceError> {
    bench.random(of.rows(), 4 * of.width, of.element, 1.0)
}

fn compared_dk(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [q], dz) = (of.lists(bench)?, of.random(bench, [of.batch])?, of_parts(of, bench)?);
    let dk = bench.mat(of.rows(), of.width, of.element)?;
    let launch = compare_dk(lists, q.mat, dz.mat, false, dk);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, dk, &|id| {
            let part = |part: u32, c: u32| f64::from(dz.at(id, part * of.width + c));
            let query = |c| f64::from(q.at(id / of.ids, c));
            (0..of.width).map(|c| part(1, c) - part(2, c) + query(c) * part(3, c)).collect()
        })
    })
}

fn compared_dq(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [k], dz) = (of.lists(bench)?, of.random(bench, [of.rows()])?, of_parts(of, bench)?);
    let dq = bench.mat(of.batch, of.width, of.element)?;
    let launch = compare_dq(lists, k.mat, dz.mat, false, dq);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, dq, &|r| {
            let part = |id: u32, part: u32, c: u32| f64::from(dz.at(id, part * of.width + c));
            let of_id = |id, c| part(id, 0, c) + part(id, 2, c) + f64::from(k.at(id, c)) * part(id, 3, c);
            (0..of.width).map(|c| of.of_sample(r).map(|id| of_id(id, c)).sum()).collect()
        })
    })
}

fn placed(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [x, p]) = (of.lists(bench)?, of.random(bench, [of.rows(), of.ids])?);
    let y = bench.mat(of.rows(), of.width, of.element)?;
    let launch = position_embedding(lists, x.mat, p.mat, y);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, y, &|id| {
            x.row(id).iter().zip(p.row(id % of.ids)).map(|(x, place)| x + place).collect()
        })
    })
}

/// The gradient of learnt places: sums over samples.
fn places(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [dy]) = (of.lists(bench)?, of.random(bench, [of.rows()])?);
    let dp = bench.mat_with(of.ids, of.width, of.width, Element::F32)?;
    let scratch = bench.allocate(position_sums_scratch(of.batch, of.ids, of.width))?;
    Prepared::new(position_sums(lists, dy.mat, false, dp, scratch), move |bench| {
        compare_rows(bench, dp, &|place| {
            let of_samples = |c: u32| (0..of.batch).map(move |r| f64::from(dy.at(r * of.ids + place, c)));
            (0..of.width).map(|c| of_samples(c).sum()).collect()
        })
    })
}

fn attended(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [q, k, v]) = (of.lists(bench)?, of.random(bench, [of.batch, of.rows(), of.rows()])?);
    let (out, sums) = (bench.mat(of.batch, of.width, of.element)?, bench.mat(of.batch, HEADS, Element::F32)?);
    let launch = attend(of.heads(Tokens::Sample(lists)), [q, k, v].map(|m| m.mat), out, sums);
    Prepared::new(vec![launch], move |bench| compare_rows(bench, out, &|r| of.mixed(&q.row(r), r, k, v)))
}

/// At queries, and at keys and values.
fn attended_backward(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let rows = [of.batch, of.rows(), of.rows(), of.batch];
    let (lists, [q, k, v, dout]) = (of.lists(bench)?, of.random(bench, rows)?);
    let (out, log_sums) =
        (bench.mat(of.batch, of.width, of.element)?, bench.mat(of.batch, HEADS, Element::F32)?);
    let (heads, inputs) = (of.heads(Tokens::Sample(lists)), [q, k, v].map(|m| m.mat));
    bench.run(&[attend(heads, inputs, out, log_sums)])?;
    let mut gradient = |rows| bench.mat(rows, of.width, of.element);
    let [dq, dk, dv] = [gradient(of.batch)?, gradient(of.rows())?, gradient(of.rows())?];
    let to = [dq, dk, dv].map(|mat| Some((mat, false)));
    let launch = attend_backward(heads, inputs, Attended { out, log_sums, dout: dout.mat }, to);
    let expected = move |r: u32| of.mixed_backward(&q.row(r), r, [k, v], &dout.row(r));
    Prepared::new(vec![launch], move |bench| {
        let of_id = |which: usize, id: u32| expected(id / of.ids).1[which][(id % of.ids) as usize].clone();
        let of_queries = compare_rows(bench, dq, &|r| expected(r).0)?;
        let of_keys = compare_rows(bench, dk, &|id| of_id(0, id))?;
        Ok(of_queries.max(of_keys).max(compare_rows(bench, dv, &|id| of_id(1, id))?))
    })
}

fn among_themselves(of: Sequences, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
    let (lists, [q, k, v]) = (of.lists(bench)?, of.random(bench, [of.rows(); 3])?);
    let out = bench.mat(of.rows(), of.width, of.element)?;
    let launch = self_attention(of.heads(Tokens::List(lists)), [q, k, v].map(|m| m.mat), out);
    Prepared::new(vec![launch], move |bench| {
        compare_rows(bench, out, &|id| of.mixed(&q.row(id), id / of.ids, k, v))
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
