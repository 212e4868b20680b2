//! Who accesses memory.

/// A thread, an instruction, and whether its access may race, in 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    /// Bits for the thread in its block; the upper ones are the warp's.
    const THREAD: u32 = 0x3ff;
    const WARP: u32 = 0x3e0;
    const STRONG: u32 = 0x400;
    /// Where the instruction's bits begin.
    const COUNTER: u32 = 11;

    fn new(warp: usize, counter: u32, strong: bool) -> Tag {
        let counter = counter.min(u32::MAX >> Tag::COUNTER);
        Tag(counter << Tag::COUNTER | u32::from(strong) << 10 | (warp as u32) << 5)
    }

    /// The same, of a lane of the warp instead of the first one.
    #[inline]
    pub(super) fn of_lane(self, lane: usize) -> Tag {
        Tag(self.0 | lane as u32)
    }

    #[inline]
    pub(super) fn thread(self) -> u16 {
        (self.0 & Tag::THREAD) as u16
    }

    #[inline]
    pub(super) fn has_warp_of(self, other: Tag) -> bool {
        (self.0 ^ other.0) & Tag::WARP == 0
    }

    /// Whether it may race.
    #[inline]
    pub(super) fn is_strong(self) -> bool {
        self.0 & Tag::STRONG != 0
    }

    /// Whether both may race.
    #[inline]
    pub(super) fn are_strong(self, other: Tag) -> bool {
        self.0 & other.0 & Tag::STRONG != 0
    }

    /// The same, which may race only if the other may.
    #[inline]
    pub(super) fn as_strong_as(self, other: Tag) -> Tag {
        Tag(self.0 & (other.0 | !Tag::STRONG))
    }

    /// The instruction.
    pub(super) fn counter(self) -> u32 {
        self.0 >> Tag::COUNTER
    }
}

/// What an access says about others of the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Others that write must be before it or after it.
    Plain,
    /// It may race with others that may: atomics and what is declared so.
    Strong,
    /// A read, and nothing is written during the launch: what was may not be seen, even by its own thread.
    ReadOnly,
}

/// Lanes of a warp that access memory in one instruction, and when that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accessor {
    /// The warp's first lane.
    pub(super) tag: Tag,
    pub(super) read_only: bool,
    pub(super) now: u32,
    /// When the warp's lanes met last.
    pub(super) warp_start: u32,
    /// When all threads of the block met last.
    pub(super) barrier: u32,
    pub(super) block_start: u32,
    pub(super) launch_start: u32,
}

impl Accessor {
    /// A warp at an instruction; all times are zero.
    pub(super) fn new(warp: usize, counter: u32, kind: Kind) -> Accessor {
        let tag = Tag::new(warp, counter, kind == Kind::Strong);
        let read_only = kind == Kind::ReadOnly;
        Accessor { tag, read_only, now: 0, warp_start: 0, barrier: 0, block_start: 0, launch_start: 0 }
    }

    /// The thread of a lane, in its block.
    #[inline]
    pub(crate) fn thread(&self, lane: usize) -> u16 {
        self.tag.of_lane(lane).thread()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_keep_what_they_are_made_of() {
        let tag = Tag::new(31, 77, true).of_lane(5);
        assert_eq!((tag.thread(), tag.counter()), (31 * 32 + 5, 77));
        assert!(tag.has_warp_of(Tag::new(31, 0, false)) && !tag.has_warp_of(Tag::new(30, 77, true)));
        let weak = Tag::new(31, 77, false);
        assert!(tag.are_strong(tag) && !tag.are_strong(weak));
        assert!(!tag.as_strong_as(weak).are_strong(tag) && tag.as_strong_as(tag) == tag);
        assert_eq!(Tag::new(0, u32::MAX, false).counter(), u32::MAX >> 11);
    }
}
