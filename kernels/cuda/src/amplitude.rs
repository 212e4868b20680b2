//! Units times amplitudes, see `manygate_kernels::amplitude`. Matrices hold f32 or bf16 each.

use crate::activation;
use crate::launch::{Arguments, Launch, blocks};
use crate::module::AMPLITUDE;
use crate::share;
use crate::view::DeviceMat;
use manygate_kernels::activation::Activation;
use manygate_kernels::amplitude::{Amplitude, Pruning};

/// Threads of a block.
const THREADS: u32 = 256;

/// `amplitude` as kernels read it, an `Amplitude` of amplitude.cu: which one, scale, steepness and threshold.
fn to_bytes(amplitude: Amplitude) -> Vec<u8> {
    let (kind, Pruning { scale, steepness, threshold }) = match amplitude {
        Amplitude::Sigmoid(scale) => (0u32, Pruning { scale, steepness: 1.0, threshold: 0.0 }),
        Amplitude::Exp => (1, Pruning { scale: 0.0, steepness: 0.0, threshold: 0.0 }),
        Amplitude::OnePlus => (2, Pruning { scale: 0.0, steepness: 0.0, threshold: 0.0 }),
        Amplitude::Pruned(pruning) => (3, pruning),
        Amplitude::Mask { pruning, straight_through: false } => (4, pruning),
        Amplitude::Mask { pruning, straight_through: true } => (5, pruning),
    };
    let numbers = [scale, steepness, threshold].into_iter().flat_map(f32::to_le_bytes);
    kind.to_le_bytes().into_iter().chain(numbers).collect()
}

/// Units side by side that one amplitude multiplies, whose list lies in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceParts {
    /// Address of what [`parts_to_bytes`] gives, aligned to 8.
    pub table: u64,
    /// Number of parts.
    pub count: u32,
    /// Units of all of them.
    pub units: u32,
    /// Units of the widest.
    pub widest: u32,
}

impl DeviceParts {
    /// Parts with these numbers of units, whose bytes lie at `table`.
    pub fn new(parts: &[usize], table: u64) -> DeviceParts {
        let (units, widest) = (parts.iter().sum::<usize>(), parts.iter().max().copied().unwrap_or(0));
        DeviceParts { table, count: parts.len() as u32, units: units as u32, widest: widest as u32 }
    }

    /// Lanes that take a part, a power of two: each four units at a time.
    fn segment(self) -> u32 {
        self.widest.div_ceil(4).next_power_of_two().clamp(1, 32)
    }

    fn arguments(self, amplitude: Amplitude) -> Arguments {
        let arguments = Arguments::new().with_bytes(&to_bytes(amplitude), 4).with_u64(self.table);
        arguments.with_u32(self.count).with_u32(self.segment())
    }

    /// A launch over the parts of all rows of `x`.
    fn launch(self, kernel: &'static str, x: DeviceMat, r: DeviceMat, arguments: Arguments) -> Launch {
        let fits = (x.cols, r.cols, r.rows) == (self.units, self.count, x.rows);
        assert!(fits, "{kernel}: parts {self:?} do not fit {} units and {} amplitudes", x.cols, r.cols);
        let threads = u64::from(x.rows) * u64::from(self.count) * u64::from(self.segment());
        assert!(threads <= u64::from(u32::MAX / 2), "{kernel}: [{}, {}] is too large", x.rows, self.count);
        Launch::new(&AMPLITUDE, kernel, blocks(threads, THREADS), THREADS, arguments)
    }
}

/// `parts`, numbers of units, as kernels read them: the first unit and the number of each, u32.
pub fn parts_to_bytes(parts: &[usize]) -> Vec<u8> {
    let mut first = 0;
    let mut bytes = Vec::new();
    for &width in parts {
        bytes.extend([first, width].into_iter().flat_map(|word| (word as u32).to_le_bytes()));
        first += width;
    }
    bytes
}

/// What amplitudes are taken of: a value for each unit, or for each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of {
    /// `[rows, units]`, or `[rows, parts]`.
    pub values: DeviceMat,
    /// The parts.
    pub parts: Option<DeviceParts>,
}

/// Where a gradient goes, and whether it is added to what is there; [`None`] where nobody wants it.
pub type Target = Option<(DeviceMat, bool)>;

