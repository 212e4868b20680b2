//! What a device can do at the most, the measures behind the floors of benchmarks (on the CPU:
//! `manygate_kernels::peak`), and random values to measure kernels on.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::{PEAK, PEAK_HOPPER};
use crate::view::{Element, Precision};

/// Threads of a block.
const THREADS: u32 = 256;
/// Most blocks of what fills memory; a thread takes several values where there are more.
const FILL_BLOCKS: u64 = 1 << 14;
/// Bytes that a block of [`copy`] takes.
const COPIED: u32 = 16 * 4 * THREADS;
/// Independent chains of multiply-adds of a thread.
const CHAINS: usize = 8;
/// Fragments of either operand that a warp multiplies with each other.
const FRAGMENTS: u32 = 4;
/// Bytes of the tiles that a block multiplies on Hopper.
const HOPPER_TILES: u32 = 2 * 128 * 128;

/// The numbers that [`fill_random`] and [`fill_ids`] write: a stream of them for each seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub u32);

impl Stream {
    /// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), the upper half of its number `index`.
    fn hashed(self, index: u64) -> u32 {
        let start = u64::from(self.0).wrapping_mul(0xd134_2543_de82_ef95);
        let mut z = start.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 32) as u32
    }

    /// Number `index`, from -1 to below 1, of 2^24 different ones.
    pub fn number(self, index: u64) -> f32 {
        (self.hashed(index) >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Number `index`, below `below`.
    pub fn id(self, index: u64, below: u32) -> u32 {
        ((u64::from(self.hashed(index)) * u64::from(below)) >> 32) as u32
    }
}

/// Value i of `count` at `to` becomes [`Stream::number`] i times `scale`, rounded to what `element` holds.
pub fn fill_random(to: u64, count: u64, element: Element, stream: Stream, scale: f32) -> Launch {
    let arguments = Arguments::new().with_u64(to).with_u64(count).with_u32((element == Element::Bf16).into());
    fill("fill_random", count, arguments.with_u32(stream.0).with_f32(scale))
}

/// Value i of `count`, u32 at `to`, becomes [`Stream::id`] i below `below`.
pub fn fill_ids(to: u64, count: u64, stream: Stream, below: u32) -> Launch {
    let arguments = Arguments::new().with_u64(to).with_u64(count).with_u32(stream.0).with_u32(below);
    fill("fill_ids", count, arguments)
}

fn fill(kernel: &'static str, count: u64, arguments: Arguments) -> Launch {
    let blocks = count.div_ceil(THREADS.into()).min(FILL_BLOCKS) as u32;
    Launch::new(&PEAK, kernel, blocks, THREADS, arguments)
}

/// Copies `bytes` from one address to another, both multiples of 16.
///
/// # Panics
/// When `bytes` is not a multiple of 16.
pub fn copy(from: u64, to: u64, bytes: u64) -> Launch {
    assert!(bytes.is_multiple_of(16), "copy: {bytes} bytes are not a multiple of 16");
    let arguments = Arguments::new().with_u64(from).with_u64(to).with_u64(bytes / 16);
    Launch::new(&PEAK, "copy", blocks(bytes, COPIED), THREADS, arguments)
}

/// Multiply-adds in registers: nothing but arithmetic, `runs` times over. `out` is the address of an f32 for each of the
/// [`threads`] of `blocks` blocks.
///
/// In f32 a thread steps eight chains `x -> 1.9 - x x` from numbers of the stream; else a warp multiplies fragments of
/// them by `mma.sync`, and on Hopper a warpgroup tiles of bf16 by `wgmma`.
pub fn multiply_adds(precision: Precision, runs: u32, stream: Stream, blocks: u32, out: u64) -> Launch {
    let kernel = match precision {
        Precision::F32 => "multiply_adds",
        Precision::Tf32 => "multiply_adds_tf32",
        Precision::Bf16 => "multiply_adds_bf16",
    };
    let arguments = Arguments::new().with_u32(runs).with_u32(stream.0).with_u64(out);
    let on_hopper = PEAK_HOPPER.kernels.contains(&kernel).then(|| {
        let launch = Launch::new(&PEAK_HOPPER, kernel, blocks, THREADS, arguments.clone());
        Box::new(Launch { shared: HOPPER_TILES, ..launch })
    });
    Launch { on_hopper, ..Launch::new(&PEAK, kernel, blocks, THREADS, arguments) }
}

/// Threads of `blocks` blocks of [`multiply_adds`].
pub fn threads(blocks: u32) -> usize {
    blocks as usize * THREADS as usize
}

/// Floating-point operations of a launch of [`multiply_adds`], two for each multiply-add.
pub fn multiply_add_flops(precision: Precision, runs: u32, blocks: u32) -> f64 {
    let (threads, runs) = (threads(blocks) as f64, f64::from(runs));
    let of_fragments = |inner: u32| f64::from(2 * 16 * 8 * inner * FRAGMENTS * FRAGMENTS) / 32.0;
    threads
        * runs
        * match precision {
            Precision::F32 => 2.0 * CHAINS as f64,
            Precision::Tf32 => of_fragments(8),
            Precision::Bf16 => of_fragments(16),
        }
}

/// What a thread of [`multiply_adds`] in f32 leaves.
pub fn chains(stream: Stream, thread: u64, runs: u32) -> f32 {
    let chain =
        |c: u64| (0..runs).fold(stream.number(thread * CHAINS as u64 + c), |x, _| (-x).mul_add(x, 1.9));
    (0..CHAINS as u64).map(chain).reduce(|sum, x| sum + x).unwrap_or(0.0)
}
