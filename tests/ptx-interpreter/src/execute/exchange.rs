//! What the lanes of a warp do together. Each names the lanes that it waits for.

use super::block::Context;
use super::warp::{ALL, Next, Warp};
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Op, Reduction, Register, Shuffle, ShuffleMode, Vote};
use crate::lane::{LANES, Row};

impl Warp {
    /// Executes an operation when all lanes have come that it names; those that come before wait.
    pub(super) fn together(
        &mut self,
        context: &mut Context<'_>,
        op: &Op,
        counter: u32,
        mask: u32,
        group: u32,
    ) -> Result<Next, Problem> {
        let members = match op {
            Op::WarpBarrier { mask }
            | Op::Vote { mask, .. }
            | Op::Match { mask, .. }
            | Op::Reduce { mask, .. } => *mask,
            Op::Shuffle(shuffle) => shuffle.mask,
            _ => return self.all_together(context, op, counter, mask, group),
        };
        self.expect_defined(members, mask)?;
        let named: [u32; LANES] = self.registers[members.index()].low_halves();
        let first = named[mask.trailing_zeros() as usize];
        if mask == group && first & self.live() == mask && lanes_of(mask).all(|lane| named[lane] == first) {
            self.exchange(context, op, mask)?;
            return Ok(Next::Following);
        }
        let mut arrived = mask | self.waiting_at(counter);
        while arrived != 0 {
            let wanted = named[arrived.trailing_zeros() as usize];
            let same = lanes_of(arrived).filter(|lane| named[*lane] == wanted);
            let here = same.fold(0, |set, lane| set | 1 << lane);
            if let Some(lane) = lanes_of(here & !wanted).next() {
                let message = format!("lane {lane} is not among the lanes {wanted:#010x} that it names");
                return Err(Problem::new(FaultKind::InvalidOperand, message).at(lane as u32));
            }
            if here == wanted & self.live() {
                self.exchange(context, op, here)?;
                self.go_to(here, counter + 1);
            } else {
                self.wait(here, counter);
            }
            arrived &= !here;
        }
        Ok(Next::Divided)
    }

    /// An operation of all lanes of the warp.
    fn all_together(
        &mut self,
        context: &mut Context<'_>,
        op: &Op,
        counter: u32,
        mask: u32,
        group: u32,
    ) -> Result<Next, Problem> {
        let arrived = mask | self.waiting_at(counter);
        if self.live() != ALL {
            let message = format!("all lanes are needed, there are {:#010x}", self.live());
            return Err(Problem::new(FaultKind::Deadlock, message).at(mask.trailing_zeros()));
        }
        if arrived != ALL {
            self.wait(mask, counter);
            return Ok(Next::Divided);
        }
        match op {
            Op::LoadMatrix { targets, address, transposed } => {
                self.load_matrix(context, targets, *address, *transposed)?;
            }
            Op::Multiply(multiply) => self.multiply(multiply)?,
            Op::SetRegisters
            | Op::WarpgroupFence
            | Op::WarpgroupMultiply(_)
            | Op::CommitProducts
            | Op::WaitProducts { .. } => self.warpgroup(context, op)?,
            _ => unreachable!("no operation of all lanes"),
        }
        if group == ALL && mask == group {
            return Ok(Next::Following);
        }
        self.go_to(ALL, counter + 1);
        Ok(Next::Divided)
    }

    /// Executes an operation in `lanes`, which have all come.
    fn exchange(&mut self, context: &mut Context<'_>, op: &Op, lanes: u32) -> Result<(), Problem> {
        let live = self.live();
        context.memory.order.warp_event(self.number, lanes, live);
        match op {
            Op::WarpBarrier { .. } => {}
            Op::Shuffle(shuffle) => self.shuffle(shuffle, lanes)?,
            Op::Vote { vote, target, predicate, .. } => {
                self.expect_defined(*predicate, lanes)?;
                let yes = self.truths(*predicate) & lanes;
                let result = match vote {
                    Vote::All => u32::from(yes == lanes),
                    Vote::Any => u32::from(yes != 0),
                    Vote::Uniform => u32::from(yes == lanes || yes == 0),
                    Vote::Ballot => yes,
                };
                self.results[0] = Row::splat(result.into());
                self.write(*target, 0, lanes);
            }
            Op::Match { all, targets, value, .. } => self.matching(*all, *targets, *value, lanes)?,
            Op::Reduce { reduction, target, value, .. } => {
                self.expect_defined(*value, lanes)?;
                let row = &self.registers[value.index()];
                let values = lanes_of(lanes).map(|lane| row.get(lane) as u32);
                let result = reduce(*reduction, values);
                self.results[0] = Row::splat(result.into());
                self.write(*target, 0, lanes);
            }
            _ => unreachable!("no operation of some lanes"),
        }
        Ok(())
    }

