//! Who accessed which bytes last.

use super::accessor::{Accessor, Tag};
use super::order::Order;
use crate::bits::lanes_of;
use crate::region::{Extent, Scope};

/// An earlier access that nothing orders before the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The lane whose access is the present one.
    pub(crate) lane: usize,
    pub(crate) wrote: bool,
    /// Whether the present one reads what must not be written during a launch, whatever their order.
    pub(crate) read_only: bool,
    pub(crate) thread: u16,
    pub(crate) time: u32,
    /// The instruction.
    pub(crate) counter: u32,
}

/// The last write to some bytes and reads after it. Two readers are kept, of different warps or blocks if there are
/// such: whoever writes next, one of them is another's.
#[derive(Clone, Copy, Default)]
struct Cell {
    write: Write,
    reads: [Reads; 2],
}

/// A write; at time zero none.
#[derive(Clone, Copy, Default)]
struct Write {
    time: u32,
    tag: Tag,
}

/// Reads by lanes of a warp, at `time` or later; at time zero none.
#[derive(Clone, Copy, Default)]
struct Reads {
    time: u32,
    lanes: u32,
    tag: Tag,
}

impl Reads {
    /// Whether another warp of the block read since the last barrier.
    #[inline]
    fn is_anothers(&self, who: &Accessor) -> bool {
        self.time >= who.barrier && !self.tag.has_warp_of(who.tag)
    }

    /// With those of `lanes`, of the same warp.
    #[inline]
    fn add(&mut self, lanes: u32, who: &Accessor) {
        self.lanes |= lanes;
        self.tag = self.tag.as_strong_as(who.tag);
    }
}

/// Bytes of a page of cells.
const PAGE: usize = 4096;

/// Cells of a region's bytes, in pages that come into being when they are accessed.
pub(crate) struct Shadow {
    pages: Vec<Page>,
}

/// Cells of a page, for `1 << shift` bytes each: four, until accesses of fewer come.
#[derive(Default)]
struct Page {
    shift: u32,
    cells: Vec<Cell>,
}

impl Page {
    #[cold]
    fn begin(&mut self) {
        *self = Page { shift: 2, cells: vec![Cell::default(); PAGE >> 2] };
    }

    /// Cells of `count` bytes at `at`.
    #[inline]
    fn cells(&mut self, at: usize, count: usize) -> &mut [Cell] {
        let within = at % PAGE;
        &mut self.cells[within >> self.shift..(within + count) >> self.shift]
    }

    /// Divides cells until they are for `1 << shift` bytes.
    #[cold]
    fn refine(&mut self, shift: u32) {
        let parts = 1 << (self.shift - shift);
        self.cells = self.cells.iter().flat_map(|cell| std::iter::repeat_n(*cell, parts)).collect();
        self.shift = shift;
    }
}

impl Shadow {
    /// Cells for `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Shadow {
        Shadow { pages: (0..bytes.div_ceil(PAGE)).map(|_| Page::default()).collect() }
    }

    /// A page whose cells are for `count` bytes at most.
    #[inline]
    fn page(&mut self, number: usize, count: usize) -> &mut Page {
        let page = &mut self.pages[number];
        if page.cells.is_empty() {
            page.begin();
        }
        if count < 1 << page.shift {
            page.refine(count.trailing_zeros());
        }
        page
    }

    /// `lanes` of those of an extent read.
    pub(crate) fn read(
        &mut self,
        extent: &Extent,
        lanes: u32,
        who: &Accessor,
        order: &Order,
        scope: Scope,
    ) -> Result<(), Conflict> {
        let Extent { ref offsets, bytes, .. } = *extent;
        let floor = floor(who, scope);
        let mut rest = lanes;
        while let Some(lane) = lanes_of(rest).next() {
            let page_number = offsets[lane] / PAGE;
            let page = self.page(page_number, bytes);
            while let Some(lane) = lanes_of(rest).next().filter(|lane| offsets[*lane] / PAGE == page_number) {
                let at = offsets[lane];
                // Lanes one after the other that read the same do so at once.
                let same = lanes_of(rest)
                    .take_while(|lane| offsets[*lane] == at)
                    .fold(0, |set, lane| set | 1 << lane);
                rest &= !same;
                for cell in page.cells(at, bytes) {
                    cell.read(same, who, order, floor)?;
                }
            }
        }
        Ok(())
    }

    /// A last write to bytes of an extent, in this block, that `is_wanted` by its time, its thread and the lane.
    pub(crate) fn find_write(
        &mut self,
        extent: &Extent,
        who: &Accessor,
        is_wanted: impl Fn(u32, u16, usize) -> bool,
    ) -> Option<Conflict> {
        // Bytes that lie together were written by one thread at one time, as a rule.
        let mut latest = (0, 0);
        for lane in lanes_of(extent.lanes) {
            let at = extent.offsets[lane];
            for Cell { write: Write { time, tag }, .. } in
                self.page(at / PAGE, extent.bytes).cells(at, extent.bytes)
            {
                let thread = tag.thread();
                if *time < who.block_start || latest == (*time, thread) {
                    continue;
                }
                latest = (*time, thread);
                if is_wanted(*time, thread, lane) {
                    let (wrote, read_only, counter) = (true, false, tag.counter());
                    return Some(Conflict { lane, wrote, read_only, thread, time: *time, counter });
                }
            }
        }
        None
    }

    /// Lanes write.
    pub(crate) fn write(
        &mut self,
        extent: &Extent,
        who: &Accessor,
        order: &Order,
        scope: Scope,
    ) -> Result<(), Conflict> {
        let Extent { lanes, ref offsets, bytes } = *extent;
        let floor = floor(who, scope);
        let mut rest = lanes;
        while let Some(lane) = lanes_of(rest).next() {
            let page_number = offsets[lane] / PAGE;
            let page = self.page(page_number, bytes);
            while let Some(lane) = lanes_of(rest).next().filter(|lane| offsets[*lane] / PAGE == page_number) {
                rest &= rest - 1;
                for cell in page.cells(offsets[lane], bytes) {
                    cell.write(lane, who, order, floor)?;
                }
            }
        }
        Ok(())
    }
}

