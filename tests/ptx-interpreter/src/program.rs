//! A kernel that is ready to run.

use crate::instruction::{Content, Instruction};

/// Offset and size of a kernel's parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Bytes before it.
    pub offset: usize,
    /// Its bytes.
    pub size: usize,
}

/// Bytes between variables of the block's memory, so that what leaves one does not come into the next.
pub(crate) const SHARED_GAP: usize = 16;

/// A variable in the block's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedVariable {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) align: usize,
}

impl SharedVariable {
    pub(crate) fn end(self) -> usize {
        self.offset + self.bytes
    }
}

/// A kernel's code and what it needs.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) most_threads: Option<u32>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) code: Vec<Instruction>,
    pub(crate) registers: Vec<Content>,
    pub(crate) shared: Vec<SharedVariable>,
    pub(crate) dynamic_shared_align: usize,
    pub(crate) local_bytes: usize,
}

impl Program {
    /// Bytes of all parameters.
    pub(crate) fn parameter_bytes(&self) -> usize {
        self.parameters.last().map_or(0, |last| last.offset + last.size)
    }

    /// Bytes of shared memory that the kernel declares, laid out without gaps.
    pub(crate) fn shared_bytes(&self) -> usize {
        self.shared
            .iter()
            .fold(0, |end: usize, variable| end.next_multiple_of(variable.align) + variable.bytes)
    }

    /// Where the shared memory begins whose size the launch gives.
    pub(crate) fn dynamic_shared_start(&self) -> usize {
        self.shared
            .last()
            .map_or(0, |last| last.end() + SHARED_GAP)
            .next_multiple_of(self.dynamic_shared_align)
    }
}
