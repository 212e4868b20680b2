//! Products of vectors with matrices of their samples, see `manygate_kernels::row_product`. Matrices hold f32 or bf16 each.

use crate::activation;
use crate::launch::{Arguments, Launch, blocks};
use crate::module::ROW_PRODUCT;
use crate::view::DeviceMat;
use manygate_kernels::activation::Activation;

/// Threads of a block; a warp takes a sample.
const THREADS: u32 = 256;
const WARP: u32 = 32;

/// The vectors of samples: each row of a value holds `groups` of them side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// Vectors in a row.
    pub groups: u32,
    /// Address of where the rows of each sample begin and those of the last one end, u32 `[samples + 1]`; a row each where
    /// there is none.
    pub offsets: Option<u64>,
}

impl Vectors {
    /// One in a row, a row for each sample.
    pub const ONE: Vectors = Vectors { groups: 1, offsets: None };

    /// A `Vectors` of row_product.cu.
    fn to_bytes(self) -> Vec<u8> {
        let words = [self.offsets.unwrap_or(0), self.groups.into()];
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    /// Values of a vector of `mat`, which has the rows of `samples` samples.
    fn width(self, kernel: &str, mat: DeviceMat, samples: u32) -> u32 {
        let fits = self.groups > 0 && mat.cols.is_multiple_of(self.groups);
        assert!(fits, "{kernel}: {} columns for {} vectors", mat.cols, self.groups);
        assert!(
            self.offsets.is_some() || mat.rows == samples,
            "{kernel}: {} rows, {samples} samples",
            mat.rows
        );
        mat.cols / self.groups
    }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    Zero,
    /// A vector of each sample, `[samples, out]`.
    Bias(DeviceMat),
    /// What is there.
    Output,
}

/// `y = act(start + M x)` for every vector of `x` and the matrix of its sample: a row of `weight`, `[out, in]` row-major, or,
/// `transposed`, `[in, out]`, of which the product is `Mᵀ x`. x is `[rows, groups · in]`, y `[rows, groups · out]`. The samples
/// that are there are the rows of `weight`.
///
/// # Panics
/// When shapes disagree.
pub fn row_product(
    x: DeviceMat,
    weight: DeviceMat,
    of: Vectors,
    transposed: bool,
    start: Start,
    act: Activation,
    y: DeviceMat,
) -> Launch {
    let samples = weight.rows;
    let [inner, out] = [x, y].map(|mat| of.width("row_product", mat, samples));
    assert_eq!(weight.cols, inner * out, "row_product: weights of [{out}, {inner}]");
    let (start, bias) = match start {
        Start::Zero => (0u32, None),
        Start::Bias(bias) => (1, Some(bias)),
        Start::Output => (2, None),
    };
    let shape = bias.map(|bias| (bias.rows, bias.cols));
    assert!(shape.is_none_or(|shape| shape == (samples, out)), "row_product: biases {shape:?}");
    let cols = if transposed { out } else { inner };
    let arguments = Arguments::new().with_mat(x).with_mat(weight).with_bytes(&of.to_bytes(), 8);
    let arguments = arguments.with_u32(transposed.into()).with_u32(across(cols)).with_u32(start);
    let arguments =
        arguments.with_mat(bias.unwrap_or(y)).with_bytes(&activation::to_bytes(act), 4).with_mat(y);
    by_sample("row_product", samples, arguments)
}

/// The gradient of the matrices of [`row_product`]: `to = Σ a ⊗ b` over the vectors of a sample, written or, with
/// `accumulate`, added. a is `[rows, groups · n]`, b `[rows, groups · m]`, and row `r` of `to` `[n, m]` row-major. The samples
/// that are there are the rows of `to`.
///
/// # Panics
/// When shapes disagree.
pub fn row_outer(a: DeviceMat, b: DeviceMat, of: Vectors, accumulate: bool, to: DeviceMat) -> Launch {
    let [n, m] = [a, b].map(|mat| of.width("row_outer", mat, to.rows));
    assert_eq!(to.cols, n * m, "row_outer: gradients of [{n}, {m}]");
    let arguments = Arguments::new().with_mat(a).with_mat(b).with_bytes(&of.to_bytes(), 8);
    by_sample("row_outer", to.rows, arguments.with_u32(across(m)).with_u32(accumulate.into()).with_mat(to))
}

/// The gradient of the bias of [`row_product`]: the sum of the vectors of a sample, written or, with `accumulate`, added.
/// x is `[rows, groups · n]`, `to` `[samples, n]`. The samples that are there are the rows of `to`.
///
/// # Panics
/// When shapes disagree.
pub fn row_sums(x: DeviceMat, of: Vectors, accumulate: bool, to: DeviceMat) -> Launch {
    assert_eq!(of.width("row_sums", x, to.rows), to.cols, "row_sums: shapes");
    let arguments = Arguments::new().with_mat(x).with_bytes(&of.to_bytes(), 8).with_u32(accumulate.into());
    by_sample("row_sums", to.rows, arguments.with_mat(to))
}

/// Lanes side by side over matrices of so many columns, a power of two: each takes four.
fn across(cols: u32) -> u32 {
    cols.div_ceil(4).next_power_of_two().clamp(1, WARP)
}

fn by_sample(kernel: &'static str, samples: u32, arguments: Arguments) -> Launch {
    Launch::new(&ROW_PRODUCT, kernel, blocks(samples.into(), THREADS / WARP), THREADS, arguments)
}
