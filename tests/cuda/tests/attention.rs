//! Attention on the device against plain loops.

use manygate_cuda::attention::{
    Attended, Heads, Tokens, attend, attend_backward, self_attention, self_attention_backward,
    self_attention_scratch,
};
use manygate_cuda::sequence::Lists;
use manygate_cuda::{DeviceMat, Element};
use manygate_cuda_tests::{Gpu, Sampled, Window};
use proptest::prelude::*;

const SCALE: f32 = 0.6;

/// Where a token's head begins in the values of a matrix.
type Places = Vec<usize>;

/// The queries and the keys of a sample's head.
fn parts(lists: &Sampled, tokens: Kind, heads: usize, width: usize) -> Vec<(Places, Places)> {
    let cols = heads * width;
    let places =
        |rows: &mut dyn Iterator<Item = usize>, h: usize| rows.map(|r| r * cols + h * width).collect();
    let of = |(r, h): (usize, usize)| match tokens {
        Kind::Sample => (places(&mut (r..r + 1), h), places(&mut lists.ids(r), h)),
        Kind::List => (places(&mut lists.ids(r), h), places(&mut lists.ids(r), h)),
        Kind::Parts(count) => {
            let own: Places = places(&mut (r * count..(r + 1) * count), h);
            (own.clone(), own)
        }
    };
    (0..lists.samples[0]).flat_map(|r| (0..heads).map(move |h| (r, h))).map(of).collect()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Sample,
    List,
    Parts(usize),
}

impl Kind {
    fn any() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Sample), Just(Kind::List), (1usize..6).prop_map(Kind::Parts)]
    }

    fn windows(self, lists: &Sampled, cols: usize) -> [Window; 3] {
        match self {
            Kind::Sample => [lists.of_samples(cols), lists.of_ids(cols), lists.of_ids(cols)],
            Kind::List => [lists.of_ids(cols); 3],
            Kind::Parts(count) => [lists.of_samples(count * cols); 3],
        }
    }

    fn heads(self, lists: Lists, heads: usize) -> Heads {
        let tokens = match self {
            Kind::Sample => Tokens::Sample(lists),
            Kind::List => Tokens::List(lists),
            Kind::Parts(count) => Tokens::Parts { parts: count as u32, samples: lists.samples },
        };
        Heads { tokens, heads: heads as u32, scale: SCALE }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The weights of all keys for a query.
fn weights(q: &[f32], k: &[f32], keys: &[usize], width: usize) -> Vec<f64> {
    let scores: Vec<f64> =
        keys.iter().map(|&j| (f64::from(SCALE) * dot(&q[..width], &k[j..][..width])).exp()).collect();
    let sum: f64 = scores.iter().sum();
    scores.into_iter().map(|score| score / sum).collect()
}

/// What is added to the gradients of q, k and v.
fn add_gradients(
    parts: &[(Places, Places)],
    width: usize,
    [q, k, v, dout]: [&[f32]; 4],
    mut add: impl FnMut(usize, usize, f64),
) {
    for (queries, keys) in parts {
        for &i in queries {
            let (p, dout) = (weights(&q[i..], k, keys, width), &dout[i..][..width]);
            let along: Vec<f64> = keys.iter().map(|&j| dot(dout, &v[j..][..width])).collect();
            let mean: f64 = p.iter().zip(&along).map(|(p, along)| p * along).sum();
            for ((&j, p), along) in keys.iter().zip(&p).zip(&along) {
                let ds = f64::from(SCALE) * p * (along - mean);
                for c in 0..width {
                    add(0, i + c, ds * f64::from(k[j + c]));
                    add(1, j + c, ds * f64::from(q[i + c]));
                    add(2, j + c, p * f64::from(dout[c]));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn attention_and_its_gradients(
        lists in Sampled::any(), kind in Kind::any(), heads in 1usize..4,
        width in prop_oneof![4 => 1usize..10, 1 => Just(16), 1 => 128usize..135], accumulate: bool,
    ) {
        let (windows, parts) = (kind.windows(&lists, heads * width), parts(&lists, kind, heads, width));
        let [of_q, of_k, of_v] = windows;
        let of_sums = Window { element: Element::F32, ..lists.of_samples(heads) };
        let sums_of = |gpu: &mut Gpu| of_sums.upload(gpu, &of_sums.values(3, 1.0));
        let launch = |gpu: &mut Gpu, of, from: &[DeviceMat], out| {
            let (inputs, heads) = ([from[0], from[1], from[2]], kind.heads(of, heads));
            match kind {
                Kind::Sample => vec![attend(heads, inputs, out, sums_of(gpu))],
                _ => vec![self_attention(heads, inputs, out)],
            }
        };
        lists.check(&windows, of_q, false, launch, |of, out| {
            for (queries, keys) in &parts {
                for &i in queries {
                    let p = weights(&of[0][i..], &of[1], keys, width);
                    let mixed = |c: usize| keys.iter().zip(&p).map(|(&j, p)| p * f64::from(of[2][j + c])).sum::<f64>();
                    (0..width).for_each(|c| out[i + c] = mixed(c) as f32);
                }
            }
        })?;
        for (wanted, to) in windows.into_iter().enumerate() {
            let launch = |gpu: &mut Gpu, of, from: &[DeviceMat], to| {
                let (inputs, dout, heads) = ([from[0], from[1], from[2]], from[3], kind.heads(of, heads));
                let to = [0, 1, 2].map(|i| (i == wanted).then_some((to, accumulate)));
                if let Kind::Sample = kind {
                    // Its own result in f32, whose rounding is no part of the gradients then.
                    let exact = Window { element: Element::F32, ..of_q };
                    let (out, log_sums) = (exact.upload(gpu, &exact.values(4, 1.0)), sums_of(gpu));
                    let at = Attended { out, log_sums, dout };
                    return vec![attend(heads, inputs, out, log_sums), attend_backward(heads, inputs, at, to)];
                }
                let tokens = dout.rows as usize * if let Kind::Parts(count) = kind { count } else { 1 };
                let scratch = gpu.allocate::<u8>(self_attention_scratch(tokens, heads.heads as usize) as usize);
                self_attention_backward(heads, inputs, dout, to, scratch)
            };
            lists.check(&[of_q, of_k, of_v, of_q], to, accumulate, launch, |of, to| {
                let mut sums: Vec<f64> = to.iter().map(|&v| v.into()).collect();
                let values = [0, 1, 2, 3].map(|i| &of[i][..]);
                add_gradients(&parts, width, values, |which, at, d| {
                    if which == wanted {
                        sums[at] += d;
                    }
                });
                to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum as f32);
            })?;
        }
    }
}
