//! Warpgroups: what four warps do alike, and which products of theirs are on their way.

use super::block::Context;
use super::tile::Tile;
use super::warp::{ALL, Warp};
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Op, Register};
use crate::lane::LANES;
use std::collections::VecDeque;

/// Warps of a warpgroup.
pub(super) const WARPS: usize = 4;

/// What the warps of a warpgroup have executed together: each must come to the same instructions, with the same
/// operands. They need not do so at one time.
#[derive(Clone, Default)]
pub(super) struct Warpgroup {
    /// Counters and operands of instructions that not all warps have come to.
    steps: VecDeque<(u32, [u64; 3])>,
    /// Instructions before those.
    passed: usize,
    /// Instructions that each warp has executed.
    done: [usize; WARPS],
}

impl Warpgroup {
    /// A warp executes an instruction. If the others executed another one, the error is that one's counter.
    fn step(&mut self, warp: usize, step: (u32, [u64; 3])) -> Result<(), u32> {
        let number = self.done[warp] - self.passed;
        match self.steps.get(number) {
            Some(other) if *other != step => return Err(other.0),
            Some(_) => {}
            None => self.steps.push_back(step),
        }
        self.done[warp] += 1;
        while self.done.iter().all(|done| *done > self.passed) {
            self.steps.pop_front();
            self.passed += 1;
        }
        Ok(())
    }

    /// A warp that has not executed all that others have, and the counter of the first instruction of that.
    pub(super) fn left_behind(&self) -> Option<(usize, u32)> {
        let warp = self.done.iter().position(|done| *done == self.passed)?;
        Some((warp, self.steps.front()?.0))
    }
}

/// A product that was not waited for.
pub(super) struct Pending {
    counter: u32,
    group: u32,
    since: u32,
    tiles: [Tile; 2],
}

impl Pending {
    /// A product of the instruction at `counter`, of `tiles`, which it reads from time `since` on.
    pub(super) fn new(counter: u32, since: u32, tiles: [Tile; 2]) -> Pending {
        Pending { counter, group: 0, since, tiles }
    }

    pub(super) fn since(&self) -> u32 {
        self.since
    }

    pub(super) fn tiles(&self) -> &[Tile; 2] {
        &self.tiles
    }
}

/// What accessed an accumulator last.
#[derive(Clone, Copy)]
struct Accumulator {
    /// Fences of the warp before that.
    fences: u32,
    product: Option<Accumulation>,
}

/// A product that added to an accumulator.
#[derive(Clone, Copy)]
struct Accumulation {
    counter: u32,
    group: u32,
    /// The product's columns, and which of its accumulators it is: products that have both in common follow each
    /// other without a fence.
    shape: (usize, usize),
}

/// Products of a warp.
pub(super) struct Products {
    pending: Vec<Pending>,
    /// By register.
    accumulators: Vec<Accumulator>,
    fences: u32,
    /// Groups of products: how many were committed, and how many waited for.
    committed: u32,
    ended: u32,
}

impl Products {
    /// None so far, of a program with `registers` registers.
    pub(super) fn new(registers: usize) -> Products {
        let untouched = Accumulator { fences: 0, product: None };
        let accumulators = vec![untouched; registers];
        Products { pending: Vec::new(), accumulators, fences: 0, committed: 0, ended: 0 }
    }

    /// A product with `columns` columns, at `counter`, is about to use `accumulators`.
    pub(super) fn claim(
        &mut self,
        accumulators: &[Register],
        columns: usize,
        counter: u32,
    ) -> Result<(), Problem> {
        for (i, register) in accumulators.iter().enumerate() {
            let shape = (columns, i);
            let last = &mut self.accumulators[register.index()];
            match last.product {
                Some(product) if product.shape == shape => {}
                Some(product) if product.group >= self.ended => return Err(in_flight(product.counter)),
                _ if last.fences == self.fences => return Err(unfenced()),
                _ => {}
            }
            let product = Some(Accumulation { counter, group: self.committed, shape });
            *last = Accumulator { fences: self.fences, product };
        }
        Ok(())
    }

    /// A product begins.
    pub(super) fn begin(&mut self, product: Pending) {
        self.pending.push(Pending { group: self.committed, ..product });
    }

    /// An instruction that is no product accesses accumulators.
    fn touch(&mut self, accumulators: &[Register]) -> Result<(), Problem> {
        for register in accumulators {
            let last = &mut self.accumulators[register.index()];
            if let Some(product) = last.product.filter(|product| product.group >= self.ended) {
                return Err(in_flight(product.counter));
            }
            *last = Accumulator { fences: self.fences, product: None };
        }
        Ok(())
    }

    /// All groups but the last `groups_left` end. Their products.
    fn end(&mut self, groups_left: u32) -> Vec<Pending> {
        self.ended = self.ended.max(self.committed.saturating_sub(groups_left));
        let count = self.pending.partition_point(|product| product.group < self.ended);
        self.pending.drain(..count).collect()
    }
}

impl Warp {
    /// Executes an instruction of a warpgroup.
    pub(super) fn warpgroup(&mut self, context: &mut Context<'_>, op: &Op) -> Result<(), Problem> {
        match op {
            Op::WarpgroupMultiply(multiply) => return self.start_product(context, multiply),
            Op::SetRegisters => {}
            Op::WarpgroupFence => self.products.fences += 1,
            Op::CommitProducts => self.products.committed += 1,
            Op::WaitProducts { groups_left } => {
                for product in self.products.end(*groups_left) {
                    self.end_product(context, &product)?;
                }
                context.memory.order.warp_event(self.number, ALL, ALL);
            }
            _ => unreachable!("no instruction of a warpgroup"),
        }
        self.agree(context, [0; 3])
    }

    /// That the warps of the warpgroup execute the same instructions.
    pub(super) fn agree(&self, context: &mut Context<'_>, operands: [u64; 3]) -> Result<(), Problem> {
        let wrong = |message: String| Problem::new(FaultKind::InvalidOperand, message);
        let threads: u32 = context.launch.block.iter().product();
        if !(threads as usize).is_multiple_of(WARPS * LANES) {
            return Err(wrong(format!("warpgroups in a block of {threads} threads, no multiple of 128")));
        }
        let warpgroup = &mut context.warpgroups[self.number / WARPS];
        let step = warpgroup.step(self.number % WARPS, (self.counter, operands));
        step.map_err(|counter| {
            let message =
                "another warp of the warpgroup executed another instruction, or with other operands";
            Problem { earlier: Some(counter), ..wrong(message.to_owned()) }
        })
    }

    /// An instruction that is no product accesses accumulators.
    pub(super) fn touch_accumulators(&mut self, accumulators: &[Register]) -> Result<(), Problem> {
        self.products.touch(accumulators)
    }

    /// That no product is on its way when lanes exit.
    pub(super) fn expect_no_products(&self) -> Result<(), Problem> {
        let Some(product) = self.products.pending.first() else { return Ok(()) };
        let why = if product.group < self.products.committed { "waited for" } else { "committed" };
        let message = format!("exits while a product is on its way that was not {why}");
        Err(Problem { earlier: Some(product.counter), ..Problem::new(FaultKind::InFlight, message) })
    }
}

#[cold]
fn in_flight(counter: u32) -> Problem {
    let message = "accesses an accumulator of a product that was not waited for";
    Problem { earlier: Some(counter), ..Problem::new(FaultKind::InFlight, message) }
}

#[cold]
fn unfenced() -> Problem {
    let message = "an accumulator was accessed by others before, and no `wgmma.fence` came after that";
    Problem::new(FaultKind::Unfenced, message)
}
