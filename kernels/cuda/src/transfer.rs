//! Transfer between scenarios: mixtures of their experts, and the conflict of their gradients. Matrices of mixtures hold f32
//! or bf16 each.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::TRANSFER;
use crate::share;
use crate::view::{DeviceMat, Element};

/// Threads of a block.
const THREADS: u32 = 256;
const WARP: u32 = 32;

/// Experts of all scenarios side by side, `[rows, scenarios · n]`: of its own scenario a row has the expert from `own`, of the
/// others from `others`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// The first bank.
    pub own: DeviceMat,
    /// The other.
    pub others: DeviceMat,
    /// Address of the scenario of each row, a u32 below `scenarios`.
    pub scenario: u64,
    /// Number of scenarios.
    pub scenarios: u32,
}

impl Experts {
    /// An `Experts` of transfer.cu.
    fn to_bytes(self) -> Vec<u8> {
        let banks = [self.own.to_bytes(), self.others.to_bytes()].concat();
        [banks, self.scenario.to_le_bytes().to_vec(), u64::from(self.scenarios).to_le_bytes().to_vec()]
            .concat()
    }

    fn assert_fit(self, kernel: &str, q: DeviceMat, y: DeviceMat) {
        share::assert_alike(kernel, &[self.own, self.others]);
        let bank = (y.rows, self.scenarios * y.cols);
        assert_eq!((self.own.rows, self.own.cols), bank, "{kernel}: experts of the width of y");
        assert_eq!((q.rows, q.cols), (y.rows, self.scenarios), "{kernel}: a weight for each scenario");
    }
}

/// `y = Σ_p q_p e_p`, of weights q `[rows, scenarios]`, y `[rows, n]`. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn transfer_mixture(q: DeviceMat, experts: Experts, y: DeviceMat) -> Launch {
    experts.assert_fit("transfer_mixture", q, y);
    let arguments = Arguments::new().with_mat(q).with_bytes(&experts.to_bytes(), 8).with_mat(y);
    by_quads("transfer_mixture", y, arguments)
}

/// The gradient of its weights, `dq_p = dy · e_p`, written or, with `accumulate`, added. The rows that are there are those of
/// `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn transfer_mixture_dq(experts: Experts, dy: DeviceMat, accumulate: bool, dq: DeviceMat) -> Launch {
    experts.assert_fit("transfer_mixture_dq", dq, dy);
    let segment = dy.cols.div_ceil(4).next_power_of_two().clamp(1, WARP);
    let threads = u64::from(dy.rows) * u64::from(segment);
    assert!(
        threads <= u64::from(u32::MAX / 2),
        "transfer_mixture_dq: [{}, {}] is too large",
        dy.rows,
        dy.cols
    );
    let arguments = Arguments::new().with_u32(segment).with_bytes(&experts.to_bytes(), 8).with_mat(dy);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(dq);
    Launch::new(&TRANSFER, "transfer_mixture_dq", blocks(threads, THREADS), THREADS, arguments)
}

/// The gradient of one bank of experts, of own ones (`of_own`) or of others: `q_p dy` for those that a row has from there, 0 for
/// the rest, written or, with `accumulate`, added. `scenario` is the address of a u32 a row. The rows that are there are those
/// of `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn transfer_mixture_dexperts(
    scenario: u64,
    of_own: bool,
    q: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    to: DeviceMat,
) -> Launch {
    let experts = Experts { own: to, others: to, scenario, scenarios: q.cols };
    experts.assert_fit("transfer_mixture_dexperts", q, dy);
    let arguments = Arguments::new().with_u64(scenario).with_u32(q.cols).with_u32(of_own.into());
    let arguments = arguments.with_mat(q).with_mat(dy).with_u32(accumulate.into()).with_mat(to);
    by_quads("transfer_mixture_dexperts", dy, arguments)
}

/// A launch in which a thread takes four columns of a row of `mat`.
fn by_quads(kernel: &'static str, mat: DeviceMat, arguments: Arguments) -> Launch {
    let quads = u64::from(mat.rows) * u64::from(mat.cols.div_ceil(4));
    assert!(quads <= u64::from(u32::MAX / 2), "{kernel}: [{}, {}] is too large", mat.rows, mat.cols);
    Launch::new(&TRANSFER, kernel, blocks(quads, THREADS), THREADS, arguments)
}

/// The scenarios of the rows that are there, in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Address of the scenario of each row, a u32.
    pub scenario: u64,
    /// Address of the number of rows, a u32.
    pub rows: u64,
}

/// What [`gradient_conflict`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The loss, added to the f64 at this address.
    Loss(u64),
    /// Its gradient.
    Gradient {
        /// Address of the factor, an f32.
        scale: u64,
        /// Where it is added, `[scenarios, k]`.
        dg: DeviceMat,
    },
}

/// Bytes of scratch that [`gradient_conflict`] works in.
pub fn gradient_conflict_scratch(scenarios: u32, k: u32) -> u64 {
    4 * (3 * u64::from(scenarios) * u64::from(k) + u64::from(scenarios))
}

/// `½ Σ_d |g_d − c_d|²` of gradients g `[scenarios, k]` of the scenarios that have rows, c their orthogonal basis by
/// Gram–Schmidt, through which no gradient flows where it is `basis_fixed`. `scratch` is the address of
/// [`gradient_conflict_scratch`] bytes, a multiple of 4.
///
/// # Panics
/// When g or its gradient are no matrix of f32 whose rows follow one another, or differ in shape.
pub fn gradient_conflict(
    g: DeviceMat,
    present: Present,
    basis_fixed: bool,
    what: Conflict,
    scratch: u64,
) -> Launch {
    let (scale, loss, dg) = match what {
        Conflict::Loss(loss) => (0, loss, DeviceMat { address: 0, ..g }),
        Conflict::Gradient { scale, dg } => (scale, 0, dg),
    };
    share::assert_alike("gradient_conflict", &[g, dg]);
    for mat in [g, dg] {
        assert_eq!(
            (mat.stride, mat.element),
            (g.cols, Element::F32),
            "gradient_conflict: rows of f32 in a row"
        );
    }
    let numbers = scratch + gradient_conflict_scratch(g.rows, g.cols) - 4 * u64::from(g.rows);
    let arguments = Arguments::new().with_u64(g.address).with_u32(g.rows).with_u32(g.cols);
    let arguments = arguments.with_u64(present.scenario).with_u64(present.rows).with_u32(basis_fixed.into());
    let arguments = arguments.with_u64(scale).with_u64(loss).with_u64(dg.address).with_u64(scratch);
    Launch::new(&TRANSFER, "gradient_conflict", 1, THREADS, arguments.with_u64(numbers))
}
