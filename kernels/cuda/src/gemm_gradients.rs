//! Both gradients of linear layers, see [`gemm`]. On Hopper one kernel makes them, in one pass over `dy` and `x`, where their
//! products wait for memory: in bf16, of layers whose weight it keeps in shared memory.

use crate::activation;
use crate::gemm::{self, BiasGradient, split};
use crate::launch::Launch;
use crate::module::GEMM_HOPPER_GRADIENTS;
use crate::product::{BLOCKS, TILE, WIDE_THREADS, lie_for_wide_tiles};
use crate::view::{DeviceMat, Element, Precision};
use manygate_kernels::activation::Activation;
use std::ops::RangeInclusive;

/// Inputs and outputs of layers for which the kernel pays: half as many are as much work for it.
const INPUTS: RangeInclusive<u32> = 129..=256;
const OUTPUTS: RangeInclusive<u32> = 65..=128;
/// Fewest blocks: one for each second multiprocessor.
const LEAST_BLOCKS: u32 = BLOCKS / 4;
/// Bytes of shared memory of a block: three stages of 64 rows of x and dy, and lines of sums of eight warps, which are more
/// than the weight that lies there before.
const SHARED: u32 = 3 * 64 * (256 + 128) * 2 + 8 * 16 * (TILE + 8) * 4;

/// Where the gradient of a weight goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightGradient {
    /// Whether to add to what is there.
    pub accumulate: bool,
    /// The matrix, f32.
    pub to: DeviceMat,
}

/// Where that of an input goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputGradient {
    /// Whether to add to what is there.
    pub accumulate: bool,
    /// Then it is multiplied by the derivative of this activation, which made the input, where it has this output.
    pub mask: Option<(Activation, DeviceMat)>,
    /// The matrix.
    pub to: DeviceMat,
}

/// [`gemm::grouped_linear_dw`], and then [`gemm::grouped_linear_dx`], of the same layers.
///
/// # Panics
/// As those.
pub fn grouped_linear_gradients(
    precision: Precision,
    groups: u32,
    dy: DeviceMat,
    x: DeviceMat,
    weights: DeviceMat,
    dw: WeightGradient,
    db: Option<BiasGradient>,
    dx: InputGradient,
    scratch: u64,
) -> Vec<Launch> {
    let mut launches = gemm::grouped_linear_dw(precision, groups, dy, x, dw.accumulate, dw.to, db, scratch);
    let mut of_input = gemm::grouped_linear_dx(precision, groups, dy, weights, dx.accumulate, dx.mask, dx.to);
    if can_be_at_once(precision, groups, dy, x, dx)
        && let Some(both) = at_once(&launches[0], weights, dx)
        && both.grid[1] * both.grid[2] >= LEAST_BLOCKS
    {
        launches[0].on_hopper = Some(Box::new(both));
        of_input.skip_on_hopper();
    }
    launches.push(of_input);
    launches
}

/// Whether Hopper has a kernel for both gradients of such layers.
pub fn can_be_at_once(
    precision: Precision,
    groups: u32,
    dy: DeviceMat,
    x: DeviceMat,
    dx: InputGradient,
) -> bool {
    let (inputs, outputs) = (split(groups, x.cols), split(groups, dy.cols));
    let is_known = dx
        .mask
        .is_none_or(|(act, output)| act == Activation::Identity || (act == Activation::Relu && output == x));
    let fits = INPUTS.contains(&inputs) && OUTPUTS.contains(&outputs) && inputs.is_multiple_of(8);
    let lies = |mat| lie_for_wide_tiles(groups, inputs, outputs, [mat, dx.to]);
    let is_plain = precision == Precision::Bf16 && dx.to.element == Element::Bf16 && !dx.accumulate;
    is_plain && is_known && fits && lies(dy) && lies(x)
}

/// What makes both gradients on Hopper, in place of the launch `dw` of [`gemm::grouped_linear_dw`] there, which has kernels of
/// its own.
pub fn at_once(dw: &Launch, weights: DeviceMat, dx: InputGradient) -> Option<Launch> {
    let own = dw.on_hopper.as_ref()?;
    let act = dx.mask.map_or(Activation::Identity, |(act, _)| act);
    let arguments = own.arguments.clone().with_mat(weights);
    let arguments = arguments.with_bytes(&activation::to_bytes(act), 4).with_mat(dx.to);
    Some(Launch {
        family: &GEMM_HOPPER_GRADIENTS,
        kernel: "linear_gradients_bf16",
        // A block makes all of a chunk's sums.
        grid: [1, own.grid[1], own.grid[2]],
        threads: WIDE_THREADS,
        shared: SHARED,
        arguments,
        ..(**own).clone()
    })
}
