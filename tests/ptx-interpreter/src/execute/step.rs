//! One instruction of a group of lanes.

use super::block::Context;
use super::warp::{Next, Warp};
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Op, Register};
use crate::lane::{Function, LANES, Row};
use crate::types::low_bits;

impl Warp {
    /// Executes `op`, which stands at `counter`, in the lanes of `mask`, those of `group` in which its guard holds.
    pub(super) fn step(
        &mut self,
        context: &mut Context<'_>,
        op: &Op,
        counter: u32,
        mask: u32,
        group: u32,
    ) -> Result<Next, Problem> {
        match op {
            Op::Compute { function, target, sources } => self.compute(*function, *target, sources, mask)?,
            Op::ComputeTwo { function, targets, sources, reads } => {
                for source in &sources[..*reads] {
                    self.expect_defined(*source, mask)?;
                }
                let rows = sources.map(|source| &self.registers[source.index()]);
                let mut results = [Row::ZERO; 2];
                function(&rows, &mut results);
                self.results[..2].copy_from_slice(&results);
                self.write(targets[0], 0, mask);
                self.write(targets[1], 1, mask);
            }
            Op::Float { float, target, sources } => {
                for source in sources {
                    self.expect_defined(*source, mask)?;
                }
                float.apply(
                    sources.map(|source| &self.registers[source.index()]),
                    mask,
                    &mut self.results[0],
                );
                self.write(*target, 0, mask);
            }
            Op::Convert { conversion, target, source } => {
                self.expect_defined(*source, mask)?;
                conversion.apply(&self.registers[source.index()], mask, &mut self.results[0]);
                self.write(*target, 0, mask);
            }
            Op::ConvertTwo { conversion, target, sources: [a, b] } => {
                self.expect_defined(*a, mask)?;
                self.expect_defined(*b, mask)?;
                let rows = (&self.registers[a.index()], &self.registers[b.index()]);
                conversion.apply(rows.0, rows.1, mask, &mut self.results[0]);
                self.write(*target, 0, mask);
            }
            Op::Move { target, source } => self.copy(*target, *source, mask),
            Op::Select { target, sources, predicate } => {
                self.expect_defined(*predicate, mask)?;
                let yes = self.truths(*predicate) & mask;
                // Through a result, as the target may be one of the sources.
                let [a, b] = sources.map(Register::index);
                let defined = self.defined[a] & yes | self.defined[b] & mask & !yes;
                for lane in 0..LANES {
                    let chosen = if yes >> lane & 1 == 1 { a } else { b };
                    self.results[0].set(lane, self.registers[chosen].get(lane));
                }
                self.write(*target, 0, mask);
                self.undefine(*target, mask & !defined);
            }
            Op::Pack { target, sources, bits } => self.pack(*target, sources, *bits, mask),
            Op::Unpack { targets, source, bits } => self.unpack(targets, *source, *bits, mask),
            Op::Clock { target, bits } => {
                self.results[0] = Row::splat(self.steps & low_bits(*bits));
                self.write(*target, 0, mask);
            }
            Op::ActiveMask { target } => {
                self.results[0] = Row::splat(mask.into());
                self.write(*target, 0, mask);
            }
            Op::Load(load) => self.load(context, load, mask)?,
            Op::Store(store) => self.store(context, store, mask)?,
            Op::Atomic(atomic) => self.atomic(context, atomic, mask)?,
            Op::CopyAsync(copy) => self.start_copy(context, copy, mask)?,
            Op::CommitCopies => self.copies.commit(mask),
            Op::WaitCopies { groups_left } => self.wait_for_copies(context, *groups_left, mask)?,
            Op::ProxyFence => context.memory.order.proxy_fence(self.number, mask),
            Op::Fence { device: true } => context.memory.order.fence(),
            Op::Nothing | Op::Fence { device: false } => {}
            Op::BranchTable { index, targets } => {
                self.branch_table(*index, targets, mask)?;
                return Ok(Next::Divided);
            }
            Op::Branch { .. } => unreachable!("branches are taken where groups are run"),
            Op::Exit => {
                self.expect_no_products()?;
                self.exit(mask);
                return Ok(Next::Divided);
            }
            Op::Trap => {
                return Err(
                    Problem::new(FaultKind::Trap, "the kernel stops itself").at(mask.trailing_zeros())
                );
            }
            Op::Barrier(_) => {
                self.wait(mask, counter);
                return Ok(Next::Divided);
            }
            Op::WarpBarrier { .. }
            | Op::Shuffle(_)
            | Op::Vote { .. }
            | Op::Match { .. }
            | Op::Reduce { .. }
            | Op::LoadMatrix { .. }
            | Op::Multiply(_)
            | Op::SetRegisters
            | Op::WarpgroupFence
            | Op::WarpgroupMultiply(_)
            | Op::CommitProducts
            | Op::WaitProducts { .. } => return self.together(context, op, counter, mask, group),
        }
        Ok(Next::Following)
    }

