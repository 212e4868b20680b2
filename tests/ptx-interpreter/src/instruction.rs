//! Instructions as they run: names resolved, modifiers chosen, no text left.

use crate::arithmetic::convert::{Conversion, PackedConversion};
use crate::arithmetic::float::Float;
use crate::lane::{Function, TwoResults};
use crate::types::{Space, Type};

/// Where a value is in a warp's register file. What does not change during a launch (numbers, addresses of variables,
/// special registers) stands there too, see [`Content`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Register(pub(crate) u32);

impl Register {
    /// The register that nobody reads: where results go that are not wanted (`_`).
    pub(crate) const SINK: Register = Register(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a place of the register file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Content {
    /// A register of the program.
    Variable,
    /// A number.
    Number(u64),
    /// The address of the module's variables, and an offset from there.
    ModuleVariable(u64),
    /// The shared address of the memory whose size the launch gives.
    DynamicShared,
    /// Something about the thread or the launch.
    Special(Special),
}

/// A special register. `usize` is the axis: x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
    Warp,
    Warps,
    /// Lanes equal to, below, up to, above, from this one on.
    MaskEqual,
    MaskBelow,
    MaskUpTo,
    MaskAbove,
    MaskFrom,
    /// Zero, for what there is one of: multiprocessor, grid, ...
    Zero,
    /// The size of the launch's shared memory, in bytes.
    DynamicSharedSize,
    TotalSharedSize,
}

/// An instruction.
pub(crate) struct Instruction {
    /// The line of its text, counted from one.
    pub(crate) line: u32,
    pub(crate) guard: Option<Guard>,
    pub(crate) op: Op,
    /// Accumulators of warpgroups' products that it reads or writes, without being such a product.
    pub(crate) accumulators: Box<[Register]>,
}

/// The predicate that a lane executes an instruction under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub(crate) predicate: Register,
    pub(crate) negated: bool,
}

/// What an instruction does.
pub(crate) enum Op {
    /// `target = function(sources)`.
    Compute {
        function: Function,
        target: Register,
        sources: [Register; 4],
    },
    /// As before, with two results.
    ComputeTwo {
        function: TwoResults,
        targets: [Register; 2],
        sources: [Register; 4],
        reads: usize,
    },
    /// Arithmetic with modifiers that are not common.
    Float {
        float: Float,
        target: Register,
        sources: [Register; 3],
    },
    Convert {
        conversion: Conversion,
        target: Register,
        source: Register,
    },
    ConvertTwo {
        conversion: PackedConversion,
        target: Register,
        sources: [Register; 2],
    },
    /// A copy, of what is not initialised too.
    Move {
        target: Register,
        source: Register,
    },
    /// `if predicate { sources[0] } else { sources[1] }`, of which one may be not initialised.
    Select {
        target: Register,
        sources: [Register; 2],
        predicate: Register,
    },
    /// The sources, `bits` each, the first one lowest.
    Pack {
        target: Register,
        sources: Box<[Register]>,
        bits: u32,
    },
    Unpack {
        targets: Box<[Register]>,
        source: Register,
        bits: u32,
    },
    /// A counter that grows with each instruction.
    Clock {
        target: Register,
        bits: u32,
    },
    ActiveMask {
        target: Register,
    },
    Load(Load),
    Store(Store),
    Atomic(Atomic),
    CopyAsync(CopyAsync),
    CommitCopies,
    /// Waits for copies: all groups but the latest ones, or everything.
    WaitCopies {
        groups_left: Option<u32>,
    },
    /// A hint.
    Nothing,
    Branch {
        target: u32,
    },
    BranchTable {
        index: Register,
        targets: Box<[u32]>,
    },
    Exit,
    Trap,
    Barrier(Barrier),
    /// What threads did before is seen before what they do after it; by the whole `device`, or by the block alone.
    Fence {
        device: bool,
    },
    WarpBarrier {
        mask: Register,
    },
    Shuffle(Shuffle),
    Vote {
        vote: Vote,
        target: Register,
        predicate: Register,
        mask: Register,
    },
    Match {
        all: bool,
        targets: [Register; 2],
        value: Register,
        mask: Register,
    },
    Reduce {
        reduction: Reduction,
        target: Register,
        value: Register,
        mask: Register,
    },
    LoadMatrix {
        targets: Box<[Register]>,
        address: Address,
        transposed: bool,
    },
    Multiply(Box<Multiply>),
    /// A warpgroup gets another number of registers.
    SetRegisters,
    /// Accesses to accumulators before it are before those of products after it.
    WarpgroupFence,
    WarpgroupMultiply(Box<WarpgroupMultiply>),
    CommitProducts,
    /// Waits for products: all groups but the latest ones.
    WaitProducts {
        groups_left: u32,
    },
    /// What the thread wrote to shared memory is seen by products after a barrier.
    ProxyFence,
}

