//! What is ordered before what.

use super::accessor::{Accessor, Kind};
use super::release::{Releases, StrongAccess};
use crate::bits::lanes_of;

/// Synchronisation so far. Times grow with each event; an access at the time of an event comes after it.
#[derive(Default)]
pub(crate) struct Order {
    now: u32,
    launch_start: u32,
    block_start: u32,
    /// The last barrier of all threads of the block.
    barrier: u32,
    warps: Vec<WarpOrder>,
    /// Barriers of some warps since then.
    partial_barriers: Vec<PartialBarrier>,
    /// Blocks of this launch and when they began.
    blocks: Vec<(u32, [u32; 3])>,
    releases: Releases,
    /// By warp, fences between the generic and the asynchronous proxy: time and lanes.
    proxy_fences: Vec<Vec<(u32, u32)>>,
}

/// A barrier of some warps.
struct PartialBarrier {
    time: u32,
    /// Those that waited: what they did is before it, what they do is after it.
    waited: u32,
    /// Those that only said that they were there, and when: what they did by then is before it.
    arrived: Vec<(usize, u32)>,
}

/// Synchronisation within a warp.
#[derive(Clone, Default)]
struct WarpOrder {
    /// The last event that all lanes took part in.
    all: u32,
    /// Events of some lanes since then: time and lanes.
    some: Vec<(u32, u32)>,
}

/// Times that may still be counted before those of all memory are forgotten.
const LAST_TIME: u32 = u32::MAX / 2;

impl Order {
    /// A warp that accesses memory now, at an instruction.
    pub(crate) fn accessor(&self, warp: usize, counter: u32, kind: Kind) -> Accessor {
        Accessor {
            now: self.now,
            warp_start: self.warps[warp].all,
            barrier: self.barrier,
            block_start: self.block_start,
            launch_start: self.launch_start,
            ..Accessor::new(warp, counter, kind)
        }
    }

    /// A launch of blocks of `warps` warps begins. True if times start anew, and those that memory remembers are void.
    pub(crate) fn begin_launch(&mut self, warps: usize) -> bool {
        let wraps = self.now > LAST_TIME;
        if wraps {
            self.now = 0;
        }
        self.now += 1;
        self.launch_start = self.now;
        self.warps = vec![WarpOrder::default(); warps];
        self.blocks.clear();
        self.proxy_fences = vec![Vec::new(); warps];
        self.releases.begin_launch();
        wraps
    }

    pub(crate) fn begin_block(&mut self, block: [u32; 3]) {
        self.barrier_of_all();
        self.block_start = self.now;
        self.blocks.push((self.now, block));
        self.proxy_fences.iter_mut().for_each(Vec::clear);
        self.releases.begin_block();
    }

    /// All threads of the block have met.
    pub(crate) fn barrier_of_all(&mut self) {
        self.now += 1;
        self.barrier = self.now;
        self.partial_barriers.clear();
        for warp in &mut self.warps {
            warp.all = self.now;
            warp.some.clear();
        }
        // Of what is before this barrier for all, the last fence of each lane tells enough.
        for fences in &mut self.proxy_fences {
            if let Some(&(last, lanes)) = fences.last() {
                fences.retain(|fence| fence.0 == last || fence.1 & !lanes != 0);
            }
        }
    }

    /// The threads of some warps have met. Others arrived, each at its time, and did not wait.
    pub(crate) fn barrier_of_some(&mut self, waited: u32, arrived: Vec<(usize, u32)>) {
        self.now += 1;
        self.partial_barriers.push(PartialBarrier { time: self.now, waited, arrived });
        for warp in lanes_of(waited) {
            self.warps[warp].all = self.now;
            self.warps[warp].some.clear();
        }
    }

    /// `lanes` of a warp have met; `live` are those that there are.
    pub(crate) fn warp_event(&mut self, warp: usize, lanes: u32, live: u32) {
        self.now += 1;
        let warp = &mut self.warps[warp];
        if lanes & live == live {
            warp.all = self.now;
            warp.some.clear();
        } else {
            match warp.some.last_mut() {
                // What was before the earlier event of the same lanes is before this one too.
                Some((time, same)) if *same == lanes => *time = self.now,
                _ => warp.some.push((self.now, lanes)),
            }
        }
    }

    /// A thread of the block has fenced its accesses, for the whole device.
    pub(crate) fn fence(&mut self) {
        self.now += 1;
        self.releases.fence(self.now);
    }

