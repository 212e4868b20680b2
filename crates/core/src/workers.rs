//! An executor over threads that the calling program brings, written without `unsafe`.

use crate::executor::Executor;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs work on threads of the caller's: any pool that can call a closure from several threads at once.
///
/// The caller gives a function that calls what it is handed from as many threads as it likes, at the same time or not,
/// and returns. However often and wherever that is, each piece runs once: calls take pieces from a counter until none
/// is left, calls beyond the number of threads return at once, and the calling thread runs what nobody took. So this
/// needs no promise, where [`Executor`] itself is `unsafe` to implement.
///
/// ```
/// use manygate_core::{Executor, Workers};
///
/// let exec = Workers::new(3, |work| {
///     std::thread::scope(|scope| {
///         scope.spawn(work);
///         scope.spawn(work);
///         work();
///     });
/// });
/// let sum = std::sync::atomic::AtomicUsize::new(0);
/// exec.run(10, &|piece, worker| {
///     assert!(worker < exec.threads());
///     sum.fetch_add(piece, std::sync::atomic::Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 45);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Workers<F> {
    threads: usize,
    call: F,
}

impl<F: Fn(&(dyn Fn() + Sync)) + Sync> Workers<F> {
    /// Work on at most `threads` threads (at least one), reached by `call`.
    pub fn new(threads: usize, call: F) -> Workers<F> {
        Workers { threads: threads.max(1), call }
    }
}

// SAFETY: a piece is taken from a counter that only rises, so it runs once. A call has a worker number that no other
// call of this `run` gets; number 0, which may have been taken, is used again only after `call` has returned: the
// closure is borrowed for that long alone, so no call is under way any more.
unsafe impl<F: Fn(&(dyn Fn() + Sync)) + Sync> Executor for Workers<F> {
    fn threads(&self) -> usize {
        self.threads
    }

    /// # Panics
    /// When `call` swallows a panic of the work, so that a piece never ended.
    fn run(&self, pieces: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        let (next, done, workers) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let take_pieces = |worker: usize| {
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces {
                    return;
                }
                work(piece, worker);
                done.fetch_add(1, Ordering::Release);
            }
        };
        if pieces > 1 && self.threads > 1 {
            (self.call)(&|| {
                let worker = workers.fetch_add(1, Ordering::Relaxed);
                if worker < self.threads {
                    take_pieces(worker);
                }
            });
        }
        take_pieces(0);
        assert!(done.load(Ordering::Acquire) == pieces, "a piece of work panicked, and the pool went on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;
    use std::thread;

    /// How often each of 50 pieces runs, and whether two calls ever had one worker number at a time.
    fn counts(exec: &dyn Executor) -> Vec<usize> {
        let counts: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
        let at_work: Vec<Mutex<()>> = (0..exec.threads()).map(|_| Mutex::new(())).collect();
        exec.run(50, &|piece, worker| {
            let _alone = at_work[worker].try_lock().expect("one call a worker at a time");
            counts[piece].fetch_add(1, Ordering::Relaxed);
        });
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn each_piece_runs_once_whatever_the_pool_does() {
        let never = Workers::new(4, |_| {});
        let thrice = Workers::new(4, |work| (0..3).for_each(|_| work()));
        let many = Workers::new(2, |work| {
            thread::scope(|scope| (0..9).for_each(|_| drop(scope.spawn(work))));
        });
        let rayon = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let broadcast = Workers::new(3, |work| drop(rayon.broadcast(|_| work())));
        let none = Workers::new(0, |work| work());
        assert_eq!(none.threads(), 1);
        for exec in [&never as &dyn Executor, &thrice, &many, &broadcast, &none] {
            assert_eq!(counts(exec), [1; 50]);
        }
    }

    #[test]
    fn a_panic_that_the_pool_swallows_is_not_lost() {
        let swallows = Workers::new(2, |work| drop(catch_unwind(AssertUnwindSafe(work))));
        let run = || swallows.run(4, &|piece, _| assert!(piece != 1, "as it should"));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    }
}
