//! How work reaches cores.

use crate::error::{Error, Result};

/// Runs numbered pieces of work, on one thread or many.
///
/// Results never depend on the executor: the pieces are fixed beforehand, and what they produce is combined in the
/// order of their numbers.
///
/// # Safety
/// Work divides memory by the numbers that it is given, so an implementation must keep what [`run`](Executor::run)
/// promises: each piece once, and never two overlapping calls with one worker number.
pub unsafe trait Executor: Sync {
    /// Threads that take part.
    fn threads(&self) -> usize;

    /// Calls `work(piece, worker)` once for each piece `0 .. pieces`, in any order and possibly at the same time;
    /// returns when all have returned. `worker` is below [`threads`](Executor::threads), and no two calls that
    /// overlap in time have the same one, so it can choose a workspace.
    fn run(&self, pieces: usize, work: &(dyn Fn(usize, usize) + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug)]
pub struct Serial;

// SAFETY: one call at a time, each piece once.
unsafe impl Executor for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, pieces: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        (0..pieces).for_each(|piece| work(piece, 0));
    }
}

/// A pool of threads, entered once for a whole run.
#[derive(Debug)]
pub struct Pool {
    pool: rayon::ThreadPool,
}

impl Pool {
    /// A pool of `threads` threads; 0 means one for each core.
    ///
    /// # Errors
    /// When the operating system refuses to start them.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("manygate-{i}"))
            .build()
            .map_err(|e| {
                Error::config("threads", format!("cannot start {threads} threads: {e}; ask for fewer"))
            })?;
        Ok(Pool { pool })
    }

    /// Runs `body` inside the pool. The executor that it receives only joins: nothing is allocated and no queue is
    /// entered again until `body` returns.
    pub fn enter<R: Send>(&self, body: impl FnOnce(&dyn Executor) -> R + Send) -> R {
        let joins = Joins { threads: self.pool.current_num_threads() };
        self.pool.install(|| body(&joins))
    }
}

/// Splits work by `rayon::join`, inside the pool that the calling thread belongs to: an embedding program's own pool
/// serves as well as [`Pool`].
#[derive(Clone, Copy, Debug)]
pub struct Joins {
    threads: usize,
}

impl Joins {
    /// An executor over the rayon pool of the calling thread; [`None`] outside of a pool.
    pub fn here() -> Option<Joins> {
        rayon::current_thread_index().map(|_| Joins { threads: rayon::current_num_threads() })
    }
}

// SAFETY: pieces are divided by halves, so each runs once; a thread of the pool runs one at a time, because work does
// not join, and the thread's number is its worker number: in a pool with more threads than this was made for, or in
// none, one thread does it all.
unsafe impl Executor for Joins {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&self, pieces: usize, work: &(dyn Fn(usize, usize) + Sync)) {
        fn split(from: usize, to: usize, work: &(dyn Fn(usize, usize) + Sync)) {
            match to - from {
                0 => {}
                1 => work(from, rayon::current_thread_index().unwrap_or(0)),
                n => {
                    let middle = from + n.div_ceil(2);
                    rayon::join(|| split(from, middle, work), || split(middle, to, work));
                }
            }
        }
        let in_pool = rayon::current_thread_index().is_some() && rayon::current_num_threads() <= self.threads;
        if self.threads == 1 || !in_pool {
            Serial.run(pieces, work);
        } else {
            split(0, pieces, work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn worker_numbers_stay_below_the_threads_wherever_it_runs() {
        let two = Pool::new(2).unwrap().enter(|_| Joins::here()).unwrap();
        let run = || {
            let pieces = AtomicUsize::new(0);
            two.run(40, &|_, worker| {
                assert!(worker < 2);
                pieces.fetch_add(1, Ordering::Relaxed);
            });
            pieces.into_inner()
        };
        assert_eq!(
            [run(), Pool::new(5).unwrap().enter(|_| run()), Pool::new(1).unwrap().enter(|_| run())],
            [40; 3]
        );
    }

    #[test]
    fn every_piece_runs_once() {
        // Idle threads of the pool spin, which Miri is slow at.
        let numbers: &[usize] = if cfg!(miri) { &[2] } else { &[1, 2, 5] };
        for &threads in numbers {
            for pieces in [0, 1, 7, 16] {
                let counts: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                Pool::new(threads).unwrap().enter(|exec| {
                    exec.run(pieces, &|i, worker| {
                        assert!(worker < threads);
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    });
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }
}