/// The time from which on accesses may conflict with what happens now.
#[inline]
fn floor(who: &Accessor, scope: Scope) -> u32 {
    match scope {
        Scope::Device => who.launch_start,
        Scope::Block | Scope::Thread => who.barrier,
    }
}

/// That a write is before an access by `lanes`.
fn check_write(write: Write, lanes: u32, who: &Accessor, order: &Order) -> Result<(), Conflict> {
    let Write { time, tag } = write;
    if tag.are_strong(who.tag) {
        return Ok(());
    }
    let thread = tag.thread();
    let is_late = |lane: &usize| who.read_only || !order.is_ordered(thread, time, who.thread(*lane));
    match lanes_of(lanes).find(is_late) {
        None => Ok(()),
        Some(lane) => {
            let (wrote, read_only) = (true, who.read_only);
            Err(Conflict { lane, wrote, read_only, thread, time, counter: tag.counter() })
        }
    }
}

/// That reads are before a write by `lane`.
fn check_reads(reads: Reads, lane: usize, who: &Accessor, order: &Order) -> Result<(), Conflict> {
    let Reads { time, lanes, tag } = reads;
    if tag.are_strong(who.tag) {
        return Ok(());
    }
    let mut threads = lanes_of(lanes).map(|reader| tag.of_lane(reader).thread());
    match threads.find(|thread| !order.is_ordered(*thread, time, who.thread(lane))) {
        None => Ok(()),
        Some(thread) => {
            let (wrote, read_only) = (false, false);
            Err(Conflict { lane, wrote, read_only, thread, time, counter: tag.counter() })
        }
    }
}

impl Cell {
    /// `lanes` read.
    #[inline]
    fn read(&mut self, lanes: u32, who: &Accessor, order: &Order, floor: u32) -> Result<(), Conflict> {
        if self.write.time >= floor {
            check_write(self.write, lanes, who, order)?;
        }
        // As a rule the warp has read here since its lanes met last, nobody has, or enough others have.
        let [first, second] = &mut self.reads;
        if first.time >= floor.max(who.warp_start) && first.tag.has_warp_of(who.tag) {
            first.add(lanes, who);
        } else if first.time < floor {
            *first = Reads { time: who.now, lanes, tag: who.tag };
        } else if !(first.is_anothers(who) && second.is_anothers(who)) {
            self.note_another_read(lanes, who, floor);
        }
        Ok(())
    }

    /// `lane` writes.
    #[inline]
    fn write(&mut self, lane: usize, who: &Accessor, order: &Order, floor: u32) -> Result<(), Conflict> {
        if self.write.time >= floor {
            check_write(self.write, 1 << lane, who, order)?;
        }
        for reads in self.reads {
            if reads.time >= floor {
                check_reads(reads, lane, who, order)?;
            }
        }
        let write = Write { time: who.now, tag: who.tag.of_lane(lane) };
        if !who.tag.is_strong() {
            *self = Cell { write, reads: [Reads::default(); 2] };
        } else if self.write.tag.is_strong() || self.write.time < floor.max(who.barrier) {
            // What may race leaves the accesses that may not on record: other threads' are no more ordered after it.
            self.write = write;
        }
        Ok(())
    }

    /// A read by other lanes than those that have read first.
    fn note_another_read(&mut self, lanes: u32, who: &Accessor, floor: u32) {
        // Reads of this block before its last barrier matter to other blocks alone, as does the present one.
        let replaceable = |reads: &Reads| {
            reads.time < floor
                || reads.time >= who.block_start
                    && (reads.time < who.barrier || reads.tag.has_warp_of(who.tag))
        };
        let Some(reads) = self.reads.iter_mut().find(|reads| replaceable(reads)) else {
            return;
        };
        if reads.tag.has_warp_of(who.tag) && reads.time >= floor.max(who.warp_start) {
            reads.add(lanes, who);
        } else {
            *reads = Reads { time: who.now, lanes, tag: who.tag };
        }
    }
}
