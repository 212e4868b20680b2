//! Optimisers of dense parameters, see `manygate_kernels::optim`.

use crate::launch::{Arguments, Launch};
use crate::module::OPTIM;
use manygate_kernels::optim::{AdagradStep, AdamStep, MomentumStep, SgdStep};
use std::ops::Range;

/// Threads of a block.
const THREADS: u32 = 256;
/// Parameters of a block, from a multiple of as many on.
const SPAN: u64 = 4 * THREADS as u64;

/// Parameters that one block moves, all of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    offset: u64,
    length: u32,
    group: u32,
}

impl Piece {
    /// Bytes of a piece in device memory.
    pub const BYTES: usize = 16;

    /// The pieces of a range of the flat parameters that belongs to `group`.
    pub fn cut(range: Range<u64>, group: u32) -> impl Iterator<Item = Piece> {
        let spans = range.start / SPAN..range.end.div_ceil(SPAN);
        let inside = spans.map(move |i| range.start.max(i * SPAN)..range.end.min((i + 1) * SPAN));
        inside.filter(|range| !range.is_empty()).map(move |range| Piece {
            offset: range.start,
            length: (range.end - range.start) as u32,
            group,
        })
    }

    /// As it lies in device memory.
    pub fn to_bytes(self) -> [u8; Piece::BYTES] {
        let mut bytes = [0; Piece::BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..].copy_from_slice(&self.group.to_le_bytes());
        bytes
    }
}

/// What a group of parameters does at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// It does not move.
    Still,
    /// A step of `manygate_kernels::optim::adagrad`.
    Adagrad(AdagradStep),
    /// A step of `manygate_kernels::optim::adam`.
    Adam(AdamStep),
    /// A step of `manygate_kernels::optim::momentum`.
    Momentum(MomentumStep),
    /// A step of `manygate_kernels::optim::sgd`.
    Sgd(SgdStep),
}

/// A `Group` of `optim.cu`; what a method does not read is 0.
#[derive(Default)]
struct Group {
    method: u32,
    nesterov: bool,
    rate: f32,
    l2: f32,
    epsilon: f32,
    kept: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    root2: f32,
}

impl Step {
    /// Bytes of a step in device memory.
    pub const BYTES: usize = 48;

    /// As it lies in device memory, with what the CPU's kernels compute of the constants before the first value.
    pub fn to_bytes(self) -> [u8; Step::BYTES] {
        let group = self.group();
        let counts = [group.method, group.nesterov.into()];
        let Group { rate, l2, epsilon, kept, beta1, rest1, beta2, rest2, root2, .. } = group;
        let numbers = [rate, l2, epsilon, kept, beta1, rest1, beta2, rest2, root2];
        let mut bytes = [0; Step::BYTES];
        for (i, word) in counts.into_iter().chain(numbers.map(f32::to_bits)).enumerate() {
            bytes[4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn group(self) -> Group {
        match self {
            Step::Still => Group::default(),
            Step::Adagrad(AdagradStep { rate, epsilon, l2 }) => {
                Group { method: 1, rate, epsilon, l2, ..Group::default() }
            }
            Step::Adam(step) => Group {
                method: 2,
                rate: step.rate / step.correction1,
                l2: step.l2,
                epsilon: step.epsilon,
                kept: 1.0 - step.rate * step.weight_decay,
                beta1: step.beta1,
                rest1: 1.0 - step.beta1,
                beta2: step.beta2,
                rest2: 1.0 - step.beta2,
                root2: step.correction2.sqrt(),
                ..Group::default()
            },
            Step::Momentum(step) => Group {
                method: 3,
                nesterov: step.nesterov,
                rate: step.rate,
                l2: step.l2,
                kept: 1.0 - step.rate * step.weight_decay,
                beta1: step.momentum,
                ..Group::default()
            },
            Step::Sgd(SgdStep { rate, l2 }) => Group { method: 4, rate, l2, ..Group::default() },
        }
    }
}

/// Addresses of the flat parameters and of what is laid out like them, f32 each, multiples of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The parameters.
    pub weights: u64,
    /// Their gradients, summed up.
    pub gradients: u64,
    /// First moments, or velocities.
    pub first: u64,
    /// Second moments, or sums of squares.
    pub second: u64,
}

/// What is done to gradients before a step reads them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clipping {
    /// Address of an f32 that they are multiplied by, if any.
    pub factor: Option<u64>,
    /// Each of them is moved into `-limit ..= limit`; infinite where it is not.
    pub limit: f32,
}

impl Clipping {
    /// Nothing.
    pub const NONE: Clipping = Clipping { factor: None, limit: f32::INFINITY };
}

/// One step of every group: `manygate_kernels::optim`'s `adam` and the others in one launch, each parameter by the
/// method and the constants of its group, its gradient as clipped by `clipping`.
///
/// `pieces` is the address of `count` [`Piece`]s, `groups` that of a [`Step`] a group, which may change from launch to
/// launch. Where the u32 at `go_on` is 0, nothing moves.
///
/// # Panics
/// When an address of `parameters`, `pieces` or `groups` is not a multiple of 16.
pub fn optimise(
    go_on: Option<u64>,
    pieces: u64,
    count: u32,
    groups: u64,
    clipping: Clipping,
    parameters: Parameters,
) -> Launch {
    let Parameters { weights, gradients, first, second } = parameters;
    let addresses = [weights, gradients, first, second];
    let is_aligned = addresses.iter().chain(&[pieces, groups]).all(|address| address.is_multiple_of(16));
    assert!(is_aligned, "optimise: {parameters:?}, pieces {pieces} or groups {groups} are not aligned");
    let arguments = Arguments::new().with_u64(go_on.unwrap_or(0)).with_u64(pieces).with_u64(groups);
    let arguments = arguments.with_u64(clipping.factor.unwrap_or(0)).with_f32(clipping.limit);
    let bytes: Vec<u8> = addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
    Launch::new(&OPTIM, "optimise", count, THREADS, arguments.with_bytes(&bytes, 8))
}

/// The sum of the squares of the gradients of each of `count` pieces, f64 values from `partials` on: what
/// [`clip_factor`] adds up.
///
/// # Panics
/// When `gradients`, the address of the flat vector, or `pieces` is not a multiple of 16.
pub fn sum_squares(pieces: u64, count: u32, gradients: u64, partials: u64) -> Launch {
    let is_aligned = gradients.is_multiple_of(16) && pieces.is_multiple_of(16);
    assert!(is_aligned, "sum_squares: gradients {gradients} or pieces {pieces} are not aligned");
    let arguments = Arguments::new().with_u64(pieces).with_u64(gradients).with_u64(partials);
    Launch::new(&OPTIM, "sum_squares", count, THREADS, arguments)
}

/// The factor, an f32 at `factor`, that makes a gradient no longer than `limit` in Euclidean norm: 1 where it is not.
///
/// Its squares are the sum of `count` f64 values from `partials` on: of [`sum_squares`], and of tables where they
/// count. Where that is not finite, the u32 at `go_on` becomes 0; else it stays.
pub fn clip_factor(partials: u64, count: u32, limit: f64, factor: u64, go_on: u64) -> Launch {
    let arguments = Arguments::new().with_u64(partials).with_u32(count).with_bytes(&limit.to_le_bytes(), 8);
    Launch::new(&OPTIM, "clip_factor", 1, THREADS, arguments.with_u64(factor).with_u64(go_on))
}