    /// `lanes` of a warp have made what they wrote visible to the asynchronous proxy.
    pub(crate) fn proxy_fence(&mut self, warp: usize, lanes: u32) {
        self.now += 1;
        self.proxy_fences[warp].push((self.now, lanes));
    }

    /// The time from which on accesses come after the present moment.
    pub(crate) fn tick(&mut self) -> u32 {
        self.now += 1;
        self.now
    }

    /// Whether what thread `before` of this block wrote at `time` is visible to what `thread` has the asynchronous
    /// proxy do now: it has fenced it, before what orders the two.
    pub(crate) fn is_published(&self, before: u16, time: u32, thread: u16) -> bool {
        let fences = &self.proxy_fences[usize::from(before / 32)];
        let later = &fences[fences.partition_point(|fence| fence.0 <= time)..];
        let own = later.iter().find(|fence| fence.1 >> (before % 32) & 1 == 1);
        own.is_some_and(|fence| self.is_ordered(before, fence.0, thread))
    }

    /// Whether strong accesses must be told.
    #[inline]
    pub(crate) fn has_releases(&self) -> bool {
        self.releases.are_there()
    }

    /// A thread has accessed device memory in a way that may race.
    pub(crate) fn strong_access(&mut self, access: StrongAccess, thread: u16) {
        self.releases.strong_access(access, thread, self.now, self.block_start, self.barrier);
    }

    /// Whether what thread `before` of its block did at `time` is ordered before what `thread` does now.
    pub(crate) fn is_ordered(&self, before: u16, time: u32, thread: u16) -> bool {
        if time < self.block_start {
            let block = self.block_number(time).map_or(0, |number| self.blocks[number].0);
            return self.releases.is_ordered(before, time, block, thread, self.barrier);
        }
        if before == thread || time < self.barrier {
            return true;
        }
        let (warp_before, warp) = (before / 32, thread / 32);
        if warp_before == warp {
            let warp = &self.warps[usize::from(warp)];
            return time < warp.all || reaches(&warp.some, time, before % 32, thread % 32);
        }
        self.barriers_reach(time, warp_before.into(), warp.into())
    }

    /// Whether a chain of barriers of some warps leads from what warp `from` did at `time` to warp `to`.
    fn barriers_reach(&self, time: u32, from: usize, to: usize) -> bool {
        let mut reached = [u32::MAX; 32];
        reached[from] = time;
        let first = self.partial_barriers.partition_point(|barrier| barrier.time <= time);
        for barrier in &self.partial_barriers[first..] {
            let waited = lanes_of(barrier.waited).any(|warp| reached[warp] < barrier.time);
            if waited || barrier.arrived.iter().any(|(warp, when)| reached[*warp] < *when) {
                for warp in lanes_of(barrier.waited) {
                    reached[warp] = reached[warp].min(barrier.time);
                }
                if barrier.waited >> to & 1 == 1 {
                    return true;
                }
            }
        }
        false
    }

    /// The block that did something at `time`, if that was not the current one.
    pub(crate) fn block_before(&self, time: u32) -> Option<[u32; 3]> {
        if time >= self.block_start {
            return None;
        }
        self.block_number(time).map(|number| self.blocks[number].1)
    }

    /// The block that something at `time` was in.
    fn block_number(&self, time: u32) -> Option<usize> {
        self.blocks.partition_point(|(start, _)| *start <= time).checked_sub(1)
    }
}