    fn shuffle(&mut self, shuffle: &Shuffle, lanes: u32) -> Result<(), Problem> {
        let Shuffle { mode, target, in_range, value, distance, clamp, .. } = *shuffle;
        self.expect_defined(distance, lanes)?;
        self.expect_defined(clamp, lanes)?;
        let values: Row = self.registers[value.index()];
        let (defined, mut undefined) = (self.defined[value.index()], 0);
        for lane in lanes_of(lanes) {
            let distance = self.registers[distance.index()].get(lane) as u32 & 31;
            let clamp = self.registers[clamp.index()].get(lane) as u32;
            let (from, found) = source_lane(mode, lane as u32, distance, clamp);
            if lanes >> from & 1 == 0 {
                let message =
                    format!("reads lane {from}, which is not one of the lanes {lanes:#010x} that take part");
                return Err(Problem::new(FaultKind::InactiveLane, message).at(lane as u32));
            }
            undefined |= u32::from(defined >> from & 1 == 0) << lane;
            self.results[0].set(lane, values.get(from as usize));
            self.results[1].set(lane, found.into());
        }
        self.write(target, 0, lanes);
        self.undefine(target, undefined);
        self.write(in_range, 1, lanes);
        Ok(())
    }

    fn matching(
        &mut self,
        all: bool,
        targets: [Register; 2],
        value: Register,
        lanes: u32,
    ) -> Result<(), Problem> {
        self.expect_defined(value, lanes)?;
        let row = self.registers[value.index()];
        for lane in lanes_of(lanes) {
            let same = lanes_of(lanes)
                .filter(|other| row.get(*other) == row.get(lane))
                .fold(0, |set, other| set | 1 << other);
            let agree = same == lanes;
            self.results[0].set(lane, if all && !agree { 0 } else { same.into() });
            self.results[1].set(lane, agree.into());
        }
        self.write(targets[0], 0, lanes);
        self.write(targets[1], 1, lanes);
        Ok(())
    }
}

/// The lane that `lane` reads, and whether it is the one that was asked for: lanes beyond the segment are not read.
fn source_lane(mode: ShuffleMode, lane: u32, distance: u32, clamp: u32) -> (u32, bool) {
    let segment = clamp >> 8 & 31;
    let (first, clamp) = (lane & segment, clamp & 31);
    let last = first | clamp & !segment;
    let (from, found) = match mode {
        // Upwards the clamp is the segment's lowest lane.
        ShuffleMode::Up => (lane.wrapping_sub(distance), lane as i32 - distance as i32 >= last as i32),
        ShuffleMode::Down => (lane + distance, lane + distance <= last),
        ShuffleMode::Butterfly => (lane ^ distance, lane ^ distance <= last),
        ShuffleMode::Index => {
            let from = first | distance & !segment;
            (from, from <= last)
        }
    };
    if found { (from, true) } else { (lane, false) }
}

fn reduce(reduction: Reduction, values: impl Iterator<Item = u32>) -> u32 {
    let signed = |value: u32| value as i32;
    let result = match reduction {
        Reduction::Add => values.reduce(u32::wrapping_add),
        Reduction::MinUnsigned => values.reduce(u32::min),
        Reduction::MaxUnsigned => values.reduce(u32::max),
        Reduction::MinSigned => values.min_by_key(|value| signed(*value)),
        Reduction::MaxSigned => values.max_by_key(|value| signed(*value)),
        Reduction::And => values.reduce(|a, b| a & b),
        Reduction::Or => values.reduce(|a, b| a | b),
        Reduction::Xor => values.reduce(|a, b| a ^ b),
    };
    result.unwrap_or(0)
}
