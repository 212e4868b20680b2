//! The same bits, whoever runs the plan.

use crate::support::{Setup, batch_norm, linear, segments, small, task, trunk};
use manygate_core::{Executor, Joins, Pool, Result};
use manygate_graph::ops::{GateCombine, Segment, Tap};
use manygate_graph::{Graph, PlanOptions};
use manygate_kernels::activation::Activation::{Identity, Relu};

/// A thread for each worker, started anew for every call; the last pieces come first.
struct Threads(usize);

// SAFETY: worker `w` runs the pieces that leave the remainder `w`, one after the other, and no other worker does.
unsafe impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, pieces: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        std::thread::scope(|scope| {
            for worker in 0..self.0 {
                let mine = (0..pieces).rev().filter(move |piece| piece % self.0 == worker);
                scope.spawn(move || mine.for_each(|piece| work(piece, worker)));
            }
        });
    }
}

/// Experts, gates and a norm, `width` units each.
fn model(g: &mut Graph, width: usize) -> Result<()> {
    let x = trunk(g)?;
    let experts = Segment { out: 2 * width, bias: true, activation: Relu };
    let gates = Segment { out: 4, bias: true, activation: Identity };
    let wide = segments(g, "wide", x, vec![experts, gates])?;
    let (bank, logits) = (g.columns(wide, 0, 2 * width)?, g.columns(wide, 2 * width, 4)?);
    let mixed = g.add("mixed", GateCombine::new(2, 2), &[logits, bank])?;
    let tapped = g.add("tapped", Tap, &[mixed])?;
    let h = batch_norm(g, "norm", tapped, Relu)?;
    for (t, name) in ["click", "like"].into_iter().enumerate() {
        let own = g.columns(h, t * width, width)?;
        let logit = linear(g, name, own, 1, Identity)?;
        task(g, name, t, logit)?;
    }
    Ok(())
}

#[test]
fn bits_do_not_depend_on_threads() {
    for lane_rows in [3, 16, 256] {
        let setup = Setup::new(100, PlanOptions { lane_rows, ..small() }, |g| model(g, 19));
        let alone = setup.bits(&setup.run());
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for _ in 0..3 {
                assert_eq!(pool.enter(|exec| setup.bits(&setup.run_on(exec))), alone, "{threads} threads");
            }
            // An executor of the pool that the caller is in.
            let here = pool.enter(|_| Joins::here().map(|exec| setup.bits(&setup.run_on(&exec))));
            assert_eq!(here, Some(alone.clone()), "{threads} threads of a caller");
            assert_eq!(setup.bits(&setup.run_on(&Threads(threads))), alone, "{threads} threads of its own");
        }
    }
}

/// Small enough for Miri, which looks at every access: two tiles in each of two lanes, on two threads.
#[test]
fn a_small_step() {
    let options = PlanOptions { tile_rows: 2, lane_rows: 3, ..PlanOptions::default() };
    let setup = Setup::new(6, options, |g| model(g, 2));
    assert_eq!(setup.plan.lanes(6), 2);
    assert_eq!(setup.bits(&setup.run_on(&Threads(2))), setup.bits(&setup.run()));
}