/// `y = x ⊙ a(r)`, `[rows, units]` each. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes disagree.
pub fn amplify(amplitude: Amplitude, x: DeviceMat, r: Of, y: DeviceMat) -> Launch {
    share::assert_alike("amplify", &[x, y]);
    let operands = |arguments: Arguments| arguments.with_mat(x).with_mat(r.values).with_mat(y);
    let Some(parts) = r.parts else {
        share::assert_alike("amplify", &[x, r.values]);
        let arguments = operands(Arguments::new().with_bytes(&to_bytes(amplitude), 4));
        return share::launch(&AMPLITUDE, "amplify", y, arguments);
    };
    parts.launch("amplify_parts", x, r.values, operands(parts.arguments(amplitude)))
}

/// The gradients of [`amplify`], from that of y: `dx = dy ⊙ a(r)`, then, with an activation, whose output x is, times its
/// slope; `dr = dy ⊙ x ⊙ a'(r)`, summed over the units of a part. The rows that are there are those of `dy`.
///
/// # Panics
/// When the shapes disagree.
pub fn amplify_backward(
    amplitude: Amplitude,
    x: DeviceMat,
    r: Of,
    dy: DeviceMat,
    dx: Target,
    activation: Option<Activation>,
    dr: Target,
) -> Launch {
    let none = |like: DeviceMat| (DeviceMat { address: 0, ..like }, false);
    let ((dx, add_x), (dr, add_r)) = (dx.unwrap_or_else(|| none(x)), dr.unwrap_or_else(|| none(r.values)));
    share::assert_alike("amplify_backward", &[x, dy, dx]);
    share::assert_alike("amplify_backward", &[r.values, dr]);
    let activation = activation::to_bytes(activation.unwrap_or(Activation::Identity));
    let operands = |arguments: Arguments| {
        let arguments = arguments.with_mat(x).with_mat(r.values).with_mat(dy).with_u32(add_x.into());
        arguments.with_bytes(&activation, 4).with_mat(dx).with_u32(add_r.into()).with_mat(dr)
    };
    let Some(parts) = r.parts else {
        share::assert_alike("amplify_backward", &[x, r.values]);
        let arguments = operands(Arguments::new().with_bytes(&to_bytes(amplitude), 4));
        return share::launch(&AMPLITUDE, "amplify_backward", dy, arguments);
    };
    parts.launch("amplify_parts_backward", x, r.values, operands(parts.arguments(amplitude)))
}

/// Bytes of scratch that [`pruned_share`] works in.
pub fn pruned_share_scratch(rows: u32, cols: u32) -> u64 {
    8 * u64::from(share::blocks_of("unpruned", rows, cols))
}

/// The share of the units of `r` `[rows, units]` that are pruned: an f32 at `share`. `scratch` is the address of
/// [`pruned_share_scratch`] bytes, a multiple of 8.
pub fn pruned_share(pruning: Pruning, r: DeviceMat, share: u64, scratch: u64) -> Vec<Launch> {
    let amplitude = to_bytes(Amplitude::Pruned(pruning));
    let arguments = Arguments::new().with_bytes(&amplitude, 4).with_mat(r).with_u64(scratch);
    let sums = share::launch(&AMPLITUDE, "unpruned", r, arguments);
    let arguments = Arguments::new().with_u64(scratch).with_u32(sums.grid[0]).with_mat(r).with_u64(share);
    vec![sums, Launch::new(&AMPLITUDE, "finish_share", 1, THREADS, arguments)]
}

/// The gradient of [`pruned_share`] straight through the step, as of 1 less the mean weight, written to `dr` or added;
/// `d_share` is the address of that at the share, an f32. The rows that are there are those of `r`.
///
/// # Panics
/// When the shapes differ.
pub fn pruning_dr(pruning: Pruning, r: DeviceMat, d_share: u64, accumulate: bool, dr: DeviceMat) -> Launch {
    share::assert_alike("pruning_dr", &[r, dr]);
    let arguments = Arguments::new().with_bytes(&to_bytes(Amplitude::Pruned(pruning)), 4).with_mat(r);
    let arguments = arguments.with_u64(d_share).with_u32(accumulate.into()).with_mat(dr);
    share::launch(&AMPLITUDE, "pruning_dr", r, arguments)
}
