//! Cross layers with a vector, see `manygate_kernels::cross`. Matrices hold f32 or bf16 each.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::CROSS;
use crate::share;
use crate::view::{DeviceMat, Element};
use manygate_kernels::cross::Roles;

/// Threads of a block, a warp for each row.
const THREADS: u32 = 256;

/// Most values with rows of a layer: x0, x and the residual.
const MOST_VALUES: usize = 3;

/// `y = x0 (w · x) + bias + residual`; the numbers `w · x` of the rows are written to `dots` `[rows, 1]`, f32. w and bias
/// are `[1, cols]`. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn cross_vector(
    x0: DeviceMat,
    x: DeviceMat,
    residual: DeviceMat,
    w: DeviceMat,
    bias: DeviceMat,
    dots: DeviceMat,
    y: DeviceMat,
) -> Launch {
    share::assert_alike("cross_vector", &[x0, x, residual, y]);
    assert_vectors("cross_vector", y, &[w, bias], dots);
    let values = [x0, x, residual, w, bias, dots, y];
    launch("cross_vector", y.rows, values.into_iter().fold(Arguments::new(), Arguments::with_mat))
}

/// The gradient of a value with rows: what it is in the layer, where it goes, and whether it is added to what is there.
pub type Target = (Roles, Option<(DeviceMat, bool)>);

/// Gradients of [`cross_vector`], with `s = w · x` (`dots`) and `q = dy · x0` of a row, for each value that has rows, by
/// what it is there: `s dy` as the factor, `q w` as the inner one, `dy` as the residual. q goes to `inner` `[rows, 1]`, f32;
/// the gradients of w and bias are the sums over rows of `q x` and of `dy`. The rows that are there are those of `dy`.
///
/// # Panics
/// When the shapes do not fit together, or there are more than three values.
pub fn cross_vector_dx(
    x0: DeviceMat,
    w: DeviceMat,
    dots: DeviceMat,
    dy: DeviceMat,
    inner: DeviceMat,
    gradients: &[Target],
) -> Launch {
    share::assert_alike("cross_vector_dx", &[x0, dy]);
    assert_vectors("cross_vector_dx", dy, &[w], dots);
    assert_vectors("cross_vector_dx", dy, &[w], inner);
    assert!(gradients.len() <= MOST_VALUES, "cross_vector_dx: {} values", gradients.len());
    let mut targets = Vec::new();
    for i in 0..MOST_VALUES {
        let (roles, target) = gradients.get(i).copied().unwrap_or_default();
        let (to, accumulate) = target.unwrap_or((DeviceMat { address: 0, ..dy }, false));
        share::assert_alike("cross_vector_dx", &[to, dy]);
        let bits = [roles.factor, roles.inner, roles.residual].into_iter().enumerate();
        let roles: u32 = bits.map(|(bit, is)| u32::from(is) << bit).sum();
        targets.extend(to.to_bytes());
        targets.extend([roles, u32::from(accumulate)].into_iter().flat_map(u32::to_le_bytes));
    }
    let arguments = [x0, w, dots, dy, inner].into_iter().fold(Arguments::new(), Arguments::with_mat);
    launch("cross_vector_dx", dy.rows, arguments.with_bytes(&targets, 8))
}

/// That `vectors` are one row as wide as `y`, and `numbers` one f32 for each of its rows.
fn assert_vectors(kernel: &str, y: DeviceMat, vectors: &[DeviceMat], numbers: DeviceMat) {
    let is_row = |v: &DeviceMat| (v.rows, v.cols) == (1, y.cols);
    assert!(vectors.iter().all(is_row), "{kernel}: w and bias are not one row of {} values", y.cols);
    let is_column = (numbers.rows, numbers.cols, numbers.element) == (y.rows, 1, Element::F32);
    assert!(is_column, "{kernel}: not one f32 for each of {} rows", y.rows);
}

fn launch(kernel: &'static str, rows: u32, arguments: Arguments) -> Launch {
    Launch::new(&CROSS, kernel, blocks(rows.into(), THREADS / 32), THREADS, arguments)
}
