//! Small kernels to launch.

use manygate_cuda::{Arguments, Family, Launch};

/// The family of `kernels.ptx`.
pub(crate) static SMALL: Family =
    Family { name: "small", ptx: include_str!("kernels.ptx"), kernels: &["add", "through_shared"] };

/// Adds the number at `by` to `count` values.
pub(crate) fn add(values: u64, by: u64, count: u32) -> Launch {
    let arguments = Arguments::new().with_u64(values).with_u64(by).with_u32(count);
    Launch {
        family: &SMALL,
        kernel: "add",
        grid: [count.div_ceil(256), 1, 1],
        threads: 256,
        shared: 0,
        in_turns: false,
        arguments,
        on_hopper: None,
    }
}

/// Sends `at` through byte `at` of `shared` bytes of shared memory to `values`.
pub(crate) fn through_shared(values: u64, at: u32, shared: u32) -> Launch {
    let arguments = Arguments::new().with_u64(values).with_u32(at);
    Launch {
        family: &SMALL,
        kernel: "through_shared",
        grid: [1, 1, 1],
        threads: 1,
        shared,
        in_turns: false,
        arguments,
        on_hopper: None,
    }
}
