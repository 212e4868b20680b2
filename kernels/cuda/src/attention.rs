//! Attention head by head, see the ops `attention` and `target_attention`. Matrices hold f32 or bf16 each.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::ATTENTION;
use crate::sequence::Lists;
use crate::share;
use crate::view::DeviceMat;

/// Threads of a block.
const THREADS: u32 = 256;
const WARP: u32 = 32;

/// What attends to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// A query a sample, `[samples, heads · width]`, to the ids of its list, `[ids, heads · width]`.
    Sample(Lists),
    /// The ids of each sample to each other, `[ids, heads · width]`.
    List(Lists),
    /// Equal parts of a row to each other, `[samples, parts · heads · width]`.
    Parts {
        /// How many a row has.
        parts: u32,
        /// Address of the number of samples, a u32.
        samples: u64,
    },
}

/// Heads of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// What attends to what.
    pub tokens: Tokens,
    /// Number of heads.
    pub heads: u32,
    /// Factor of the scores.
    pub scale: f32,
}

impl Heads {
    fn parts(self) -> u32 {
        if let Tokens::Parts { parts, .. } = self.tokens { parts } else { 1 }
    }

    /// A launch in which a segment of lanes takes a head of a query, whose matrix is `q`.
    fn launch(
        self,
        kernel: &'static str,
        q: DeviceMat,
        with_more: impl FnOnce(Arguments) -> Arguments,
    ) -> Launch {
        let (parts, heads) = (self.parts(), self.heads);
        let count = parts * heads;
        assert!(count > 0 && q.cols.is_multiple_of(count), "{kernel}: {} columns in {count} parts", q.cols);
        let width = q.cols / count;
        let segment = width.div_ceil(4).next_power_of_two().clamp(1, WARP);
        let threads = u64::from(q.rows) * u64::from(count) * u64::from(segment);
        assert!(threads <= u64::from(u32::MAX / 2), "{kernel}: [{}, {}] is too large", q.rows, q.cols);
        let (offsets, samples) = match self.tokens {
            Tokens::Sample(lists) | Tokens::List(lists) => (lists.offsets, lists.samples),
            Tokens::Parts { samples, .. } => (0, samples),
        };
        let among_each_other = !matches!(self.tokens, Tokens::Sample(_));
        let of = Arguments::new().with_u64(offsets).with_u64(samples).with_u32(parts).with_u32(heads);
        let of = of.with_u32(width).with_f32(self.scale).with_u32(among_each_other.into()).with_u32(segment);
        let arguments = with_more(Arguments::new().with_bytes(of.bytes(), 8));
        Launch::new(&ATTENTION, kernel, blocks(threads, THREADS), THREADS, arguments)
    }
}

/// Where a gradient goes, and whether it is added to what is there.
type Gradient = Option<(DeviceMat, bool)>;

/// Matrices of gradients, those that nobody wants at the address 0, and a bit for each that is added to.
fn gradients<const N: usize>(to: [Gradient; N], like: [DeviceMat; N]) -> ([DeviceMat; N], u32) {
    let mut mats = like.map(|mat| DeviceMat { address: 0, ..mat });
    let mut bits = 0;
    for (i, (to, add)) in to.into_iter().enumerate().filter_map(|(i, to)| Some((i, to?))) {
        share::assert_alike("gradients of attention", &[to, like[i]]);
        mats[i] = to;
        bits |= u32::from(add) << i;
    }
    (mats, bits)
}

/// `out = Σ_i softmax_i(scale q · k_i) v_i` of one query a sample, head by head, 0 for a sample without ids; and `log_sums`
/// `[samples, heads]`, the logarithms of the sums of exponentials.
///
/// # Panics
/// When the shapes do not fit together.
pub fn attend(heads: Heads, [q, k, v]: [DeviceMat; 3], out: DeviceMat, log_sums: DeviceMat) -> Launch {
    share::assert_alike("attend", &[q, out]);
    share::assert_alike("attend", &[k, v]);
    assert_eq!((k.cols, log_sums.cols), (q.cols, heads.heads), "attend: keys as wide as queries");
    heads.launch("attend", q, |arguments| {
        arguments.with_mat(q).with_mat(k).with_mat(v).with_mat(out).with_mat(log_sums)
    })
}

/// What [`attend_backward`] reads of [`attend`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attended {
    /// The result.
    pub out: DeviceMat,
    /// The logarithms of the sums of exponentials.
    pub log_sums: DeviceMat,
    /// The gradient at the result.
    pub dout: DeviceMat,
}

/// The gradients of [`attend`] at q, k and v, each written, or added where the bool says so.
///
/// # Panics
/// When the shapes do not fit together.
pub fn attend_backward(heads: Heads, [q, k, v]: [DeviceMat; 3], at: Attended, to: [Gradient; 3]) -> Launch {
    share::assert_alike("attend_backward", &[q, at.out, at.dout]);
    share::assert_alike("attend_backward", &[k, v]);
    let ([dq, dk, dv], accumulate) = gradients(to, [q, k, v]);
    heads.launch("attend_backward", q, |arguments| {
        let arguments = arguments.with_mat(q).with_mat(k).with_mat(v).with_mat(at.out).with_mat(at.log_sums);
        arguments.with_mat(at.dout).with_u32(accumulate).with_mat(dq).with_mat(dk).with_mat(dv)
    })
}

/// `out_i = Σ_j softmax_j(scale q_i · k_j) v_j` among the tokens of each sample, head by head.
///
/// # Panics
/// When the shapes differ, or heads do not divide them.
pub fn self_attention(heads: Heads, [q, k, v]: [DeviceMat; 3], out: DeviceMat) -> Launch {
    share::assert_alike("self_attention", &[q, k, v, out]);
    heads.launch("self_attention", q, |arguments| arguments.with_mat(q).with_mat(k).with_mat(v).with_mat(out))
}

/// Bytes of scratch that [`self_attention_backward`] works in, for so many tokens of all samples.
pub fn self_attention_scratch(tokens: usize, heads: usize) -> u64 {
    8 * tokens as u64 * heads as u64
}

/// The gradients of [`self_attention`] at q, k and v, each written, or added where the bool says so. `scratch` is the address
/// of [`self_attention_scratch`] bytes, a multiple of 8.
///
/// # Panics
/// When the shapes differ, or heads do not divide them.
pub fn self_attention_backward(
    heads: Heads,
    [q, k, v]: [DeviceMat; 3],
    dout: DeviceMat,
    [dq, dk, dv]: [Gradient; 3],
    scratch: u64,
) -> Vec<Launch> {
    share::assert_alike("self_attention_backward", &[q, k, v, dout]);
    let has_keys = dk.is_some() || dv.is_some();
    let ([dq], add_queries) = gradients([dq], [q]);
    let ([dk, dv], add_keys) = gradients([dk, dv], [k, v]);
    let of = |arguments: Arguments| arguments.with_mat(q).with_mat(k).with_mat(v).with_mat(dout);
    let queries = heads.launch("self_attention_dq", q, |arguments| {
        of(arguments).with_u32(add_queries).with_mat(dq).with_u64(scratch)
    });
    let keys = has_keys.then(|| {
        heads.launch("self_attention_dkv", q, |arguments| {
            of(arguments).with_u64(scratch).with_u32(add_keys).with_mat(dk).with_mat(dv)
        })
    });
    [queries].into_iter().chain(keys).collect()
}
