//! Order between blocks: a fence and then an atomic (or a `.release`) in one, an atomic on the same address and then a
//! fence (or an `.acquire`) in the other.
//!
//! Blocks run one after the other here, so that every atomic of an earlier block is seen by a later one. Chains over a
//! third block are not followed.

use std::collections::HashMap;

/// Releases and acquisitions of a launch.
#[derive(Default)]
pub(super) struct Releases {
    /// By the address of the atomic, in the order of their times.
    by_address: HashMap<u64, Vec<Release>>,
    /// Those of the present block.
    acquired: Vec<Acquisition>,
    /// The last fence of the block for the whole device; zero if there was none.
    fence: u32,
}

/// A strong write after a fence.
struct Release {
    block_start: u32,
    thread: u16,
    /// What is earlier of its thread, or of any thread before the block's last barrier, is released if a fence
    /// follows it.
    time: u32,
    barrier: u32,
    fence: u32,
}

/// A strong read of what others may have released before.
struct Acquisition {
    address: u64,
    /// How many releases it saw.
    seen: usize,
    thread: u16,
    time: u32,
    /// Whether it needs no fence.
    complete: bool,
}

/// A strong access of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StrongAccess {
    pub(crate) address: u64,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// `.acquire` or `.release`, or both.
    pub(crate) acquires: bool,
    pub(crate) releases: bool,
}

impl Releases {
    pub(super) fn begin_launch(&mut self) {
        self.by_address.clear();
    }

    pub(super) fn begin_block(&mut self) {
        self.acquired.clear();
        self.fence = 0;
    }

    pub(super) fn fence(&mut self, now: u32) {
        self.fence = now;
    }

    /// Whether strong accesses matter: as long as nobody has fenced or released anything they order nothing.
    pub(super) fn are_there(&self) -> bool {
        self.fence != 0 || !self.by_address.is_empty()
    }

    pub(super) fn strong_access(
        &mut self,
        access: StrongAccess,
        thread: u16,
        now: u32,
        block_start: u32,
        barrier: u32,
    ) {
        let StrongAccess { address, reads, writes, acquires, releases } = access;
        if reads && let Some(seen) = self.by_address.get(&address) {
            let acquisition =
                Acquisition { address, seen: seen.len(), thread, time: now, complete: acquires };
            self.acquired.push(acquisition);
        }
        if writes && (releases || self.fence != 0) {
            let fence = if releases { now + 1 } else { self.fence };
            let release = Release { block_start, thread, time: now, barrier, fence };
            self.by_address.entry(address).or_default().push(release);
        }
    }

    /// Whether what thread `before` of the block that began at `block_start` did at `time` is before what `thread`
    /// of the present block does, whose last barrier was at `barrier`.
    pub(super) fn is_ordered(
        &self,
        before: u16,
        time: u32,
        block_start: u32,
        thread: u16,
        barrier: u32,
    ) -> bool {
        self.acquired.iter().any(|acquisition| {
            let is_mine = acquisition.thread == thread || acquisition.time < barrier;
            let is_complete = acquisition.complete || self.fence > acquisition.time;
            is_mine && is_complete && self.released(acquisition, before, time, block_start)
        })
    }

    /// Whether an acquisition saw a release of what a thread did at `time`.
    fn released(&self, acquisition: &Acquisition, before: u16, time: u32, block_start: u32) -> bool {
        let Some(releases) = self.by_address.get(&acquisition.address) else {
            return false;
        };
        let seen = &releases[..acquisition.seen];
        let later = seen.partition_point(|release| release.time < time);
        let mut of_block = seen[later..].iter().take_while(|release| release.block_start == block_start);
        of_block.any(|release| (release.thread == before || time < release.barrier) && time < release.fence)
    }
}