/// Whether a chain of `events` after `time` leads from member `from` to member `to`.
fn reaches(events: &[(u32, u32)], time: u32, from: u16, to: u16) -> bool {
    let mut reached = 1u32 << from;
    for (_, members) in events.iter().filter(|event| event.0 > time) {
        if members & reached != 0 {
            reached |= members;
        }
    }
    reached >> to & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        let mut order = Order::default();
        order.begin_launch(3);
        order.begin_block([0; 3]);
        order
    }

    #[test]
    fn barriers_order_everything() {
        let mut order = order();
        let time = order.now;
        assert!(!order.is_ordered(0, time, 40));
        assert!(order.is_ordered(7, time, 7));
        order.barrier_of_all();
        assert!(order.is_ordered(0, time, 40));
        assert!(!order.is_ordered(0, order.now, 40));
    }

    #[test]
    fn events_of_lanes_make_chains() {
        let mut order = order();
        let time = order.now;
        order.warp_event(0, 0b0011, u32::MAX);
        assert!(order.is_ordered(0, time, 1));
        assert!(!order.is_ordered(0, time, 2));
        order.warp_event(0, 0b0110, u32::MAX);
        assert!(order.is_ordered(0, time, 2));
        assert!(!order.is_ordered(2, time, 0));
        order.warp_event(0, u32::MAX, u32::MAX);
        assert!(order.is_ordered(2, time, 0));
        assert!(!order.is_ordered(2, time, 32));
    }

    #[test]
    fn barriers_of_some_warps_make_chains() {
        let mut order = order();
        let time = order.now;
        order.barrier_of_some(0b011, Vec::new());
        assert!(order.is_ordered(0, time, 33));
        assert!(order.is_ordered(0, time, 1));
        assert!(!order.is_ordered(0, time, 64));
        order.barrier_of_some(0b110, Vec::new());
        assert!(order.is_ordered(0, time, 64));
        assert!(!order.is_ordered(64, time, 0));
    }

    #[test]
    fn warps_that_only_arrive_are_before_a_barrier_alone() {
        let mut order = order();
        let before = order.now;
        let arrival = order.tick();
        order.barrier_of_some(0b010, vec![(0, arrival)]);
        assert!(order.is_ordered(0, before, 32));
        assert!(!order.is_ordered(0, arrival, 32), "after the arrival");
        assert!(!order.is_ordered(32, before, 0), "it did not wait");
        assert!(!order.is_ordered(0, before, 1));
        // What a warp learnt before it arrives goes on with it, what it learnt later does not.
        let late = order.now;
        let arrival = order.tick();
        order.barrier_of_some(0b100, vec![(1, arrival)]);
        assert!(order.is_ordered(0, before, 64) && order.is_ordered(32, late, 64));
        assert!(!order.is_ordered(0, late, 64));
    }

    #[test]
    fn writes_are_published_by_a_fence_and_a_barrier() {
        let mut order = order();
        let time = order.now;
        order.barrier_of_all();
        assert!(!order.is_published(5, time, 40), "no fence");
        order.proxy_fence(0, 1 << 4);
        order.barrier_of_all();
        assert!(!order.is_published(5, time, 40), "the fence of another thread");
        order.proxy_fence(0, 1 << 5);
        assert!(order.is_published(5, time, 5));
        assert!(!order.is_published(5, time, 40), "no barrier after the fence");
        order.barrier_of_all();
        let later = order.now;
        order.proxy_fence(0, u32::MAX);
        assert!(order.is_published(5, time, 40), "by the first fence, whatever comes after it");
        assert!(!order.is_published(5, later, 40));
        order.barrier_of_all();
        assert!(order.is_published(5, time, 40) && order.is_published(5, later, 40));
        assert!(!order.is_published(5, order.now, 40), "written after the fence");
    }

    #[test]
    fn blocks_are_found_by_time() {
        let mut order = order();
        let first = order.now;
        order.begin_block([5, 0, 0]);
        assert_eq!(order.block_before(first), Some([0; 3]));
        assert_eq!(order.block_before(order.now), None);
    }

    /// A block whose thread 0 writes, and perhaps fences and adds to a counter; then the start of the next one.
    fn first_block(fences: bool) -> (Order, u32) {
        let mut order = order();
        let time = order.now;
        if fences {
            order.fence();
        }
        let add = StrongAccess { address: 64, reads: true, writes: true, acquires: false, releases: false };
        order.strong_access(add, 0);
        order.begin_block([1, 0, 0]);
        order.strong_access(add, 7);
        (order, time)
    }

    #[test]
    fn fences_and_atomics_order_blocks() {
        let (mut order, time) = first_block(true);
        assert!(!order.is_ordered(0, time, 7), "no fence after the atomic");
        order.fence();
        assert!(order.is_ordered(0, time, 7));
        assert!(!order.is_ordered(1, time, 7), "thread 1 of the first block met nobody");
        assert!(!order.is_ordered(0, time, 8), "thread 8 has not met thread 7");
        order.barrier_of_all();
        assert!(order.is_ordered(0, time, 8));
        let (mut order, time) = first_block(false);
        order.fence();
        assert!(!order.is_ordered(0, time, 7), "no fence before the atomic");
    }

    #[test]
    fn releases_and_acquisitions_need_no_fences() {
        let mut order = order();
        let time = order.now;
        order.barrier_of_all();
        let access =
            StrongAccess { address: 64, reads: false, writes: true, acquires: false, releases: true };
        order.strong_access(access, 0);
        order.begin_block([1, 0, 0]);
        let access =
            StrongAccess { address: 64, reads: true, writes: false, acquires: true, releases: false };
        assert!(!order.is_ordered(9, time, 7));
        order.strong_access(access, 7);
        assert!(order.is_ordered(9, time, 7), "what was before the barrier is released with it");
    }
}