    #[inline]
    fn compute(
        &mut self,
        function: Function,
        target: Register,
        sources: &[Register; 4],
        mask: u32,
    ) -> Result<(), Problem> {
        let [a, b, c, d] = sources.map(Register::index);
        let registers = &self.registers;
        let out = &mut self.results[0];
        let defined = match function {
            Function::One(function) => {
                function(&registers[a], out);
                self.defined[a]
            }
            Function::Two(function) => {
                function(&registers[a], &registers[b], out);
                self.defined[a] & self.defined[b]
            }
            Function::Three(function) => {
                function(&registers[a], &registers[b], &registers[c], out);
                self.defined[a] & self.defined[b] & self.defined[c]
            }
            Function::Four(function) => {
                function(&registers[a], &registers[b], &registers[c], &registers[d], out);
                self.defined[a] & self.defined[b] & self.defined[c] & self.defined[d]
            }
        };
        if defined & mask != mask {
            for source in &sources[..function.arity()] {
                self.expect_defined(*source, mask)?;
            }
        }
        self.write(target, 0, mask);
        Ok(())
    }

    /// What is not initialised stays so in the copy.
    fn copy(&mut self, target: Register, source: Register, mask: u32) {
        self.results[0] = self.registers[source.index()];
        let defined = self.defined[source.index()];
        self.write(target, 0, mask);
        self.undefine(target, mask & !defined);
    }

    /// A register is not initialised in `lanes`.
    pub(super) fn undefine(&mut self, register: Register, lanes: u32) {
        self.defined[register.index()] &= !lanes;
    }

    fn pack(&mut self, target: Register, sources: &[Register], bits: u32, mask: u32) {
        let mut defined = mask;
        self.results[0] = Row::ZERO;
        for (part, source) in sources.iter().enumerate() {
            defined &= self.defined[source.index()];
            for lane in 0..LANES {
                let value = self.registers[source.index()].get(lane) & low_bits(bits);
                self.results[0].set(lane, self.results[0].get(lane) | value << (part as u32 * bits));
            }
        }
        self.write(target, 0, mask);
        self.undefine(target, mask & !defined);
    }

    fn unpack(&mut self, targets: &[Register], source: Register, bits: u32, mask: u32) {
        let values = self.registers[source.index()];
        let defined = self.defined[source.index()];
        for (part, target) in targets.iter().enumerate() {
            for lane in 0..LANES {
                self.results[0].set(lane, values.get(lane) >> (part as u32 * bits) & low_bits(bits));
            }
            self.write(*target, 0, mask);
            self.undefine(*target, mask & !defined);
        }
    }

    fn branch_table(&mut self, index: Register, targets: &[u32], mask: u32) -> Result<(), Problem> {
        self.expect_defined(index, mask)?;
        for lane in lanes_of(mask) {
            let number = self.registers[index.index()].get(lane);
            let Some(target) = targets.get(number as usize) else {
                let message = format!("branch {number} of {}", targets.len());
                return Err(Problem::new(FaultKind::InvalidOperand, message).at(lane as u32));
            };
            self.go_to(1 << lane, *target);
        }
        Ok(())
    }
}
