//! What launches do wrong.

use std::fmt;

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The launch's geometry, parameters or memory do not fit the kernel.
    Launch,
    /// An access outside of every allocation or variable.
    OutOfBounds,
    /// An access to memory that was freed.
    UseAfterFree,
    /// An access at an address that is not a multiple of its size.
    Misaligned,
    /// A store to memory that does not change.
    ReadOnly,
    /// A register or memory is read that nothing was written to.
    Uninitialised,
    /// Two accesses, one of them a write, that nothing orders.
    Race,
    /// A product of a warpgroup uses registers or shared memory that others used before, and a fence is missing
    /// between the two.
    Unfenced,
    /// Something happens to registers or shared memory that a product of a warpgroup uses, before it is waited for.
    InFlight,
    /// Threads wait for others that never come.
    Deadlock,
    /// A lane's value is read that does not take part.
    InactiveLane,
    /// Something that lanes must agree on and do not, or a value that is not allowed.
    InvalidOperand,
    /// More instructions than any kernel should need.
    EndlessLoop,
    /// The kernel gave up by itself.
    Trap,
}

/// What a launch did wrong: which rule, where in the kernel, and which thread.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) kernel: String,
    pub(crate) line: u32,
    pub(crate) text: String,
    pub(crate) block: [u32; 3],
    pub(crate) thread: [u32; 3],
    pub(crate) message: String,
}

impl Fault {
    /// A launch that cannot begin.
    pub(crate) fn of_launch(kernel: &str, message: String) -> Fault {
        Fault {
            kind: FaultKind::Launch,
            kernel: kernel.to_owned(),
            line: 0,
            text: String::new(),
            block: [0; 3],
            thread: [0; 3],
            message,
        }
    }

    /// Which rule was broken.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// The line of the PTX, counted from one; zero if no instruction was executed.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The block.
    pub fn block(&self) -> [u32; 3] {
        self.block
    }

    /// The thread in its block.
    pub fn thread(&self) -> [u32; 3] {
        self.thread
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kernel, line, text, block, thread, message, .. } = self;
        if *line == 0 {
            return write!(f, "{kernel}: {message}");
        }
        let [bx, by, bz] = block;
        let [tx, ty, tz] = thread;
        write!(
            f,
            "{kernel}, line {line} `{text}`, block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz}): {message}"
        )
    }
}

impl std::error::Error for Fault {}

/// A fault, where it happens: the place is not known yet.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) kind: FaultKind,
    pub(crate) message: String,
    /// The lane, or the first one that takes part.
    pub(crate) lane: Option<u32>,
    /// An earlier instruction that has part in it.
    pub(crate) earlier: Option<u32>,
}

impl Problem {
    pub(crate) fn new(kind: FaultKind, message: impl Into<String>) -> Problem {
        Problem { kind, message: message.into(), lane: None, earlier: None }
    }

    /// Of `lane`.
    pub(crate) fn at(mut self, lane: u32) -> Problem {
        self.lane.get_or_insert(lane);
        self
    }
}
