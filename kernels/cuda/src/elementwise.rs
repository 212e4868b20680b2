//! Arithmetic element by element, and sums over rows. Matrices hold f32 or bf16 each; the rows that are there are those
//! of `y`, which may be one of the operands.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::ELEMENTWISE;
use crate::share;
use crate::view::DeviceMat;

/// Addends that one launch reads.
const ADDENDS: usize = 4;

/// Threads of a block of [`fold`].
const THREADS: u32 = 256;

/// `y = x`, or `y += x` with `accumulate`: a range of the columns of either, as in `concat` and its backward pass.
///
/// # Panics
/// When the shapes differ.
pub fn copy_columns(x: DeviceMat, accumulate: bool, y: DeviceMat) -> Launch {
    if accumulate { add_few(&[y, x], y) } else { add_few(&[x], y) }
}

/// `y` = the sum of `values`, in order, four in the first launch and three in each other, between which it lies in `y`.
/// None of them but the first may be `y`.
///
/// # Panics
/// When there are no values, or the shapes differ.
pub fn add(values: &[DeviceMat], y: DeviceMat) -> Vec<Launch> {
    assert!(!values.is_empty(), "add: no values");
    let (first, rest) = values.split_at(values.len().min(ADDENDS));
    let more = rest.chunks(ADDENDS - 1).map(|few| add_few(&[&[y], few].concat(), y));
    [add_few(first, y)].into_iter().chain(more).collect()
}

fn add_few(values: &[DeviceMat], y: DeviceMat) -> Launch {
    share::assert_alike("add", &[values, &[y]].concat());
    let last = *values.last().expect("one value at least");
    let addends = values.iter().copied().chain(std::iter::repeat(last)).take(ADDENDS);
    let bytes: Vec<u8> = addends.flat_map(DeviceMat::to_bytes).collect();
    let arguments = Arguments::new().with_bytes(&bytes, 8).with_u32(values.len() as u32).with_mat(y);
    share::launch(&ELEMENTWISE, "add", y, arguments)
}

/// `y = a + factor · b`.
///
/// # Panics
/// When the shapes differ.
pub fn add_scaled(a: DeviceMat, factor: f32, b: DeviceMat, y: DeviceMat) -> Launch {
    scaled(Some(a), factor, b, y)
}

/// `y = factor · x`, or `y += factor · x` with `accumulate`.
///
/// # Panics
/// When the shapes differ.
pub fn scale(factor: f32, x: DeviceMat, accumulate: bool, y: DeviceMat) -> Launch {
    scaled(accumulate.then_some(y), factor, x, y)
}

fn scaled(a: Option<DeviceMat>, factor: f32, b: DeviceMat, y: DeviceMat) -> Launch {
    let a = a.unwrap_or(DeviceMat { address: 0, ..y });
    share::assert_alike("add_scaled", &[a, b, y]);
    let arguments = Arguments::new().with_mat(a).with_f32(factor).with_mat(b).with_mat(y);
    share::launch(&ELEMENTWISE, "add_scaled", y, arguments)
}

/// `y = a ⊙ b`, or `y += a ⊙ b` with `accumulate`.
///
/// # Panics
/// When the shapes differ.
pub fn multiply(a: DeviceMat, b: DeviceMat, accumulate: bool, y: DeviceMat) -> Launch {
    share::assert_alike("multiply", &[a, b, y]);
    let arguments = Arguments::new().with_mat(a).with_mat(b).with_u32(accumulate.into()).with_mat(y);
    share::launch(&ELEMENTWISE, "multiply", y, arguments)
}

/// Each row of `y` = `vector` `[1, cols]`.
///
/// # Panics
/// When `vector` is not one row as wide as `y`.
pub fn broadcast(vector: DeviceMat, y: DeviceMat) -> Launch {
    assert_eq!((vector.rows, vector.cols), (1, y.cols), "broadcast: the vector has another shape");
    share::launch(&ELEMENTWISE, "broadcast", y, Arguments::new().with_mat(vector).with_mat(y))
}

/// Each value of `y` = `value`.
pub fn fill(value: f32, y: DeviceMat) -> Launch {
    share::launch(&ELEMENTWISE, "fill", y, Arguments::new().with_f32(value).with_mat(y))
}

/// `y` `[rows, n]` = 1 in the column that the row's id names, 0 in the others; `ids` is the address of a u32 a row.
pub fn one_hot(ids: u64, y: DeviceMat) -> Launch {
    share::launch(&ELEMENTWISE, "one_hot", y, Arguments::new().with_u64(ids).with_mat(y))
}

/// Weights of scenarios made of a shared one and the scenario's own: `to` = `shared ⊗ own`, or their sum where `is_product`
/// is false.
///
/// All are addresses of f32 values: `shared` of `len`, `own` and `to` of as many for each of `scenarios`.
pub fn fold(shared: u64, own: u64, is_product: bool, scenarios: u32, len: u32, to: u64) -> Launch {
    let arguments = Arguments::new().with_u64(shared).with_u64(own).with_u32(is_product.into());
    let arguments = arguments.with_u32(scenarios).with_u32(len).with_u64(to);
    Launch::new(&ELEMENTWISE, "fold", blocks(len.into(), THREADS), THREADS, arguments)
}

/// Gradients of [`fold`], of which `dy` is that of `to`: each is written, or added to what is there where the bool says so.
pub fn fold_dx(
    shared: u64,
    own: u64,
    dy: u64,
    is_product: bool,
    scenarios: u32,
    len: u32,
    d_shared: Option<(u64, bool)>,
    d_own: Option<(u64, bool)>,
) -> Launch {
    let added = |gradient: Option<(u64, bool)>| gradient.is_some_and(|(_, accumulate)| accumulate);
    let accumulate = u32::from(added(d_shared)) | u32::from(added(d_own)) << 1;
    let arguments = Arguments::new().with_u64(shared).with_u64(own).with_u64(dy).with_u32(is_product.into());
    let arguments = arguments.with_u32(scenarios).with_u32(len).with_u32(accumulate);
    let address = |gradient: Option<(u64, bool)>| gradient.map_or(0, |(address, _)| address);
    let arguments = arguments.with_u64(address(d_shared)).with_u64(address(d_own));
    Launch::new(&ELEMENTWISE, "fold_dx", blocks(len.into(), THREADS), THREADS, arguments)
}
