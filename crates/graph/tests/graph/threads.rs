//! The same bits, whoever runs the plan.

use crate::support::{Setup, batch_norm, linear, small, task, trunk};
use manygate_core::{Joins, Pool};
use manygate_graph::PlanOptions;
use manygate_kernels::activation::Activation::{Identity, Relu};

#[test]
fn bits_do_not_depend_on_threads() {
    for lane_rows in [3, 16, 256] {
        let setup = Setup::new(100, PlanOptions { lane_rows, ..small() }, |g| {
            let x = trunk(g)?;
            let z = linear(g, "bottom", x, 33, Identity)?;
            let h = batch_norm(g, "norm", z, Relu)?;
            let (click, like) = (linear(g, "click", h, 1, Identity)?, linear(g, "like", h, 1, Identity)?);
            task(g, "click", 0, click)?;
            task(g, "like", 1, like)
        });
        let alone = setup.bits(&setup.run());
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for _ in 0..3 {
                assert_eq!(pool.enter(|exec| setup.bits(&setup.run_on(exec))), alone, "{threads} threads");
            }
            // An executor of the pool that the caller is in.
            let here = pool.enter(|_| Joins::here().map(|exec| setup.bits(&setup.run_on(&exec))));
            assert_eq!(here, Some(alone.clone()), "{threads} threads of a caller");
        }
    }
}
