//! The registers that an instruction names.

use crate::instruction::{Op, Register};

impl Op {
    /// All registers that it reads or writes, some of them more than once, but for its guard.
    pub(crate) fn registers(&self) -> Vec<Register> {
        match self {
            Op::Compute { target, sources, .. } => [&[*target], &sources[..]].concat(),
            Op::ComputeTwo { targets, sources, .. } => [&targets[..], sources].concat(),
            Op::Float { target, sources, .. } => [&[*target], &sources[..]].concat(),
            Op::Convert { target, source, .. } | Op::Move { target, source } => vec![*target, *source],
            Op::ConvertTwo { target, sources: [a, b], .. } => vec![*target, *a, *b],
            Op::Select { target, sources: [a, b], predicate } => vec![*target, *a, *b, *predicate],
            Op::Pack { target, sources, .. } => [&[*target], &sources[..]].concat(),
            Op::Unpack { targets, source, .. } => [targets, &[*source][..]].concat(),
            Op::Clock { target, .. } | Op::ActiveMask { target } => vec![*target],
            Op::Load(load) => [&load.targets, &[load.address.base][..]].concat(),
            Op::Store(store) => [&store.sources, &[store.address.base][..]].concat(),
            Op::Atomic(atomic) => [&[atomic.target, atomic.address.base], &atomic.operands[..]].concat(),
            Op::CopyAsync(copy) => {
                let addresses = [copy.target.base, copy.source.base];
                addresses.into_iter().chain(copy.source_bytes).chain(copy.ignore_source).collect()
            }
            Op::BranchTable { index, .. } => vec![*index],
            Op::Barrier(barrier) => {
                let reduction = barrier.reduction.map(|(_, target, predicate)| [target, predicate]);
                [barrier.id]
                    .into_iter()
                    .chain(barrier.threads)
                    .chain(reduction.into_iter().flatten())
                    .collect()
            }
            Op::WarpBarrier { mask } => vec![*mask],
            Op::Shuffle(shuffle) => vec![
                shuffle.target,
                shuffle.in_range,
                shuffle.value,
                shuffle.distance,
                shuffle.clamp,
                shuffle.mask,
            ],
            Op::Vote { target, predicate, mask, .. } => vec![*target, *predicate, *mask],
            Op::Match { targets: [first, second], value, mask, .. } => vec![*first, *second, *value, *mask],
            Op::Reduce { target, value, mask, .. } => vec![*target, *value, *mask],
            Op::LoadMatrix { targets, address, .. } => [targets, &[address.base][..]].concat(),
            Op::Multiply(multiply) => [&multiply.d[..], &multiply.a, &multiply.b, &multiply.c].concat(),
            Op::WarpgroupMultiply(multiply) => {
                let others = [multiply.a.descriptor, multiply.b.descriptor, multiply.adds];
                [&multiply.accumulators, &others[..]].concat()
            }
            Op::CommitCopies
            | Op::WaitCopies { .. }
            | Op::Nothing
            | Op::Branch { .. }
            | Op::Exit
            | Op::Trap
            | Op::Fence { .. }
            | Op::SetRegisters
            | Op::WarpgroupFence
            | Op::CommitProducts
            | Op::WaitProducts { .. }
            | Op::ProxyFence => Vec::new(),
        }
    }
}