/// A place in memory: a register's value and an offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) base: Register,
    pub(crate) offset: i64,
}

/// What a load or store says about the order of memory accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    /// Nothing: it must not race.
    Weak,
    /// That nothing of it is written during the launch (`.nc`).
    ReadOnly,
    /// It may race with others like it (`.volatile`, `.relaxed`, atomics).
    Relaxed,
    /// A load after which what was released is visible.
    Acquire,
    /// A store that makes visible what was done before it.
    Release,
    /// Both, of atomics.
    AcquireRelease,
}

/// A load of one, two or four values.
pub(crate) struct Load {
    pub(crate) space: Space,
    pub(crate) address: Address,
    pub(crate) ty: Type,
    pub(crate) ordering: Ordering,
    pub(crate) targets: Box<[Register]>,
    /// Bits of the targets: those of wider ones are filled with the sign.
    pub(crate) target_bits: u32,
}

/// A store of one, two or four values.
pub(crate) struct Store {
    pub(crate) space: Space,
    pub(crate) address: Address,
    pub(crate) ty: Type,
    pub(crate) ordering: Ordering,
    pub(crate) sources: Box<[Register]>,
}

/// An access that reads and writes at once.
pub(crate) struct Atomic {
    pub(crate) space: Space,
    pub(crate) address: Address,
    pub(crate) ty: Type,
    pub(crate) ordering: Ordering,
    pub(crate) operation: AtomicOperation,
    /// What was there before; [`Register::SINK`] for `red`.
    pub(crate) target: Register,
    /// The operand, and for compare-and-swap the new value.
    pub(crate) operands: [Register; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomicOperation {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Increment,
    Decrement,
}

/// A copy from device to shared memory that is there after a wait.
pub(crate) struct CopyAsync {
    pub(crate) target: Address,
    pub(crate) source: Address,
    pub(crate) bytes: u32,
    /// Bytes that are read; zeros follow.
    pub(crate) source_bytes: Option<Register>,
    /// Reads nothing where true.
    pub(crate) ignore_source: Option<Register>,
}

/// A barrier of the block.
pub(crate) struct Barrier {
    pub(crate) id: Register,
    /// Threads that take part; all of the block if none.
    pub(crate) threads: Option<Register>,
    /// Waits, or only says that it was here.
    pub(crate) waits: bool,
    /// What is computed of the threads' predicates: target, predicate.
    pub(crate) reduction: Option<(BarrierReduction, Register, Register)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierReduction {
    Count,
    And,
    Or,
}

/// A value from another lane.
pub(crate) struct Shuffle {
    pub(crate) mode: ShuffleMode,
    pub(crate) target: Register,
    /// Whether the lane that was asked for is one of the segment.
    pub(crate) in_range: Register,
    pub(crate) value: Register,
    pub(crate) distance: Register,
    /// Segments: the highest lane, and above it the bits that lanes of a segment share.
    pub(crate) clamp: Register,
    pub(crate) mask: Register,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// What `redux` makes of the values of a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Add,
    MinUnsigned,
    MaxUnsigned,
    MinSigned,
    MaxSigned,
    And,
    Or,
    Xor,
}

/// A product of two matrices of the warp, added to a third one: 16 x 8 results.
pub(crate) struct Multiply {
    pub(crate) format: Format,
    /// Columns of the first matrix.
    pub(crate) depth: usize,
    pub(crate) d: Box<[Register]>,
    pub(crate) a: Box<[Register]>,
    pub(crate) b: Box<[Register]>,
    pub(crate) c: Box<[Register]>,
}

/// A product of two matrices in shared memory, in bf16, added to the accumulators of a warpgroup: 64 x `columns`
/// results. It goes on while the warps do other things, until they wait.
pub(crate) struct WarpgroupMultiply {
    pub(crate) columns: usize,
    /// A lane's results, two of each eight columns of two rows.
    pub(crate) accumulators: Box<[Register]>,
    pub(crate) a: SharedMatrix,
    pub(crate) b: SharedMatrix,
    /// The predicate whether the product is added to what the accumulators hold, or replaces it.
    pub(crate) adds: Register,
}

/// A factor of a warpgroup's product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedMatrix {
    /// Where it lies, and how.
    pub(crate) descriptor: Register,
    pub(crate) negated: bool,
    /// Whether values lie side by side that are summed up (K-major), or those of neighbouring results (MN-major).
    pub(crate) transposed: bool,
}

/// What the matrices' values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F16,
    Bf16,
    Tf32,
}
