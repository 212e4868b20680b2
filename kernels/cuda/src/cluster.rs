//! Rows by cluster, where a cluster is computed: choices, the order of rows by them, and centres. Matrices with a row a
//! sample hold f32 or bf16 each, choices too; centres are f32.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::CLUSTER;
use crate::product::TILE;
use crate::share;
use crate::view::{DeviceMat, Element};

/// Threads of a block.
const THREADS: u32 = 256;
/// Rows of a chunk: `CHUNK` of cluster.cu.
const CHUNK: u32 = 4 * THREADS;
const ALIGN: u64 = 256;

/// Most clusters: a thread of a block knows all about one.
pub const MOST: usize = THREADS as usize;

/// `y = argmax_k z_k`, of equal ones the first: z `[rows, n]`, y `[rows, 1]`. The rows that are there are those of `z`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn route(z: DeviceMat, y: DeviceMat) -> Launch {
    assert_eq!((y.rows, y.cols), (z.rows, 1), "route: a number a row");
    assert!(z.cols > 0, "route: a row without values");
    let arguments = Arguments::new().with_mat(z).with_mat(y);
    Launch::new(&CLUSTER, "route", blocks(z.rows.into(), THREADS), THREADS, arguments)
}

/// The rows of a batch in the order of their clusters, in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Address of what [`scenario_starts`](crate::gemm_by_scenario::scenario_starts) gives of the rows of each cluster.
    pub starts: u64,
    /// Address of the rows, u32: those of the first cluster, in the batch's order, then those of the next.
    pub rows: u64,
    counts: u64,
    clusters: u32,
}

impl Order {
    /// Of at most `rows` rows, in [`Order::bytes`] at `address`, a multiple of 4.
    pub fn at(address: u64, rows: u32, clusters: usize) -> Order {
        let starts = address + 4 * u64::from(rows);
        let counts = starts + 4 * (2 * (clusters as u64 + 1));
        Order { starts, rows: address, counts, clusters: clusters as u32 }
    }

    /// Bytes that it takes, a multiple of 256.
    pub fn bytes(rows: u32, clusters: usize) -> u64 {
        let counts = u64::from(rows.div_ceil(CHUNK)) * clusters as u64;
        (4 * (u64::from(rows) + 2 * (clusters as u64 + 1) + counts)).next_multiple_of(ALIGN)
    }
}

/// Finds the order of the rows by `route` `[rows, 1]`: the cluster of each as a whole number, as [`route`] gives it. The rows
/// that are there are those of `route`.
///
/// # Panics
/// When `route` has several columns, or there are no clusters, or more than [`MOST`].
pub fn order_rows(route: DeviceMat, order: Order) -> Vec<Launch> {
    assert!((1..=MOST as u32).contains(&order.clusters), "order_rows: {} clusters", order.clusters);
    assert_eq!(route.cols, 1, "order_rows: a number a row");
    let chunks = blocks(route.rows.into(), CHUNK);
    let arguments = Arguments::new().with_mat(route).with_u32(order.clusters).with_u64(order.counts);
    let count = Launch::new(&CLUSTER, "count_clusters", chunks, THREADS, arguments.clone());
    let arguments = arguments.with_u32(TILE).with_u64(order.starts).with_u64(order.rows);
    vec![count, Launch::new(&CLUSTER, "order_rows", chunks, THREADS, arguments)]
}

/// Row i of `to` = the row of `from` that is the i-th in the order. The rows that are there are those of `to`.
///
/// # Panics
/// When the shapes differ.
pub fn gather_rows(order: Order, from: DeviceMat, to: DeviceMat) -> Launch {
    share::assert_alike("gather_rows", &[from, to]);
    let arguments = Arguments::new().with_u64(order.rows).with_mat(from).with_mat(to);
    share::launch(&CLUSTER, "gather_rows", to, arguments)
}

/// The row of `to` that is the i-th in the order = row i of `from`, or it is added there with `accumulate`. The rows that are
/// there are those of `from`.
///
/// # Panics
/// When the shapes differ.
pub fn scatter_rows(order: Order, from: DeviceMat, accumulate: bool, to: DeviceMat) -> Launch {
    share::assert_alike("scatter_rows", &[from, to]);
    let arguments = Arguments::new().with_u64(order.rows).with_mat(from).with_u32(accumulate.into());
    share::launch(&CLUSTER, "scatter_rows", from, arguments.with_mat(to))
}

/// How centres move, see the op `move_centers`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moving {
    /// Share of the old centre.
    pub beta: f32,
    /// Shortest length that is divided by.
    pub shortest: f32,
    /// The old centres, `[clusters, n]`.
    pub old: DeviceMat,
    /// What the rows pull each to.
    pub pull: DeviceMat,
}

impl Moving {
    /// A launch in which a block takes a centre.
    fn launch(
        self,
        kernel: &'static str,
        others: &[DeviceMat],
        with_more: impl FnOnce(Arguments) -> Arguments,
    ) -> Launch {
        let Moving { beta, shortest, old, pull } = self;
        let all = [&[old, pull], others].concat();
        share::assert_alike(kernel, &all);
        assert!(all.iter().all(|mat| mat.element == Element::F32), "{kernel}: centres of f32");
        let arguments = Arguments::new().with_f32(beta).with_f32(shortest).with_mat(old).with_mat(pull);
        Launch::new(&CLUSTER, kernel, old.rows, THREADS, with_more(arguments))
    }
}

/// `to = v / |v|`, row by row, with `v = β old + (1 − β) pull`.
///
/// # Panics
/// When the shapes differ, or a matrix is not f32.
pub fn move_centers(moving: Moving, to: DeviceMat) -> Launch {
    moving.launch("move_centers", &[to], |arguments| arguments.with_mat(to))
}

/// The gradients of [`move_centers`], whose output `unit` is: `dv = (dy − unit (unit · dy)) / |v|`, `d_old = β dv` and
/// `d_pull = (1 − β) dv`. Each is written, or added where the bool says so; no launch where none is asked for.
///
/// # Panics
/// When the shapes differ, or a matrix is not f32.
pub fn move_centers_backward(
    moving: Moving,
    unit: DeviceMat,
    dy: DeviceMat,
    d_old: Option<(DeviceMat, bool)>,
    d_pull: Option<(DeviceMat, bool)>,
) -> Option<Launch> {
    d_old.or(d_pull)?;
    let none = (DeviceMat { address: 0, ..unit }, false);
    let ((d_old, add_old), (d_pull, add_pull)) = (d_old.unwrap_or(none), d_pull.unwrap_or(none));
    Some(moving.launch("move_centers_backward", &[unit, dy, d_old, d_pull], |arguments| {
        let arguments = arguments.with_mat(unit).with_mat(dy).with_u32(add_old.into()).with_mat(d_old);
        arguments.with_u32(add_pull.into()).with_mat(d_pull)
    }))
}

/// Makes `centers`, contiguous, the state at the address `state`, unless the u32 at `go_on` is 0.
///
/// # Panics
/// When the rows do not follow one another.
pub fn keep_centers(go_on: u64, centers: DeviceMat, state: u64) -> Launch {
    assert_eq!(centers.stride, centers.cols, "keep_centers: rows one behind the other");
    let count = u64::from(centers.rows) * u64::from(centers.cols);
    let arguments = Arguments::new().with_u64(go_on).with_u64(centers.address).with_u32(count as u32);
    Launch::new(&CLUSTER, "keep_centers", blocks(count, THREADS), THREADS, arguments.with_u64(state))
}
