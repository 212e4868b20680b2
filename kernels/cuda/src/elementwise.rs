//! Arithmetic element by element, and matrices the other way round. Matrices hold f32 or bf16 each; the rows that are
//! there are those of `y`, which may be one of the operands.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::ELEMENTWISE;
use crate::share;
use crate::view::{DeviceMat, Element};

/// Threads of a block of [`transpose`].
const THREADS: u32 = 256;
/// Addends that one launch reads.
const ADDENDS: usize = 4;

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
/// All are addresses of f32 values: `shared` of `len`, `own` and `to` of as many for each of `scenarios`. Where there is
/// `starts`, the address of u32 `[scenarios + 1]`, only scenarios count that begin before the next one; what is made of the
/// others stays as it is.
pub fn fold(
    shared: u64,
    own: u64,
    is_product: bool,
    starts: Option<u64>,
    scenarios: u32,
    len: u32,
    to: u64,
) -> Launch {
    let arguments = Arguments::new().with_u64(shared).with_u64(own).with_u32(is_product.into());
    let arguments = arguments.with_u64(starts.unwrap_or(0)).with_u32(scenarios).with_u32(len).with_u64(to);
    Launch::new(&ELEMENTWISE, "fold", blocks(len.into(), THREADS), THREADS, arguments)
}

/// Gradients of [`fold`], of which `dy` is that of `to`: each is written, or added to what is there where the bool says so.
/// Those of scenarios that do not count are 0.
pub fn fold_dx(
    shared: u64,
    own: u64,
    dy: u64,
    is_product: bool,
    starts: Option<u64>,
    scenarios: u32,
    len: u32,
    d_shared: Option<(u64, bool)>,
    d_own: Option<(u64, bool)>,
) -> Launch {
    let added = |gradient: Option<(u64, bool)>| gradient.is_some_and(|(_, accumulate)| accumulate);
    let accumulate = u32::from(added(d_shared)) | u32::from(added(d_own)) << 1;
    let arguments = Arguments::new().with_u64(shared).with_u64(own).with_u64(dy).with_u32(is_product.into());
    let arguments = arguments.with_u64(starts.unwrap_or(0));
    let arguments = arguments.with_u32(scenarios).with_u32(len).with_u32(accumulate);
    let address = |gradient: Option<(u64, bool)>| gradient.map_or(0, |(address, _)| address);
    let arguments = arguments.with_u64(address(d_shared)).with_u64(address(d_own));
    Launch::new(&ELEMENTWISE, "fold_dx", blocks(len.into(), THREADS), THREADS, arguments)
}

/// Rows and columns of a tile of [`transpose`].
const TILE: u32 = 32;

/// Matrices of one shape, f32, that exist once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrices {
    /// The first.
    pub first: DeviceMat,
    /// How many.
    pub count: u32,
    /// Values from one to the next.
    pub next: u32,
}

/// Each of the matrices `y` = that of `x` the other way round, or, with `accumulate`, y + it.
///
/// # Panics
/// When there are not as many of both, they have other shapes, or hold something else.
pub fn transpose(x: Matrices, accumulate: bool, y: Matrices) -> Launch {
    let (from, to) = (x.first, y.first);
    assert_eq!((from.rows, from.cols, x.count), (to.cols, to.rows, y.count), "transpose: shapes");
    assert_eq!([from.element, to.element], [Element::F32; 2], "transpose: elements");
    let arguments = Arguments::new().with_mat(from).with_u32(x.next).with_u32(accumulate.into());
    let arguments = arguments.with_mat(to).with_u32(y.next);
    Launch {
        grid: [from.cols.div_ceil(TILE), from.rows.div_ceil(TILE), x.count],
        ..Launch::new(&ELEMENTWISE, "transpose", 0, THREADS, arguments)
    }
}
